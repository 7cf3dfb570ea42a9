"""The verbs of erasure and retention: what they take, strictly, and what they answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "audit"))

from audit_world import World

from agentos.abi.errors import ChainBroken, Conflict, NotFound, UsageError
from agentos.audit.retirement import Retirement
from agentos.control.erasure_verbs import ErasureVerbs
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject

ANN = Caller("ann", ("compliance",), "default", fleet=False)
DIGEST = "sha256:" + "ab" * 32


class Streams:
    """`audit.retirement.Streams` in memory."""

    def __init__(self, world: World) -> None:
        self.log = world.raw

    async def drop(self, names: list[str]) -> None:
        for name in names:
            if name in self.log._streams:
                self.log.drop(name)


class Notary:
    """Says of each stream how long it is; signs nothing."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.signed = 0

    async def retire(self, streams: tuple[str, ...], packs: list[str]) -> list[dict[str, Any]]:
        ends = await self._world.raw.ends()
        return [
            {"stream": name, "size": ends[name], "root": "00" * 32, "packs": list(packs), "note": "a note"} for name in streams
        ]

    async def sign(self) -> None:
        self.signed += 1


class Tenant:
    """One tenant's erasures."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.notary = Notary(world)
        self.retirement = Retirement(world.erasure, Streams(world), self.notary, world.clock)  # type: ignore[arg-type]

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
    world.around.declared["triage"] = [{"risk": "limited", "retentionDays": 20}]
    old, shared = await world.session(), await world.session(subject="customer-4711")
    period = world.clock.period
    world.clock.later(days=60)
    young = await world.session(subject="customer-4711")
    assert await tenant.retirement.overdue() == (period,)
    plan = await verbs["audit.retirement"](ANN, {"period": period})
    assert {one["session"] for one in plan["sessions"]} == {old, shared}
    assert all(one["bytes"] > 100 for one in plan["sessions"])
    packs = [{"digest": DIGEST, "sessions": [old]}, {"digest": DIGEST[:-1] + "0", "sessions": [shared]}]
    done = await verbs["audit.retire"](ANN, {"period": period, "basis": "20 days have passed", "packs": packs})
    assert done == plan
    assert not any(period in name for name in await world.raw.streams())
    assert [await world.readable(name) for name in (old, shared, young)] == [False, False, True]
    assert set(await world.keys.sessions()) == {shared, young}
    assert world.around.rooms == {young}
    assert tenant.notary.signed == 1
    assert await tenant.retirement.overdue() == ()
    world.clock.later(days=60)
    last = [{"digest": DIGEST, "sessions": [young]}]
    later = f"{world.clock.period}"
    with pytest.raises(NotFound):
        await verbs["audit.retire"](ANN, {"period": later, "basis": "b", "packs": last})
    (begun,) = {name.split("_")[1] for name in await world.raw.streams() if name.startswith("EV_")}
    await verbs["audit.retire"](ANN, {"period": begun, "basis": "b", "packs": last})
    assert await world.keys.sessions() == {}


async def test_a_stream_that_grew_behind_its_end_is_not_dropped(world: World, tenant: Tenant, verbs: Handlers) -> None:
    """Somebody added an event behind what was signed: it is said, and the stream stays as it is."""
    name = await world.session()
    period = world.clock.period
    world.clock.later(days=60)
    retire = tenant.notary.retire

    async def and_grow(streams: tuple[str, ...], packs: list[str]) -> list[dict[str, Any]]:
        said = await retire(streams, packs)
        last = await world.raw.last(session_subject(name))
        assert last is not None
        await world.raw.append(session_subject(name), [Message("more", b"{}")], after=last.position)
        return said

    tenant.notary.retire = and_grow  # type: ignore[method-assign]
    with pytest.raises(ChainBroken, match="retired with 2 events and has 3"):
        await verbs["audit.retire"](ANN, {"period": period, "basis": "b", "packs": [{"digest": DIGEST, "sessions": [name]}]})
    assert await world.raw.last(session_subject(name)) is not None


async def test_another_tenant(verbs: Handlers) -> None:
    """There is nothing to erase in a tenant that there is not."""
    with pytest.raises(NotFound):
        await verbs["audit.holds"](Caller("ann", ("compliance",), "acme", fleet=True), {})
