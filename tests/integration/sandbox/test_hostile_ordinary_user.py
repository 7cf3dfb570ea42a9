"""The same hostile programs, under a runtime that is an ordinary user: in a user namespace, limited by prlimit alone."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ordinary_user import USER, install, run_as_user
from sandbox_attempts import ATTEMPTS


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, Any]]:
    """What all attempts said; made once, by one process."""
    with tempfile.TemporaryDirectory(prefix="agentos-user-") as name:
        folder = Path(name)
        install(folder)
        bait = folder / "bait"
        bait.mkdir()
        if os.geteuid() == 0:
            os.chown(bait, USER, USER)
        ended = run_as_user(folder, "sandbox_attempts.py", os.fspath(bait))
        assert ended.returncode == 0, ended.stderr
        yield json.loads(ended.stdout)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_hostile_program_gets_nothing_from_an_ordinary_user(name: str, answers: dict[str, Any]) -> None:
    """What a sandbox keeps from a program does not depend on the runtime being root."""
    code, out, err, report = answers[name]
    assert err == ""
    assert out == ATTEMPTS[name].said
    assert code == ATTEMPTS[name].code
    assert report["isolation"] == "bubblewrap"
