"""The verbs of erasure and retention: what they take, strictly, and what they answer."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))

from audit_world import World

from agentos.abi.errors import ChainBroken, Conflict, NotFound, UsageError
from agentos.audit.audit_chain import AuditRecord, Entry, retired_entry
from agentos.audit.checkpoint import Tree
from agentos.audit.exported import exported
from agentos.audit.keys import SigningKey
from agentos.audit.retired import Retired, vouched
from agentos.audit.retirement import Retirement
from agentos.audit.rotation import TrustedKey
from agentos.control.erasure_verbs import ErasureVerbs
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import Message
from agentos.eventlog.subject import period_of, session_subject

ANN = Caller("ann", ("compliance",), "default", fleet=False)
DIGEST = "sha256:" + "ab" * 32
KEY = SigningKey.from_seed(bytes(range(32)))
ORIGIN = "agentos/5d0c2f5d0c2f5d0c/default"


class Streams:
    """`audit.retirement.Streams` in memory."""

    def __init__(self, world: World) -> None:
        self.log = world.raw

    async def drop(self, names: list[str]) -> None:
        for name in names:
            if name in self.log._streams:
                self.log.drop(name)


class Notary:
    """Signs of each stream how long it is; keeps no trees."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.signed = 0

    async def retire(self, streams: tuple[str, ...], packs: list[str]) -> list[dict[str, Any]]:
        ends = await self._world.raw.ends()
        return [self.end(name, ends[name], packs) for name in streams]

    def end(self, stream: str, size: int, packs: list[str], key: SigningKey = KEY) -> dict[str, Any]:
        """What is signed of the end of a stream."""
        return Retired(ORIGIN, stream, Tree(size, bytes(32)), tuple(packs), self._world.clock.ms).to_data(key)

    async def vouched(self) -> dict[str, Retired]:
        return await vouched(self._world.raw, ORIGIN, [TrustedKey(KEY.public)])

    async def sign(self) -> None:
        self.signed += 1


class Tenant:
    """One tenant's erasures."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.notary = Notary(world)
        self.retirement = Retirement(world.erasure, Streams(world), self.notary, world.clock)  # type: ignore[arg-type]

    async def pack(self, *sessions: str, withheld: int = 0, name: str = "a pack") -> dict[str, Any]:
        """A pack of sessions that the runtime has made, as it is named to it."""
        records = {one: [stored.data async for stored in self.world.log.read(session_subject(one))] for one in sessions}
        made = exported(f"{name} of {sessions}".encode(), records, withheld)
        await self.say(made.entry())
        return {"digest": made.pack, "sessions": list(sessions)}

    async def say(self, entry: Entry) -> None:
        """Put an event into the audit chain."""

        async def decide(_record: AuditRecord) -> list[Entry]:
            return [entry]

        await self.world.erasure.chain.append(decide, actor="principal/ann", revision=7)

    def get(self, tenant: str) -> tuple[Any, Retirement]:
        if tenant != "default":
            raise NotFound(f"there is no tenant {tenant}")
        return self.world.erasure, self.retirement


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def tenant(world: World) -> Tenant:
    return Tenant(world)


@pytest.fixture
def verbs(tenant: Tenant) -> Handlers:
    return ErasureVerbs(tenant, lambda _tenant: 7).handlers()


@pytest.mark.parametrize(
    ("verb", "params"),
    [
        ("audit.erase", {"basis": "b"}),
        ("audit.erase", {"sessions": ["s-1"], "subject": "c", "basis": "b"}),
        ("audit.erase", {"sessions": [], "basis": "b"}),
        ("audit.erase", {"sessions": ["../.."], "basis": "b"}),
        ("audit.erase", {"sessions": ["s-1"]}),
        ("audit.erase", {"sessions": ["s-1"], "basis": ""}),
        ("audit.erase", {"sessions": ["s-1"], "basis": "b", "overrule": "yes"}),
        ("audit.erase", {"sessions": ["s-1"], "basis": "b", "seen": "s-1"}),
        ("audit.erase", {"sessions": ["s-1"], "basis": "b", "force": True}),
        ("audit.erase", {"subject": "c" * 513, "basis": "b"}),
        ("audit.hold", {"reason": "r"}),
        ("audit.hold", {"session": "s-1", "agent": "a", "reason": "r"}),
        ("audit.hold", {"agent": "A B", "reason": "r"}),
        ("audit.hold", {"period": "2026", "reason": "r"}),
        ("audit.hold", {"session": "s-1"}),
        ("audit.release", {"hold": "h-1"}),
        ("audit.holds", {"all": True}),
        ("audit.retirement", {"period": "november"}),
        ("audit.retirement", {}),
        ("audit.retire", {"period": "202611", "basis": "b"}),
        ("audit.retire", {"period": "202611", "basis": "b", "packs": []}),
        ("audit.retire", {"period": "202611", "basis": "b", "packs": [{"digest": DIGEST}]}),
        ("audit.retire", {"period": "202611", "basis": "b", "packs": [{"digest": "abc", "sessions": ["s-1"]}]}),
        ("audit.retire", {"period": "202611", "basis": "b", "packs": [{"digest": DIGEST, "sessions": [7]}]}),
        ("audit.retire", {"period": "202611", "packs": [{"digest": DIGEST, "sessions": ["s-1"]}]}),
    ],
    ids=str,
)
async def test_what_is_off_is_refused(world: World, verbs: Handlers, verb: str, params: dict[str, Any]) -> None:
    """Nothing is guessed, and nothing is written."""
    with pytest.raises(UsageError):
        await verbs[verb](ANN, params)
    record = await world.erasure.chain.record()
    assert (record.tombstones, record.holds, record.retired) == ([], {}, {})


async def test_erase_as_it_was_planned(world: World, verbs: Handlers) -> None:
    """The plan and what was done say the same; the principal and the revision stand in the chain."""
    name = await world.session()
    plan = await verbs["audit.erasure"](ANN, {"sessions": [name, name]})
    done = await verbs["audit.erase"](ANN, {"sessions": [name], "basis": "request 17", "seen": [name]})
    assert plan == done
    assert plan == {
        "sessions": [
            {
                "session": name,
                "agent": "triage",
                "events": 2,
                "ended": "2026-11-18T11:06:40.000Z",
                "retention_days": 0,
                "kept_until": None,
                "holds": [],
            }
        ],
        "events": 2,
        "agents": ["triage"],
        "already": [],
        "refused": None,
        "overrule_helps": False,
    }
    assert (await world.erasure.chain.record()).erased[name].actor == "principal/ann"


async def test_holds_are_listed_until_released(world: World, verbs: Handlers) -> None:
    """Each with what it is on, why, by whom and since when."""
    made = await verbs["audit.hold"](ANN, {"agent": "triage", "reason": "a case"})
    assert made == {
        "hold": made["hold"],
        "agent": "triage",
        "reason": "a case",
        "by": "principal/ann",
        "since": "2026-11-18T11:06:40.000Z",
    }
    assert await verbs["audit.holds"](ANN, {}) == [made]
    assert await verbs["audit.release"](ANN, {"hold": made["hold"], "reason": "closed"}) == made
    assert await verbs["audit.holds"](ANN, {}) == []
    with pytest.raises(Conflict, match="over already"):
        await verbs["audit.release"](ANN, {"hold": made["hold"], "reason": "closed"})


async def test_retire_a_month(world: World, tenant: Tenant, verbs: Handlers) -> None:
    """What is dropped is what was planned; a key that a session of another month needs stays."""
    world.around.governance["triage"] = [{"risk": "limited", "retentionDays": 20}]
    old, shared = await world.session(), await world.session(subject="customer-4711")
    period = world.clock.period
    world.clock.later(days=60)
    young = await world.session(subject="customer-4711")
    assert await tenant.retirement.overdue() == (period,)
    plan = await verbs["audit.retirement"](ANN, {"period": period})
    assert {one["session"] for one in plan["sessions"]} == {old, shared}
    assert all(one["bytes"] > 100 for one in plan["sessions"])
    packs = [await tenant.pack(old), await tenant.pack(shared)]
    done = await verbs["audit.retire"](ANN, {"period": period, "basis": "20 days have passed", "packs": packs})
    assert done == plan
    assert not any(period in name for name in await world.raw.streams())
    assert [await world.readable(name) for name in (old, shared, young)] == [False, False, True]
    assert set(await world.keys.sessions()) == {shared, young}
    assert world.around.rooms == {young}
    assert tenant.notary.signed == 1
    assert await tenant.retirement.overdue() == ()
    world.clock.later(days=60)
    last = [await tenant.pack(young)]
    later = f"{world.clock.period}"
    with pytest.raises(NotFound):
        await verbs["audit.retire"](ANN, {"period": later, "basis": "b", "packs": last})
    (begun,) = {name.split("_")[1] for name in await world.raw.streams() if name.startswith("EV_")}
    await verbs["audit.retire"](ANN, {"period": begun, "basis": "b", "packs": last})
    assert await world.keys.sessions() == {}


@pytest.fixture
async def month(world: World) -> list[str]:
    """Two sessions of a month that is over."""
    names = [await world.session(), await world.session()]
    world.clock.later(days=60)
    return names


async def refused(world: World, verbs: Handlers, names: list[str], packs: list[dict[str, Any]], error: type, match: str) -> None:
    """The month is not retired: nothing is written, nothing dropped."""
    before, keys = [stored.data async for stored in world.raw.read("aud.chain")], await world.keys.sessions()
    with pytest.raises(error, match=match):
        await verbs["audit.retire"](ANN, {"period": period_of(names[0]), "basis": "b", "packs": packs})
    assert [stored.data async for stored in world.raw.read("aud.chain")] == before
    assert await world.keys.sessions() == keys
    assert set(names) <= world.around.rooms


async def test_a_pack_that_this_runtime_did_not_make_counts_for_nothing(
    world: World, tenant: Tenant, verbs: Handlers, month: list[str]
) -> None:
    """Nobody's word is taken for what is in a pack: not for one that was never made, nor one of less, nor of other sessions."""
    first, second = month
    alone, both = await tenant.pack(first), await tenant.pack(first, second)
    for packs, match in (
        ([{"digest": DIGEST, "sessions": month}], "has made no pack"),
        ([alone], f"{second} in no pack"),
        ([{**alone, "sessions": month}], "does not hold the sessions that it is said to"),
        ([{**both, "sessions": [first]}, {**alone, "sessions": [second]}], "does not hold the sessions that it is said to"),
        ([await tenant.pack(*month, withheld=1, name="less")], "keeps 1 payloads back"),
    ):
        await refused(world, verbs, month, packs, Conflict, match)
    await verbs["audit.retire"](ANN, {"period": period_of(first), "basis": "b", "packs": [both]})
    assert not any([await world.readable(name) for name in month])


async def test_a_pack_of_a_session_that_went_on_counts_for_nothing(world: World, tenant: Tenant, verbs: Handlers) -> None:
    """It was exported while it ran; what came behind is in no pack."""
    name = await world.session(over=False)
    pack = await tenant.pack(name)
    await world._cancelled(name)
    world.clock.later(days=60)
    await refused(world, verbs, [name], [pack], Conflict, "up to their ends")


async def grow(world: World, name: str) -> None:
    """Somebody adds an event to a session of the month."""
    last = await world.raw.last(session_subject(name))
    assert last is not None
    await world.raw.append(session_subject(name), [Message("more", b"{}")], after=last.position)


async def test_a_month_that_moves_while_it_is_looked_through_is_not_retired(
    world: World, tenant: Tenant, verbs: Handlers, month: list[str]
) -> None:
    """It grew, a session of it is being created, another revision was applied: plan it again."""
    pack = await tenant.pack(*month)
    retire = tenant.notary.retire

    async def more() -> None:
        await grow(world, month[0])

    async def born() -> None:
        world.around.alive.add(month[0][:-3] + "zzz")

    async def declared() -> None:
        world.around.revision += 1

    for happens, match in ((declared, "another revision"), (born, "has grown"), (more, "has grown")):

        async def meanwhile(*args: Any, happens: Any = happens) -> Any:
            await happens()
            return await retire(*args)

        tenant.notary.retire = meanwhile  # type: ignore[method-assign]
        await refused(world, verbs, month, [pack], Conflict, match)
        world.around.alive.clear()


async def test_what_is_declared_is_read_once_for_a_month(world: World, tenant: Tenant, month: list[str]) -> None:
    """However many sessions it has."""
    plan = await tenant.retirement.plan(period_of(month[0]))
    assert (len(plan.candidates), world.around.reads) == (2, 1)


async def test_sessions_get_their_keys_while_a_month_is_looked_through(
    world: World, tenant: Tenant, verbs: Handlers, month: list[str]
) -> None:
    """Looking through a month keeps nobody waiting who creates a session."""
    candidate = world.erasure.candidate

    async def meanwhile(*args: Any) -> Any:
        async with asyncio.timeout(5):
            await world.erasure.assign(world.clock.session(), "customer-4711")
        return await candidate(*args)

    world.erasure.candidate = meanwhile  # type: ignore[method-assign]
    packs = [await tenant.pack(*month)]
    await verbs["audit.retire"](ANN, {"period": period_of(month[0]), "basis": "b", "packs": packs})


async def test_a_stream_that_grew_behind_its_end_is_not_dropped(
    world: World, tenant: Tenant, verbs: Handlers, month: list[str]
) -> None:
    """Somebody added an event behind what was signed and recorded: it is said, and the stream stays as it is."""
    pack = await tenant.pack(*month)
    append = world.erasure.chain.append

    async def and_grow(*args: Any, **words: Any) -> Any:
        done = await append(*args, **words)
        await grow(world, month[0])
        return done

    world.erasure.chain.append = and_grow  # type: ignore[method-assign]
    with pytest.raises(ChainBroken, match="retired with 2 events and has 3"):
        await verbs["audit.retire"](ANN, {"period": period_of(month[0]), "basis": "b", "packs": [pack]})
    assert all([await world.readable(name) for name in month[1:]])


@pytest.mark.parametrize("forged", ["no note", "another key", "another period", "another size"])
async def test_what_nobody_signed_drops_nothing(world: World, tenant: Tenant, month: list[str], forged: str) -> None:
    """Whoever can write into the log and has not the key has no month dropped, neither by the next start nor by a command."""
    period = period_of(month[0])
    world.clock.later(days=1)
    other = await world.session()
    (stream, *_), rooms = [name for name in await world.raw.streams() if period in name], set(world.around.rooms)
    end = await world.raw.end(stream)
    signed = tenant.notary.end(stream, end, [DIGEST])
    lie = {
        "no note": {**signed, "note": "retired, honestly"},
        "another key": tenant.notary.end(stream, end, [DIGEST], SigningKey.from_seed(bytes(32))),
        "another period": signed,
        "another size": {**signed, "size": end + 7},
    }[forged]
    await tenant.say(retired_entry(lie, period_of(other) if forged == "another period" else period, "b", overruled=False))
    world.erasure = world.start()
    for _ in range(2):
        with pytest.raises(ChainBroken):
            await Tenant(world).retirement.finish()
    assert [await world.readable(name) for name in (*month, other)] == [True] * 3
    assert world.around.rooms == rooms
    assert stream in await world.raw.streams()


async def test_another_tenant(verbs: Handlers) -> None:
    """There is nothing to erase in a tenant that there is not."""
    with pytest.raises(NotFound):
        await verbs["audit.holds"](Caller("ann", ("compliance",), "acme", fleet=True), {})
