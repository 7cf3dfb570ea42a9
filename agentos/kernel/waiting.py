"""Who waits for a lock in one tenant: the queue of each resource, and who has to give way when waits would close a cycle.

A wait that would close a cycle is never entered: at that moment one of those in it, the one who asked unless the tenant
declares another, is told so by an error. The graph is that of all waits (`kernel.waits`), which also lends the class of whoever
waits to those whom it waits for, so that work of a low class that holds a lock is not what urgent work waits behind.

Nothing in here is awaited: between two calls of these methods the queues and the graph agree.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from agentos.abi.errors import DriverError
from agentos.drivers.locks import Grant, LockDeadlock
from agentos.kernel.waits import Waits
from agentos.scheduler.waits import Cycle


class Victim(StrEnum):
    """Who of those in a cycle is told: who closed it, who has the lowest class (of those the youngest), or the youngest."""

    REQUESTER = "requester"
    LOWEST = "lowest"
    YOUNGEST = "youngest"


@dataclass(slots=True, eq=False)
class Waiter:
    """One call that waits for `holder`, a session. `priority` is the class of its own session, without what is lent to it."""

    session: str
    call: str
    agent: str
    resource: str
    priority: str
    lease_ms: int
    granted: asyncio.Future[Grant]
    holder: str = ""
    arrival: int = 0
    patience: asyncio.Task[None] | None = None
    """Gives it up after its time."""


class Waiting:
    """See the module."""

    def __init__(self, waits: Waits) -> None:
        """`waits` is the graph of all waits, of those over other things too."""
        self._waits = waits
        waits.yielding.append(self._give_way)
        self._queues: dict[str, list[Waiter]] = {}
        self._waiters: dict[str, Waiter] = {}
        self._arrivals = 0

    def enter(self, waiter: Waiter, holder: str, victim: Victim) -> None:
        """`waiter` waits from now on, behind those who came before it.

        Raises LockDeadlock when it is the victim of a cycle that this would close, DriverError when its session waits already.
        Another victim's call is given up, with the same error, and this one waits.
        """
        known = self._waiters.get(waiter.session)
        if known is not None:
            raise DriverError(
                f"this session waits for {known.resource} already", where=waiter.resource, mend="lock one resource at a time"
            )
        while (cycle := self._wait(waiter, holder)) is not None:
            chosen = self._victim(cycle, waiter, victim)
            error = self._deadlock(cycle, waiter, chosen)
            if chosen is waiter:
                raise error
            self.give_up(chosen, error)
        self._arrivals += 1
        waiter.arrival, waiter.holder = self._arrivals, holder
        self._waiters[waiter.session] = waiter
        self._queues.setdefault(waiter.resource, []).append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer, for whatever reason. Does nothing when it did not."""
        if self._waiters.get(waiter.session) is not waiter:
            return
        self._waits.done(waiter.session)
        del self._waiters[waiter.session]
        queue = self._queues[waiter.resource]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.resource]

    def give_up(self, waiter: Waiter, error: Exception) -> None:
        """End a wait by an error."""
        self.leave(waiter)
        if not waiter.granted.done():
            waiter.granted.set_exception(error)

    def _give_way(self, cycle: Cycle) -> bool:
        """End the lock wait that is nearest to whoever closes a cycle by a wait that cannot be ended; whether there is one."""
        near = next((self._waiters[one] for one in cycle.members[1:] if one in self._waiters), None)
        if near is not None:
            self.give_up(near, self._deadlock(cycle, near, near))
        return near is not None

    def handed(self, resource: str, holder: str) -> None:
        """Another session holds `resource` now: who waits for it waits for that one."""
        moved = [one for one in self._queues.get(resource, ()) if holder not in {one.holder, one.session}]
        cycles: list[tuple[Waiter, Cycle]] = []
        for waiter in moved:
            self._waits.done(waiter.session)
            cycle = self._wait(waiter, holder)
            waiter.holder = holder
            if cycle is not None:
                cycles.append((waiter, cycle))
        for waiter, cycle in cycles:
            self.give_up(waiter, self._deadlock(cycle, waiter, waiter))

    def _wait(self, waiter: Waiter, holder: str) -> Cycle | None:
        return self._waits.wait(waiter.session, {holder}, f"lock {waiter.resource}", waiter.priority)

    def first(self, resource: str) -> Waiter | None:
        """Who gets `resource` next: the highest class as it counts now, in it who came first."""
        return min(self._queues.get(resource, ()), key=self._order, default=None)

    def queue(self, resource: str) -> list[Waiter]:
        """Who waits for `resource`, in the order in which they would get it."""
        return sorted(self._queues.get(resource, ()), key=self._order)

    def _order(self, waiter: Waiter) -> tuple[bool, int, int]:
        ages, rank = self._waits.height(waiter.session, waiter.priority)
        return not ages, -rank, waiter.arrival

    def _victim(self, cycle: Cycle, requester: Waiter, victim: Victim) -> Waiter:
        # Who is in it without waiting for a lock, a session that delegates, has no call here that could be given up.
        members = [requester, *(self._waiters[one] for one in cycle.members[1:] if one in self._waiters)]
        match victim:
            case Victim.REQUESTER:
                return requester
            case Victim.LOWEST:
                # Ids of sessions sort by the time when they began.
                lowest = min(self._waits.own(one.priority) for one in members)
                return max((one for one in members if self._waits.own(one.priority) == lowest), key=lambda one: one.session)
            case Victim.YOUNGEST:
                return max(members, key=lambda one: one.session)

    def _deadlock(self, cycle: Cycle, requester: Waiter, victim: Waiter) -> LockDeadlock:
        agents = {one: self._waiters[one].agent for one in cycle.members if one in self._waiters}
        agents[requester.session] = requester.agent
        named = {one: f"{one} (agent {agents[one]})" if one in agents else one for one in cycle.members}
        told = ", and ".join(
            f"{named[one.waiter]} waits for {one.reason}, which {named[one.holder]} holds" for one in cycle.waits
        )
        return LockDeadlock(
            f"deadlock: {told}; this call, for {victim.resource}, was given up",
            mend="unlock what you hold, then lock again, in the same order as everybody else",
        )
