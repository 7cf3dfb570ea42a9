"""Retiring a month in a whole runtime: exported, dropped whole, still under every checkpoint; finished after any crash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from house import WORKER, Door, House, documents

from agentos.abi.errors import AgentOSError, ChainBroken, Conflict, EvidenceError, NotFound, UsageError
from agentos.abi.retention import DAY_MS
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, retired_entry
from agentos.audit.verify import verify_pack
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.cli import erasure
from agentos.eventlog.subject import period_of

CANARY = "kestrel-canary-7b21"


@asynccontextmanager
async def days_ago(house: House, days: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """A runtime whose clock is behind."""
    now_ms = SystemTimer.now_ms
    with monkeypatch.context() as patch:
        patch.setattr(SystemTimer, "now_ms", lambda self: now_ms(self) - days * DAY_MS)
        async with house.open() as door:
            yield door


async def finished(door: Door, goal: str = CANARY, **words: Any) -> str:
    session = str((await door("session.create", agent="worker", goal=goal, **words))["session"])
    assert (await door.until(session))["state"] == "finished"
    return session


async def verified(door: Door) -> dict[str, Any]:
    answer = await door("audit.verify")
    while not answer["done"]:
        answer = await door("audit.verify", run=answer["run"])
    return dict(answer["report"])


async def exported(door: Door, sessions: list[str]) -> tuple[dict[str, Any], bytes]:
    pack = base64.b64decode((await door("evidence.export", sessions=sessions))["pack"])
    return {"digest": f"sha256:{hashlib.sha256(pack).hexdigest()}", "sessions": sessions}, pack


def streams_of(house: House, period: str) -> list[str]:
    """The folders of the month's streams on the disk of the server."""
    return [str(path) for path in house.root.glob(f"nats/jetstream/*/streams/*_{period}*")]


def holders(house: House, *secrets: bytes) -> list[str]:
    """The files of the home that hold one of `secrets`."""
    files = sorted(path for path in house.root.rglob("*") if path.is_file())
    return [str(path) for path in files if any(secret in path.read_bytes() for secret in secrets)]


async def test_a_month_is_exported_and_dropped_whole(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its streams, keys, workspaces and rows are gone; the packs verify, the log too; a key that is needed elsewhere stays."""
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*documents(WORKER))
        old = [await finished(door), await finished(door, "large " + "x" * 60_000)]
        shared = await finished(door, "shared", subject="customer-4711")
        period = period_of(old[0])
    async with house.open() as door:
        keys = door.runtime.tenants.get("default").keys
        young = await finished(door, "young", subject="customer-4711")
        assert {period_of(one) for one in (*old, shared)} == {period}
        secrets = [(await keys.of_session(one)).secret for one in old]
        with pytest.raises(Conflict, match="not over"):
            await door("audit.retire", period=period_of(young), packs=[(await exported(door, [young]))[0]], basis="b")
        plan = await door("audit.retirement", period=period)
        everything = [one["session"] for one in plan["sessions"]]
        assert (plan["refused"], set(everything)) == (None, {*old, shared})
        told, pack = await exported(door, everything)
        with pytest.raises(Conflict, match="in no pack"):
            await door("audit.retire", period=period, packs=[{**told, "sessions": everything[1:]}], basis="b")
        with pytest.raises(Conflict, match="has made no pack"):
            await door("audit.retire", period=period, packs=[{**told, "digest": "sha256:" + "ab" * 32}], basis="b")
        dropped = await door("audit.retire", period=period, packs=[told], basis="retention has passed")
        assert dropped["streams"]
        assert streams_of(house, period) == []
        assert holders(house, CANARY.encode(), *secrets) == []
        assert (await door("session.get", session=young))["goal"] == "young"
        for gone in (*old, shared):
            with pytest.raises(NotFound):
                await door("session.get", session=gone)
        assert [row["id"] for row in await door("session.list", all=True)] == [young]
        report = await verified(door)
        assert report["ok"], report
        point = await door("audit.checkpoint", now=True)
        assert set(dropped["streams"]) <= set(point["streams"])
        with pytest.raises(Conflict, match="retired already"):
            await door("audit.retirement", period=period)
        trust = (await door("evidence.key"))["pem"].encode()
        assert verify_pack(pack, trust).ok
    async with house.open() as door:
        assert (await verified(door))["ok"]
        assert streams_of(house, period) == []
        status = await door("runtime.status")
        assert status["warnings"] == []
        # What goes on, goes on: in this month, under the shared key.
        await finished(door, "later", subject="customer-4711")


async def test_what_keeps_a_month(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold on it or in it, a retention that has not passed, a session that is not over; status says when it may go."""
    agent = next(one for one in documents(WORKER) if one["kind"] == "Agent")
    agent["spec"]["governance"]["retentionDays"] = 20
    manifests = [agent if one["kind"] == "Agent" else one for one in documents(WORKER)]
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*manifests)
        old = await finished(door)
        period = period_of(old)
    async with house.open() as door:
        assert any(f"agentos audit retire {period}" in line for line in (await door("runtime.status"))["warnings"])
        told, _ = await exported(door, [old])
        for target in ({"period": period}, {"session": old}, {"agent": "worker"}):
            hold = (await door("audit.hold", **target, reason="a case"))["hold"]
            with pytest.raises(Conflict, match="legal hold"):
                await door("audit.retire", period=period, packs=[told], basis="b", overrule=True)
            await door("audit.release", hold=hold, reason="closed")
        agent["spec"]["governance"]["retentionDays"] = 100
        await door.apply(*manifests)
        assert not any("agentos audit retire" in line for line in (await door("runtime.status"))["warnings"])
        with pytest.raises(Conflict, match="retention of 100 days"):
            await door("audit.retire", period=period, packs=[told], basis="b")
        await door("audit.retire", period=period, packs=[told], basis="b", overrule=True)
        assert streams_of(house, period) == []
        with pytest.raises(UsageError):
            await door("audit.retirement", period="000000")
        with pytest.raises(NotFound):
            await door("audit.retirement", period="199901")


@pytest.mark.parametrize("where", ["drop", "destroy", "sign"])
async def test_a_crash_on_the_way_is_made_up_for(house: House, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Behind the event that says it, whatever was not done is done at the next start, and the log is in order."""
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*documents(WORKER))
        old = await finished(door)
        period = period_of(old)

    async def stop(*_: Any) -> None:
        raise AgentOSError("stopped here")

    async with house.open() as door:
        secret = (await door.runtime.tenants.get("default").keys.of_session(old)).secret
        told, _ = await exported(door, [old])
        assert door.runtime.erasures is not None
        ours, retirement = door.runtime.erasures.get("default")
        owners = {"drop": retirement._streams, "destroy": ours.keys, "sign": retirement._notary}
        with monkeypatch.context() as patch:
            patch.setattr(owners[where], where, stop)
            with pytest.raises(AgentOSError, match="stopped here"):
                await door("audit.retire", period=period, packs=[told], basis="b")
    async with house.open() as door:
        assert streams_of(house, period) == []
        await door.runtime.tenants.get("default").projector.caught_up()
        assert await door("session.list", all=True) == []
        assert (await door("runtime.status"))["warnings"] == []
        report = await verified(door)
        assert report["ok"], report
    assert holders(house, CANARY.encode(), secret) == []


async def test_the_command_exports_verifies_and_drops(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In as many packs as it takes; each holds its sessions, verifies by the key, and is named in the audit chain."""
    monkeypatch.setattr(erasure, "PACK_SESSIONS", 2)
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*documents(WORKER))
        old = [await finished(door) for _ in range(3)]
        period = period_of(old[0])
    async with house.open() as door:
        to = tmp_path / "archive"
        dropped, packs = await erasure._retire(door.client, period, to, "b", False, True, erasure.Format.JSON)
        assert {one["session"] for one in dropped["sessions"]} == set(old)
        trust = (await door("evidence.key"))["pem"].encode()
        files = sorted(to.iterdir())
        assert [str(path) for path in files] == [pack["file"] for pack in packs]
        reports = [verify_pack(path.read_bytes(), trust) for path in files]
        assert [(report.ok, report.sessions) for report in reports] == [(True, 2), (True, 1)]
        assert {path.stat().st_mode & 0o777 for path in (to, *files)} == {0o700, 0o600}
        chain = [json.loads(stored.data) async for stored in door.runtime.tenants.get("default").log.read("aud.chain")]
        retired = [event["data"] for event in chain if event["type"] == "agentos.audit.retired"]
        assert all(event["packs"] == [pack["digest"] for pack in packs] for event in retired)
        assert {event["stream"] for event in retired} == set(dropped["streams"])
        taken = [(event["actor"], event["data"]["pack"]) for event in chain if event["type"] == "agentos.audit.exported"]
        assert taken == [("principal/operator", pack["digest"]) for pack in packs]
        assert streams_of(house, period) == []
        with pytest.raises(Conflict, match="retired already"):
            await erasure._retire(door.client, period, to, "b", False, True, erasure.Format.JSON)


async def test_a_month_that_nobody_signed_away_is_not_dropped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes into the log that it was retired: the next start drops nothing, says so, and signs nothing any more."""
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*documents(WORKER))
        old = await finished(door)
        period = period_of(old)
    async with house.open() as door:
        tenant = door.runtime.tenants.get("default")
        secret = (await tenant.keys.of_session(old)).secret
        lies = [
            {"stream": stream, "size": end, "root": "00" * 32, "packs": [], "note": "retired, honestly"}
            for stream, end in (await tenant.streams.ends()).items()
            if period in stream
        ]
        chain = AuditChain(tenant.log, "default", SystemTimer(), SystemRandom())

        async def decide(_record: AuditRecord) -> list[Entry]:
            return [retired_entry(lie, period, "b", overruled=False) for lie in lies]

        await chain.append(decide, actor="principal/operator", revision=1)
    async with house.open() as door:
        assert streams_of(house, period) != []
        assert holders(house, secret) != []
        warnings = (await door("runtime.status"))["warnings"]
        assert any(line.startswith("erasure: ") and "not dropped" in line for line in warnings), warnings
        with pytest.raises(ChainBroken):
            await door("audit.checkpoint", now=True)


async def test_a_file_that_lost_what_was_exported_drops_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was verified is looked for on the disk again before the month goes."""
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*documents(WORKER))
        period = period_of(await finished(door))
    async with house.open() as door:
        settle = erasure._settle

        def lossy(folder: Path) -> None:
            settle(folder)
            for path in folder.iterdir():
                path.write_bytes(path.read_bytes()[:-1])

        monkeypatch.setattr(erasure, "_settle", lossy)
        with pytest.raises(EvidenceError, match="nothing is dropped"):
            await erasure._retire(door.client, period, tmp_path / "archive", "b", False, True, erasure.Format.JSON)
        assert streams_of(house, period) != []


async def test_a_pack_that_does_not_verify_drops_nothing(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The export is looked at before anything is written or dropped."""
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*documents(WORKER))
        period = period_of(await finished(door))
    async with house.open() as door:
        call = door.client.call

        async def bent(verb: str, params: dict[str, Any], **words: Any) -> Any:
            answer = await call(verb, params, **words)
            if verb == "evidence.export":
                pack = bytearray(base64.b64decode(answer["pack"]))
                pack[len(pack) // 2] ^= 1
                answer["pack"] = base64.b64encode(pack).decode()
            return answer

        monkeypatch.setattr(door.client, "call", bent)
        with pytest.raises(EvidenceError, match="nothing is dropped"):
            await erasure._retire(door.client, period, tmp_path / "archive", "b", False, True, erasure.Format.JSON)
        assert list((tmp_path / "archive").iterdir()) == []
        assert streams_of(house, period) != []
