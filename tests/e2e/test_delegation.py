"""Delegation as an operator meets it: a parent and its children, and SIGKILL at every step in between."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from e2e_runtime import Cli
from test_crash_points import alive

FLOCK = """
apiVersion: agentos/v1
kind: Model
metadata: {name: boss}
spec:
  provider: scripted
  scripted:
    play:
      name: boss
      rules:
        - {id: plan, when: "turn == 1", call: [{tool: write, args: {path: plan.md, content: "plan"}}]}
        - {id: ask, when: "turn == 2", call: [{tool: hand, args: {tasks: [{goal: one}, {goal: two}], inputs: [plan.md]}}]}
        - {id: done, when: "true", say: "{{ results[1].data.children | map(attribute='result') | join(' ') }}"}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: writer}
spec:
  provider: scripted
  scripted:
    play:
      name: writer
      rules:
        - {id: look, when: "turn == 1", call: [{tool: read, args: {path: input/plan.md}}]}
        - {id: write, when: "turn == 2", call: [{tool: write, args: {path: output/text.md, content: "{{ goal }}"}}]}
        - {id: done, when: "true", say: "did {{ goal }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: read}
spec: {description: Read a file., effect: read, driver: {builtin: {primitive: read}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: hand}
spec: {description: Have a writer do it., effect: write, driver: {delegate: {agents: [writer]}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: boss}
spec:
  instructions: Plan, and have it written.
  model: boss
  tools: [write, hand]
  delegates: {}
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: writer}
spec:
  instructions: Write.
  model: writer
  tools: [read, write]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: all}
spec: {agents: [boss, writer], tools: [read, write]}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: hands}
spec: {agents: [boss], tools: [hand]}
"""


def applied(cli: Cli, folder: Path) -> None:
    (folder / "flock.yaml").write_text(FLOCK)
    cli("apply", str(folder / "flock.yaml"), "--yes", "--allow-widen")


def check(cli: Cli, boss: str) -> None:
    """The parent has its results, both children exist once and finished, nobody else does, and all of it replays."""
    assert cli("wait", boss).code == 0
    rows = {row["id"]: row for row in cli("ps", "--all", "-o", "json").json}
    family = {name for name, row in rows.items() if row["parent"] == boss}
    assert len(family) == 2
    assert {rows[name]["state"] for name in (boss, *family)} == {"finished"}
    events = cli("logs", boss, "-o", "json").json
    assert events[-1]["data"]["result"] == "did one did two"
    named = [event["data"]["children"] for event in events if "children" in event["data"]]
    assert {name for names in named for name in names} == family
    for child in family:
        types = [event["type"] for event in cli("logs", child, "-o", "json").json]
        assert types.count("agentos.session.created") == 1
        assert types.count("agentos.syscall.finished") == 5, "three replies, one read, one write"
    assert cli("session", "replay", boss).code == 0


@pytest.mark.parametrize(
    "point",
    [
        "after-syscall.decided:4",  # the delegation is decided, and no envelope is sent
        "after-session.created:2",  # the first child is created, and nobody has acknowledged its envelope
        "before-session.finished:1",  # a child is about to finish
        "after-session.finished:2",  # both children have finished, and the parent has not heard of it
        "after-act:4",  # files are back, or a child has written; its outcome is not recorded
    ],
)
def test_killed_in_mid_delegation(cli: Cli, tmp_path: Path, point: str) -> None:
    """The next runtime finds the children that there are, begins those that there are not, and nothing is done twice."""
    cli("up", "--detach")
    applied(cli, tmp_path)
    cli("down")
    cli("up", "--detach", more={"AGENTOS_FAILPOINT": point})
    pid = cli.runtime_pid()
    boss = cli("run", "boss", "a book").out.strip()
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline, f"{point} was never reached"
        time.sleep(0.05)
    cli("up", "--detach")
    check(cli, boss)
