"""Programs that drive sessions and do what none of them may do: each is stopped, and everybody can read why."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from e2e_runtime import Cli

WORKS = """
apiVersion: agentos/v1
kind: Model
metadata: {name: steps}
spec:
  provider: scripted
  scripted:
    play:
      name: steps
      rules:
        - {id: write, when: "not results", call: [{tool: write, args: {path: a.txt, content: "{{ goal }}"}}]}
        - {id: done, when: "true", say: "{{ results | ok | length }} of {{ results | length }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, idempotent: true, driver: {builtin: {primitive: write}}}
"""

AGENT = """
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: {name}}}
spec:
  instructions: Write a file.
  model: steps
  tools: [write]
  {harness}
  governance: {{owner: tests, purpose: testing, risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: {name}-writes}}
spec: {{agents: [{name}], tools: [write]}}
"""

GREETS = """
import json, os, socket, sys

def say(frame):
    print(json.dumps({"jsonrpc": "2.0", **frame}), flush=True)

sys.stdin.readline()
say({"id": 0, "result": {"abi": "agentos/v1"}})
"""

FINISHES = """
say({"id": 1, "method": "finish", "params": {"result": "done"}})
sys.stdin.readline()
"""

WRITES = """
say({"id": 2, "method": "tool.call", "params": {"call": "step-1", "tool": "write", "args": {"path": "a.txt", "content": "x"}}})
"""


def agent(name: str, code: str = "") -> str:
    """An agent of this name; with code, driven by that."""
    command = json.dumps([sys.executable, "-I", "-c", GREETS + code])
    return AGENT.format(name=name, harness=f"harness: {{command: {command}}}" if code else "budget: {calls: 10}")


def stopped(up: Cli, session: str) -> dict[str, Any]:
    """The last event of a session, once it says that the harness was stopped."""
    until = time.monotonic() + 60
    while True:
        events: list[dict[str, Any]] = up("logs", session, "-o", "json").json
        found = [event for event in events if event["type"] == "agentos.harness.stopped"]
        if found:
            assert len(found) == 1
            return found[0]
        assert time.monotonic() < until, [event["type"] for event in events]


def test_each_misdeed_is_stopped_and_told(up: Cli, tmp_path: Path) -> None:
    """The session fails and says for what; an agent beside it comes to its end; the log verifies."""
    deeds = {
        "reaches-out": ("network", "socket.socket()"),
        "steals": ("home", "open(os.path.expanduser('~/.ssh/id_rsa')).read()"),
        "looks-around": ("home", "os.listdir(os.path.expanduser('~'))"),
        "poses": ("home", f"open({str(up.home / 'identities' / 'operator.json')!r}).read()"),
    }
    declared = tmp_path / "agents.yaml"
    declared.write_text(WORKS + agent("worker") + "".join(agent(name, code + FINISHES) for name, (_, code) in deeds.items()))
    up("apply", str(declared), "--yes", "--allow-widen")
    for name, (reason, _) in deeds.items():
        bad = up("run", name, "be good", "-o", "name").out.strip()
        good = up("run", "worker", "be good", "--wait", "-o", "name").out.strip()
        up("wait", bad, expect=1)
        told = stopped(up, bad)["data"]
        shown = up("session", "show", bad, "-o", "json").json
        assert (shown["state"], shown["error"]["code"], told["reason"], shown["stopped"]["reason"]) == (
            "failed",
            "harness",
            reason,
            reason,
        )
        for text in (up("session", "show", bad).out, up("logs", bad).out):
            assert reason in text
            assert told["message"] in text
        assert up("session", "show", good, "-o", "json").json["state"] == "finished"
    assert up("audit", "verify", "-o", "json").json["ok"] is True


def test_who_goes_on_after_the_end_changes_nothing(up: Cli, tmp_path: Path) -> None:
    """The session stays finished, the call is not decided, and the log says behind its end who went on. Following it ends."""
    declared = tmp_path / "agents.yaml"
    declared.write_text(WORKS + agent("worker") + agent("late", FINISHES + WRITES))
    up("apply", str(declared), "--yes", "--allow-widen")
    late = up("run", "late", "be good", "--wait", "-o", "name").out.strip()
    good = up("run", "worker", "be good", "--wait", "-o", "name").out.strip()
    event = stopped(up, late)
    assert (event["data"]["reason"], event["data"]["after"]) == ("after-finish", "finished")
    types = [one["type"] for one in up("logs", late, "-o", "json").json]
    assert types[-2:] == ["agentos.session.finished", "agentos.harness.stopped"]
    assert "agentos.syscall.decided" not in types
    shown = up("session", "show", late, "-o", "json").json
    assert (shown["state"], shown["result"], shown["stopped"]["reason"]) == ("finished", "done", "after-finish")
    assert "after-finish" in up("session", "show", late).out
    assert event["data"]["message"] in up("logs", late, "--follow").out
    assert up("session", "show", good, "-o", "json").json["state"] == "finished"
    assert up("audit", "verify", "-o", "json").json["ok"] is True
