"""One session as an operator looks at it and steers it: show, pause, resume, replay, diff, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from e2e_runtime import Cli, mask
from syrupy.assertion import SnapshotAssertion

WAITS = """
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
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Write a file.
  model: steps
  tools: [write]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: writes}
spec: {agents: [worker], tools: [write], approval: required}
"""


def test_a_session_from_every_side(up: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Shown while it waits, paused, answered, resumed, gone through again from the log and from a pack, compared."""
    (tmp_path / "waits.yaml").write_text(WAITS)
    up("apply", str(tmp_path / "waits.yaml"), "--yes", "--allow-widen")
    up("principal", "create", "ann", "--role", "approver")
    up("principal", "create", "bob", "--role", "auditor")
    first = up("run", "worker", "write it", "--wait", "-o", "name", expect=5).out.strip()
    second = up("run", "worker", "write it", "--wait", "-o", "name", expect=5).out.strip()
    paused = up("session", "pause", first, "--reason", "looking into it")
    shown = up("session", "show", first)
    up("--as", "ann", "approvals", "approve", first, "--reason", "fine")
    standing = up("wait", first, expect=5)
    resumed = up("session", "resume", first, "--reason", "it may go on")
    up("wait", first)
    up("--as", "ann", "approvals", "deny", second, "--reason", "not this one")
    up("wait", second)
    assert up("session", "show", first, "-o", "json").json["outcomes"] == {"finished": 1}
    again = up("--as", "bob", "session", "replay", first)
    assert up("session", "replay", second, "--to", "4", "-o", "json").json["same"] is True
    up("evidence", "export", "-o", str(tmp_path / "pack.zip"))
    same = up("session", "diff", first, first)
    differs = up("session", "diff", first, second, expect=2)
    [call] = up("session", "diff", first, second, "-o", "json", expect=2).json["calls"]
    assert (call["change"], call["differs"]) == ("changed", ["decision", "outcome"]) or call["differs"] == ["outcome"]
    up("session", "show", f"{first[:-1]}~", expect=64)
    meant = up("session", "show", first[:-1] + ("0" if first[-1] != "0" else "1"), expect=None)
    assert "did you mean s-" in meant.err
    up("session", "reconcile", first, "c9", "--outcome", "failed", "--reason", "x", expect=1)
    up("session", "reconcile", first, "c9", "--outcome", "perhaps", "--reason", "x", expect=64)
    up("session", "cancel", first, expect=4)
    up("down")
    packed = up("session", "replay", first, "--pack", str(tmp_path / "pack.zip"))
    assert packed.out == again.out
    texts = {"paused": paused.err, "shown": shown.out + shown.err, "standing": standing.err, "resumed": resumed.err}
    texts |= {"again": again.out, "same": same.out, "differs": differs.out}
    assert {name: mask(text, tmp_path) for name, text in texts.items()} == snapshot


def test_a_history_that_was_altered_is_reported(cli: Cli, tmp_path: Path) -> None:
    """From a pack whose chain is whole, without a runtime: the first event that differs, and exit code 2."""
    from agentos.audit.layout import zip_members

    golden = Path(__file__).resolve().parents[1] / "golden"
    session = json.loads((golden / "index.json").read_text())["wrong"]["session"]
    pack = tmp_path / "pack.zip"
    pack.write_bytes(zip_members({f"events/{session}.jsonl": (golden / "wrong.jsonl").read_bytes()}))
    told = cli("session", "replay", session, "--pack", str(pack), expect=2)
    assert told.out.startswith("different at event #4")
    found = cli("session", "replay", session, "--pack", str(pack), "-o", "json", expect=2).json
    assert found["difference"]["seq"] == 4
    cli("session", "replay", "s-other", "--pack", str(pack), expect=1)


FORKED = """
apiVersion: agentos/v1
kind: Model
metadata: {name: steps}
spec:
  provider: scripted
  scripted:
    play:
      name: steps
      rules:
        - {id: first, when: "not results", call: [{tool: write, args: {path: one.txt, content: "1"}}]}
        - id: second
          when: "results | length == 1"
          call: [{tool: "{{ 'write' if 'write' in tools else 'note' }}", args: {path: two.txt, content: "2"}}]
        - {id: done, when: "true", say: "{{ results | ok | length }} of {{ results | length }}: {{ goal }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: external, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: note}
spec: {description: Write a note., effect: write, idempotent: true, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Write files.
  model: steps
  tools: [write]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: careful}
spec:
  instructions: Write notes.
  model: steps
  tools: [note]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: all}
spec: {agents: [worker, careful], tools: [write, note]}
"""


def test_a_session_is_forked_in_its_middle(up: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Under an agent with another tool it goes on from there: it ends, and what was done before is not done again."""
    (tmp_path / "forked.yaml").write_text(FORKED)
    up("apply", str(tmp_path / "forked.yaml"), "--yes", "--allow-widen")
    up("principal", "create", "bob", "--role", "auditor")
    parent = up("run", "worker", "count", "--wait", "-o", "name").out.strip()
    events = up("logs", parent, "-o", "json").json
    [middle] = [event for event in events if event["type"].endswith("syscall.finished") and event["data"]["tool"] == "write"][:1]
    words = ("session", "fork", parent, "--at", str(middle["seq"]), "--agent", "careful", "--reason", "no more files")
    up("--as", "bob", *words, expect=3)
    forked = up(*words)
    fork = forked.out.strip()
    up("wait", fork)
    up("session", "fork", parent, "--at", "99", expect=64)
    up("session", "fork", parent, "--at", "0", expect=64)
    up("session", "fork", parent, "--at", "3", "--agent", "nobody", expect=1)
    page = up("session", "show", fork, "-o", "json").json
    assert (page["forked"]["session"], page["forked"]["seq"], page["forked"]["files"]) == (parent, middle["seq"], 2)
    assert (page["state"], page["calls"], page["result"]) == ("finished", 2, "2 of 2: count")
    called = [event["data"]["tool"] for event in up("logs", fork, "-o", "json").json if event["type"].endswith("decided")]
    assert called == ["model-call", "note", "model-call"]
    again = up("session", "replay", fork)
    by_id = up("session", "fork", parent, "--at", middle["id"], "-o", "json").json
    assert by_id["forked"]["seq"] == middle["seq"]
    shown, differs = up("session", "show", fork), up("session", "diff", parent, fork, expect=2)
    texts = {"forked": forked.err, "shown": shown.out, "again": again.out, "differs": differs.out}
    assert {name: mask(text, tmp_path) for name, text in texts.items()} == snapshot
