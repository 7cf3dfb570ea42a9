"""Locks in memory, with the real rules: compare and set, one revision for all. And a clock that only a test moves."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from dataclasses import dataclass, field, replace

from agentos.abi.errors import LogUnavailable
from agentos.drivers.locks import Lock, Moved
from agentos.kernel.port import Configuration
from agentos.scheduler.declared import BUILT_IN


class Hands:
    """A clock whose sleepers wake when `move` passes their time."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000
        self._sleepers: list[tuple[int, int, asyncio.Event]] = []
        self._numbers = 0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_us(self) -> int:
        return self.ms * 1000

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._numbers += 1
        heapq.heappush(self._sleepers, (self.ms + int(seconds * 1000), self._numbers, woken))
        await woken.wait()

    async def move(self, ms: int) -> None:
        """Let so much time pass, waking sleepers on the way."""
        until = self.ms + ms
        while self._sleepers and self._sleepers[0][0] <= until:
            self.ms, _, woken = heapq.heappop(self._sleepers)
            woken.set()
            await settle()
        self.ms = until
        await settle()


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(60):
        await asyncio.sleep(0)


@dataclass
class MemoryLocks:
    """`LockStore`. `away`: nothing can be read or written. Each step gives way to others, so that writes can cross."""

    locks: dict[str, Lock] = field(default_factory=dict)
    revision: int = 1000
    away: bool = False
    written: list[Lock] = field(default_factory=list)

    async def read(self, resource: str) -> Lock:
        await self._step()
        return self.locks.get(resource, Lock(resource))

    async def write(self, lock: Lock) -> Lock:
        await self._step()
        if self.locks.get(lock.resource, Lock(lock.resource)).revision != lock.revision:
            raise Moved
        self.revision += 1
        made = self.locks[lock.resource] = Lock.from_bytes(lock.to_bytes(), self.revision)
        assert made == replace(lock, revision=self.revision)
        self.written.append(made)
        await asyncio.sleep(0)
        return made

    async def tidy(self) -> int:
        return 0

    async def all(self) -> list[Lock]:
        await self._step()
        return [self.locks[name] for name in sorted(self.locks)]

    async def _step(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise LogUnavailable("the store is away")


class Lent:
    """`Boosts` that only counts, by the heights of the built-in classes."""

    def __init__(self) -> None:
        self.now: Counter[tuple[str, str]] = Counter()

    def boost(self, session: str, priority: str) -> None:
        self.now[session, priority] += 1

    def unboost(self, session: str, priority: str) -> None:
        assert self.now[session, priority] > 0
        self.now[session, priority] -= 1

    def height(self, priority: str) -> tuple[bool, int]:
        return BUILT_IN[priority].height

    @property
    def all(self) -> set[tuple[str, str]]:
        """Who counts as more than it is: session, and the highest class that is lent to it."""
        lent = +self.now
        return {
            (session, max((own for one, own in lent if one == session), key=self.height)) for session in {one for one, _ in lent}
        }


@dataclass
class Source:
    """`ConfigurationSource` of one configuration."""

    configuration: Configuration

    def current(self, tenant: str) -> Configuration:
        del tenant
        return self.configuration
