"""Tenants are walls at the server: what one tenant's principals and log use up is nobody else's, and a dead key is dead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from house import WORKER, Door, House, documents
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from agentos.abi.errors import AgentOSError, Conflict, Denied, IdentityError, LogUnavailable, Unavailable, UsageError
from agentos.boot.backend import Embedded
from agentos.control.identity import Identity
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import NKey, create_seed
from agentos.eventlog.port import Message

MIB = 1024 * 1024


def tenant(name: str, **limits: int) -> dict[str, Any]:
    return {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": name}, "spec": {"limits": limits}}


async def principal(door: Door, name: str, role: str, of: str) -> NKey:
    key = create_seed(door.runtime.random)
    await door("principal.create", name=name, roles=[role], tenant=of, public_key=key.public_key)
    return key


async def knock(door: Door, key: NKey, name: str) -> Nats:
    nc = await connect(door.runtime.url, key, name=name, inbox_prefix=f"_INBOX.{name}")
    door.stack.push_async_callback(nc.close)
    return nc


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


async def until_closed(nc: Nats) -> None:
    await until(lambda: nc.is_closed)


async def fill(door: Door, name: str) -> LogUnavailable:
    """Append to the log of a tenant until it takes no more; what is said then."""
    log, subject, after = door.runtime.tenants.get(name).streams, "ev.0.s-fillsthelog00000000", 0
    while True:
        batch = [Message(f"f{after}-{number}", os.urandom(512 * 1024)) for number in range(4)]
        try:
            after = await log.append(subject, batch, after=after)
        except LogUnavailable as error:
            return error


async def refused(door: Door) -> None:
    """Begin sessions until it is said that there is no room: what is small may find a place for a while."""
    try:
        for _ in range(1000):
            await door.run()
    except LogUnavailable as error:
        assert "no space left" in error.message  # noqa: PT017 - the first of many that fails
    else:
        pytest.fail("a thousand sessions found place in a log that is full")


async def test_a_tenant_that_fills_its_log_hurts_nobody_else(house: House) -> None:
    """It is told which field to raise; the other tenant and the fleet go on, also after a restart; raised, it goes on itself."""
    async with house.open() as door:
        await door.apply(tenant("acme", logMiB=16, sessions=1000), tenant("globex", logMiB=64))
        await door.apply(*documents(WORKER, tenant="acme"), *documents(WORKER, tenant="globex"))
        acme, globex = await door.in_tenant("acme"), await door.in_tenant("globex")
        error = await fill(door, "acme")
        assert "no space left" in error.message
        assert "spec.limits.logMiB" in str(error.mend)
        await refused(acme)
        assert (await globex.until(await globex.run()))["result"] == "3 of 3"
        await door.as_principal("anna", ["auditor"], "globex")
    async with house.open() as door:
        acme, globex = await door.in_tenant("acme"), await door.in_tenant("globex")
        assert (await globex.until(await globex.run()))["result"] == "3 of 3"
        await refused(acme)
        await door.apply(tenant("acme", logMiB=64, sessions=1000))
        assert (await acme.until(await acme.run()))["result"] == "3 of 3"


async def test_more_log_than_the_disk_gives_is_refused(door: Door) -> None:
    """When it is applied, and what is in force stays."""
    with pytest.raises(UsageError, match="the disk gives"):
        await door.apply(tenant("acme", logMiB=1024 * 1024 * 1024))
    assert (await door("registry.list"))["tenants"] == ["default"]


async def test_who_takes_all_connections_keeps_out_its_own_tenant_alone(door: Door) -> None:
    """The runtime's own work, other tenants and the fleet go on; once a place is free, the next one gets in."""
    await door.apply(tenant("acme", connections=3), tenant("globex"))
    await door.apply(*documents(WORKER, tenant="acme"))
    key, other = await principal(door, "ann", "auditor", "acme"), await principal(door, "bob", "auditor", "globex")
    taken = [await knock(door, key, "ann") for _ in range(3)]
    with pytest.raises(Unavailable, match="maximum account active connections"):
        await knock(door, key, "ann")
    acme = await door.in_tenant("acme")
    assert (await acme.until(await acme.run()))["result"] == "3 of 3"
    bob = await door.as_identity(Identity("bob", "globex", other.seed))
    assert await bob.call("session.list", {}) == []
    await taken[0].close()
    async with asyncio.timeout(10):
        while True:
            try:
                ann = await door.as_identity(Identity("ann", "acme", key.seed))
                break
            except Unavailable:
                await asyncio.sleep(0.02)
    assert await ann.call("session.list", {"all": True}) != []


async def test_the_runtime_is_back_at_its_doors_before_anybody_else(door: Door) -> None:
    """The server dies while a tenant's principals wait to take every place: the runtime has its own when it is back."""
    await door.apply(tenant("acme", connections=2))
    key = await principal(door, "ann", "auditor", "acme")
    waiting = [await knock(door, key, "ann") for _ in range(2)]
    backend = door.runtime.backend
    assert isinstance(backend, Embedded)
    before = backend._server.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(30):
        while backend._server.pid in (None, before) or not all(one.is_connected for one in waiting):
            await asyncio.sleep(0.02)
            waiting = [one if not one.is_closed else await _again(door, key) for one in waiting]
    await waiting.pop().close()
    async with asyncio.timeout(30):
        while True:
            try:
                ann = await door.as_identity(Identity("ann", "acme", key.seed))
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    assert await ann.call("session.list", {}) == []


async def _again(door: Door, key: NKey) -> Nats:
    while True:
        try:
            return await knock(door, key, "ann")
        except (IdentityError, Unavailable):
            await asyncio.sleep(0.02)


async def test_a_message_beyond_the_tenants_limit_is_not_sent_and_answers_still_come(door: Door) -> None:
    """The client knows the limit and says so; who sends it nevertheless is cut off; long answers come in parts."""
    await door.apply(tenant("acme", messageKiB=64), *documents(WORKER, tenant="acme"))
    key = await principal(door, "ann", "operator", "acme")
    ann = await door.as_identity(Identity("ann", "acme", key.seed))
    for number in range(20):
        await ann.call("session.create", {"agent": "worker", "goal": os.urandom(3000).hex() + str(number)})
    with pytest.raises(UsageError, match="this server takes 65536"):
        await ann.call("session.create", {"agent": "worker", "goal": os.urandom(60_000).hex()})
    assert len(await ann.call("session.list", {"all": True})) == 20
    rude = await knock(door, key, "ann")
    rude._max_payload = 8 * MIB
    await rude.publish("ctl.ann.session.list", b"x" * 70_000, reply="_INBOX.ann.1")
    await until_closed(rude)
    assert len(await ann.call("session.list", {"all": True})) == 20


async def test_who_subscribes_without_end_is_cut_off(door: Door) -> None:
    """The connection that did it, and no other."""
    key = await principal(door, "ann", "auditor", "default")
    ann = await door.as_identity(Identity("ann", "default", key.seed))
    rude = await knock(door, key, "ann")
    for number in range(5000):
        if rude.is_closed:
            break
        with contextlib.suppress(NatsError):
            await rude.subscribe(f"_INBOX.ann.{number}")
            if number % 100 == 99:
                await rude.flush()
    await until_closed(rude)
    assert await ann.call("session.list", {}) == []


@pytest.mark.parametrize("role", ["operator", "approver", "publisher", "agent"])
async def test_a_principal_can_publish_and_hear_what_its_role_is_for_alone(door: Door, role: str) -> None:
    """Everything else the server itself refuses: streams, their API, others' doors, inboxes and events."""
    key = await principal(door, "ann", role, "default")
    told: list[str] = []
    nc = await connect(door.runtime.url, key, name="ann", inbox_prefix="_INBOX.ann", refused=told.append)
    door.stack.push_async_callback(nc.close)
    wide = role in ("operator", "approver")
    subjects = {
        "ctl.ann.runtime.status": True,
        "ctl.ann.session.list": wide,
        "ctl.ann.gateway.open": wide or role == "agent",
        "evt.ann.orders": role == "publisher",
        "evt.bob.orders": False,
        "ctl.bob.runtime.status": False,
        "ev.0.s-1": False,
        "inb.ann.x": False,
        "task.x.y": False,
        "$JS.API.STREAM.NAMES": False,
        "$JS.API.STREAM.DELETE.EV_0": False,
        "$KV.TRIGGERS.x": False,
        "$SRV.PING": False,
        "$SYS.REQ.SERVER.PING": False,
        "_INBOX.RUNTIME.x": False,
        "_INBOX.ann.x": False,
    }
    for subject in subjects:
        await nc.publish(subject, b"{}", reply="_INBOX.ann.1")
    never = sorted(subject.lower() for subject, may in subjects.items() if not may)
    await until(lambda: len(told) >= len(never))
    await nc.flush()
    assert sorted(told) == never
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    nc._error_cb = note
    for subject in ("_INBOX.>", "_INBOX.RUNTIME.>", "_INBOX.bob.>", "ctl.>", "evt.>", "ev.>", ">", "$SRV.>", "$SYS.>"):
        await nc.subscribe(subject)
    await until(lambda: len(errors) >= 9)
    assert all("permissions violation for subscription" in error.lower() for error in errors)


async def test_a_rotated_key_is_dead_at_once_and_the_new_one_opens(door: Door) -> None:
    """Name, roles and history stay; open connections of the old key are cut; no key comes back, neither here nor elsewhere."""
    old, new = await principal(door, "ann", "auditor", "default"), create_seed(door.runtime.random)
    first = await door.as_identity(Identity("ann", "default", old.seed))
    listening = await knock(door, old, "ann")
    assert await first.call("session.list", {}) == []
    await door("principal.rotate", name="ann", public_key=new.public_key, reason="lost")
    await until_closed(listening)
    with pytest.raises(AgentOSError):
        await first.call("session.list", {})
    with pytest.raises(IdentityError):
        await knock(door, old, "ann")
    again = await door.as_identity(Identity("ann", "default", new.seed))
    assert await again.call("session.list", {}) == []
    for name, key in (("ann", old), ("ann", new), ("operator", old)):
        with pytest.raises(Conflict, match="belongs to another principal, or did"):
            await door("principal.rotate", name=name, public_key=key.public_key, reason="back")
    with pytest.raises(Conflict, match="belongs to another principal, or did"):
        await door("principal.create", name="bea", roles=["auditor"], tenant="default", public_key=old.public_key)
    (ann,) = [one for one in await door("principal.list") if one["name"] == "ann"]
    assert (ann["public_key"], ann["past_keys"], ann["roles"]) == (new.public_key, [old.public_key], ["auditor"])
    with pytest.raises(Denied):
        await again.call("principal.rotate", {"name": "ann", "public_key": "U" + "A" * 55, "reason": "mine"})


async def test_a_revocation_cuts_what_is_under_way(door: Door) -> None:
    """A request that waits gets no answer, a publisher's next event is not stored, and neither key opens again."""
    await door.apply(*documents(WORKER))
    gate = door.hold(lambda _tool, _args: True)
    session = await door.run()
    await gate.begun.acquire()
    keys = {name: await principal(door, name, role, "default") for name, role in (("ann", "auditor"), ("shop", "publisher"))}
    ann = await door.as_identity(Identity("ann", "default", keys["ann"].seed))
    seq = (await ann.call("session.get", {"session": session}))["seq"]
    asked = {"session": session, "seq": seq + 1, "position": 10**6, "wait_ms": 20_000}
    waiting = asyncio.create_task(ann.call("session.events", asked))
    shop = await knock(door, keys["shop"], "shop")
    sent = json.loads((await shop.request("evt.shop.orders", b"{}", timeout=10)).data)
    assert sent["sequence"] == 1
    for name in ("ann", "shop"):
        await door("principal.revoke", name=name, reason="left")
    with pytest.raises(AgentOSError):
        await waiting
    await until_closed(shop)
    with pytest.raises(NatsError):
        await shop.request("evt.shop.orders", b"{}", timeout=1)
    for name, key in keys.items():
        with pytest.raises(IdentityError):
            await knock(door, key, name)
    gate.go.release()
    gate.go.release()
    gate.go.release()
    assert (await door.until(session))["result"] == "3 of 3"


async def test_a_publisher_that_floods_is_told_when_to_come_again(door: Door) -> None:
    """What is beyond its rate is not stored; another publisher of the tenant is heard; nothing fills the log."""
    await door.apply(tenant("acme", eventsPerSecond=5, logMiB=64))
    keys = {name: await principal(door, name, "publisher", "acme") for name in ("shop", "mill")}
    shop, mill = [await knock(door, keys[name], name) for name in ("shop", "mill")]
    asked = [shop.request("evt.shop.flood", os.urandom(1000), timeout=5) for _ in range(200)]
    answers = [
        json.loads(one.data) for one in await asyncio.gather(*asked, return_exceptions=True) if not isinstance(one, BaseException)
    ]
    refused = [one["error"] for one in answers if "error" in one]
    assert {error["code"] for error in refused} == {"rate.limited"}
    assert all(error["retry_after_ms"] >= 1 for error in refused)
    stored = [one["sequence"] for one in answers if "sequence" in one]
    assert 0 < len(stored) < 100
    assert "sequence" in json.loads((await mill.request("evt.mill.one", b"{}", timeout=20)).data)
    info = json.loads((await door.runtime.tenants.get("acme").client.request("$JS.API.STREAM.INFO.INBOUND", b"")).data)
    assert info["config"]["max_bytes"] == 16 * MIB
