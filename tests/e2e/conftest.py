"""Fixtures: the command on a fresh home; whatever was started is stopped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from e2e_runtime import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """A command on a fresh home; its runtime is stopped at the end."""
    command = Cli(tmp_path / "home")
    yield command
    command("down", expect=None)


@pytest.fixture
def up(cli: Cli) -> Cli:
    """A command whose runtime runs."""
    cli("up", "--detach")
    return cli
