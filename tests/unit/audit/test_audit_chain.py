"""The audit chain: decided on the newest record, stored behind exactly that one, and read strictly."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).parent))

from audit_world import Seconds, Seeded, chain_on

from agentos.abi.chain import verify
from agentos.abi.errors import ChainBroken, Conflict, LogUnavailable
from agentos.abi.event import AUDIT_ERASED, AUDIT_EXPORTED, AUDIT_RETIRED, Event
from agentos.audit.audit_chain import (
    AuditChain,
    AuditRecord,
    Entry,
    erased_entry,
    files_entry,
    held_entry,
    released_entry,
    retired_entry,
    unlocked_entry,
)
from agentos.audit.exported import exported
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import AUDIT_CHAIN, AUDIT_NAME

KEY = bytes(range(16))


async def put(chain: AuditChain, *entries: Entry) -> tuple[Event, ...]:
    async def decide(_record: AuditRecord) -> Sequence[Entry]:
        return entries

    return await chain.append(decide, actor="principal/ann", revision=3)


async def stored(log: MemoryLog) -> list[bytes]:
    return [one.data async for one in log.read(AUDIT_CHAIN)]


async def test_what_is_appended_is_in_the_record_and_in_the_chain() -> None:
    """Tombstones by session, holds until they are released; another reader comes to the same, and the chain is whole."""
    log = MemoryLog()
    chain = chain_on(log)
    await put(chain, erased_entry(["s-1", "s-2"], [KEY], "request 17", overruled=True))
    (held,) = await put(chain, held_entry("h-1", {"agent": "triage"}, "a case"))
    record = await chain.record()
    tombstone = record.erased["s-1"]
    assert record.erased["s-2"] is tombstone
    assert (tombstone.keys, tombstone.basis, tombstone.overruled, tombstone.actor) == (
        (KEY,),
        "request 17",
        True,
        "principal/ann",
    )
    assert (held.tenant, held.subject, held.seq, held.actor, held.config_revision) == (
        "default",
        AUDIT_NAME,
        2,
        "principal/ann",
        3,
    )
    assert [hold.what for hold in record.holds.values()] == ["agent triage"]
    await put(chain, released_entry("h-1", "closed"))
    other = await chain_on(log).record()
    assert other == await chain.record()
    assert (other.holds, set(other.released)) == ({}, {"h-1"})
    assert verify(AUDIT_NAME, await stored(log)).seq == 3


@pytest.mark.parametrize(
    ("target", "covered"),
    [
        ({"session": "s-1"}, [True, True, False, False]),
        ({"agent": "triage"}, [True, True, True, False]),
        ({"period": "202611"}, [False, False, False, False]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_what_a_hold_covers(target: dict[str, str], covered: list[bool]) -> None:
    """The session; all of the agent's, and one whose agent nobody knows; all that began in the month."""
    chain = chain_on(MemoryLog())
    await put(chain, held_entry("h-1", dict(target), "a case"))
    record = await chain.record()
    asked = [("s-1", "triage"), ("s-1", None), ("s-2", "triage"), ("s-2", "payer")]
    assert [bool(record.held_by(*one)) for one in asked] == covered


async def test_a_hold_on_a_month_covers_what_began_in_it() -> None:
    """The month is the session id's own."""
    clock = Seconds()
    chain = chain_on(MemoryLog())
    await put(chain, held_entry("h-1", {"period": clock.period}, "a case"))
    record = await chain.record()
    assert record.held_by(clock.session(), "triage")
    assert record.holding(clock.period)
    clock.later(days=31)
    assert not record.held_by(clock.session(), "triage")


async def test_who_comes_second_decides_anew() -> None:
    """Between the decision and the append somebody places a hold: the decision is asked again, and sees it."""
    log = MemoryLog()
    first, second = chain_on(log, seed=1), chain_on(log, seed=2)
    seen: list[int] = []

    async def decide(record: AuditRecord) -> Sequence[Entry]:
        seen.append(len(record.holds))
        if not record.holds:
            await put(second, held_entry("h-1", {"session": "s-1"}, "a case"))
            return [erased_entry(["s-1"], [KEY], "too late", overruled=False)]
        raise Conflict("held")

    with pytest.raises(Conflict, match="held"):
        await first.append(decide, actor="principal/ann", revision=0)
    assert seen == [0, 1]
    assert [Event.from_bytes(one).type for one in await stored(log)] == ["agentos.audit.held"]


async def test_what_decide_raises_stores_nothing() -> None:
    """A refusal leaves no trace, and the next one may go on."""
    log = MemoryLog()
    chain = chain_on(log)

    async def decide(_record: AuditRecord) -> Sequence[Entry]:
        raise Conflict("no")

    with pytest.raises(Conflict):
        await chain.append(decide, actor="principal/ann", revision=0)
    assert await stored(log) == []
    await put(chain, held_entry("h-1", {"session": "s-1"}, "a case"))
    assert (await chain.record()).holds


async def test_several_are_stored_all_or_none() -> None:
    """What belongs together (the streams of a month) is one append."""
    log = MemoryLog(room=400)
    chain = chain_on(log)
    entries = [erased_entry([f"s-{number}"], [KEY], "x" * 200, overruled=False) for number in range(2)]
    with pytest.raises(LogUnavailable):
        await put(chain, *entries)
    assert await stored(log) == []


def event(kind: str, data: dict[str, object], *, tenant: str = "default") -> Event:
    from agentos.abi.chain import GENESIS

    return Event("e-1", kind, tenant, AUDIT_NAME, 1, GENESIS, 1_795_000_000_000, "principal/ann", 0, None, data)


ERASED = {"sessions": ["s-1"], "keys": ["00" * 16], "basis": "b", "overruled": False}


@pytest.mark.parametrize(
    "wrong",
    [
        event(AUDIT_ERASED, {**ERASED, "keys": ["00"]}),
        event(AUDIT_ERASED, {**ERASED, "keys": ["zz" * 16]}),
        event(AUDIT_ERASED, {**ERASED, "sessions": ["../../etc"]}),
        event(AUDIT_ERASED, {**ERASED, "sessions": [7]}),
        event(AUDIT_ERASED, {"sessions": [], "keys": []}),
        event("agentos.audit.held", {"hold": "h-1", "session": "s-1", "agent": "a", "reason": "r"}),
        event("agentos.audit.held", {"hold": "h-1", "reason": "r"}),
        event("agentos.audit.released", {"hold": "h-1", "reason": "r"}),
        event(AUDIT_RETIRED, {"period": "202613", "stream": "EV_202613_0", "size": 3}),
        event(AUDIT_EXPORTED, {"pack": "sha256:" + "ab" * 32, "sessions": 1}),
        event("agentos.audit.unlocked", {"lock": "sha256:" + "ab" * 32}),
        event("agentos.audit.forgiven", {}),
        event(AUDIT_ERASED, ERASED, tenant="acme"),
    ],
    ids=[
        "a key too short",
        "a key that is none",
        "a path for a session",
        "a number for a session",
        "no basis",
        "a hold on two things",
        "a hold on nothing",
        "the end of no hold",
        "no month",
        "a pack of nothing",
        "a lock for no reason",
        "an unknown type",
        "another tenant",
    ],
)
async def test_what_cannot_be_understood_stops_everything(wrong: Event) -> None:
    """An event that this version cannot take in is refused each time it is met; nothing is appended behind it."""
    log = MemoryLog()
    await log.append(AUDIT_CHAIN, [Message(wrong.id, wrong.to_bytes())], after=0)
    chain = chain_on(log)
    for _ in range(2):
        with pytest.raises(ChainBroken):
            await chain.record()
        with pytest.raises(ChainBroken):
            await put(chain, held_entry("h-1", {"session": "s-1"}, "a case"))
    assert len(await stored(log)) == 1


async def test_a_chain_that_was_cut_is_refused() -> None:
    """Who has read more than there is now says so."""
    log = MemoryLog()
    chain = chain_on(log)
    await put(chain, held_entry("h-1", {"session": "s-1"}, "a case"))
    log.drop("AUD")
    with pytest.raises(ChainBroken, match="cut"):
        await chain.record()


async def test_ids_are_the_chain_s_own() -> None:
    """Two chains with one clock make different ids, so that one's repeat is not taken for the other's."""
    log = MemoryLog()
    made = [*await put(chain_on(log, seed=1), held_entry("h-1", {"session": "s-1"}, "r"))]
    made += await put(AuditChain(log, "default", Seconds(), Seeded(2)), held_entry("h-2", {"session": "s-1"}, "r"))
    assert len({one.id for one in made}) == 2


async def test_events_are_as_the_schema_says() -> None:
    """Each of the six, as it is stored."""
    schema = json.loads((Path(__file__).resolve().parents[3] / "schemas" / "v1" / "event.json").read_text())
    signed = {
        "stream": "EV_202505_0",
        "size": 3,
        "root": "ab" * 32,
        "packs": ["sha256:" + "cd" * 32],
        "note": "a note",
    }
    targets = (("session", "s-1"), ("agent", "a"), ("period", "202505"))
    log = MemoryLog()
    await put(
        chain_on(log),
        erased_entry(["s-1"], [KEY], "b", overruled=False),
        erased_entry([], [KEY], "b", overruled=False),
        *(held_entry(f"h-{kind}", {kind: name}, "r") for kind, name in targets),
        released_entry("h-agent", "r"),
        exported(b"a pack", {"s-1": [b"{}", b"{}"]}, 0).entry(),
        unlocked_entry("sha256:" + "ab" * 32, "s-1", 17, "stuck"),
        unlocked_entry("sha256:" + "ab" * 32, None, 0, "unreadable"),
        files_entry("session s-1", "undo", "the wrong customer"),
        retired_entry(signed, "202505", "b", overruled=True),
    )
    for data in await stored(log):
        Draft202012Validator(schema).validate(json.loads(data))
    assert (await chain_on(log).record()).retired == {"202505": {"EV_202505_0": 3}}
