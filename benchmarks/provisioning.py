"""Hands are provisioned when they are first needed: what that costs an agent before its first word, and before its first tool.

    python -m benchmarks.provisioning [ROUNDS]

A runtime with real parts; the model is scripted and says its first words at once. Sessions of two agents run in turn, A B B A:
one without any tool, and one whose tools are a program and an MCP server in sandboxes, which it calls after its first words, and
once more in its next turn. Times are those of the log, counted from the beginning of the session as `agentos session show` does
(`first token`, `first tool`). Cold is the first call of a session, warm its second one: a program is started for each call, a
server once for a session, and most of what that takes is the server's own start.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.event import parse_rfc3339
from agentos.boot.home import Home
from agentos.boot.runtime import open_runtime
from agentos.cli.follow import pages
from agentos.cli.session import page
from agentos.control.client import Client, find_identity, open_client

ROUNDS: Final = 30
WARMUP: Final = 3
"""Sessions of each agent that are not counted: the first ones load what the runtime loads once."""

DECLARED: Final = """
apiVersion: agentos/v1
kind: Sandbox
metadata: {name: box}
spec: {limits: {memoryMiB: 256}}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: thinks}
spec:
  provider: scripted
  scripted:
    play:
      name: thinks
      rules: [{id: done, when: "true", say: I think about it.}]
---
apiVersion: agentos/v1
kind: Model
metadata: {name: acts}
spec:
  provider: scripted
  scripted:
    play:
      name: acts
      rules:
        - id: act
          when: "turn < 3"
          say: I think about it.
          call:
            - {tool: "true", args: {}}
            - {tool: now, args: {timezone: Etc/UTC}}
        - {id: done, when: "true", say: "{{ results | ok | length }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: "true"}
spec:
  description: Do nothing.
  effect: read
  sandbox: box
  inputSchema: {type: object, additionalProperties: false}
  driver: {exec: {command: ["true"]}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: now}
spec:
  description: Tell the time.
  effect: read
  sandbox: box
  timeoutSeconds: 60
  inputSchema:
    type: object
    title: get_current_timeArguments
    required: [timezone]
    properties:
      timezone:
        title: Timezone
        type: string
        description: IANA timezone name (e.g., 'America/New_York', 'Europe/London'). Use 'Etc/UTC' as local timezone if no timezone provided by the user.
  driver: {mcp: {server: {command: [mcp-server-time, --local-timezone=Etc/UTC]}, tool: get_current_time}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: without}
spec:
  instructions: Work.
  model: thinks
  governance: {owner: bench, purpose: measuring, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: with}
spec:
  instructions: Work.
  model: acts
  tools: ["true", now]
  governance: {owner: bench, purpose: measuring, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: works}
spec: {agents: [with], tools: ["true", now]}
"""  # noqa: E501 - what the server offers, word for word


@dataclass
class Found:
    """Milliseconds of each session that was counted."""

    without: list[float] = field(default_factory=list)
    """To the first token, of the agent without tools."""
    with_hands: list[float] = field(default_factory=list)
    """The same of the one with sandboxed tools."""
    first_tool: list[float] = field(default_factory=list)
    calls: dict[str, list[float]] = field(default_factory=dict)
    """From the decision about a call to its outcome, by tool and `cold` or `warm`."""
    result: list[float] = field(default_factory=list)
    """To the outcome of the first tool."""


async def run(folder: Path, rounds: int = ROUNDS) -> Found:
    """Measure; raises RuntimeError if a session does not do what it should."""
    home, found = Home(folder), Found()
    async with open_runtime(home) as runtime:
        client = await open_client(runtime.url, find_identity(home.root, None, None))
        try:
            manifests: list[Any] = list(yaml.safe_load_all(DECLARED))
            applied = {"manifests": manifests, "reason": "bench", "allow_widen": True, "allow_destroy": True}
            await client.call("registry.apply", applied, within=60)
            for turn in range(WARMUP + rounds):
                counted = found if turn >= WARMUP else Found()
                # A B B A: what a session leaves to be cleared up falls on both agents alike.
                for agent in ("without", "with") if turn % 2 else ("with", "without"):
                    shown, events = await _session(client, agent, "4" if agent == "with" else "I think about it.")
                    if agent == "with":
                        _take(counted, shown, events)
                    else:
                        counted.without.append(shown["first_token_ms"])
        finally:
            await client.close()
    return found


async def _session(client: Client, agent: str, result: str) -> tuple[dict[str, Json], list[Json]]:
    """One session to its end: what `session show` says of it, and its events."""
    session = (await client.call("session.create", {"agent": agent, "goal": "work"}))["session"]
    events: list[Json] = []
    async with asyncio.timeout(120):
        async for more, _ in pages(client, session, wait_ms=10_000):
            events += more
            if events and events[-1]["type"] in (ev.SESSION_FINISHED, ev.SESSION_FAILED):
                break
    body = await client.call("session.get", {"session": session})
    if body.get("result") != result:
        raise RuntimeError(f"session {session} of {agent} ended with {body.get('result')!r}, {body.get('error')!r}")
    return page(body, events, {}, []), events


def _take(found: Found, shown: dict[str, Json], events: list[Json]) -> None:
    found.with_hands.append(shown["first_token_ms"])
    found.first_tool.append(shown["first_tool_ms"])
    began = parse_rfc3339(events[0]["time"])
    seen = set[str]()
    tools: dict[str, str] = {}
    for event in events:
        data = event["data"]
        if event["type"] == ev.SYSCALL_DECIDED:
            tools[data["call"]] = data["tool"]
        elif event["type"] == ev.SYSCALL_FINISHED and (tool := tools[data["call"]]) in ("true", "now"):
            if not seen:
                found.result.append(parse_rfc3339(event["time"]) - began)
            found.calls.setdefault(f"{tool} {'warm' if tool in seen else 'cold'}", []).append(data["duration_us"] / 1000)
            seen.add(tool)


def lines(found: Found) -> list[str]:
    """The figures as a table."""
    base = median(found.without)
    ratio = median(found.with_hands) / base
    named = {"true": "a program (`true`)", "now": "an MCP server's tool"}
    table = [
        f"{len(found.without)} sessions of each agent, in turn. The ratio of first tokens is **{ratio:.2f}** (target ≤ 1.1).",
        "",
        "| what | p50 ms | slowest ms | to the first token without tools |",
        "| --- | ---: | ---: | ---: |",
    ]
    rows = {
        "floor: first token of an agent without tools": found.without,
        "first token of an agent with sandboxed tools": found.with_hands,
        "its first tool is allowed to act": found.first_tool,
        "its first tool, a program, has answered": found.result,
    }
    for name, values in rows.items():
        table.append(f"| {name} | {median(values):.0f} | {max(values):.0f} | {median(values) / base:.2f} |")
    for name, values in found.calls.items():
        tool, warmth = name.split()
        table.append(f"| {named[tool]}, {warmth} call | {median(values):.0f} | {max(values):.0f} | |")
    return table


def main() -> int:
    """Measure and print; 1 if the target is missed."""
    logging.getLogger("agentos").setLevel(logging.CRITICAL)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as folder:
        found = asyncio.run(run(Path(folder) / "home", rounds))
    print("\n".join(lines(found)))
    return 0 if median(found.with_hands) <= 1.1 * median(found.without) else 1


if __name__ == "__main__":
    sys.exit(main())
