"""Freezes that last: in every chain that they hold, completed where a crash left them half written, and never lost in silence."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentos.abi.errors import ChainBroken, Conflict, LogUnavailable, NotFound
from agentos.abi.freeze import FreezeScope, ScopeKind
from agentos.abi.ids import FLEET
from agentos.audit.audit_chain import AuditChain, frozen_entry, thawed_entry
from agentos.boot.freezing import Freezing
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.kernel.freeze import Freezes

TENANTS = ("acme", "beta", "core")
ALL = FreezeScope(ScopeKind.FLEET)


class Hands:
    """Clock and randomness."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000
        self._random = random.Random(5)

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms

    def monotonic_us(self) -> int:
        return self.now_ms() * 1000

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class World:
    """Logs that outlive runtimes; `away` are those that take nothing in."""

    def __init__(self) -> None:
        self.hands = Hands()
        self.logs = {name: MemoryLog() for name in TENANTS}
        self.away: set[str] = set()
        self.broken: set[str] = set()
        self.hold: asyncio.Event | None = None
        """What appends wait for."""
        self.waiting = 0
        self.fresh()

    def fresh(self) -> Freezing:
        """As after a restart."""
        self.freezes = Freezes()
        chains = {name: AuditChain(self._log(name), name, self.hands, self.hands) for name in TENANTS}
        agents = {"triage": SimpleNamespace(program="support")}
        current: Any = lambda _: SimpleNamespace(agents=agents, revision=1)  # noqa: E731
        self.chains = chains
        self.freezing = Freezing(self.freezes, chains.__getitem__, current, self.hands, self.hands)
        return self.freezing

    def _log(self, name: str) -> Any:
        log, world = self.logs[name], self

        class Log:
            def __getattr__(self, word: str) -> Any:
                if name in world.broken:
                    raise ChainBroken("is no chain")
                if name in world.away and word == "append":
                    raise LogUnavailable("away")
                return self._held if word == "append" and world.hold is not None else getattr(log, word)

            async def _held(self, *args: Any, **how: Any) -> Any:
                assert world.hold is not None
                world.waiting += 1
                await world.hold.wait()
                return await log.append(*args, **how)

        return Log()

    async def freeze(self, scope: FreezeScope = ALL) -> str:
        told = await self.freezing.freeze(scope, "acme", reason="x", actor="principal/ann", since_us=0)
        return cast("str", told["freeze"])

    async def says(self) -> dict[str, tuple[list[str], list[str]]]:
        """By tenant: which freezes are in force, and which were."""
        records = {name: await self.chains[name].record() for name in TENANTS}
        return {name: (list(one.frozen), list(one.thawed)) for name, one in records.items()}

    async def half(self, *entries: Any) -> None:
        """What a crash has left in the first tenant's chain alone."""

        async def entry(_: Any) -> Any:
            return entries

        await self.chains["acme"].append(entry, actor="principal/ann", revision=1)


@pytest.fixture
async def world() -> Any:
    made = World()
    await made.freezing.open(TENANTS)
    yield made
    await made.freezing.close()


async def test_the_fleet_is_frozen_in_every_chain_and_thawed_in_every_chain(world: World) -> None:
    """Each tenant can show from its own chain when it was frozen; after a restart all is as it was."""
    name = await world.freeze()
    assert await world.says() == dict.fromkeys(TENANTS, ([name], []))
    await world.fresh().open(TENANTS)
    assert [(one.id, one.tenant) for one in world.freezes.all()] == [(name, FLEET)]
    await world.freezing.thaw(name, reason="over", actor="principal/bob")
    assert await world.says() == dict.fromkeys(TENANTS, ([], [name]))
    assert world.freezes.all() == ()


async def test_a_half_written_freeze_is_completed(world: World) -> None:
    """What a crash left in one chain holds all tenants at the next start, and stands in all chains then."""
    await world.half(frozen_entry("f-1", ALL, "x", 5))
    await world.fresh().open(TENANTS)
    assert [one.id for one in world.freezes.all()] == ["f-1"]
    assert await world.says() == dict.fromkeys(TENANTS, (["f-1"], []))


async def test_a_half_written_thaw_is_completed(world: World) -> None:
    """Somebody who may has said that it is over, and that is on record."""
    name = await world.freeze()
    await world.half(thawed_entry(name, "over"))
    await world.fresh().open(TENANTS)
    assert world.freezes.all() == ()
    assert await world.says() == dict.fromkeys(TENANTS, ([], [name]))


async def test_a_tenant_that_comes_later_is_frozen_with_the_fleet(world: World) -> None:
    """And says so in its own chain."""
    world.fresh()
    await world.freezing.open(TENANTS[:2])
    name = await world.freeze()
    await world.freezing.open(TENANTS[2:])
    assert await world.says() == dict.fromkeys(TENANTS, ([name], []))


async def test_it_holds_while_the_log_is_away_and_is_recorded_later(world: World) -> None:
    """The command says that it is not durable; nothing in memory waits for the log. A thaw has to be durable first."""
    world.away = {"beta"}
    with pytest.raises(LogUnavailable, match="is frozen by f-"):
        await world.freeze()
    (freeze,) = world.freezes.all()
    with pytest.raises(LogUnavailable):
        await world.freezing.thaw(freeze.id, reason="over", actor="principal/bob")
    assert world.freezes.all() == (freeze,)
    world.away = set()
    async with asyncio.timeout(20):
        while (await world.says())["beta"] != ([freeze.id], []):
            await asyncio.sleep(0.001)


async def test_a_tenant_whose_chain_cannot_be_read_stands_still(world: World) -> None:
    """Nobody can tell what is frozen in it, so all of it is, and no thaw lifts that."""
    world.broken = {"beta"}
    await world.fresh().open(TENANTS)
    (freeze,) = world.freezes.all()
    assert (freeze.tenant, freeze.scope.kind) == ("beta", ScopeKind.TENANT)
    with pytest.raises(Conflict, match="cannot be read"):
        await world.freezing.thaw(freeze.id, reason="over", actor="principal/bob")


@pytest.mark.parametrize("scope", [FreezeScope(ScopeKind.AGENT, "triag"), FreezeScope(ScopeKind.PROGRAM, "triage")])
async def test_a_slip_of_the_pen_freezes_nothing_and_says_so(world: World, scope: FreezeScope) -> None:
    """Whoever believes to have stopped something must have."""
    with pytest.raises(NotFound):
        await world.freeze(scope)
    assert world.freezes.all() == ()


async def test_it_is_recorded_though_nobody_waits_for_the_answer(world: World) -> None:
    """Whoever throws the switch and is cut off, or stops the runtime at once, finds it thrown at the next start."""
    world.hold = asyncio.Event()
    asked = asyncio.create_task(world.freeze())
    async with asyncio.timeout(20):
        while not world.waiting:
            await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait((asked,))
    closing = asyncio.create_task(world.freezing.close())
    await asyncio.sleep(0)
    world.hold.set()
    await closing
    (freeze,) = world.freezes.all()
    world.hold = None
    await world.fresh().open(TENANTS)
    assert [one.id for one in world.freezes.all()] == [freeze.id]


async def test_a_thaw_is_told_to_what_was_put_off(world: World) -> None:
    """Triggers and standing agents that a freeze has held are looked at again without delay."""
    told: list[bool] = []
    world.freezing.thawed.append(lambda: told.append(not world.freezes.all()))
    name = await world.freeze()
    assert told == []
    await world.freezing.thaw(name, reason="over", actor="principal/bob")
    assert told == [True]
