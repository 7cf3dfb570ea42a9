"""Every role, of every tenant, at the server itself: what it may not publish or hear, and what never reaches another tenant."""

from __future__ import annotations

import asyncio
import contextlib

import nats.errors
import pytest
from adversarial_world import OF_ACME, OF_BETA, ROLES, Knock, World

from agentos.eventlog.subject import session_subject

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOMES = (OF_ACME, OF_BETA, "*")

STREAMS = ("REG", "AUD_2026", "EV_202611_0", "TASK", "KV_LOCKS", "KV_TRIGGERS", "OBJ_BLOBS")
JETSTREAM = (
    *("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.OURS", "$JS.API.ACCOUNT.PURGE.X"),
    *(
        f"$JS.API.STREAM.{what}.{name}"
        for what in ("INFO", "PURGE", "DELETE", "MSG.GET", "MSG.DELETE", "UPDATE")
        for name in STREAMS
    ),
    *(f"$JS.API.{what}.{name}.x" for what in ("CONSUMER.CREATE", "CONSUMER.MSG.NEXT", "CONSUMER.DELETE") for name in STREAMS),
    *(f"$JS.API.DIRECT.GET.{name}" for name in STREAMS),
    *("$JS.ACK.REG.x.1.1.1.1.1", "$JS.FC.REG.x.y"),
)
SERVER = (
    *("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.USER.INFO", "$SYS.ACCOUNT.T-beta.CONNECT"),
    *("$SRV.PING", "$SRV.INFO.agentos", "$SRV.STATS", "$KV.locks.betaledger", "$KV.LOCKS.x", "$O.BLOBS.C.x"),
)
OURS = (
    *("reg.revision", "reg.principal", "aud.record", "task.x.y", "evt.acme-publisher", "evt.beta-publisher.orders", "evt.x.y"),
    *("ctl.operator.session.list", "ctl.beta-operator.session.list", "ctl.fleet-operator.session.list", "ctl", "x", "ctl.x"),
    *("_INBOX.RUNTIME.x", "_INBOX.SENDER.x", "_INBOX.operator.x", "_INBOX.beta-operator.x"),
)
HEARD = (
    *(
        ">",
        "*",
        "*.>",
        "ctl.>",
        "ctl.*.>",
        "_INBOX.>",
        "_INBOX.*.>",
        "_INBOX.RUNTIME.>",
        "_INBOX.operator.>",
        "_INBOX.beta-auditor.>",
    ),
    *("ev.>", "reg.>", "aud.>", "task.>", "evt.>", "$JS.>", "$JS.API.>", "$SYS.>", "$SRV.>", "$KV.>", "$O.>"),
)


async def _refused(knock: Knock) -> str:
    """What the server says, once it has dealt with what was sent; empty: nothing against it."""
    try:
        await knock.nc.flush(timeout=30)
    except nats.errors.FlushTimeoutError:
        pytest.fail("the server does not answer")
    # The client tells of a refusal in a task of its own, after the answer to the flush.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            return await knock.refused.get()
    return ""


async def test_nobody_publishes_or_hears_what_is_not_his(world: World) -> None:
    """The runtime's subjects, JetStream's, the server's, and those of other principals: refused for every role and home."""
    subjects = (*JETSTREAM, *SERVER, *OURS, session_subject(world.real["session"]))
    let: list[str] = []
    tried = 0
    for home in HOMES:
        for role in ROLES:
            if (role, home) == ("publisher", "*"):
                continue  # there is none: its events belong to a tenant
            knock = await world.knock(role, home)
            for subject in subjects:
                if subject.startswith(("ctl.", "evt.", "_INBOX.")) and subject.split(".")[1] == knock.name:
                    continue
                await knock.nc.publish(subject, b"{}")
                tried += 1
                if "permissions violation" not in await _refused(knock):
                    let.append(f"{knock.name} may publish to {subject}")
            for subject in HEARD:
                if subject.split(".")[1:2] == [knock.name]:
                    continue
                heard = await knock.nc.subscribe(subject)
                tried += 1
                if "permissions violation" not in await _refused(knock):
                    let.append(f"{knock.name} may hear {subject}")
                await heard.unsubscribe()
    assert let == []
    assert tried > len(HOMES) * len(ROLES) * 60


async def test_what_one_tenant_says_another_never_hears(world: World) -> None:
    """Whatever acme's principals send, nothing of it comes to anything in beta's account, not even to the runtime's own user."""
    beta = world.door.runtime.tenants.get(OF_BETA).door
    heard = await beta.subscribe("ctl.>")
    events = await beta.subscribe("evt.>")
    await beta.flush()
    try:
        acme, publisher = await world.knock("operator", OF_ACME), await world.knock("publisher", OF_ACME)
        assert (await acme("session.list")).code == ""
        await publisher.nc.publish("evt.acme-publisher.orders", b"{}")
        await publisher.nc.flush()
        await acme.nc.publish("ctl.beta-operator.session.list", b"{}")
        assert "permissions violation" in await _refused(acme)
        # A principal of beta's own is heard there, so the ear was open all the time.
        own = await world.knock("auditor", OF_BETA)
        assert (await own("session.list")).code == ""
        async with asyncio.timeout(30):
            assert (await heard.next_msg(timeout=None)).subject == "ctl.beta-auditor.session.list"
        assert (heard.pending_msgs, events.pending_msgs) == (0, 0)
    finally:
        await heard.unsubscribe()
        await events.unsubscribe()


async def test_a_reply_is_never_sent_where_its_asker_may_not_publish(world: World) -> None:
    """Asked to answer into the log, JetStream's API, or somebody else's inbox, the runtime sends nothing there."""
    acme = await world.knock("operator", OF_ACME)
    spy = world.door.runtime.tenants.get(OF_ACME).door
    bad = (
        "ev.x.y",
        "reg.revision",
        "$JS.API.STREAM.PURGE.AUD",
        "_INBOX.RUNTIME.x",
        "_INBOX.acme-auditor.x",
        "_INBOX.acme-operator",
    )
    heard = [await spy.subscribe(subject) for subject in bad]
    await spy.flush()
    try:
        for subject in bad:
            await acme.nc.publish("ctl.acme-operator.session.list", b'{"params":{}}', reply=subject)
        assert (await acme("session.list")).code == ""
        await spy.flush()
        told = {subject: [message.data for message in _now(one)] for subject, one in zip(bad, heard, strict=True)}
        assert {subject for subject, messages in told.items() if messages} == set()
    finally:
        for one in heard:
            await one.unsubscribe()


def _now(heard: object) -> list[object]:
    queue = heard._pending_queue  # type: ignore[attr-defined]
    return [queue.get_nowait() for _ in range(queue.qsize())]


async def test_no_key_opens_another_tenants_door(world: World) -> None:
    """The name of another tenant's principal with one's own key: the key says who one is, and the name is refused."""
    acme = await world.knock("operator", OF_ACME)
    heard = await acme.nc.subscribe("_INBOX.beta-operator.>")
    assert "permissions violation" in await _refused(acme)
    await acme.nc.publish("ctl.beta-operator.session.list", b'{"params":{}}', reply="_INBOX.beta-operator.x")
    assert "permissions violation" in await _refused(acme)
    assert heard.pending_msgs == 0
