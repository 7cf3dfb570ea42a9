"""Delegation on a whole runtime: nats-server, the sender's own user, OPA, loops as processes; through stops and cancellations."""

from __future__ import annotations

import asyncio
from typing import Any

import yaml
from house import Door, House

from agentos.abi.errors import NotFound

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
        - id: plan
          when: "turn == 1"
          call: [{tool: write, args: {path: plan.md, content: "the plan: {{ goal }}"}}]
        - id: ask
          when: "turn == 2"
          call: [{tool: hand, args: {tasks: [{goal: one}, {goal: two}, {goal: three}], inputs: [plan.md]}}]
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
        - id: write
          when: "turn == 2"
          call: [{tool: write, args: {path: output/text.md, content: "{{ goal }} of {{ results[0].content }}"}}]
        - {id: done, when: "true", say: "did {{ goal }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, idempotent: true, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: read}
spec: {description: Read a file., effect: read, idempotent: true, driver: {builtin: {primitive: read}}}
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
  delegates: {maxDepth: 1, maxChildren: 8}
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


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FLOCK))


async def children(door: Door, session: str) -> list[str]:
    events = await door.events(session)
    return list(dict.fromkeys(child for event in events for child in event["data"].get("children", ())))


async def named(door: Door, session: str) -> list[str]:
    """The children, once the session has named them."""
    async with asyncio.timeout(30):
        while not (found := await children(door, session)):
            await asyncio.sleep(0.02)
        return found


async def test_three_children_read_the_plan_write_and_are_joined(house: House) -> None:
    """The parent's file goes over, the children's files come back, and every session's chain is whole."""
    async with house.open() as door, asyncio.timeout(60):
        await door.apply(*manifests())
        boss = await door.run("boss", "a book")
        found = await door.until(boss, "finished", "failed")
        assert found["result"] == "did one did two did three", found
        begun = await children(door, boss)
        assert len(begun) == 3
        for child in begun:
            types = await door.types(child)
            assert (types[0], types[-1]) == ("session.created", "session.finished")
        workspace = door.runtime.workspaces.path("default", boss)
        texts = [(workspace / f"delegated/call-2-1/{index}/text.md").read_text() for index in range(3)]
        assert texts == [f"{word} of the plan: a book" for word in ("one", "two", "three")]
        rows = await door("session.list", all=True)
        assert {row["parent"] for row in rows if row["id"] in begun} == {boss}
        assert not door.runtime.sessions.live("default")


async def test_a_runtime_that_stops_in_the_middle_goes_on_with_the_same_children(house: House) -> None:
    """Stopped while the children's writes are held: after the next start each child exists once and has written once."""
    async with house.open() as door, asyncio.timeout(60):
        await door.apply(*manifests())
        gate = door.hold(lambda tool, args: tool.name == "write" and args["path"].startswith("output/"))
        boss = await door.run("boss", "a book")
        await gate.begun.acquire()
        before = await named(door, boss)
    async with house.open() as door, asyncio.timeout(60):
        found = await door.until(boss, "finished", "failed")
        assert found["result"] == "did one did two did three", found
        assert await children(door, boss) == before
        for child in before:
            assert (await door.types(child)).count("session.created") == 1


async def test_cancelling_the_parent_ends_the_children(house: House) -> None:
    """All three, whether they had begun or were on their way."""
    async with house.open() as door, asyncio.timeout(60):
        await door.apply(*manifests())
        door.hold(lambda tool, args: tool.name == "write" and args["path"].startswith("output/"))
        boss = await door.run("boss", "a book")
        begun = await named(door, boss)
        await door("session.cancel", session=boss, reason="enough")
        async with asyncio.timeout(30):
            while door.runtime.sessions.live("default"):
                await asyncio.sleep(0.02)
        for child in begun:
            try:
                types = await door.types(child)
            except NotFound:
                continue  # it was on its way
            assert types[-1] == "session.cancelled"
