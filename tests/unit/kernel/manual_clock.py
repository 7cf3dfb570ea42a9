"""A clock that only tests move."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count


class ManualClock:
    """`sleep` waits until `advance` has moved the clock that far."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000
        self._sleeping: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    def now_ms(self) -> int:
        return self.ms

    def monotonic_us(self) -> int:
        return self.ms * 1000

    async def sleep(self, seconds: float) -> None:
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self.ms + round(seconds * 1000), next(self._numbers), awake))
        await awake

    async def advance(self, ms: int) -> None:
        """Move on by `ms`, waking whoever is due in order, each at its time."""
        end = self.ms + ms
        await breathe()
        while self._sleeping and self._sleeping[0][0] <= end:
            when, _, awake = heapq.heappop(self._sleeping)
            self.ms = max(self.ms, when)
            if not awake.done():
                awake.set_result(None)
            await breathe()
        self.ms = end
        await breathe()


async def breathe() -> None:
    """Let every task go on until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)
