"""What a runtime withstands: a listener at its door, a tenant that comes and goes, a broken session, a refresh that fails."""

from __future__ import annotations

import asyncio
import base64
import io
import tarfile
from typing import Any

import pytest
from house import WORKER, Door, House, documents

from agentos.abi.chain import Head
from agentos.abi.errors import AgentOSError, ChainBroken, NotFound, PolicyError, Unavailable, UsageError
from agentos.abi.event import SESSION_CREATED, Event
from agentos.boot import configuration, runtime
from agentos.boot.configuration import Configurations
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import create_seed, parse_seed
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject

TENANT = {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}}


async def test_a_principal_called_runtime_hears_nothing_of_the_runtime(door: Door) -> None:
    """No name that a principal can have is one under which the runtime gets its own answers, the log's contents among them."""
    await door.apply(*documents(WORKER))
    for name, tenant in (("runtime", "*"), ("runtime-default", "default")):
        key = create_seed(door.runtime.random)
        await door("principal.create", name=name, roles=["auditor"], tenant=tenant, public_key=key.public_key)
        nc = await connect(door.runtime.url, parse_seed(key.seed), name=name, inbox_prefix=f"_INBOX.{name}")
        try:
            heard = await nc.subscribe(f"_INBOX.{name}.>")
            await nc.flush()
            assert (await door.until(await door.run()))["state"] == "finished"
            await door("registry.list")
            await nc.flush()
            assert heard.pending_msgs == 0
        finally:
            await nc.close()


async def test_a_tenant_that_was_deleted_and_comes_back_is_served(door: Door) -> None:
    """Between its end and its return others change principals; its log is still there, and its sessions run."""
    await door.apply(TENANT, *documents(WORKER, tenant="acme"))
    acme = await door.in_tenant("acme")
    first = await acme.run()
    await acme.until(first)
    gone = ["toolgrant/acme/writes", "agent/acme/worker", "tool/acme/write", "model/acme/steps", "tenant/*/acme"]
    await door("registry.delete", keys=gone, allow_destroy=True, reason="gone")
    with pytest.raises(NotFound):
        await acme.run()
    await door.as_principal("anna", ["auditor"], "default")
    await door.apply(TENANT, *documents(WORKER, tenant="acme"))
    again = await door.in_tenant("acme")
    assert (await again.until(await again.run()))["result"] == "3 of 3"
    assert (await again("session.get", session=first))["state"] == "finished"


async def test_a_session_that_cannot_be_read_holds_up_no_other(house: House) -> None:
    """A broken chain is said of its session; the runtime starts, and the other sessions are resumed."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gate = door.hold(lambda _tool, _args: True)
        whole = await door.run()
        await gate.begun.acquire()
        log, broken = door.runtime.tenants.log("default"), "s-0000broken"
        created = Event("e1", SESSION_CREATED, "default", broken, 1, Head.empty().hash, 0, "principal/x", 1, None, {})
        created.data.update(agent="worker", goal="g", inputs=[])
        subject = session_subject(broken)
        position = await log.append(subject, [Message("e1", created.to_bytes())], after=0)
        await log.append(subject, [Message("e2", created.to_bytes().replace(b'"seq":1', b'"seq":7'))], after=position)
    async with house.open() as door:
        assert (await door.until(whole))["state"] == "finished"
        with pytest.raises(ChainBroken):
            await door("session.get", session=broken)


async def test_a_revision_that_could_not_be_put_in_force_is_put_in_force_later(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken away must not stay: the operator is told, and the runtime goes on trying by itself."""
    await door.apply(*documents(WORKER))
    refresh, done = Configurations.refresh, asyncio.Event()
    faults = [Unavailable("the server could not be reloaded")] * 2

    async def failing(self: Configurations, state: Any) -> None:
        if faults:
            raise faults.pop()
        await refresh(self, state)
        done.set()

    monkeypatch.setattr(Configurations, "refresh", failing)
    monkeypatch.setattr(runtime, "KEEP_UP_S", 0.01)
    with pytest.raises(Unavailable, match="is stored, but could not be put in force yet"):
        await door("registry.delete", keys=["toolgrant/writes"], allow_destroy=True, reason="taken")
    async with asyncio.timeout(10):
        await done.wait()
    assert (await door.until(await door.run()))["result"] == "0 of 3"


async def test_a_policy_that_loads_no_more_denies_its_tenant_and_stops_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another engine a policy may be refused that was fine when it was applied: the runtime stands, and denies there."""
    async with house.open() as door:
        await door.apply(TENANT, *documents(WORKER, tenant="acme"), *documents(WORKER))
    load = configuration.load_decider

    async def refusing(factory: Any, resources: Any, tenant: str, granted_by: Any) -> Any:
        if tenant == "acme":
            raise PolicyError("rego_parse_error")
        return await load(factory, resources, tenant, granted_by)

    monkeypatch.setattr(configuration, "load_decider", refusing)
    async with house.open() as door:
        acme = await door.in_tenant("acme")
        assert (await acme.until(await acme.run()))["state"] == "failed"
        assert (await door.until(await door.run()))["result"] == "3 of 3"


async def test_uploads_are_their_owners_and_bounded(door: Door) -> None:
    """An upload of another principal is not there; a bomb, a broken archive and odd names are refused and leave nothing."""
    await door.apply(*documents(WORKER))
    otto = await door.as_principal("otto", ["operator"], "*")

    def tar(*names: str) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", errors="surrogateescape") as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 1
                archive.addfile(info, io.BytesIO(b"x"))
        return buffer.getvalue()

    async def upload(data: bytes) -> str:
        return str((await door("session.upload", data=base64.b64encode(data).decode()))["upload"])

    mine = await upload(tar("a"))
    with pytest.raises(NotFound):
        await otto.call("session.create", {"agent": "worker", "goal": "g", "upload": mine})
    good = tar("a", "b")
    for odd in (tar("a", "a/b"), tar("a\udcff"), good[:-20], good[:30] + b"\xff" * 20 + good[50:], tar("x" * 300)):
        name = await upload(odd)
        with pytest.raises(AgentOSError, match="the input"):
            await door("session.create", agent="worker", goal="g", upload=name)
    assert list(door.runtime.workspaces.path("default", "x").parent.iterdir()) == []
    assert (await door("session.create", agent="worker", goal="g", upload=mine))["state"] == "running"


async def test_words_that_no_event_can_hold_are_refused_at_the_door(door: Door) -> None:
    """Lone surrogates in a goal, a reason, a tenant or an unknown parameter: answered, every time, and nothing stops."""
    await door.apply(*documents(WORKER))
    gate = door.hold(lambda _tool, _args: True)
    session = await door.run()
    await gate.begun.acquire()
    for verb, params in (
        ("session.cancel", {"session": session, "reason": "\ud800"}),
        ("session.create", {"agent": "worker", "goal": "\ud800"}),
        ("session.get", {"\ud800\r\nX: y": 1}),
        ("registry.apply", {"manifests": [], "reason": "\ud800"}),
    ):
        with pytest.raises(UsageError):
            await door.client.call(verb, params, within=5)
    with pytest.raises(UsageError, match="unknown parameters"):
        await door.client.call("session.get", {"session": session, "\r\nX: y": 1}, within=5)
    assert (await door("session.get", session=session))["state"] == "running"
    gate.go.release()
    for _ in range(2):
        await gate.begun.acquire()
        gate.go.release()
    assert (await door.until(session))["state"] == "finished"
