"""The Show in small: the server, the runtime, and both are killed while twenty sessions run. `make kills` does it fifty times."""

from __future__ import annotations

import os
from pathlib import Path

from e2e_kills import run
from e2e_runtime import Cli

KILLS = int(os.environ.get("AGENTOS_TEST_KILLS", "3"))


def test_kills_during_a_load(cli: Cli, tmp_path: Path) -> None:
    """Every session ends, no effect happens twice, no acknowledged one is lost, and the log proves itself."""
    assert f"{KILLS} kills" in run(cli, tmp_path, KILLS)
