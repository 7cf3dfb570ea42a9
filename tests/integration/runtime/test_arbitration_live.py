"""Endpoints that fail, over the wire: the real provider, the real runtime, and a server that speaks the Messages API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from house import Door, House

AGENT = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: first}}
spec: {{provider: anthropic, anthropic: {{model: m, baseUrl: "http://127.0.0.1:{one}", apiKeyEnv: AGENTOS_MODEL_TEST}},
       limits: {{concurrency: 1}}, circuit: {{failures: 2, openSeconds: 600}}}}
---
apiVersion: agentos/v1
kind: Model
metadata: {{name: second}}
spec: {{provider: anthropic, anthropic: {{model: m, baseUrl: "http://127.0.0.1:{two}", apiKeyEnv: AGENTOS_MODEL_TEST}}}}
---
apiVersion: agentos/v1
kind: ModelClass
metadata: {{name: any}}
spec: {{description: Whichever answers., routes: [{{models: [first, second]}}]}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: asker}}
spec: {{instructions: Answer., model: any, governance: {{owner: tests, purpose: testing, risk: minimal}}}}
"""


@dataclass
class Endpoint:
    """Answers every request in one way: `status` 200 streams a reply, anything else is an error of that status."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    asked: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length"))
        await reader.readexactly(length)
        self.asked += 1
        if not self.hangs:
            writer.write(self._answer())
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def _answer(self) -> bytes:
        if self.status == 200:
            usage = {"input_tokens": 7, "output_tokens": 1}
            events: list[dict[str, Any]] = [
                {"type": "message_start", "message": {"content": [], "usage": usage}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
                {"type": "message_stop"},
            ]
            body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
            kind = "text/event-stream"
        else:
            body = json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "too much"}})
            kind = "application/json"
        told = {"content-type": kind, "content-length": str(len(body)), "connection": "close", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        return f"HTTP/1.1 {self.status} Status\r\n{lines}\r\n{body}".encode()


@asynccontextmanager
async def served() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


@dataclass
class World:
    door: Door
    one: Endpoint
    two: Endpoint


@pytest.fixture
async def world(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("AGENTOS_MODEL_TEST", "sk-test")
    async with served() as one, served() as two, house.open() as door:
        await door.apply(*yaml.safe_load_all(AGENT.format(one=one.port, two=two.port)))
        yield World(door, one, two)


async def models(door: Door, session: str) -> list[tuple[str, str]]:
    """(event, model or error code) of the session's model calls."""
    found = []
    for event in await door.events(session):
        kind, data = event["type"].removeprefix("agentos.syscall."), event["data"]
        if data.get("tool") == "model-call":
            found.append((kind, data["args"]["model"] if kind == "decided" else data.get("error", {}).get("code", "")))
    return found


@pytest.mark.parametrize("how", [429, 529, 503, "cut"])
async def test_the_next_endpoint_answers(world: World, how: int | str) -> None:
    """Too many requests, overloaded, broken, or a connection that ends: the next endpoint of the route is asked."""
    world.one.hangs, world.one.status = how == "cut", how if isinstance(how, int) else 500
    session = await world.door.run("asker")
    assert (await world.door.until(session))["result"] == "fine"
    decided = [("decided", "first"), ("failed", "driver.model"), ("decided", "second"), ("finished", "")]
    assert await models(world.door, session) == decided
    admitted = [
        event["data"]["admitted"]["endpoint"] for event in await world.door.events(session) if "admitted" in event["data"]
    ]
    assert admitted == ["default/first", "default/second"]


async def test_an_endpoint_that_fails_is_left_alone(world: World) -> None:
    """After the declared number of failures in a row nobody asks it, and it is `open` to whoever looks; others are asked."""
    world.one.status = 500
    for _ in range(4):
        await world.door.until(await world.door.run("asker"))
    assert (world.one.asked, world.two.asked) == (2, 4)
    top = world.door.runtime.admissions.snapshot()
    assert {one.name: one.circuit for one in top.endpoints if one.kind == "model"} == {
        "default/first": "open",
        "default/second": "closed",
    }


async def test_an_endpoint_that_says_when_is_asked_then(world: World) -> None:
    """`retry-after` keeps everybody away from it for as long, after the first such answer."""
    world.one.status, world.one.headers = 429, {"retry-after": "50"}
    for _ in range(3):
        await world.door.until(await world.door.run("asker"))
    assert (world.one.asked, world.two.asked) == (1, 3)
