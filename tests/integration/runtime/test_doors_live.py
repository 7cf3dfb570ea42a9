"""The doors of a whole runtime: deliveries, events and files start runs, and what a shared space holds keeps its labels."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from house import Door, House, documents

from agentos.abi.errors import AgentOSError, Denied
from agentos.boot.doors import Listen
from agentos.boot.home import Home
from agentos.boot.runtime import open_runtime
from agentos.control.client import find_identity, open_client
from agentos.control.identity import Identity
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import create_seed

RAW = b"a secret of 24 bytes, ok"

MANIFESTS = """
apiVersion: agentos/v1
kind: Tenant
metadata: {name: default}
spec: {spaces: [{name: reports}, {name: inbox}]}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: writes}
spec:
  provider: scripted
  scripted:
    play:
      name: writes
      rules:
        - id: write
          when: "results | length == 0"
          call: [{tool: put-report, args: {path: "report.md", content: "the word"}}]
        - {id: done, when: "true", say: "done"}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: reads}
spec:
  provider: scripted
  scripted:
    play:
      name: reads
      rules:
        - id: read
          when: "results | length == 0"
          call: [{tool: get-report, args: {path: "report.md"}}]
        - {id: done, when: "true", say: "read: {{ results[-1].content }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: put-report}
spec: {description: Write a report., effect: write, driver: {builtin: {primitive: write, space: reports}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: get-report}
spec: {description: Read a report., effect: read, driver: {builtin: {primitive: read, space: reports}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: writer}
spec:
  instructions: Write the report.
  model: writes
  tools: [put-report]
  inputs: {goalLabels: [private]}
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: reader}
spec:
  instructions: Read the report.
  model: reads
  tools: [get-report]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: spaces}
spec: {agents: [writer, reader], tools: [put-report, get-report]}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: on-delivery}
spec: {agent: reader, goal: A delivery came., overlap: allow, "on": {webhook: {path: shop/orders, secretEnv: SHOP_SECRET}}}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: on-event}
spec: {agent: reader, goal: An event came., overlap: allow, "on": {subject: {name: "orders.*"}}}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: on-file}
spec: {agent: reader, goal: A file came., overlap: allow, "on": {workspace: {space: inbox, glob: "*.csv"}}}
"""


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "whsec_" + base64.b64encode(RAW).decode())


@asynccontextmanager
async def opened(house: House) -> AsyncIterator[Door]:
    async with open_runtime(Home(house.root), webhooks=Listen("127.0.0.1", 0)) as runtime, AsyncExitStack() as stack:
        client = await open_client(runtime.url, find_identity(house.root, None, None))
        stack.push_async_callback(client.close)
        yield Door(runtime, client, stack)


async def deliver(door: Door, body: bytes) -> tuple[int, Any]:
    """Send a signed delivery as the message `msg_1`; status and answer."""
    at = door.runtime.timer.now_ms() // 1000
    made = base64.b64encode(hmac.digest(RAW, f"msg_1.{at}.".encode() + body, hashlib.sha256)).decode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.runtime.doors.url.rsplit(":", 1)[1]))
    head = f"POST /hooks/default/shop/orders HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\ncontent-type: application/json"
    writer.write(
        f"{head}\r\nwebhook-id: msg_1\r\nwebhook-timestamp: {at}\r\nwebhook-signature: v1,{made}\r\n\r\n".encode() + body
    )
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])


async def runs(door: Door, trigger: str, count: int) -> list[str]:
    """The sessions that `trigger` has started, once there are so many, all over."""
    while True:
        found = [one["id"] for one in await door("session.list", all=True) if one["trigger_name"] == trigger]
        if len(found) >= count:
            for session in found:
                await door.until(session)
            return found
        await asyncio.sleep(0.05)


async def labels(door: Door, session: str) -> list[str]:
    return sorted((await door("session.get", session=session))["labels"])


async def test_what_is_private_stays_private(house: House) -> None:
    """A session that reads what a private one wrote into a shared space is private from then on; the file is not written over."""
    async with opened(house) as door, asyncio.timeout(60):
        await door.apply(*documents(MANIFESTS))
        before = await door.run("reader")
        await door.until(before)
        writer = await door.run("writer")
        await door.until(writer)
        again = await door.run("writer", "again")
        reader = await door.run("reader")
        assert (await door.until(reader))["state"] == "finished"
        assert await labels(door, before) == []
        assert await labels(door, reader) == ["private"]
        await door.until(again)
        decided = [event for event in await door.events(again) if event["type"] == "agentos.syscall.finished"]
        assert any("these 8 bytes already" in str(event["data"]) for event in decided)
        (door.runtime.home.spaces / "default" / "reports" / "report.md").write_text("forged")
        third = await door.run("writer", "third")
        await door.until(third)
        failed = [
            event["data"]["error"]["code"] for event in await door.events(third) if event["type"] == "agentos.syscall.failed"
        ]
        assert failed == ["space.conflict"]
        last = await door.run("reader")
        await door.until(last)
        assert await labels(door, last) == ["untrusted"]


async def test_a_space_that_nobody_declared(house: House) -> None:
    """A tool of a space that its tenant does not declare is refused where it is applied."""
    async with house.open() as door:
        bodies = documents(MANIFESTS)
        with pytest.raises(AgentOSError, match="has no space"):
            await door.apply(*[body for body in bodies if body["kind"] == "Tool"])


async def test_the_doors(house: House, secret: None) -> None:
    """A delivery, an event and a file each start one run, however often they are told, with what came as untrusted input."""
    async with opened(house) as door, asyncio.timeout(90):
        await door.apply(*documents(MANIFESTS))
        status, first = await deliver(door, b'{"id":1}')
        assert status == 202
        status, second = await deliver(door, b'{"id":1}')
        assert (status, second["fired"][0]["again"]) == (202, True)
        assert second["fired"][0]["session"] == first["fired"][0]["session"]
        key = create_seed(door.runtime.random)
        await door("principal.create", name="shop", roles=["publisher"], tenant="default", public_key=key.public_key)
        shop = await connect(door.runtime.url, key, name="shop", inbox_prefix="_INBOX.shop")
        for _ in range(2):
            answer = json.loads((await shop.request("evt.shop.orders.new", b"{}", timeout=10, headers={"Nats-Msg-Id": "1"})).data)
            assert answer["sequence"] == 1
        asking = await door.as_identity(Identity("shop", "default", key.seed))
        with pytest.raises(Denied):
            await asking.call("session.list", {})
        await shop.close()
        while door.runtime.doors.watching < 1:
            await asyncio.sleep(0.01)
        (door.runtime.home.spaces / "default" / "inbox" / "a.csv").write_text("1;2")
        delivered, event, file = [(await runs(door, name, 1)) for name in ("on-delivery", "on-event", "on-file")]
        assert delivered == [first["fired"][0]["session"]]
        assert (len(event), len(file)) == (1, 1)
        for session, body in ((delivered[0], b'{"id":1}'), (event[0], b"{}"), (file[0], b"1;2")):
            folder = Path(door.runtime.workspaces.path("default", session)) / "input"
            assert (folder / "payload").read_bytes() == body
    async with opened(house) as door, asyncio.timeout(90):
        # All is told again, and starts nothing.
        assert (await deliver(door, b'{"id":1}'))[1]["fired"][0]["again"]
        (door.runtime.home.spaces / "default" / "inbox" / "b.csv").write_text("3;4")
        assert len(await runs(door, "on-file", 2)) == 2
        assert len(await runs(door, "on-event", 1)) == 1
