"""Failpoints: the real runtime kills itself at a chosen step, starts again, and nothing is lost and nothing repeated."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from e2e_ledger import Ledger
from e2e_runtime import Cli

POINTS = (
    "before-append",
    "after-append",
    "before-syscall.decided",
    "after-syscall.decided",
    "before-syscall.finished",
    "after-syscall.finished",
    "before-act",
    "after-act",
    "before-model",
    "after-model",
    "before-session.finished",
    "after-session.finished",
)
COUNT = 4
SEEDS = int(os.environ.get("AGENTOS_TEST_FAILPOINTS", "3"))
"""How many seeds of the crash simulation also run against the real server."""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def crash(cli: Cli, ledger: Ledger, point: str, *, sessions: int) -> list[str]:
    """Start the runtime with a failpoint, start sessions until it has killed itself; those that are known of."""
    cli("down")
    cli("up", "--detach", more={"AGENTOS_FAILPOINT": point})
    pid = cli.runtime_pid()
    started = [session for session in (ledger.start() for _ in range(sessions)) if session]
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline, f"{point} was never reached"
        time.sleep(0.05)
    assert f"kills itself at pass {point.rpartition(':')[2]}" in (cli.home / "log" / "runtime.log").read_text()
    return started


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_at_a_failpoint(cli: Cli, tmp_path: Path, seed: int) -> None:
    """SIGKILL at a random pass of a random point, twice: every session ends, no effect is repeated, the log proves itself."""
    dice = random.Random(f"{seed}/failpoint")
    cli("up", "--detach")
    ledger = Ledger.applied(cli, tmp_path, count=COUNT)
    sessions: set[str] = set()
    for _ in range(2):
        point = dice.choice(POINTS)
        most = 2 if point.endswith("session.finished") else 2 * COUNT
        sessions |= set(crash(cli, ledger, f"{point}:{dice.randint(1, most)}", sessions=2))
    cli("up", "--detach")
    sessions |= {row["id"] for row in cli("ps", "--all", "--limit", "1000", "-o", "json").json}
    for session in sorted(sessions):
        assert cli("wait", session).code == 0
    ledger.check(sorted(sessions))


def test_a_runtime_that_dies_while_it_takes_over(cli: Cli, tmp_path: Path) -> None:
    """SIGKILL around the word that a session has changed hands: the next runtime takes it all the same."""
    cli("up", "--detach")
    ledger = Ledger.applied(cli, tmp_path, count=COUNT)
    (session,) = crash(cli, ledger, "after-syscall.decided:3", sessions=1)
    for point in ("before-session.owned:1", "after-session.owned:1", "after-syscall.unknown:1"):
        cli("up", "--detach", expect=None, more={"AGENTOS_FAILPOINT": point})
    cli("up", "--detach")
    assert cli("wait", session).code == 0
    types = ledger.check([session])
    assert types["session.owned"] == 3
    assert types["syscall.unknown"] == 1


def test_a_tool_tells_what_came_of_a_call(cli: Cli, tmp_path: Path) -> None:
    """A crash behind one effect, and a server that dies behind another: its own ledger settles both, and no person is asked."""
    cli("up", "--detach")
    ledger = Ledger.applied(cli, tmp_path, count=COUNT, dies_at=1, reconcile=True)
    (session,) = crash(cli, ledger, "after-act:2", sessions=1)
    cli("up", "--detach")
    assert cli("wait", session).code == 0
    types = ledger.check([session])
    assert types["syscall.unknown"] == types["syscall.reconciled"] == 2
    settled = [event for event in ledger.events(session) if event["type"] == "agentos.syscall.reconciled"]
    assert {(event["actor"], event["data"]["outcome"]) for event in settled} == {("system/reconcile", "finished")}
    assert len(ledger.lines()) == COUNT


def test_a_call_that_did_not_happen_is_told_to_be_so(cli: Cli, tmp_path: Path) -> None:
    """A crash just before the effect: the tool does not know the call, and the model is told that it did not take effect."""
    cli("up", "--detach")
    ledger = Ledger.applied(cli, tmp_path, count=COUNT, reconcile=True)
    (session,) = crash(cli, ledger, "before-act:2", sessions=1)
    cli("up", "--detach")
    assert cli("wait", session).code == 0
    ledger.check([session])
    settled = [event["data"] for event in ledger.events(session) if event["type"] == "agentos.syscall.reconciled"]
    assert [data["outcome"] for data in settled] == ["not-run"]
    assert len(ledger.lines()) == COUNT - 1


@pytest.mark.parametrize("text", ["after-append", "during-append:1", "after-append:0"])
def test_a_failpoint_that_there_is_not(cli: Cli, text: str) -> None:
    """A typing error in the variable is told, and nothing starts."""
    assert "names no failpoint" in cli("up", expect=64, more={"AGENTOS_FAILPOINT": text}).err
