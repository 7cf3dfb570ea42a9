"""Triggers on a real runtime: told, due, killed in the middle, and every firing is one run."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e_runtime import AGENTOS, Cli

MANIFEST = """
apiVersion: agentos/v1
kind: Model
metadata: {name: short}
spec:
  provider: scripted
  scripted: {play: {name: short, rules: [{id: done, when: "true", say: "done: {{ goal }}"}]}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Say that it is done.
  model: short
  governance: {owner: tests, purpose: triggers, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: follower}
spec:
  instructions: Say that it is done.
  model: short
  governance: {owner: tests, purpose: triggers, risk: minimal}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: hand}
spec:
  agent: worker
  goal: what was sent
  overlap: allow
  labels: [internal]
  on: {signal: {name: never}}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: after}
spec:
  agent: follower
  goal: what follows
  overlap: allow
  on: {run: {agents: [worker]}}
"""

POINTS = (
    "before-firing.hand:1",
    "after-firing.hand:1",
    "before-session.created:1",
    "after-session.created:1",
    "before-mark.hand:1",
    "after-mark.hand:1",
    "before-firing.hand:2",
    "after-firing.hand:2",
)
"""Each step of a firing: its intent, its session, its mark, and that it is done."""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def until_dead(pid: int) -> None:
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline, "the failpoint was never reached"
        time.sleep(0.05)


def runs(cli: Cli, trigger: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("trigger", "show", trigger, "-o", "json").json["runs"]
    return found


def settled(cli: Cli, trigger: str, many: int) -> list[dict[str, Any]]:
    """The runs of a trigger once there are `many` and all are over; more are returned at once."""
    deadline = time.monotonic() + 60
    while True:
        found = runs(cli, trigger)
        if len(found) > many or (len(found) == many and all(run["state"] == "finished" for run in found)):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture
def applied(cli: Cli, tmp_path: Path) -> Cli:
    manifest = tmp_path / "triggers.yaml"
    manifest.write_text(MANIFEST)
    cli("up", "--detach")
    cli("apply", str(manifest), "--yes", "--allow-widen")
    return cli


def test_a_firing_and_what_follows_it(applied: Cli, tmp_path: Path) -> None:
    """Fired by hand, with a payload: a run with it, by the person, labelled as declared; its end fires what waits for it."""
    payload = tmp_path / "order.json"
    payload.write_text('{"order": 7}')
    words = ("trigger", "fire", "hand", "--id", "order-7", "--payload", str(payload), "-o", "json")
    first = applied(*words).json
    assert applied(*words).json == {**first, "again": True}
    (run,) = settled(applied, "hand", 1)
    assert run["session"] == first["session"]
    folder = applied.home / "workspaces" / "default" / first["session"] / "input"
    assert (folder / "payload").read_bytes() == payload.read_bytes()
    assert json.loads((folder / "firing.json").read_text())["payload"]["bytes"] == 12
    created = applied("logs", first["session"], "-o", "json").json[0]
    assert created["actor"] == "principal/operator"
    assert created["data"]["labels"] == ["internal"]
    assert created["data"]["firing"]["trigger"] == "hand"
    (follower,) = settled(applied, "after", 1)
    assert follower["firing"] == first["session"]
    said = applied.home / "workspaces" / "default" / follower["session"] / "input" / "payload"
    assert said.read_text() == "done: what was sent"


@pytest.mark.parametrize("point", POINTS)
def test_a_runtime_killed_at_a_step_of_a_firing(applied: Cli, point: str) -> None:
    """SIGKILL at that step; fired again under the same id once the runtime is back: one run, and one that follows it."""
    applied("down")
    applied("up", "--detach", more={"AGENTOS_FAILPOINT": point})
    pid = applied.runtime_pid()
    words = ("trigger", "fire", "hand", "--id", "seven", "-o", "json")
    asked = subprocess.Popen([AGENTOS, *words], env=applied.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_dead(pid)
    # Nobody will answer it any more.
    asked.kill()
    asked.communicate()
    applied("up", "--detach")
    told = applied(*words).json
    (run,) = settled(applied, "hand", 1)
    assert run["session"] == told["session"]
    (follower,) = settled(applied, "after", 1)
    assert follower["firing"] == run["session"]
    rows = {row["name"]: row for row in applied("trigger", "list", "-o", "json").json["triggers"]}
    assert rows["hand"]["open"] == rows["after"]["open"] == 0
    assert rows["hand"]["started"] == 1


@pytest.mark.timeout(300)
def test_a_time_that_comes_while_the_runtime_is_killed_again_and_again(applied: Cli, tmp_path: Path) -> None:
    """Six triggers for one minute; the runtime is down when it comes, and is killed at one step after the other: six runs."""
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    if due - datetime.now(UTC) < timedelta(seconds=8):
        due += timedelta(minutes=1)
    names = [f"clock{letter}" for letter in "abcdef"]
    manifest = tmp_path / "clock.yaml"
    manifest.write_text(
        "---".join(
            f"""
apiVersion: agentos/v1
kind: Trigger
metadata: {{name: {name}}}
spec:
  agent: worker
  goal: the minute
  on: {{cron: {{schedule: "{due.minute} {due.hour} * * *"}}}}
"""
            for name in names
        )
    )
    applied("apply", str(manifest), "--yes", "--allow-widen")
    rows = {row["name"]: row for row in applied("trigger", "list", "-o", "json").json["triggers"]}
    shown = due.strftime("%Y-%m-%dT%H:%M:00.000Z")
    assert all(rows[name]["next"] == [shown] for name in names)
    applied("down")
    # The minute itself is waited for: the clock of a process cannot be set.
    time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()) + 0.1)
    for point in ("before-session.created:1", "after-session.created:2", "after-firing.clockc:1"):
        applied("up", "--detach", more={"AGENTOS_FAILPOINT": point}, expect=None)
        endpoint = applied.home / "run" / "endpoint.json"
        if endpoint.exists():
            until_dead(applied.runtime_pid())
    applied("up", "--detach")
    for name in names:
        (run,) = settled(applied, name, 1)
        assert run["firing"] == shown
    rows = {row["name"]: row for row in applied("trigger", "list", "-o", "json").json["triggers"]}
    assert all(rows[name]["open"] == 0 and rows[name]["started"] == 1 for name in names)


def test_a_paused_trigger_stays_paused_over_a_restart(applied: Cli) -> None:
    """Who paused it stands in the audit chain, where the next runtime reads it."""
    applied("trigger", "pause", "after", "--reason", "not today")
    assert applied("trigger", "pause", "after", "--reason", "not today", expect=4).err.startswith("error[conflict]")
    applied("down")
    applied("up", "--detach")
    assert applied("trigger", "show", "after", "-o", "json").json["paused"] is True
    session = applied("run", "worker", "go", "--wait").code
    assert session == 0
    assert runs(applied, "after") == []
    applied("trigger", "resume", "after", "--reason", "again")
    assert applied("run", "worker", "go", "--wait").code == 0
    settled(applied, "after", 1)
    for words in (("show", "nothing"), ("fire", "nothing"), ("pause", "nothing", "--reason", "x")):
        assert "no trigger nothing" in applied("trigger", *words, expect=1).err
