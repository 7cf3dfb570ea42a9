"""What the runtime does by a schedule: bounded, over all tenants, one tenant's trouble being no other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from agentos.abi.errors import LogUnavailable, NotFound, Unavailable
from agentos.abi.ids import FLEET
from agentos.boot import daemons
from agentos.boot.daemons import Chores
from agentos.projections.compaction import Compacted
from agentos.projections.lost import Lost
from agentos.scheduler.cron import schedule


@dataclass
class World:
    """Tenants, sessions with lost calls, and what was done."""

    names: tuple[str, ...] = ("acme", "default")
    lost: dict[str, set[str]] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)
    done: list[tuple[str, str]] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    """Lost calls that their tools can tell of."""
    late: bool = False

    def all(self) -> list[Any]:
        return [SimpleNamespace(name=name, store=name, snapshots=self, streams=self) for name in self.names]

    def current(self, _tenant: str) -> Any:
        able = SimpleNamespace(driver={"mcp": {"reconcile": "ask"}})
        return SimpleNamespace(tools={"pay": able, "write": SimpleNamespace(driver={"builtin": {}})})

    @asynccontextmanager
    async def journal(self, _tenant: str, session: str) -> AsyncIterator[Any]:
        if session in self.fails:
            raise self.fails[session]
        lost = frozenset(self.lost[session])
        yield SimpleNamespace(session=session, state=SimpleNamespace(lost=lost, over=False, id=session))

    async def settle(self, journal: Any, _configuration: Any) -> None:
        self.done.append(("asked", journal.session))
        journal.state.lost -= self.known

    def runs(self, _tenant: str, session: str) -> bool:
        return session in self.running

    async def release(self, session: str) -> None:
        self.done.append(("released", session))

    def get(self, tenant: str) -> Any:
        if tenant in self.fails:
            raise self.fails[tenant]
        return self

    async def now(self) -> None:
        self.done.append(("signed", ""))
        if self.late:
            await asyncio.Event().wait()

    def __getitem__(self, _number: int) -> World:
        return self

    async def overdue(self) -> tuple[str, ...]:
        return ("202501", "202502")

    async def streams(self) -> tuple[str, ...]:
        return ("EV_202611_0",)

    async def sweep(self, streams: Any = None) -> int:
        return 3 if streams is None else 2


def made(world: Any, **more: Any) -> Chores:
    return Chores(
        tenants=world,
        sessions=world,
        source=world,
        drivers=world,
        reconciler=world,
        checkpoints=world,
        erasures=world,
        strays=world,
        frozen=lambda state, _configuration: state.id if state.id in world.frozen else None,
        **{"replicated": lambda: False} | more,
    )


def test_every_schedule_is_one() -> None:
    """And no two have the same name."""
    found = made(World()).daemons()
    for one in found:
        schedule(one.schedule)
    assert [one.name for one in found] == ["checkpoint", "compact", "reconcile", "retention", "strays"]


async def test_lost_calls_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sessions whose tool can tell; the servers started for one that does not run are ended; a frozen one is left alone."""
    world = World(names=("default",), lost={name: {"c1", "c2"} for name in ("s-1", "s-2", "s-3", "s-4")}, known={"c1"})
    world.running, world.frozen, world.fails = {"s-1"}, {"s-3"}, {"s-4": LogUnavailable("away")}
    found = [Lost(name, "c1", "pay", "a") for name in world.lost] + [Lost("s-9", "c1", "write", "a")]
    monkeypatch.setattr(daemons, "lost", lambda _store, *, limit: found[:limit])
    assert await made(world).reconcile() == {"asked": 3, "settled": 2}
    assert world.done == [("asked", "s-1"), ("asked", "s-2"), ("released", "s-2")]


async def test_a_checkpoint_is_signed_of_every_log() -> None:
    """The registry's too; a tenant whose log is away is named, and keeps no other one from its own."""
    world = World(fails={"acme": LogUnavailable("away")})
    assert await made(world).checkpoint() == {"checkpoints": 2, "failed": ["acme"]}
    assert await made(World(fails={"acme": NotFound("gone")})).checkpoint() == {"checkpoints": 2}
    assert await made(World()).checkpoint() == {"checkpoints": len(("acme", "default", FLEET))}


async def test_a_run_takes_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is left, and told."""
    monkeypatch.setattr(daemons, "LONGEST_S", 0.01)
    with pytest.raises(Unavailable, match="daemon checkpoint was not done"):
        await made(World(late=True)).checkpoint()


async def test_retention_only_tells() -> None:
    """Of each tenant which months need not be kept any more; nothing is dropped."""
    assert await made(World()).retention() == {"overdue": 4}


async def test_strays_and_snapshots_and_free_pages_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that somebody copies page by page is left alone."""
    assert await made(World()).strays() == {"removed": 3}
    monkeypatch.setattr(daemons, "compact", lambda _store: Compacted(10_000, 4_000))
    assert await made(World()).compact() == {"snapshots": 4, "bytes": 12_000, "given_up": 0}
    assert await made(World(), replicated=lambda: True).compact() == {"snapshots": 4}
