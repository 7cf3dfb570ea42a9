"""Killing things: what was completed is not repeated, what was acknowledged is not lost, and everything goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from e2e_runtime import Cli

LEDGER = Path(__file__).resolve().parents[1] / "assets" / "servers" / "ledger_server.py"

MANIFEST = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: counting}}
spec:
  provider: scripted
  scripted:
    play:
      name: counting
      rules:
        - id: count
          when: "results | length < 12"
          call: [{{tool: note, args: {{number: "{{{{ results | length }}}}"}}}}]
        - id: done
          when: "true"
          say: "counted {{{{ results | ok | length }}}}"
---
apiVersion: agentos/v1
kind: Sandbox
metadata: {{name: books}}
spec:
  mounts: [{{path: {books}, at: /books, write: true}}, {{path: {servers}, at: /servers}}]
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: note}}
spec:
  description: Write a number down.
  effect: external
  sandbox: books
  inputSchema:
    {schema}
  driver:
    mcp:
      tool: note
      server: {{command: {command}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: counter}}
spec:
  instructions: Count.
  model: counting
  tools: [note]
  governance: {{owner: tests, purpose: counting, risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: counting}}
spec: {{agents: [counter], tools: [note]}}
"""

SCHEMA = {
    "properties": {"number": {"title": "Number", "type": "integer"}},
    "required": ["number"],
    "title": "noteArguments",
    "type": "object",
}


def test_a_runtime_killed_in_mid_call_finishes_the_run_and_repeats_nothing(cli: Cli, tmp_path: Path) -> None:
    """SIGKILL in the middle of a call: after `up` the session ends, each effect happened once, the one in flight is unknown."""
    books, manifest = tmp_path / "books", tmp_path / "counting.yaml"
    ledger, fifo = books / "ledger", books / "fifo"
    books.mkdir()
    os.mkfifo(fifo)
    for shared in (books, fifo):
        shared.chmod(0o777)  # the session is another user
    command = [sys.executable, f"/servers/{LEDGER.name}", "/books/ledger", "/books/fifo"]
    places = {"books": json.dumps(str(books)), "servers": json.dumps(str(LEDGER.parent))}
    manifest.write_text(MANIFEST.format(schema=json.dumps(SCHEMA), command=json.dumps(command), **places))
    cli("up", "--detach")
    cli("apply", str(manifest), "--yes", "--allow-widen")
    session = cli("run", "counter", "count to twelve").out.strip()
    with fifo.open() as pipe:
        assert pipe.read() == "here\n"
    os.kill(cli.runtime_pid(), signal.SIGKILL)

    assert "a runtime left" not in cli("up", "--detach").err
    assert cli("wait", session).code == 0
    assert ledger.read_text().split() == [str(number) for number in range(12)], cli("logs", session).out
    events = cli("logs", session, "-o", "json").json
    finished = [event["data"]["call"] for event in events if event["type"] == "agentos.syscall.finished"]
    assert len(finished) == len(set(finished))
    unknown = [event["data"]["tool"] for event in events if event["type"] == "agentos.syscall.unknown"]
    assert unknown == ["note"]
    assert [event["type"] for event in events].count("agentos.session.owned") == 1


def test_a_nats_server_that_dies_is_started_again_and_nothing_is_lost(up: Cli, tmp_path: Path) -> None:
    """SIGKILL of the log's server under a runtime: it is restarted on the same port, and what was applied is still there."""
    manifest = tmp_path / "tenant.yaml"
    manifest.write_text("apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {}\n")
    up("apply", str(manifest), "--yes", "--allow-widen")
    os.kill(int((up.home / "nats" / "nats.pid").read_text()), signal.SIGKILL)
    assert "acme" in up("get", "tenant", "-o", "name").out
    manifest.write_text(manifest.read_text().replace("acme", "second"))
    up("apply", str(manifest), "--yes", "--allow-widen")
    assert len(up("history", "-o", "json").json) == 2
