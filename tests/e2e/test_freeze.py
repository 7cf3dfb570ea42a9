"""The kill switch and signals as an operator meets them: agents that wait, a freeze over a SIGKILL, and who may."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from e2e_runtime import Cli

from agentos.abi.canonical import Json

TOOL = """
apiVersion: agentos/v1
kind: Tool
metadata: {{name: {name}}}
spec: {{description: It is {name}., effect: write, driver: {{builtin: {{primitive: {name}}}}}}}
"""
AGENT = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: {name}-model}}
spec:
  provider: scripted
  scripted:
    play:
      name: {name}
      rules:
        - {{id: first, when: "turn == 1", say: First., call: [{{tool: {tool}, args: {args}}}]}}
        - {{id: then, when: "true", say: "{{{{ results[0].content }}}}"}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: {name}}}
spec:
  instructions: Do it.
  model: {name}-model
  tools: [{tool}]
  governance: {{owner: you@example.com, purpose: Show signals., risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: {name}-may}}
spec: {{agents: [{name}], tools: [{tool}], reason: It is what it is for.}}
"""


def declare(cli: Cli, folder: Path) -> None:
    """`waiter` waits for the signal go, `speaker` sends it to all waiters."""
    parts = [
        TOOL.format(name="wait"),
        TOOL.format(name="signal"),
        AGENT.format(name="waiter", tool="wait", args="{signal: go, timeoutSeconds: 600}"),
        AGENT.format(name="speaker", tool="signal", args="{agent: waiter, name: go, data: now}"),
    ]
    folder.mkdir()
    (folder / "agents.yaml").write_text("---".join(parts))
    cli("apply", str(folder), "--yes", "--allow-widen")


def types(cli: Cli, session: str) -> list[str]:
    return [event["type"].removeprefix("agentos.") for event in cli("logs", session, "-o", "json").json]


def until(cli: Cli, session: str, kind: str) -> None:
    deadline = time.monotonic() + 30
    while kind not in types(cli, session):
        assert time.monotonic() < deadline, f"{session} never came to {kind}"
        time.sleep(0.1)


def waiting(cli: Cli) -> str:
    """A session whose call of `wait` is allowed, and has no outcome."""
    session = cli("run", "waiter", "wait").out.strip()
    deadline = time.monotonic() + 30
    while types(cli, session).count("syscall.decided") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return session


def result(cli: Cli, session: str) -> Json:
    return cli("session", "show", session, "-o", "json").json["result"]


def test_agents_tell_each_other_over_a_kill(up: Cli, tmp_path: Path) -> None:
    """A session waits at no cost, also over a SIGKILL; what another agent says gets to it, with the label of that."""
    declare(up, tmp_path / "program")
    first, second = waiting(up), waiting(up)
    up("session", "signal", first, "go", "--data", "by hand")
    up("wait", first)
    assert result(up, first) == "the signal go came from principal/operator: by hand"
    os.kill(up.runtime_pid(), signal.SIGKILL)
    up("up", "--detach")
    up("run", "speaker", "speak", "--wait")
    up("wait", second)
    assert result(up, second) == "the signal go came from agent/speaker: now"
    assert up("session", "show", second, "-o", "json").json["labels"] == ["untrusted"]


def test_a_freeze_outlives_a_kill_and_lets_go_on(up: Cli, tmp_path: Path) -> None:
    """What is frozen neither begins nor decides, over a SIGKILL and a stop too; after the thaw it goes on by itself."""
    declare(up, tmp_path / "program")
    session = waiting(up)
    frozen = up("freeze", "--agent", "waiter", "--reason", "look at it", "-o", "json").json
    assert 0 < frozen["in_force_us"] <= frozen["quiet_us"] <= frozen["durable_us"]
    assert "is frozen by principal/operator: look at it" in up("run", "waiter", "wait", expect=4).err
    up("session", "signal", session, "go")
    until(up, session, "session.frozen")
    before = types(up, session).count("syscall.decided")
    os.kill(up.runtime_pid(), signal.SIGKILL)
    up("up", "--detach")
    (row,) = up("freeze", "list", "-o", "json").json
    assert (row["freeze"], row["scope"]) == (frozen["freeze"], {"kind": "agent", "name": "waiter"})
    up("run", "speaker", "speak", "--wait")
    up("down")
    up("up", "--detach")
    assert types(up, session).count("syscall.decided") == before
    up("thaw", frozen["freeze"], "--reason", "fine")
    up("wait", session)
    assert types(up, session).count("session.frozen") == 1
    assert up("freeze", "list").err.strip() == "nothing is frozen"
    assert up("audit", "verify").code == 0


def test_a_session_is_asked_to_stop_and_then_stopped(up: Cli, tmp_path: Path) -> None:
    """One that waits hears it at once and ends by itself; one that is frozen cannot, and is cancelled after its time."""
    declare(up, tmp_path / "program")
    assert "is finished" in up("session", "stop", waiting(up)).err
    session = waiting(up)
    up("freeze", "--tenant-wide", "--reason", "look at it")
    assert "is cancelled" in up("session", "stop", session, "--timeout", "1").err
    up("thaw", "--all", "--reason", "fine")


def test_who_may_freeze(up: Cli, tmp_path: Path) -> None:
    """Compliance may stop, and only operators let go on; an approver may look. A command that names nothing freezes nothing."""
    declare(up, tmp_path / "program")
    up("principal", "create", "cora", "--role", "compliance")
    up("principal", "create", "pat", "--role", "approver")
    up("--as", "pat", "freeze", "--tenant-wide", "--reason", "no", expect=3)
    up("freeze", "--reason", "no scope", expect=64)
    up("freeze", "--agent", "waiter", "--fleet", "--reason", "two", expect=64)
    up("freeze", "--agent", "nobody", "--reason", "a slip", expect=1)
    assert up("--as", "pat", "freeze", "list").err.strip() == "nothing is frozen"
    frozen = up("--as", "cora", "freeze", "--fleet", "--reason", "incident", "-o", "json").json
    up("--as", "cora", "thaw", frozen["freeze"], "--reason", "no", expect=3)
    up("thaw", frozen["freeze"], "--reason", "over")
    up("thaw", frozen["freeze"], "--reason", "over", expect=1)
