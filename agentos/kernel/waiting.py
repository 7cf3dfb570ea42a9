"""Who waits for a lock in one tenant: the queue of each resource, the graph of all waits, and what holders inherit from waiters.

A wait that would close a cycle is never entered: at that moment one of those in it, the one who asked unless the tenant
declares another, is told so by an error. Whoever waits lends its priority class to everybody whom it waits for, directly or
through others, for as long as it waits, so that work of a low class that holds a lock is not what urgent work waits behind.

Nothing in here is awaited: between two calls of these methods the queues, the graph and what was lent agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from agentos.abi.errors import DriverError
from agentos.drivers.locks import Grant, LockDeadlock
from agentos.scheduler.waits import Cycle, Wait, WaitGraph

PERSON: Final = "a person"
"""Who a session waits for that waits for an approval."""

Height = tuple[bool, int]
"""What classes are compared by, as `PriorityClass.height`."""


class Boosts(Protocol):
    """What priority classes sessions count as. A class that is lent counts for as long as it is not taken back."""

    def boost(self, session: str, priority: str) -> None:
        """Somebody of class `priority` waits for `session`."""

    def unboost(self, session: str, priority: str) -> None:
        """Takes one `boost` back."""

    def height(self, priority: str) -> Height:
        """What classes are compared by. One that is not declared (any more) counts as the standard one."""


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

    def __init__(self, boosts: Boosts) -> None:
        self._boosts = boosts
        self._height = boosts.height
        self._graph = WaitGraph()
        self._queues: dict[str, list[Waiter]] = {}
        self._waiters: dict[str, Waiter] = {}
        self._lent: dict[str, str] = {}
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
        while (cycle := self._graph.wait(waiter.session, {holder}, f"lock {waiter.resource}")) is not None:
            chosen = self._victim(cycle, waiter, victim)
            error = self._deadlock(cycle, waiter, chosen)
            if chosen is waiter:
                raise error
            self.give_up(chosen, error)
        self._arrivals += 1
        waiter.arrival, waiter.holder = self._arrivals, holder
        self._waiters[waiter.session] = waiter
        self._queues.setdefault(waiter.resource, []).append(waiter)
        self._lend(self._graph.held_by(waiter.session))

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer, for whatever reason. Does nothing when it did not."""
        if self._waiters.get(waiter.session) is not waiter:
            return
        held_up = list(self._graph.held_by(waiter.session))
        self._graph.done(waiter.session)
        del self._waiters[waiter.session]
        queue = self._queues[waiter.resource]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.resource]
        self._lend(held_up)

    def give_up(self, waiter: Waiter, error: Exception) -> None:
        """End a wait by an error."""
        self.leave(waiter)
        if not waiter.granted.done():
            waiter.granted.set_exception(error)

    def handed(self, resource: str, holder: str) -> None:
        """Another session holds `resource` now: who waits for it waits for that one."""
        moved = [one for one in self._queues.get(resource, ()) if holder not in {one.holder, one.session}]
        if not moved:
            return
        # All of them move before anything is lent anew: a long queue is walked once.
        concerned = {session: None for old in {one.holder for one in moved} for session in (old, *self._graph.held_by(old))}
        cycles: list[tuple[Waiter, Cycle]] = []
        for waiter in moved:
            self._graph.done(waiter.session)
            cycle = self._graph.wait(waiter.session, {holder}, f"lock {resource}")
            waiter.holder = holder
            if cycle is not None:
                cycles.append((waiter, cycle))
        self._lend([*concerned, holder, *self._graph.held_by(holder)])
        for waiter, cycle in cycles:
            self.give_up(waiter, self._deadlock(cycle, waiter, waiter))

    def first(self, resource: str) -> Waiter | None:
        """Who gets `resource` next: the highest class as it counts now, in it who came first."""
        return min(self._queues.get(resource, ()), key=self._order, default=None)

    def queue(self, resource: str) -> list[Waiter]:
        """Who waits for `resource`, in the order in which they would get it."""
        return sorted(self._queues.get(resource, ()), key=self._order)

    def waits(self, approvals: Iterable[tuple[str, str]] = ()) -> list[Wait]:
        """Every wait there is: for locks, and for people by `approvals` (session, call)."""
        people = [Wait(session, PERSON, f"approval of {call}") for session, call in approvals]
        return sorted([*self._graph.waits(), *people], key=lambda wait: (wait.waiter, wait.holder, wait.reason))

    def _order(self, waiter: Waiter) -> tuple[bool, int, int]:
        lent = self._lent.get(waiter.session, waiter.priority)
        ages, rank = max(self._height(waiter.priority), self._height(lent))
        return not ages, -rank, waiter.arrival

    def _lend(self, sessions: Iterable[str]) -> None:
        """Let each of `sessions` have the highest class of those that it keeps waiting, and none without such."""
        for session in tuple(sessions):
            behind = [self._waiters[one].priority for one in self._graph.behind(session) if one in self._waiters]
            best = max(behind, key=self._height, default=None)
            lent = self._lent.get(session)
            if best == lent:
                continue
            if best is not None:
                # The new one first, so that it does not fall in between.
                self._boosts.boost(session, best)
                self._lent[session] = best
            else:
                del self._lent[session]
            if lent is not None:
                self._boosts.unboost(session, lent)

    def _victim(self, cycle: Cycle, requester: Waiter, victim: Victim) -> Waiter:
        members = [requester if one == requester.session else self._waiters[one] for one in cycle.members]
        match victim:
            case Victim.REQUESTER:
                return requester
            case Victim.LOWEST:
                # Ids of sessions sort by the time when they began.
                lowest = min(self._height(one.priority) for one in members)
                return max((one for one in members if self._height(one.priority) == lowest), key=lambda one: one.session)
            case Victim.YOUNGEST:
                return max(members, key=lambda one: one.session)

    def _deadlock(self, cycle: Cycle, requester: Waiter, victim: Waiter) -> LockDeadlock:
        agents = {one: self._waiters[one].agent for one in cycle.members if one in self._waiters}
        agents[requester.session] = requester.agent
        named = {session: f"{session} (agent {agent})" for session, agent in agents.items()}
        told = ", and ".join(
            f"{named[one.waiter]} waits for {one.reason}, which {named[one.holder]} holds" for one in cycle.waits
        )
        return LockDeadlock(
            f"deadlock: {told}; this call, for {victim.resource}, was given up",
            mend="unlock what you hold, then lock again, in the same order as everybody else",
        )
