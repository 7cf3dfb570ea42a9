"""Priority classes lent along waits: whoever is waited for counts as of the highest class among those that wait for it.

What a session lends is its own class or the highest that is lent to it, so a class goes on to whomever its borrower waits for.

    lending = Lending(admissions)
    lending.waits("s-2", "interactive", ["s-1"])      # s-1 counts as interactive
    lending.waits("s-1", "batch", ["s-0"])            # and so does s-0
    lending.leaves("s-2")                             # s-1 is what it was, s-0 counts as batch where that is more
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Protocol

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


class Lending:
    """Who lends what to whom. Costs as much as there are waits whose class changes."""

    def __init__(self, boosts: Boosts) -> None:
        self._boosts = boosts
        self._own: dict[str, str] = {}
        self._lends: dict[str, str] = {}
        self._targets: dict[str, dict[str, None]] = {}
        self._lent: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By borrower: how many lend it which class."""

    def waits(self, waiter: str, priority: str, targets: Iterable[str]) -> None:
        """`waiter`, whose own class is `priority`, waits for all of `targets` from now on. It does not wait yet."""
        self._own[waiter] = priority
        lends = self._lends[waiter] = self._highest(waiter)
        self._targets[waiter] = dict.fromkeys(targets)
        for target in self._targets[waiter]:
            self._change(target, None, lends)

    def stops(self, waiter: str, target: str) -> None:
        """`waiter` waits for `target` no longer. Does nothing when it did not."""
        if target in self._targets.get(waiter, ()):
            del self._targets[waiter][target]
            self._change(target, self._lends[waiter], None)

    def leaves(self, waiter: str) -> None:
        """`waiter` waits for nobody any more."""
        for target in tuple(self._targets.get(waiter, ())):
            self.stops(waiter, target)
        for known in (self._own, self._lends, self._targets):
            known.pop(waiter, None)

    def lent(self, session: str) -> str | None:
        """The highest class that is lent to a session; None if nobody waits for it."""
        return max(self._lent.get(session, ()), key=self._boosts.height, default=None)

    def _highest(self, waiter: str) -> str:
        lent: Iterable[str] = self._lent.get(waiter, ())
        return max((self._own[waiter], *lent), key=self._boosts.height)

    def _change(self, target: str, old: str | None, new: str | None) -> None:
        """One that lent `target` the class `old` lends it `new` instead; so do those that it waits for itself, and so on."""
        changes = [(target, old, new)]
        while changes:
            target, old, new = changes.pop()
            self._count(target, old, new)
            before = self._lends.get(target)
            if before is not None and (after := self._highest(target)) != before:
                self._lends[target] = after
                changes += [(further, before, after) for further in self._targets[target]]

    def _count(self, target: str, old: str | None, new: str | None) -> None:
        lent = self._lent[target]
        # The new one first, so that it does not fall in between.
        if new is not None:
            lent[new] += 1
            if lent[new] == 1:
                self._boosts.boost(target, new)
        if old is not None:
            lent[old] -= 1
            if not lent[old]:
                del lent[old]
                self._boosts.unboost(target, old)
        if not lent:
            del self._lent[target]
