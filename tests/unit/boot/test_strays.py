"""A workspace goes only when the log itself has said that there is no session; whatever may belong to one stays."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.errors import ChainBroken, LogUnavailable
from agentos.abi.ids import new_id
from agentos.boot.strays import AGE_MS, Strays
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject
from agentos.kernel.workspace import Workspaces
from agentos.projections.store import Store

NOW_MS = 1_795_000_000_000


class Dice:
    def __init__(self) -> None:
        self.rolled = 0

    def token(self, size: int) -> bytes:
        self.rolled += 1
        return self.rolled.to_bytes(size, "big")


class At:
    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms


@dataclass
class Tenant:
    """One tenant, as far as it is looked at."""

    store: Store
    streams: MemoryLog = field(default_factory=MemoryLog)
    name: str = "default"


class World:
    """A tenant with workspaces; `alive` are sessions that run or are being created, `broken` is what is wrong with the log."""

    def __init__(self, folder: Path) -> None:
        self.tenant = Tenant(Store.open(folder / "default.db", tenant="default"))
        self.workspaces = Workspaces(folder / "workspaces")
        self.alive: set[str] = set()
        self.broken: Exception | None = None
        self.destroyed: list[str] = []
        self._dice = Dice()

    def room(self, *, age_ms: int = 2 * AGE_MS, touched_ms: int = 2 * AGE_MS, name: str | None = None) -> str:
        """A workspace with a file in it, of a session whose id is so old, and which was last changed so long ago."""
        made = name or new_id("s", At(NOW_MS - age_ms), self._dice)
        self.workspaces.create("default", made, None)
        folder = self.workspaces.path("default", made)
        (folder / "input").mkdir()
        (folder / "input" / "goal.txt").write_text("somebody's words")
        os.utime(folder, ((NOW_MS - touched_ms) / 1000,) * 2)
        return made

    async def logged(self, session: str) -> str:
        subject = session_subject(session)
        await self.tenant.streams.append(subject, [Message(f"e-{session}", b"{}")], after=0)
        return session

    async def month(self) -> None:
        """Another session of the month, so that the log knows of it."""
        await self.logged(new_id("s", At(NOW_MS - 2 * AGE_MS), self._dice))

    async def sweep(self) -> frozenset[str]:
        """Look once; the workspaces that are left."""
        parts: Any = self
        await Strays(parts, parts, parts, self.workspaces, parts, At(NOW_MS)).sweep()
        return self.workspaces.sessions("default")

    def destroy(self, tenant: str, session: str) -> None:
        """What was kept of its files goes with a workspace."""
        assert tenant == "default"
        self.destroyed.append(session)

    def all(self) -> tuple[Tenant, ...]:
        return (self.tenant,)

    def get(self, tenant: str) -> World:
        assert tenant == "default"
        return self

    async def now(self) -> None:
        if self.broken is not None:
            raise self.broken

    def live(self, tenant: str) -> frozenset[str]:
        assert tenant == "default"
        return frozenset(self.alive)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_what_never_came_to_be_is_removed(world: World) -> None:
    """With what a tool or a person has put there; the session that has an event keeps its own."""
    gone, kept = world.room(), await world.logged(world.room())
    folder = world.workspaces.path("default", gone)
    (folder / "input").chmod(0)
    assert (await world.sweep(), world.destroyed) == ({kept}, [gone])


@pytest.mark.parametrize(
    "room",
    [
        {"age_ms": AGE_MS - 1},
        {"touched_ms": AGE_MS - 1},
        {"name": "s-notes"},
        {"name": "kept-by-hand"},
        {"age_ms": -AGE_MS},
    ],
    ids=["young", "just changed", "no id of ours", "a folder of somebody's", "of the future"],
)
async def test_what_is_young_or_odd_stays(world: World, room: dict[str, Any]) -> None:
    """An hour after its name and its last change, and only what is named as sessions are."""
    await world.month()
    name = world.room(**room)
    assert await world.sweep() == {name}


async def test_what_is_being_created_stays(world: World) -> None:
    """However old its name is: the clock was set, or the log is slow."""
    await world.month()
    name = world.room()
    world.alive.add(name)
    assert await world.sweep() == {name}


@pytest.mark.parametrize("error", [LogUnavailable("the log is away"), ChainBroken("the log was changed")])
async def test_a_log_that_is_away_or_was_changed_proves_nothing(world: World, error: Exception) -> None:
    """What it lacks now it may have had."""
    await world.month()
    name = world.room()
    world.broken = error
    assert await world.sweep() == {name}


async def test_a_log_that_does_not_answer_for_the_session_proves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes away in the middle."""
    await world.month()
    name = world.room()

    async def away(_subject: str) -> None:
        raise LogUnavailable("the log is away")

    monkeypatch.setattr(world.tenant.streams, "last", away)
    assert await world.sweep() == {name}


async def test_a_log_that_knows_nothing_of_the_month_proves_nothing(world: World) -> None:
    """A runtime that was started on another, empty log does not empty this home."""
    name = world.room()
    assert await world.sweep() == {name}
    other = new_id("s", At(NOW_MS - 90 * 24 * AGE_MS), Dice())
    await world.logged(other)
    assert await world.sweep() == {name}


async def test_a_file_or_a_link_in_the_place_of_a_workspace_stays(world: World, tmp_path: Path) -> None:
    """Neither is one, and nothing that a link leads to is touched."""
    await world.month()
    name = world.room()
    folder = world.workspaces.path("default", name)
    outside = tmp_path / "outside"
    folder.rename(outside)
    folder.symlink_to(outside, target_is_directory=True)
    assert await world.sweep() == {name}
    assert (outside / "input" / "goal.txt").read_text() == "somebody's words"
