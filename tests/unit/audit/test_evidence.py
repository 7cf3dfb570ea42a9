"""Packs: what goes in, read from the log; what is refused; that manifest and events are what their schemas say."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.abi.canonical import digest
from agentos.abi.errors import ChainBroken, EvidenceError, NotFound
from agentos.abi.record import decode, header_of
from agentos.audit import layout
from agentos.audit.evidence import RegistryRecord, Scope, gather
from agentos.audit.layout import MANIFEST, unzip_members, zip_members
from agentos.audit.verify import verify_pack
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import PRINCIPALS, REVISIONS, blob_subject, session_subject


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((asset("schemas") / "v1" / f"{name}.json").read_text()))


async def put(log, subject: str, lines) -> None:
    await log.append(subject, [Message(f"{subject}-{at}", line) for at, line in enumerate(lines)], after=0)


@pytest.fixture
async def logs(fleet):
    """The tenant's log and the registry's, as a runtime leaves them."""
    log, registry = MemoryLog(), MemoryLog()
    for session, lines in fleet.sessions.items():
        await put(log, session_subject(session), lines)
    for name, data in fleet.registry.blobs.items():
        await put(registry, blob_subject(name), [data])
    await put(registry, REVISIONS, fleet.registry.revisions)
    await put(registry, PRINCIPALS, fleet.registry.principals)
    return log, registry


async def test_a_pack_read_from_the_log_is_the_pack_of_the_record(logs, fleet):
    """Gathering from the log gives every session, both chains and the blobs of the revisions, and the pack verifies."""
    found = await gather(*logs, tenant="default", scope=Scope())
    pack = fleet.pack(sessions=found.sessions, registry=found.registry)
    assert pack == fleet.pack()
    assert verify_pack(pack, fleet.key.public_pem).ok


async def test_what_is_gathered_knows_its_place(logs, fleet):
    """Every event's leaf is its position in its stream less one, whatever else is in the stream."""
    found = await gather(*logs, tenant="default", scope=Scope())
    for stream, chains in found.leaves.items():
        positions = {stored.position: stored.data async for stored in logs[0].scan(stream)}
        for session, leaves in chains.items():
            assert [positions[leaf + 1] for leaf in leaves] == fleet.sessions[session]
    assert {session for chains in found.leaves.values() for session in chains} == fleet.sessions.keys()
    positions = {stored.position: stored.data async for stored in logs[1].scan("REG")}
    for name in ("revisions", "principals"):
        assert [positions[leaf + 1] for leaf in found.registry_leaves[name]] == getattr(fleet.registry, name)


async def test_an_export_can_be_narrowed(logs, fleet):
    """By session or by time; a session is whole or not there, and the manifest says how it was narrowed."""
    named = Scope(sessions=("s-short",))
    found = await gather(*logs, tenant="default", scope=named)
    assert found.sessions == {"s-short": fleet.sessions["s-short"]}
    pack = fleet.pack(sessions=found.sessions, registry=found.registry, scope=named)
    assert verify_pack(pack, fleet.key.public_pem).ok
    assert json.loads(unzip_members(pack)[MANIFEST])["scope"] == {"sessions": ["s-short"], "since": None, "withhold": []}
    late = Scope(since_ms=1_795_000_000_000 + 10_000)
    found = await gather(*logs, tenant="default", scope=late)
    assert found.sessions == {"s-busy": fleet.sessions["s-busy"]}
    assert verify_pack(fleet.pack(sessions=found.sessions, registry=found.registry, scope=late), fleet.key.public_pem).ok


async def test_a_scope_that_does_not_fit_its_sessions_is_refused(fleet):
    """A pack that says it holds a session and lacks it, or holds another one, does not verify."""
    report = verify_pack(fleet.pack(scope=Scope(sessions=("s-busy",))), fleet.key.public_pem)
    assert not report.ok
    assert "scope" in report.faults[0].message


async def test_only_the_tenants_declarations_travel(logs, fleet, record):
    """Blobs of other tenants stay out of the pack."""
    log, registry = logs
    found = (await gather(log, registry, tenant="default", scope=Scope())).registry
    assert set(found.blobs) == set(fleet.registry.blobs)
    foreign = (await gather(log, registry, tenant="acme", scope=Scope())).registry
    agent = next(name for name, data in fleet.registry.blobs.items() if b'"Agent"' in data)
    assert agent not in foreign.blobs


async def test_what_the_log_does_not_have_is_said(logs, fleet):
    """An unknown session, an odd name, a changed blob, foreign bytes: each is an error, never a smaller pack."""
    log, registry = logs
    for name in ("s-none", "../etc", "S-BUSY"):
        with pytest.raises(NotFound):
            await gather(log, registry, tenant="default", scope=Scope(sessions=(name,)))
    broken = MemoryLog()
    await put(broken, REVISIONS, fleet.registry.revisions)
    with pytest.raises(ChainBroken, match="missing"):
        await gather(log, broken, tenant="default", scope=Scope())
    await put(log, session_subject("s-odd"), [b"hello"])
    with pytest.raises(ChainBroken, match="no event"):
        await gather(log, registry, tenant="default", scope=Scope())


def test_nothing_broken_is_signed(fleet):
    """A chain that is not whole, an empty session, a name that could leave its folder: no pack."""
    busy = fleet.sessions["s-busy"]
    with pytest.raises(ChainBroken):
        fleet.pack(sessions={"s-busy": busy[1:]})
    with pytest.raises(ChainBroken):
        fleet.pack(sessions={"s-other": busy})
    with pytest.raises(EvidenceError, match="no events"):
        fleet.pack(sessions={"s-busy": []})
    with pytest.raises(EvidenceError, match="no session id"):
        fleet.pack(sessions={"../s-busy": busy})
    registry = RegistryRecord(fleet.registry.revisions, [b"{}"], fleet.registry.blobs)
    with pytest.raises(EvidenceError, match="no event"):
        fleet.pack(registry=registry)


def test_a_pack_is_verified_before_anything_was_ever_applied(fleet, record):
    """Empty registry chains are chains too; a decision under no revision is then a fault."""
    empty = RegistryRecord([], [], {})
    chain = record.Chain("s-a")
    chain.created(actor="system/kernel")
    assert verify_pack(fleet.pack(sessions={"s-a": chain.stored}, registry=empty), fleet.key.public_pem).ok
    chain.decided("c1", "read", "allow")
    report = verify_pack(fleet.pack(sessions={"s-a": chain.stored}, registry=empty), fleet.key.public_pem)
    assert {fault.check for fault in report.faults} == {"revisions"}


def test_too_much_for_a_pack_is_said(monkeypatch):
    """More than the layout can hold is an error that says how to ask for less."""
    monkeypatch.setattr(layout, "MAX_PACK", 1000)
    with pytest.raises(EvidenceError) as caught:
        zip_members({"README.txt": bytes(1000)})
    assert "--session" in (caught.value.mend or "")
    monkeypatch.setattr(layout, "MAX_MEMBERS", 2)
    with pytest.raises(EvidenceError):
        zip_members(dict.fromkeys("abc", b""))


async def test_an_export_stops_reading_when_no_pack_can_hold_it(logs, monkeypatch):
    """The bound is met while reading, not when memory is full."""
    monkeypatch.setattr(layout, "MAX_PACK", 1000)
    for scope in (Scope(), Scope(sessions=("s-busy",))):
        with pytest.raises(EvidenceError, match="more than"):
            await gather(*logs, tenant="default", scope=scope)


def test_the_manifest_and_every_event_are_what_their_schemas_say(fleet):
    """The published schemas describe what is really in a pack."""
    members = unzip_members(fleet.pack())
    validator("evidence-manifest").validate(json.loads(members[MANIFEST]))
    events = validator("event")
    for name, data in members.items():
        if name.endswith(".jsonl"):
            for line in data.splitlines():
                events.validate(decode(line))
                events.validate(json.loads(header_of(line)))


def test_the_event_schema_names_every_type():
    """A type that the code knows and the schema lacks, or the other way round, fails here."""
    known = {
        value for name, value in vars(ev).items() if name.isupper() and isinstance(value, str) and value.startswith("agentos.")
    }
    schema = validator("event").schema
    assert set(schema["properties"]["type"]["enum"]) == known
    assert {rule["if"]["properties"]["type"]["const"] for rule in schema["allOf"]} == known
    assert known <= set(schema["$defs"])


def test_members_are_named_for_what_they_hold(fleet):
    """Blobs by their digest, sessions by their id, in a fixed order."""
    members = unzip_members(fleet.pack())
    blobs = sorted(f"registry/blobs/{name.removeprefix('sha256:')}.json" for name in fleet.registry.blobs)
    assert list(members) == [
        *("manifest.json", "manifest.sig", "README.txt", "registry/revisions.jsonl", "registry/principals.jsonl"),
        "audit/chain.jsonl",
        *blobs,
        *("events/s-busy.jsonl", "events/s-short.jsonl"),
        *("checkpoint/tenant.note", "checkpoint/registry.note", "checkpoint/rotations.json"),
        *("checkpoint/EV_000000_1.json", "checkpoint/REG.json"),
    ]
    for name in blobs:
        assert digest(members[name]).removeprefix("sha256:") in name
    assert fleet.key.id in members["README.txt"].decode("ascii")
