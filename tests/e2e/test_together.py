"""Calls of one turn at once, on a real runtime, with a real MCP server whose tool answers only when all of them are there."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from e2e_runtime import Cli
from test_crash_points import alive

MEET = 3

SERVER = f'''
import asyncio
import sys
from pathlib import Path
from mcp.server import MCPServer

server = MCPServer("meeting")
together = asyncio.Barrier({MEET})

@server.tool()
async def meet(name: str) -> str:
    """Answer when {MEET} are there, unless there is a file that says to wait for ever."""
    with (Path(sys.argv[1]) / "came").open("a") as file:
        file.write(name + "\\n")
    if (Path(sys.argv[1]) / "closed").exists():
        await asyncio.Event().wait()
    await together.wait()
    return f"met as {{name}}"

server.run("stdio")
'''

MANIFEST = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: inviting}}
spec:
  provider: scripted
  scripted:
    play:
      name: inviting
      rules:
        - id: invite
          when: "not results"
          for_each: "[11, 22, 33]"
          call: [{{tool: meet, args: {{name: "guest {{{{ item }}}}"}}}}]
        - id: done
          when: "true"
          say: "{{{{ results | ok | length }}}} met"
---
apiVersion: agentos/v1
kind: Sandbox
metadata: {{name: house}}
spec: {{mounts: [{{path: {house}, at: /house, write: true}}]}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: meet}}
spec:
  description: Meet the others.
  effect: read
  sandbox: house
  commutes: {commutes}
  timeoutSeconds: {seconds}
  inputSchema: {schema}
  driver: {{mcp: {{tool: meet, server: {{command: {command}}}}}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: host}}
spec:
  instructions: Invite.
  model: inviting
  tools: [meet]
  governance: {{owner: tests, purpose: meeting, risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: meeting}}
spec: {{agents: [host], tools: [meet]}}
"""

SCHEMA = {
    "properties": {"name": {"title": "Name", "type": "string"}},
    "required": ["name"],
    "title": "meetArguments",
    "type": "object",
}


def apply(cli: Cli, folder: Path, *, commutes: bool = True, seconds: int = 60) -> None:
    house, manifest = folder / "house", folder / "meeting.yaml"
    house.mkdir(exist_ok=True)
    house.chmod(0o777)  # each session is another user
    (house / "meeting.py").write_text(SERVER)
    command = json.dumps([sys.executable, "/house/meeting.py", "/house"])
    manifest.write_text(
        MANIFEST.format(
            commutes=json.dumps(commutes),
            seconds=seconds,
            schema=json.dumps(SCHEMA),
            command=command,
            house=json.dumps(str(house)),
        )
    )
    cli("apply", str(manifest), "--yes", "--allow-widen")


def kinds(cli: Cli, session: str) -> list[str]:
    """What happened to calls of the tool, in order."""
    events = cli("logs", session, "-o", "json").json
    return [event["type"].rpartition(".")[2] for event in events if event.get("data", {}).get("tool") == "meet"]


def test_reads_of_one_turn_meet(up: Cli, tmp_path: Path) -> None:
    """All are decided before the first has its result, their results are told, and the session can be gone through again."""
    apply(up, tmp_path)
    session = up("run", "host", "invite").out.strip()
    up("wait", session)
    assert kinds(up, session) == ["decided"] * MEET + ["finished"] * MEET
    assert up("session", "show", session, "-o", "json").json["result"] == "3 met"
    assert up("session", "replay", session, "-o", "json").json["same"] is True


def test_what_does_not_commute_never_meets(up: Cli, tmp_path: Path) -> None:
    """The same tool without the word: the first call waits by itself until its time is over, then the next does."""
    apply(up, tmp_path, commutes=False, seconds=2)
    session = up("run", "host", "invite").out.strip()
    up("wait", session)
    assert kinds(up, session) == ["decided", "failed"] * MEET


@pytest.mark.parametrize("way", ["kill", "cancel"])
def test_calls_under_way_are_not_lost(up: Cli, tmp_path: Path, way: str) -> None:
    """Killed while all of them act: each is made again and has one result. Cancelled: each has an outcome before the end."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "closed").touch()
    apply(up, tmp_path)
    session = up("run", "host", "invite").out.strip()
    deadline = time.monotonic() + 30
    while not (tmp_path / "house" / "came").exists() or len((tmp_path / "house" / "came").read_text().splitlines()) < MEET:
        assert time.monotonic() < deadline, "they never came"
        time.sleep(0.05)
    (tmp_path / "house" / "closed").unlink()
    if way == "cancel":
        up("cancel", session, "--reason", "enough")
        assert kinds(up, session) == ["decided"] * MEET + ["failed"] * MEET
        return
    pid = up.runtime_pid()
    os.kill(pid, signal.SIGKILL)
    while alive(pid):
        time.sleep(0.05)
    up("up", "--detach")
    up("wait", session)
    assert kinds(up, session) == ["decided"] * MEET + ["decided"] * MEET + ["finished"] * MEET
    assert up("session", "replay", session, "-o", "json").json["same"] is True
