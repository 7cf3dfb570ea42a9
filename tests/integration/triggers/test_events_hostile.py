"""Publishers that mean harm, and triggers that cannot act: neither keeps the others' events from being acted on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import test_events_in
from nats.errors import Error as NatsError
from test_events_in import World, acting, everybody, told
from trigger_engine import Engine

from agentos.abi.errors import Frozen
from agentos.boot import inbound
from agentos.eventlog.adapters.credentials import NKey
from agentos.eventlog.adapters.events_in import EventsIn
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.kernel.firing import Fired, Firing, Subject


@pytest.fixture
async def world(own_server: Callable[..., NatsServer], new_key: Callable[[], NKey]) -> AsyncIterator[World]:
    async for made in test_events_in.world.__wrapped__(own_server, new_key):  # type: ignore[attr-defined]
        yield made


def headed(block: bytes) -> bytes:
    return b"HPUB evt.mill.odd %d %d\r\n" % (len(block), len(block) + 1) + block + b"x\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        headed(b"NATS/1.0\r\nno colon here\r\n\r\n"),
        headed(b"NATS/1.0 503\r\n\r\n"),
        headed(b"NATS/1.0 \xff\xff\xff\xff\r\n\r\n"),
        headed(b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n"),
        headed(b"NATS/1.0\r\nNats-Msg-Id: \r\n folded\r\nNats-Msg-Id: b\r\n\r\n"),
        headed(b"NATS/1.0\r\n" + b"a: b\r\n" * 5000 + b"\r\n"),
        headed(b"GET / HTTP/1.1\r\n\r\n"),
        headed(b"\r\n\r\n"),
        headed(b"x"),
        b"PUB evt.mill.odd _INBOX.mill.\xff\xfe 1\r\nx\r\n",
        b"PUB evt.mill.odd _INBOX.mill.a\x0bb 1\r\nx\r\n",
        b"PUB evt.mill.odd _INBOX.mill.a\x0c1 1\r\nx\r\n",
        b"PUB evt.mill.\xff\xfe 1\r\nx\r\n",
        b"PUB evt.mill.a\x0bb 1\r\nx\r\n",
        b"PUB evt.mill.\x00 1\r\nx\r\n",
        b"PUB evt.mill." + b"a" * 3000 + b" _INBOX.mill." + b"b" * 1000 + b" 1\r\nx\r\n",
    ],
)
async def test_odd_messages_break_nothing(world: World, raw: bytes) -> None:
    """Whatever a publisher puts where headers or a reply belong, the runtime's connection stays, and the next is acted on."""
    engine = Engine(any=Subject(">"))
    mill, shop = await world.client("mill"), await world.client("shop")
    async with acting(world, engine):
        assert "sequence" in await told(shop, "evt.shop.first", b"y")
        before = world.runtime.stats["reconnects"]
        await mill._send_command(raw)
        with suppress(NatsError):
            # The server may refuse it, and its sender with it.
            await mill.flush()
        assert "sequence" in await told(shop, "evt.shop.well", b"y")
        async with asyncio.timeout(20):
            while "well" not in [one.facts["subject"] for one in engine.fired]:
                await asyncio.sleep(0.01)
        assert world.runtime.stats["reconnects"] == before
    await mill.close()
    await shop.close()


async def test_one_frozen_trigger_does_not_starve_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events wait for a trigger whose agent is frozen, as many as there may be; others are acted on meanwhile."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(inbound, "LATER_S", 1)
    monkeypatch.setattr(inbound, "LONGEST_LATER_S", 4)

    class Half(Engine):
        frozen = True

        async def fire(self, tenant: str, firing: Firing) -> Fired:
            if firing.trigger == "held" and self.frozen:
                raise Frozen("agent held is frozen")
            return await super().fire(tenant, firing)

    engine = Half(held=Subject("held"), well=Subject("well"))
    shop = await world.client("shop")
    async with acting(world, engine):
        for first in range(0, 1200, 60):
            asked = [shop.request("evt.shop.held", b"x", timeout=20) for _ in range(min(60, 1200 - first))]
            await asyncio.gather(*asked)
        await shop.request("evt.shop.well", b"y", timeout=10)
        async with asyncio.timeout(60):
            while not engine.fired:
                await asyncio.sleep(0.05)
        engine.frozen = False
        async with asyncio.timeout(90):
            while len(engine.fired) < 1201:
                await asyncio.sleep(0.05)
    await shop.close()


async def test_a_stop_that_comes_with_an_event_is_heard() -> None:
    """The library loses a cancellation when its answer comes at the same moment; the runtime stops all the same."""
    asked = asyncio.Event()

    class Swallowing:
        async def request(self, *args: Any, **how: Any) -> Any:
            asked.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            return SimpleNamespace(headers=None, reply="")

    events = EventsIn(Swallowing(), allowed=everybody)  # type: ignore[arg-type]
    events._made = True
    task = asyncio.create_task(events.next())
    await asked.wait()
    task.cancel()
    await asyncio.wait((task,), timeout=10)
    assert task.cancelled()
