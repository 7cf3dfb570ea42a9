"""Who waits for whom: over locks, delegations and approvals, in one graph; a cycle is found when it closes.

    graph = WaitGraph()
    graph.wait("s-1", {"s-2"}, "lock ledger")                    # None
    graph.wait("s-2", {"s-1"}, "lock stock")                     # Cycle: s-2 waits for s-1, s-1 waits for s-2

A wait that would close a cycle is not entered: whoever asked for it, or the victim that policy declares, is told instead. So the
graph never holds one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """`waiter` waits for `holder` because of `reason`, such as `lock ledger`."""

    waiter: str
    holder: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cycle:
    """Waits each of whose holder is the next one's waiter, the last one's holder the first one's waiter."""

    waits: tuple[Wait, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """Who is in it, in order, the one that closed it first."""
        return tuple(wait.waiter for wait in self.waits)

    def __str__(self) -> str:
        told = [f"{wait.waiter} waits for {wait.holder} ({wait.reason})" for wait in self.waits]
        return f"deadlock: {', '.join(told)}"


class WaitGraph:
    """Who waits for whom now. A waiter waits for one thing at a time, which several may hold."""

    def __init__(self) -> None:
        self._waits: dict[str, dict[str, str]] = {}

    def wait(self, waiter: str, holders: Collection[str], reason: str) -> Cycle | None:
        """`waiter` waits for all of `holders` to let go; the cycle that this would close, and then nothing is entered.

        Raises ValueError when it waits already.
        """
        if waiter in self._waits:
            raise ValueError(f"{waiter} waits already")
        for holder in holders:
            way = self._way(holder, waiter)
            if way is not None:
                return Cycle((Wait(waiter, holder, reason), *way))
        self._waits[waiter] = dict.fromkeys(holders, reason)
        return None

    def stop(self, waiter: str, holder: str) -> None:
        """`waiter` waits for `holder` no longer, and still for the others. Does nothing when it did not."""
        self._waits.get(waiter, {}).pop(holder, None)

    def done(self, waiter: str) -> None:
        """`waiter` waits no longer. Does nothing when it did not."""
        self._waits.pop(waiter, None)

    def waits(self) -> Iterator[Wait]:
        """Every wait, by waiter and holder."""
        for waiter in sorted(self._waits):
            yield from self.of(waiter)

    def waiters(self) -> Set[str]:
        """Who waits."""
        return self._waits.keys()

    def of(self, waiter: str) -> Iterator[Wait]:
        """The waits of one session, by holder."""
        for holder, reason in sorted(self._waits.get(waiter, {}).items()):
            yield Wait(waiter, holder, reason)

    def _way(self, start: str, goal: str) -> tuple[Wait, ...] | None:
        """A shortest chain of waits from `start` to `goal`; empty when they are one."""
        if start == goal:
            return ()
        came: dict[str, Wait] = {}
        row = [start]
        while row:
            coming = []
            for one in row:
                for holder, reason in self._waits.get(one, {}).items():
                    if holder in came or holder == start:
                        continue
                    came[holder] = Wait(one, holder, reason)
                    if holder == goal:
                        return _back(came, start, goal)
                    coming.append(holder)
            row = coming
        return None


def _back(came: dict[str, Wait], start: str, goal: str) -> tuple[Wait, ...]:
    way = [came[goal]]
    while way[-1].waiter != start:
        way.append(came[way[-1].waiter])
    return tuple(reversed(way))
