"""What is to run and runs nowhere is taken over: all of it at the start, later what stood at two looks; one holds up no other."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentos.abi.errors import ChainBroken, LogUnavailable
from agentos.boot import standing
from agentos.boot.standing import LEAVE_MS, Standing


class Projector:
    async def caught_up(self) -> None:
        return


@dataclass
class Tenant:
    """A tenant; `states` are its sessions as the index has them."""

    states: dict[str, str] = field(default_factory=dict)
    name: str = "default"
    projector: Projector = field(default_factory=Projector)
    broken: Exception | None = None

    @property
    def store(self) -> Tenant:
        return self


@dataclass
class World:
    """Tenants, the sessions that run here, and a clock; `fails` are those that cannot be resumed."""

    tenants: list[Tenant]
    tasks: set[tuple[str, str]] = field(default_factory=set)
    fails: dict[str, Exception] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)
    adopted: set[str] = field(default_factory=set)
    ms: int = 0

    def all(self) -> tuple[Tenant, ...]:
        return tuple(self.tenants)

    def now_ms(self) -> int:
        return self.ms

    def runs(self, tenant: str, session: str) -> bool:
        return (tenant, session) in self.tasks

    def adopt(self, _tenant: str, sessions: list[str]) -> None:
        self.adopted |= set(sessions)

    async def resume(self, _tenant: str, session: str) -> None:
        self.resumed.append(session)
        if session in self.fails:
            raise self.fails[session]

    async def recover(self, _tenant: str, _over: Any) -> None:
        return


@pytest.fixture(autouse=True)
def _index(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is what the tenant says."""

    def named(store: Tenant, *, state: str = "", origin: str = "", live_only: bool = False, limit: int = 0) -> list[str]:
        del limit, origin, live_only
        if store.broken is not None:
            raise store.broken
        return sorted(name for name, at in store.states.items() if at == state)

    monkeypatch.setattr(standing.read, "names", named)
    monkeypatch.setattr(standing.read, "sessions", lambda store, **words: [{"id": name} for name in named(store, **words)])


def made(world: Any) -> Standing:
    return Standing(world, world, world, world, world, world)


async def test_at_the_start_everything_that_was_left_is_taken_over() -> None:
    """What runs or is deferred is resumed, what waits for a person is counted and not started, what is over is left alone."""
    states = {"s-1": "running", "s-2": "waiting", "s-3": "paused", "s-4": "finished", "s-5": "running", "s-6": "deferred"}
    world = World([Tenant(states)])
    await made(world).take_over(world.tenants[0])
    assert (world.resumed, world.adopted) == (["s-6", "s-1", "s-5"], {"s-2", "s-3"})


@pytest.mark.parametrize("error", [ChainBroken("edited"), LogUnavailable("away")])
async def test_one_that_cannot_be_read_holds_up_no_other(error: Exception) -> None:
    """It is said, and left alone."""
    world = World([Tenant({"s-1": "running", "s-2": "running"})], fails={"s-1": error})
    await made(world).take_over(world.tenants[0])
    assert world.resumed == ["s-1", "s-2"]


async def test_what_stands_at_two_looks_is_taken_over() -> None:
    """At the first one its own task may just have ended; what runs here, or has gone meanwhile, is not touched."""
    tenant = Tenant({"s-1": "running", "s-2": "running", "s-3": "running"})
    world = World([tenant], tasks={("default", "s-2")})
    looking = made(world)
    await looking.look()
    assert world.resumed == []
    tenant.states["s-3"] = "finished"
    await looking.look()
    assert world.resumed == ["s-1"]


async def test_one_that_failed_is_left_alone_for_a_while() -> None:
    """Not asked again at each look, and not forgotten either."""
    world = World([Tenant({"s-1": "running"})], fails={"s-1": ChainBroken("edited")})
    looking = made(world)
    for _ in range(4):
        await looking.look()
    assert world.resumed == ["s-1"]
    world.ms += LEAVE_MS
    await looking.look()
    assert world.resumed == ["s-1", "s-1"]


async def test_an_index_that_is_broken_holds_up_no_other_tenant() -> None:
    """Its sessions are looked up again once it is mended."""
    first, second = Tenant({"s-1": "running"}, "acme", broken=sqlite3.DatabaseError("malformed")), Tenant({"s-2": "running"})
    world = World([first, second])
    looking = made(world)
    for _ in range(2):
        await looking.look()
    assert world.resumed == ["s-2"]
    first.broken = None
    for _ in range(2):
        await looking.look()
    assert "s-1" in world.resumed
