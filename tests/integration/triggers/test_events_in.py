"""Events of publishers on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from trigger_engine import Engine

from agentos.abi.errors import LogUnavailable
from agentos.boot.backend import user_of
from agentos.boot.inbound import Inbound
from agentos.boot.system import SystemTimer
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import NKey
from agentos.eventlog.adapters.events_in import EventsIn, matches
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, User
from agentos.kernel.firing import Subject
from agentos.registry.principal import Principal


class World:
    """A server with one tenant's account: the runtime, and the publishers `shop` and `mill`."""

    def __init__(self, server: NatsServer, keys: dict[str, NKey], runtime: Client) -> None:
        self.server = server
        self.keys = keys
        self.runtime = runtime

    async def client(self, name: str) -> Client:
        return await connect(self.server.url, self.keys[name], name=name, inbox_prefix=f"_INBOX.{name}")


@pytest.fixture
async def world(own_server: Callable[..., NatsServer], new_key: Callable[[], NKey]) -> AsyncIterator[World]:
    keys = {name: new_key() for name in ("runtime", "shop", "mill")}
    publishers = [
        user_of(Principal(name, "default", ("publisher",), keys[name].public_key, 0, "principal/op")) for name in ("shop", "mill")
    ]
    server = own_server(Account("T-default", (User(keys["runtime"].public_key), *publishers)))
    await server.start()
    runtime = await connect(server.url, keys["runtime"], name="runtime", reconnect=True)
    yield World(server, keys, runtime)
    await runtime.close()


async def everybody(_name: str) -> bool:
    return True


@asynccontextmanager
async def acting(world: World, engine: Engine) -> AsyncIterator[None]:
    events = EventsIn(world.runtime, allowed=everybody)
    task = asyncio.create_task(Inbound("default", events, engine, SystemTimer()).run())  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def told(client: Client, subject: str, data: bytes, **headers: str) -> Any:
    """Send until somebody listens; the answer."""
    given = {name.replace("_", "-"): value for name, value in headers.items()} or None
    async with asyncio.timeout(20):
        while True:
            try:
                return json.loads((await client.request(subject, data, timeout=5, headers=given)).data)
            except NatsError:
                await asyncio.sleep(0.05)


async def test_an_event_fires(world: World) -> None:
    """An event that is acknowledged fires every trigger that means it, says who sent it, is untrusted, and is then forgotten."""
    engine = Engine(orders=Subject("orders.*"), all=Subject(">"), other=Subject("orders"))
    async with acting(world, engine):
        shop = await world.client("shop")
        answer = await told(shop, "evt.shop.orders.created", b'{"id":1}', Content_Type="application/json")
        assert answer == {"sequence": 1}
        await engine.until(2)
        await shop.close()
        async with asyncio.timeout(20):
            while (await messages(world))["messages"]:
                await asyncio.sleep(0.02)
    first = engine.fired[0]
    assert {one.trigger for one in engine.fired} == {"orders", "all"}
    assert (first.payload, first.content_type, first.labels) == (b'{"id":1}', "application/json", ("untrusted",))
    assert first.facts == {"publisher": "shop", "subject": "orders.created", "sequence": 1}


async def messages(world: World) -> Any:
    return json.loads((await world.runtime.request("$JS.API.STREAM.INFO.INBOUND", b"{}")).data)["state"]


async def test_who_sent_it_is_the_subject(world: World) -> None:
    """No publisher can send in another's name, write where only the runtime writes, or ask JetStream for anything."""
    engine = Engine(all=Subject(">"))
    async with acting(world, engine):
        shop = await world.client("shop")
        for subject in ("evt.mill.x", "inb.mill.x", "inb.shop.x", "$JS.API.STREAM.PURGE.INBOUND", "ev.0.s-1", "evt.x"):
            await shop.publish(subject, b"{}", reply="_INBOX.shop.1")
        assert await told(shop, "evt.shop.last", b"") == {"sequence": 1}
        await engine.until(1)
        await shop.close()
    assert [one.facts["subject"] for one in engine.fired] == ["last"]


async def test_a_reply_writes_nowhere(world: World) -> None:
    """A message that names the log as its reply subject makes nobody write there, and is not taken."""
    await world.runtime.request("$JS.API.STREAM.CREATE.EV_0", json.dumps({"name": "EV_0", "subjects": ["ev.0.>"]}).encode())
    engine = Engine(all=Subject(">"))
    async with acting(world, engine):
        shop = await world.client("shop")
        await told(shop, "evt.shop.first", b"")
        for reply in ("ev.0.s-1", "_INBOX.mill.x", "ctl.shop.runtime.shutdown", "_INBOX.shop"):
            await shop.publish("evt.shop.forged", b"{}", reply=reply)
        await told(shop, "evt.shop.last", b"")
        await engine.until(2)
        await shop.close()
    assert [one.facts["subject"] for one in engine.fired] == ["first", "last"]
    state = json.loads((await world.runtime.request("$JS.API.STREAM.INFO.EV_0", b"{}")).data)["state"]
    assert state["messages"] == 0


async def test_ids_are_each_publishers_own(world: World) -> None:
    """The same id twice is one event; another publisher's event with that id is another one."""
    engine = Engine(all=Subject(">"))
    async with acting(world, engine):
        shop, mill = await world.client("shop"), await world.client("mill")
        assert await told(shop, "evt.shop.x", b"1", Nats_Msg_Id="7") == {"sequence": 1}
        assert await told(shop, "evt.shop.x", b"1", Nats_Msg_Id="7") == {"sequence": 1, "duplicate": True}
        assert await told(mill, "evt.mill.x", b"2", Nats_Msg_Id="7") == {"sequence": 2}
        await engine.until(2)
        await shop.close()
        await mill.close()
    assert [(one.facts["publisher"], one.payload) for one in engine.fired] == [("shop", b"1"), ("mill", b"2")]


async def test_nothing_is_lost_between_the_answer_and_the_firing(world: World) -> None:
    """An event that was acknowledged and could not fire waits, across a restart of whoever acts on it."""
    engine = Engine(all=Subject(">"))
    engine.broken = LogUnavailable("the log does not answer")
    async with acting(world, engine):
        shop = await world.client("shop")
        await told(shop, "evt.shop.x", b"1")
        await shop.close()
    assert (await messages(world))["messages"] == 1
    engine.broken = None
    # Whoever is gone has asked for the message for a while: it is handed out again after that.
    await world.runtime.request("$JS.API.CONSUMER.DELETE.INBOUND.triggers", b"")
    async with acting(world, engine):
        await engine.until(1)
    assert engine.fired[0].payload == b"1"


async def test_refused_events(world: World) -> None:
    """What is too large, has an odd name, or comes from somebody who is no publisher any more is refused with a reason."""
    valid = {"shop"}

    async def allowed(name: str) -> bool:
        return name in valid

    events = EventsIn(world.runtime, allowed=allowed)
    async with events.listening():
        shop = await world.client("shop")
        assert "1048576" in (await told(shop, "evt.shop.x", b"x" * (1024 * 1024 + 1)))["error"]["message"]
        assert "no event" in (await told(shop, "evt.shop.a$b", b""))["error"]["message"]
        assert "no event" in (await told(shop, "evt.shop." + "a" * 300, b""))["error"]["message"]
        valid.clear()
        assert "no publisher" in (await told(shop, "evt.shop.x", b""))["error"]["message"]
        await shop.close()


@pytest.mark.parametrize(
    ("pattern", "name", "meant"),
    [
        ("orders.*", "orders.created", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.a.b", False),
        ("orders.>", "orders.a.b", True),
        ("orders.>", "orders", False),
        ("*.created", "orders.created", True),
        ("orders", "orders", True),
        ("orders.created", "orders", False),
        (">", "a.b", True),
    ],
)
def test_matches(pattern: str, name: str, meant: bool) -> None:
    """A pattern means what it means to NATS."""
    assert matches(pattern, name) is meant
