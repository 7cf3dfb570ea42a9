"""A world for triggers: records and a log that outlive the runtime, sessions that start and end, a runtime that dies anywhere.

Each step that touches the world is one at which a runtime may die: before it, or right behind it. A dead one does nothing more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from agentos.abi.errors import Conflict, Frozen, LogUnavailable, NotFound
from agentos.kernel.firing import Cron, Missed, Overlap, Source, TriggerSpec
from agentos.projections.session import SessionState, State
from agentos.scheduler.cron import schedule
from agentos.scheduler.precondition import Precondition
from agentos.supervisor.launch import PastRun
from agentos.supervisor.progress import Moved
from agentos.supervisor.run_ends import Ended
from agentos.supervisor.triggers import Triggers

MINUTE = 60_000
START = 1_795_392_000_000
"""2026-11-23T00:00:00Z."""


class Died(BaseException):
    """The runtime is gone, in the middle of something."""


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.ms = START

    def now_ms(self) -> int:
        return self.ms

    def monotonic_us(self) -> int:
        return self.ms * 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(3600)


@dataclass
class Run:
    """A session as the log has it."""

    id: str
    agent: str
    trigger: str
    firing: str
    actor: str
    created_ms: int
    files: bytes | None
    after: tuple[str, ...]
    labels: tuple[str, ...]
    file_labels: Mapping[str, Sequence[str]] | None
    origin: Mapping[str, Any]
    outcome: str | None = None
    ended_ms: int = 0
    result: str | None = None
    reason: str = ""


@dataclass
class World:
    """What outlives runtimes."""

    triggers: dict[str, TriggerSpec] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    records: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    revision: int = 0
    log: dict[str, Run] = field(default_factory=dict)
    switched: dict[str, tuple[bool, int]] = field(default_factory=dict)
    most_live: int = 1000
    frozen: set[str] = field(default_factory=set)
    """Agents that a kill switch holds."""
    away: bool = False
    shuffle: random.Random | None = None
    """Gives way to others by chance, so that two runtimes cross everywhere."""

    def runs(self, trigger: str = "t") -> list[Run]:
        return [run for run in self.log.values() if run.trigger == trigger]

    def open_runs(self, trigger: str = "t") -> list[Run]:
        return [run for run in self.runs(trigger) if run.outcome is None]

    def end(self, session: str, outcome: str = "finished", result: str = "well") -> None:
        run = self.log[session]
        run.outcome, run.ended_ms, run.result = outcome, self.clock.ms, result

    def declare(self, on: Source, name: str = "t", **more: Any) -> TriggerSpec:
        made = self.triggers[name] = TriggerSpec(name, more.pop("agent", "worker"), "do it", on, **more)
        return made


def cron(text: str = "* * * * *", missed: Missed = Missed.LAST, zone: str = "UTC") -> Cron:
    return Cron(schedule(text, zone), missed)


class Life:
    """One runtime in the world, until it dies: after `left` steps, or when told."""

    def __init__(self, world: World, left: int | None = None) -> None:
        self.world = world
        self.left = left
        self.dead = False
        self.steps = 0
        self.here: set[str] = set()
        source = SimpleNamespace(tenants=frozenset({"default"}), current=self._current)
        self.triggers = Triggers(lambda _: self, source, self, self, self, self, world.clock)  # type: ignore[arg-type]

    def _current(self, tenant: str) -> Any:
        if tenant != "default":
            raise NotFound(f"there is no tenant {tenant}")
        return SimpleNamespace(triggers=self.world.triggers)

    async def step(self) -> None:
        """One touch of the world."""
        if self.world.shuffle is not None:
            for _ in range(self.world.shuffle.randrange(4)):
                await asyncio.sleep(0)
        self.steps += 1
        if self.left is not None and self.steps > self.left:
            self.dead = True
        if self.dead:
            raise Died
        if self.world.away:
            raise LogUnavailable("the log is away")

    # ProgressStore

    async def read(self, key: str) -> Any:
        if key == "default":  # the switches share this name
            await self.step()
            return dict(self.world.switched)
        await self.step()
        return self.world.records.get(key)

    async def write(self, key: str, data: bytes, *, expected: int | None) -> int:
        await self.step()
        if expected is not None and self.world.records.get(key, (b"", 0))[1] != expected:
            raise Moved
        self.world.revision += 1
        self.world.records[key] = (data, self.world.revision)
        revision = self.world.revision
        await self.step()
        return revision

    async def forget(self, key: str) -> None:
        await self.step()
        self.world.records.pop(key, None)

    async def all(self) -> list[tuple[str, bytes]]:
        await self.step()
        return [(key, data) for key, (data, _) in self.world.records.items()]

    # Tenure

    async def hold(self, tenant: str) -> None:
        await self.step()

    # Starts

    def check_run(self, tenant: str, agent: str) -> None:
        if agent in self.world.frozen:
            raise Frozen(f"agent {agent} is frozen")

    async def create(
        self,
        tenant: str,
        agent: str,
        goal: str,
        archive: bytes | None,
        actor: str,
        *,
        priority: str | None = None,
        due_in_ms: int | None = None,
        begin: Precondition | None = None,
        labels: Sequence[str] = (),
        file_labels: Mapping[str, Sequence[str]] | None = None,
        session: str | None = None,
        origin: Mapping[str, Any] = {},
    ) -> SessionState:
        await self.step()
        assert session is not None
        if session not in self.world.log:
            self.check_run(tenant, agent)
            if agent == "nobody":
                raise NotFound(f"no agent {agent}")
            if sum(run.outcome is None for run in self.world.log.values()) >= self.world.most_live:
                raise Conflict("too many live sessions")
            for name in begin.sessions if begin else ():
                assert name in self.world.log, "a run waits for one that does not exist"
            firing = origin["firing"]
            after = begin.sessions if begin else ()
            told = (firing["trigger"], firing["id"], actor, self.world.clock.ms, archive, after)
            self.world.log[session] = Run(session, agent, *told, tuple(labels), file_labels, origin)
            self.here.add(session)
        await self.step()
        return SessionState(id=session)

    async def cancel(self, tenant: str, session: str, *, reason: str, actor: str) -> SessionState:
        await self.step()
        run = self.world.log[session]
        if run.outcome is not None:
            raise Conflict(f"session {session} is over")
        self.world.end(session, "cancelled")
        run.reason = reason
        await self.step()
        return SessionState(id=session)

    def live(self, tenant: str) -> frozenset[str]:
        return frozenset(session for session in self.here if self.world.log[session].outcome is None)

    # Log

    async def outcome(self, tenant: str, session: str) -> str | None:
        await self.step()
        return self.world.log[session].outcome if session in self.world.log else "gone"

    async def runs_of(self, tenant: str, trigger: str, *, most: int) -> Sequence[PastRun]:
        await self.step()
        runs = [
            PastRun(run.id, run.firing, run.outcome or "running", run.outcome is not None, run.created_ms)
            for run in self.world.runs(trigger)
        ]
        return runs[::-1][:most]

    async def began(self, tenant: str, trigger: str, firing: str) -> str | None:
        await self.step()
        return next((run.id for run in self.world.runs(trigger) if run.firing == firing), None)

    async def ended(self, tenant: str, since_ms: int) -> Sequence[Ended]:
        await self.step()
        runs = [run for run in self.world.log.values() if run.outcome is not None and run.ended_ms >= since_ms]
        return [Ended(run.id, run.agent, run.outcome or "", run.ended_ms) for run in runs]

    async def state(self, tenant: str, session: str) -> SessionState:
        await self.step()
        run = self.world.log[session]
        if run.outcome is not None:
            # As the sessions do, each time that one that is over is looked at.
            self.triggers.ended(tenant, session)
        state = SessionState(id=session, tenant=tenant, agent=run.agent, labels=frozenset({"internal"}), result=run.result)
        return replace(state, state=State(run.outcome or "running"), firing=run.origin.get("firing"))

    # What a test does with it

    async def look(self) -> None:
        """What the runtime does of its own accord, once."""
        await self.triggers._timetable.look()
        await self.triggers._run_ends.tell()
        await self.triggers._run_ends.look()


async def lived(world: World, work: Callable[[Life], Any], *, left: int | None) -> bool:
    """Whether a runtime that dies after `left` steps got through `work`."""
    life = Life(world, left)
    try:
        await work(life)
    except Died:
        return False
    return True


__all__ = ["MINUTE", "START", "Clock", "Died", "Life", "Overlap", "Run", "World", "cron", "lived"]
