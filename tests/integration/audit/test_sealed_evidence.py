"""Evidence and proofs over sealed payloads: the notary signs what it cannot read, the verbs open what they may."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentos.abi.errors import ChainBroken, NotFound
from agentos.abi.record import header_of, join
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, erased_entry
from agentos.audit.keyring import KeyRing
from agentos.audit.proof import verify_proof
from agentos.audit.prover import Prover
from agentos.audit.tiles import TileStore
from agentos.audit.verify import Report, verify_pack
from agentos.boot.checkpoints import Checkpoints, Notary
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.control.audit_verbs import handlers
from agentos.control.principal import Caller
from agentos.eventlog import LogBlobs, Message
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.sealed import SealedLog
from agentos.eventlog.subject import PRINCIPALS, REVISIONS, blob_subject, session_subject, stream_of
from agentos.projections.projector import Projector

OLGA = Caller("olga", ("auditor",), "default", fleet=True)

STREAM = stream_of(session_subject("s-busy"))


class Notaries(Checkpoints):
    """The notaries of a tenant and of the registry, over logs that are given."""

    async def begin(self, tenant: str, log: Any) -> None:
        name, streams = ("REG", ("REG",)) if tenant == "*" else (tenant, None)
        tiles = TileStore.open(self._folder / f"{name}.tiles.db", tenant=name)
        self._notaries[tenant] = Notary(Prover(name, log, tiles, self.ring, self._timer, streams=streams), self._timer)
        await self._notaries[tenant].start()


class House:
    """The verbs over a sealed log. `below` is what is stored, and can be edited."""

    def __init__(self, below: Any, keys: SqliteKeyStore, verbs: Any, record: ModuleType, chain: AuditChain) -> None:
        self.below, self.keys, self.verbs, self.record, self.chain = below, keys, verbs, record, chain

    async def __call__(self, verb: str, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(await self.verbs[verb](OLGA, params)))
        return answer

    async def put(self, log: Any, subject: str, lines: list[bytes]) -> None:
        await log.append(subject, [Message(f"{subject}-{at}", line) for at, line in enumerate(lines)], after=0)

    async def verified(self, **params: Any) -> tuple[bytes, Report]:
        pack = base64.b64decode((await self("evidence.export", **params))["pack"])
        return pack, verify_pack(pack, (await self("evidence.key"))["pem"].encode())

    async def report(self) -> dict[str, Any]:
        answer = await self("audit.verify")
        while not answer["done"]:
            answer = await self("audit.verify", run=answer["run"])
        found: dict[str, Any] = answer["report"]
        return found

    async def proven(self, event: str, **params: Any) -> Any:
        proof = (await self("audit.prove", event=event, **params))["proof"]
        return verify_proof(json.dumps(proof).encode(), (await self("audit.keys"))["keys"][0]["verifier"].encode())

    async def erase(self, session: str) -> None:
        """What `agentos audit erase` does: the tombstone, then the key."""
        key = await self.keys.of_session(session)

        async def decide(_record: AuditRecord) -> list[Entry]:
            return [erased_entry([session], [key.id], "request 17", overruled=False)]

        await self.chain.append(decide, actor="principal/olga", revision=1)
        await self.keys.destroy([key.id])


@pytest.fixture
async def house(tmp_path: Path, record: ModuleType, bent: ModuleType) -> AsyncIterator[House]:
    below, registry = bent.BentLog(), MemoryLog()
    keys = SqliteKeyStore.open(tmp_path / "keys.db", SystemRandom())
    sealed = SealedLog(below, keys, LogBlobs(below), SystemRandom())
    notaries = Notaries(tmp_path, KeyRing.open(tmp_path / "evidence.pem", SystemRandom()), SystemTimer(), SystemRandom())

    async def projectors(tenant: str) -> Projector:
        raise NotFound(f"no read model of {tenant} here")

    chain = AuditChain(sealed, "default", record.Still(), SystemRandom())
    verbs = handlers(
        projectors=projectors,
        wordsmiths=projectors,
        logs=lambda _: sealed,
        registry=registry,
        notaries=notaries,
        chains=lambda _: chain,
        revision=lambda _: 1,
        clock=record.Still(),
        random=SystemRandom(),
    )
    made = House(below, keys, verbs, record, chain)
    for name, make in (("s-busy", record.busy_session), ("s-short", record.short_session)):
        await made.put(sealed, session_subject(name), make(name).stored)
    told = record.registry_record()
    for name, data in told.blobs.items():
        await made.put(registry, blob_subject(name), [data])
    await made.put(registry, REVISIONS, told.revisions)
    await made.put(registry, PRINCIPALS, told.principals)
    await notaries.begin("default", below)
    await notaries.begin("*", registry)
    yield made
    await notaries.close()
    keys.close()


async def test_a_sealed_log_is_proven_and_exported(house: House) -> None:
    """What is stored tells no payload; the pack and the proofs have them, and verify; so does the log."""
    assert not any([b"sort the inbox" in stored.data async for stored in house.below.scan(STREAM)])
    pack, report = await house.verified()
    assert report.ok, report.faults
    assert b"sort the inbox" in pack
    found = await house.proven("s-busy#1")
    assert found.ok, found.fault
    assert found.event.data["goal"] == "sort the inbox"
    alone = await house.proven("s-busy#1", withhold=True)
    assert (alone.ok, alone.withheld) == (True, True)
    assert (await house.report())["ok"]


async def test_an_export_withholds_what_it_is_told_to(house: House) -> None:
    """And says how much each part keeps back."""
    answer = await house("evidence.export", withhold=["tool=write", "tool=nothing"])
    assert answer["withheld"] == {"tool=nothing": 0, "tool=write": 5}
    pack, report = await house.verified(withhold=["all"])
    assert report.ok, report.faults
    assert b"sort the inbox" not in pack
    assert report.absent["withheld"] == 15


async def test_an_erased_session_stays_proven(house: House) -> None:
    """Its key is destroyed: chain, checkpoints and packs hold, the tombstone is in the pack, and the payload is nowhere."""
    before, _ = await house.verified()
    await house("audit.checkpoint", now=True)
    await house.erase("s-short")
    pack, report = await house.verified()
    assert report.ok, report.faults
    assert report.absent == {"withheld": 0, "erased": 3, "lost": 0}
    assert b"request 17" in pack
    found = await house.proven("s-short#1")
    assert (found.ok, found.withheld) == (True, True)
    assert (await house.report())["ok"]
    # What was exported before is as good as it was.
    assert verify_pack(before, (await house("evidence.key"))["pem"].encode()).ok


async def test_a_payload_that_was_changed_where_it_is_stored_is_found(house: House) -> None:
    """Its seal does not open: verification names the event, and neither a proof nor a pack of it is given out."""
    await house("audit.checkpoint", now=True)
    stored = [one async for one in house.below.scan(STREAM)]
    one, two = stored[0].data, stored[1].data
    for other in (one[:-1] + bytes([one[-1] ^ 1]), join(header_of(one), two.partition(b"\t")[2]), join(header_of(one), b"\x03")):
        house.below.edits[STREAM, 1] = other
        with pytest.raises(ChainBroken):
            await house("audit.prove", event="s-busy#1")
        with pytest.raises(ChainBroken):
            await house("evidence.export")
    report = await house.report()
    assert [(finding["check"], finding["where"]) for finding in report["findings"]] == [("chains", "s-busy#1")]
