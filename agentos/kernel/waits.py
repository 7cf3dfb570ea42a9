"""Who waits for whom, over locks, deferrals and delegations, in one graph; and the priority classes that are lent along it.

    waits = Waits(admissions)
    waits.wait("s-2", ["s-1"], "lock ledger", "interactive")     # None: s-1 counts as interactive from now on
    waits.wait("s-1", ["s-2"], "delegation c1", "batch")         # Cycle: nothing is entered
    waits.done("s-2")

A session waits for one thing at a time, which several others may hold. Whoever keeps somebody waiting, directly or through
others, counts as of the highest class among those that wait: so a class that comes in by a delegation goes on over a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set

from agentos.kernel.lending import Boosts, Height, Lending
from agentos.scheduler.waits import Cycle, Wait, WaitGraph


class Waits:
    """See the module. Nothing is awaited in here."""

    def __init__(self, boosts: Boosts) -> None:
        self._boosts = boosts
        self._graph = WaitGraph()
        self._lending = Lending(boosts)
        self.yielding: list[Callable[[Cycle], bool]] = []
        """Each ends one wait of a cycle by an error to whoever waits, if there is one that it can end."""

    def wait(self, waiter: str, holders: Collection[str], reason: str, priority: str) -> Cycle | None:
        """`waiter`, whose own class is `priority`, waits for all of `holders`; the cycle that this would close, and then it does
        not. Raises ValueError when it waits already.
        """
        cycle = self._graph.wait(waiter, holders, reason)
        if cycle is None:
            self._lending.waits(waiter, priority, holders)
        return cycle

    def insist(self, waiter: str, holders: Collection[str], reason: str, priority: str) -> Cycle | None:
        """As `wait`; but of a cycle that this would close another wait is given up, if there is one that can be.

        So no child, by waiting for what its parent holds before the parent waits for it, brings the parent down.
        """
        while (cycle := self.wait(waiter, holders, reason, priority)) is not None:
            if not any(gives_way(cycle) for gives_way in self.yielding):
                return cycle
        return None

    def stop(self, waiter: str, holder: str) -> None:
        """`waiter` waits for `holder` no longer, and still for the others. Does nothing when it did not."""
        self._graph.stop(waiter, holder)
        self._lending.stops(waiter, holder)

    def done(self, waiter: str) -> None:
        """`waiter` waits for nobody any more. Does nothing when it did not."""
        self._graph.done(waiter)
        self._lending.leaves(waiter)

    def height(self, waiter: str, priority: str) -> Height:
        """As what a session of class `priority` counts now, with what is lent to it."""
        return max(self._boosts.height(priority), self._boosts.height(self._lending.lent(waiter) or priority))

    def own(self, priority: str) -> Height:
        """What `priority` counts by itself."""
        return self._boosts.height(priority)

    def waits(self, waiters: Set[str]) -> list[Wait]:
        """Every wait of those among `waiters` who wait, by waiter and holder."""
        return [one for waiter in sorted(self._graph.waiters() & waiters) for one in self._graph.of(waiter)]
