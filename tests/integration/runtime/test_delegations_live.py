"""Delegations on the wire of a running runtime: what is no delegation of ours begins nothing, is seen, and blocks nobody."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from house import Door, House, documents
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout

from agentos.abi.envelope import SIGNATURE, signed, task_subject
from agentos.boot.delegations import Deliveries
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import create_seed, parse_seed
from agentos.eventlog.adapters.tasks import STREAM, Delivery
from agentos.eventlog.subject import AUDIT_CHAIN

FLEET = """
apiVersion: agentos/v1
kind: Model
metadata: {name: boss}
spec:
  provider: scripted
  scripted:
    play:
      name: boss
      rules:
        - {id: hand, when: "results | length < 1", call: [{tool: hand, args: {goal: "say {{ goal }}"}}]}
        - {id: done, when: "true", say: "{{ (results | last).content }}"}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: echo}
spec:
  provider: scripted
  scripted: {play: {name: echo, rules: [{id: done, when: "true", say: "did {{ goal }}"}]}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: hand}
spec: {description: Hand work over., effect: write, timeoutSeconds: 600, driver: {delegate: {agents: [helper]}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Have it done.
  model: boss
  tools: [hand]
  delegates: {maxDepth: 1}
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: helper}
spec:
  instructions: Do it.
  model: echo
  tools: []
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: hands}
spec: {agents: [worker], tools: [hand]}
"""


@pytest.fixture
async def fleet(house: House) -> AsyncIterator[Door]:
    async with house.open() as door:
        await door.apply(*documents(FLEET))
        yield door


@asynccontextmanager
async def sending(door: Door) -> AsyncIterator[Client]:
    """As the one user that may send: whoever had its credentials and not its key could do no more."""
    client = await door.runtime.backend.connect_sender("default")
    try:
        yield client
    finally:
        await client.close()


async def empty(door: Door) -> None:
    """Wait until the queue is."""
    js = door.runtime.tenants.get("default").client.jetstream()
    async with asyncio.timeout(20):
        while (await js.stream_info(STREAM)).state.messages:
            await asyncio.sleep(0.01)


async def children(door: Door, parent: str) -> list[str]:
    """The sessions that `parent` has delegated to, by its log; each once, also if it waited so long that it was decided again."""
    decided = [event["data"] for event in await door.events(parent) if event["type"] == "agentos.syscall.decided"]
    return list(dict.fromkeys(child for data in decided for child in data.get("children", [])))


async def refusals(door: Door) -> list[tuple[str, int]]:
    """Code and count of what the audit chain says was refused."""
    log = door.runtime.tenants.get("default").log
    bodies = [json.loads(stored.data) async for stored in log.read(AUDIT_CHAIN)]
    return [(body["data"]["code"], body["data"]["count"]) for body in bodies if body["type"] == "agentos.audit.refused"]


async def test_a_delegation_goes_over_the_wire_and_comes_back(fleet: Door) -> None:
    """The child is another session, of the declared agent, and knows its parent; its queue is empty behind it."""
    parent = await fleet.run(goal="hello")
    assert (await fleet.until(parent, "finished"))["result"].endswith("did say hello")
    [child] = await children(fleet, parent)
    first = (await fleet.events(child))[0]
    assert (first["agent"], first["parent"], first["origin"]) == ("helper", parent, "delegated")
    assert first["data"]["delegated"]["lineage"] == [parent]
    await empty(fleet)


async def test_what_no_key_of_ours_has_signed_is_counted_and_blocks_nobody(fleet: Door) -> None:
    """No envelope at all, one without a signature, one signed by another key: refused, once a minute in the audit chain."""
    await fleet.until(await fleet.run(), "finished")
    key, stranger = fleet.runtime.backend.sender("default"), create_seed(fleet.runtime.random)
    subject, body = task_subject(key.public_key, "s-forged"), b'{"v":1}'
    bad = base64.b64encode(stranger.sign(signed(subject, body))).decode()
    async with sending(fleet) as client:
        js = client.jetstream()
        for number in range(20):
            await js.publish(subject, body, headers={SIGNATURE: bad, "Nats-Msg-Id": f"forged-{number}"})
        await js.publish(subject, b"\xff\x00")
        await js.publish(f"task.{key.public_key}.a.b.c", b"{}")
        again = await fleet.run(goal="on")
        assert (await fleet.until(again, "finished"))["result"].endswith("did say on")
        await empty(fleet)
    [(code, count)] = await refusals(fleet)
    assert (code, count >= 1) == ("delegation.forged", True)


async def test_what_was_counted_is_told_before_the_runtime_stops(house: House) -> None:
    """Of every code as many as came, in the chain of the next runtime."""
    async with house.open() as door:
        await door.apply(*documents(FLEET))
        await door.until(await door.run(), "finished")
        key = door.runtime.backend.sender("default")
        async with sending(door) as client:
            for number in range(7):
                await client.jetstream().publish(task_subject(key.public_key, f"s-{number}"), b"{}")
            await empty(door)
    async with house.open() as door:
        told = await refusals(door)
        assert sum(count for code, count in told if code == "delegation.forged") == 7


async def test_no_principal_can_send_a_delegation(fleet: Door) -> None:
    """An operator of the tenant, with the parent's own envelope in hand: the server itself refuses it."""
    await fleet.until(await fleet.run(), "finished")
    key = create_seed(fleet.runtime.random)
    await fleet("principal.create", name="eve", roles=["operator"], tenant="default", public_key=key.public_key)
    client = await connect(fleet.runtime.url, parse_seed(key.seed), name="eve", inbox_prefix="_INBOX.eve")
    try:
        subject = task_subject(fleet.runtime.backend.sender("default").public_key, "s-1")
        with pytest.raises(NatsTimeout):
            await client.request(subject, b"{}", timeout=0.5)
        assert "permissions violation" in str(client.last_error).lower()
    finally:
        await client.close()


async def test_an_envelope_that_is_sent_again_begins_nothing(fleet: Door) -> None:
    """Recorded on the wire and sent under another id once all is over: nothing happens, and nobody calls it an attack."""
    seen: list[Delivery] = []
    judge = fleet.runtime.deliveries._judge

    async def watch(tenant: str, delivery: Delivery) -> Any:
        seen.append(delivery)
        return await judge(tenant, delivery)

    fleet.runtime.deliveries._judge = watch  # type: ignore[method-assign]
    parent = await fleet.run()
    await fleet.until(parent, "finished")
    [child] = await children(fleet, parent)
    before = await fleet.types(child), await fleet.types(parent)
    [taken] = seen
    async with sending(fleet) as client:
        headers = {SIGNATURE: base64.b64encode(taken.signature or b"").decode(), "Nats-Msg-Id": "another"}
        await client.jetstream().publish(taken.subject, taken.body, headers=headers)
        await empty(fleet)
    assert len(seen) == 2
    assert (await fleet.types(child), await fleet.types(parent)) == before
    assert await refusals(fleet) == []


async def test_a_crash_before_the_answer_begins_no_second_child(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child was begun, and the message not acknowledged: the next runtime gets it again, and finds the child."""

    async def silent(self: Deliveries, tenant: str, delivery: Delivery) -> None:
        await self._judge(tenant, delivery)

    async with house.open() as door:
        await door.apply(*documents(FLEET))
        with monkeypatch.context() as patch:
            patch.setattr(Deliveries, "_deal", silent)
            parent = await door.run()
            await door.until(parent, "finished")
            js = door.runtime.tenants.get("default").client.jetstream()
            assert (await js.stream_info(STREAM)).state.messages == 1
    async with house.open() as door:
        await empty(door)
        [child] = await children(door, parent)
        assert (await door.types(child)).count("session.created") == 1
        assert await refusals(door) == []


async def test_an_envelope_that_waits_while_the_runtime_is_away_begins_its_child(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent, and the runtime ended before anybody received it: the next one begins the child, and the parent goes on."""
    reached = asyncio.Event()

    async def never(self: Deliveries, tenant: str, delivery: Delivery) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with house.open() as door:
        await door.apply(*documents(FLEET))
        with monkeypatch.context() as patch:
            patch.setattr(Deliveries, "_deal", never)
            parent = await door.run()
            async with asyncio.timeout(20):
                await reached.wait()
            [child] = await children(door, parent)
    async with house.open() as door:
        assert (await door.until(parent, "finished"))["result"].endswith("did say hello")
        assert await children(door, parent) in ([child], [child, child])
        assert (await door.types(child)).count("session.created") == 1
