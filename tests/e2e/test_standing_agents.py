"""Standing agents as an operator meets them: kept alive over kills, stopped for good, begun in order, held by a freeze."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from e2e_runtime import Cli
from test_crash_points import alive

from agentos.abi.canonical import Json

DECLARED = """
apiVersion: agentos/v1
kind: Agent
metadata: {name: watcher}
spec:
  instructions: Watch.
  model: small
  tools: [wait]
  standing: {goal: Watch the inbox., restart: always, limit: {starts: 100}, watchdogSeconds: 2}
  governance: {owner: ann, purpose: Watch., risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: reader}
spec:
  instructions: Read.
  model: small
  tools: [wait]
  standing: {goal: Read what comes., requires: [watcher]}
  governance: {owner: ann, purpose: Read., risk: minimal}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: small}
spec:
  provider: scripted
  scripted:
    play:
      rules:
        - {id: wait, when: "calls | length < 50", say: I wait., call: [{tool: wait, args: {signal: mail}}]}
        - {id: end, when: "true", say: done}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: wait}
spec: {description: Wait for a signal., effect: read, timeoutSeconds: 600, driver: {builtin: {primitive: wait}}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: watch}
spec: {agents: [watcher], tools: [wait]}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: read}
spec: {agents: [reader], tools: [wait]}
"""


@pytest.fixture
def declared(tmp_path: Path, up: Cli) -> Cli:
    """A runtime with both agents, begun."""
    path = tmp_path / "standing.yaml"
    path.write_text(DECLARED)
    up("apply", str(path), "--yes", "--allow-widen")
    until(up, "reader", lambda page: page["phase"] == "active")
    return up


def status(cli: Cli, agent: str) -> dict[str, Json]:
    page: dict[str, Json] = cli("status", agent, "-o", "json", expect=None).json
    return page


def until(cli: Cli, agent: str, met: Callable[[dict[str, Json]], Any]) -> dict[str, Json]:
    """The page of a standing agent, once `met` says so of it."""
    deadline = time.monotonic() + 30
    while not met(page := status(cli, agent)):
        assert time.monotonic() < deadline, f"it never came to that: {page}"
        time.sleep(0.2)
    return page


def sessions(cli: Cli, agent: str) -> list[dict[str, Json]]:
    """Its sessions, oldest first."""
    rows = cli("ps", "--all", "-o", "json").json
    return sorted((row for row in rows if row["agent"] == agent), key=lambda row: row["created_ms"])


def require_one_after_the_other(cli: Cli, agent: str) -> None:
    """None began before the one before it had ended, and the last one alone lives."""
    rows = sessions(cli, agent)
    for before, after in pairwise(rows):
        assert before["state"] in {"finished", "failed", "cancelled"}
        assert before["updated_ms"] <= after["created_ms"]
    assert rows[-1]["state"] == "running"


def kill(cli: Cli) -> None:
    pid = cli.runtime_pid()
    os.kill(pid, signal.SIGKILL)
    while alive(pid):
        time.sleep(0.01)


def test_one_session_lives_on_over_kills(declared: Cli) -> None:
    """A runtime that is killed finds the session that waits, and begins no other one; the watchdog leaves it alone meanwhile."""
    (first,) = sessions(declared, "watcher")
    for _ in range(2):
        time.sleep(2.5)  # longer than the watchdog's time: what it would have done is what is looked for
        kill(declared)
        declared("up", "--detach")
    page = until(declared, "watcher", lambda page: page["phase"] == "active")
    assert (page["session"], page["number"], page["starts"]) == (first["id"], 1, 1)
    assert len(sessions(declared, "watcher")) == 1


@pytest.mark.parametrize(
    "point", ["before-session.cancelled", "after-session.cancelled", "before-session.created", "after-session.created"]
)
def test_a_kill_at_the_turn_of_two_sessions_makes_no_third(declared: Cli, point: str) -> None:
    """Wherever the runtime dies between the end of one and the beginning of the next."""
    (first,) = sessions(declared, "watcher")
    declared("down")
    declared("up", "--detach", more={"AGENTOS_FAILPOINT": f"{point}:1"})
    pid = declared.runtime_pid()
    declared("cancel", first["id"], expect=None)
    deadline = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < deadline, "it was not killed"
        time.sleep(0.05)
    declared("up", "--detach")
    if point == "before-session.cancelled":
        declared("cancel", first["id"])
    until(declared, "watcher", lambda page: page["phase"] == "active" and page["session"] != first["id"])
    require_one_after_the_other(declared, "watcher")
    assert status(declared, "watcher")["number"] == 2


def test_what_is_stopped_stays_stopped_and_takes_along_what_requires_it(declared: Cli) -> None:
    """Over a restart of the runtime too; a start begins both again. Only an operator may."""
    declared("principal", "create", "pat", "--role", "auditor")
    declared("--as", "pat", "stop", "watcher", expect=3)
    assert declared("--as", "pat", "status", "watcher").code == 0
    declared("stop", "watcher", "--reason", "it sorts wrongly")
    declared("down")
    declared("up", "--detach")
    page = until(declared, "reader", lambda page: page["phase"] == "blocked")
    assert page["why"] == "agent watcher, which it requires, is stopped"
    page = status(declared, "watcher")
    assert (page["phase"], page["enabled"], page["why"].rpartition(": ")[2]) == ("stopped", True, "it sorts wrongly")
    assert declared("ps").out == ""
    assert declared("status", "reader", expect=1).code == 1
    declared("start", "watcher")
    until(declared, "reader", lambda page: page["phase"] == "active")
    for agent in ("watcher", "reader"):
        require_one_after_the_other(declared, agent)


def test_a_disabled_one_runs_to_its_end_and_is_not_begun(declared: Cli) -> None:
    """Until it is enabled; starting it is refused meanwhile."""
    declared("disable", "reader", "--reason", "for now")
    page = status(declared, "reader")
    assert (page["phase"], page["enabled"]) == ("active", False)
    declared("cancel", page["session"])
    until(declared, "reader", lambda page: page["phase"] == "stopped")
    declared("start", "reader", expect=4)
    declared("enable", "reader")
    until(declared, "reader", lambda page: page["phase"] == "active")
    declared("disable", "reader", "--now")
    assert "session" not in until(declared, "reader", lambda page: page["phase"] == "stopped")


def test_a_frozen_one_is_begun_once_it_is_thawed(declared: Cli) -> None:
    """It says what holds it."""
    declared("freeze", "--agent", "watcher", "--reason", "looking into it")
    (first,) = sessions(declared, "watcher")
    declared("cancel", first["id"])
    page = until(declared, "watcher", lambda page: page["phase"] == "waiting")
    assert page["why"] == "frozen (agent watcher): looking into it"
    declared("thaw", "--all", "--reason", "fine")
    until(declared, "watcher", lambda page: page["phase"] == "active")
    require_one_after_the_other(declared, "watcher")


def test_one_that_is_declared_no_more_ends(declared: Cli) -> None:
    """Its session is cancelled, and says why."""
    (session,) = sessions(declared, "reader")
    declared("delete", "agent/reader", "toolgrant/read", "--yes", "--allow-destroy")
    deadline = time.monotonic() + 30
    while declared("session", "show", session["id"], "-o", "json").json["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "agent reader is not declared as a standing agent any more" in declared("logs", session["id"]).out
    declared("status", "reader", expect=1)
    assert declared("restart", "watcher").code == 0
    require_one_after_the_other(declared, "watcher")
