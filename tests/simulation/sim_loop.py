"""An event loop without a world: time is virtual, what is ready runs in seeded order, threads run inline.

Nothing is waited for. When nothing is ready the clock jumps to the next timer; when there is none either, the run is `Stuck`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any


class Stuck(RuntimeError):
    """Nothing is ready and nothing is planned, yet somebody waits."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in an order that `seed` decides; `time()` starts at 0.0 and moves by jumps alone."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._now = 0.0
        self._order = random.Random(f"{seed}/order")
        self._selector = self
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """What a selector does: here, let time pass. Called once before each round of callbacks."""
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        self._now += timeout
        ready = self._ready  # type: ignore[attr-defined]
        if len(ready) > 1:
            shuffled = list(ready)
            self._order.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        return []

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        del executor
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whatever a thread would have handed over
            future.set_exception(error)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody is woken."""
