"""Makes a house with two tenants, one of which holds something of every kind, a fixture."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "runtime"))
sys.path.insert(0, str(Path(__file__).parent))

from adversarial_world import World, built


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("BETA_TOKEN", "a-value-of-beta-alone")
    async with built(tmp_path / "home") as found:
        yield found
