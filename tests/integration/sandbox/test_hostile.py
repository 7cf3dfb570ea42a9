"""What a hostile program gets out of a sandbox of this host, whose runtime is whoever runs the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_attempts import ATTEMPTS, Bait, attempted, bait
from sandbox_run import run

from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.profile import Limits, standard


@pytest.fixture
def laid(tmp_path: Path) -> Iterator[Bait]:
    with bait(tmp_path) as found:
        yield found


@pytest.mark.parametrize("name", ATTEMPTS)
async def test_a_hostile_program_gets_nothing(name: str, laid: Bait) -> None:
    """A program in a sandbox gets at nothing of the host, and uses no more than it was given."""
    if os.geteuid() == 0 and name == "programs that set their user":
        shutil.copy("/usr/bin/id", laid.workspace / "setuid")
        (laid.workspace / "setuid").chmod(0o4755)
        # It stays root's: a file of several names is not given away with the workspace.
        os.link(laid.workspace / "setuid", laid.workspace.parent / "setuid")
    ended = await attempted(HostSandboxes(laid.workspace.parent), laid, name)
    assert ended.err == ""
    assert ended.out == ATTEMPTS[name].said
    assert ended.code == ATTEMPTS[name].code


GREEDY = """
import os, time
time.sleep(1)
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(60 * 1024 * 1024)
        time.sleep(60)
time.sleep(3)
ended = 0
while os.waitpid(-1, os.WNOHANG)[0]:
    ended += 1
print(4 - ended)
"""


async def test_memory_of_all_processes_together_is_bounded(laid: Bait) -> None:
    """Processes that each stay below the limit of memory do not pass it together, where there are control groups."""
    profile = replace(standard("greedy"), limits=Limits(memory_mib=100, processes=32))
    ended = await run(HostSandboxes(None), laid.workspace, ("python3", "-c", GREEDY), profile)
    # Two of them are more than 100 MiB.
    assert int(ended.out) <= (1 if ended.report["limits"] == "cgroup" else 4)
