"""The arbiter of one endpoint: which of the turns that wait goes next, and why.

    arbiter = Arbiter("claude", Limits(slots=2), {"standard": PriorityClass("standard")})
    arbiter.enqueue(Turn("t1", "s-1", ("acme", "support", "triage"), "standard", tokens=900, at_ms=0))
    arbiter.next(now_ms=0)                                       # Admission(turn=…, why="…")
    arbiter.finish("t1", used=412, now_ms=1800)

Order: the class of the highest rank that has somebody waiting, where a class that ages rises by one rank for each `aging_ms` that
its oldest turn (of those that may go) has waited longer than the other's, and that turn then goes first; within it the share tree
(`scheduler.share`); within an agent the earliest deadline, then those likely to fail among siblings that fail together, then
first come, where every turn counts as due within twice `STALE_MS`, so that nobody is overtaken for ever. A class that does not
age gets only what the others leave (batch). Nothing goes out beyond the endpoint's slots and rates, beyond a quota of slots, or,
for a class with `leave`, into the last part of the rate, which is kept for the others.

The arbiter holds no clock and starts nothing: whoever owns the endpoint asks it when a turn comes, a turn ends, or `wake_at` has
come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.scheduler.arrivals import Arrivals, Domain
from agentos.scheduler.classes import PriorityClass, head_starts
from agentos.scheduler.rates import Bucket, at_rate
from agentos.scheduler.share import Path, ShareTree, Standing, prefixes

__all__ = ["NEVER", "STALE_MS", "Admission", "Arbiter", "Limits", "PriorityClass", "Turn", "head_starts"]

NEVER: Final = 2**62
"""The deadline of a turn that has none."""

STALE_MS: Final = 600_000
"""Turns that came in one window of this length count as due at the end of the next one, if they have no earlier deadline."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an endpoint takes. None: not limited."""

    slots: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn that wants the endpoint. `tokens` is what it is estimated to use; `at_ms` when it came.

    `path` is who pays: tenant, program, agent. `risk` puts those that are likely to fail first among equals: higher goes first.
    """

    id: str
    session: str
    path: Path
    priority: str
    tokens: int
    at_ms: int
    deadline_ms: int = NEVER
    risk: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """A turn that goes out now; `priority` is the class that it went as, `why` says what put it before the others."""

    turn: Turn
    priority: str
    waited_ms: int
    why: str


@dataclass(slots=True)
class _Class:
    """The turns of one class that wait."""

    declared: PriorityClass
    tree: ShareTree[str] = field(default_factory=ShareTree)
    arrivals: Arrivals = field(default_factory=Arrivals)
    running: int = 0


@dataclass(slots=True)
class _Place:
    """Where a turn is: the class that it counts as, and since when it runs, None while it waits."""

    turn: Turn
    priority: str
    since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What a class would let out: its next turn; or, having `aged` above one that waits, its oldest."""

    one: _Class
    path: Path
    oldest: str
    aged: bool


class Arbiter:
    """See the module. `classes` are the declared ones by name; every turn's class must be among them."""

    def __init__(self, endpoint: str, limits: Limits, classes: Mapping[str, PriorityClass], *, now_ms: int = 0) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self._classes = {name: _Class(declared) for name, declared in classes.items()}
        self._requests = None if limits.requests_per_minute is None else Bucket(limits.requests_per_minute, now_ms=now_ms)
        self._tokens = None if limits.tokens_per_minute is None else Bucket(limits.tokens_per_minute, now_ms=now_ms)
        self._starts = head_starts(classes)
        self._places: dict[str, _Place] = {}
        self._by_session: dict[str, set[str]] = {}
        self._active: dict[str, _Place] = {}
        self._quotas: dict[Path, int] = {}
        self._used: Counter[Path] = Counter()
        self._boosts: dict[str, Counter[str]] = {}
        self._weights: dict[Path, int] = {}

    def reconfigure(self, limits: Limits, classes: Mapping[str, PriorityClass], *, now_ms: int) -> None:
        """Limits and classes from now on; what waits, runs and was charged stays. A class that is gone stays while it is used."""
        self._requests = at_rate(self._requests, limits.requests_per_minute, now_ms)
        self._tokens = at_rate(self._tokens, limits.tokens_per_minute, now_ms)
        self.limits = limits
        kept = {*classes, *self.held()}
        self._classes = {name: one for name, one in self._classes.items() if name in kept}
        for name, declared in classes.items():
            if name in self._classes:
                self._classes[name].declared = declared
                continue
            fresh = self._classes[name] = _Class(declared)
            for path, weight in self._weights.items():
                fresh.tree.weigh(path, weight)
            for path in self._quotas:
                if self._full(path):
                    fresh.tree.hold(path)
        self._starts = head_starts({name: one.declared for name, one in self._classes.items()})
        for session in tuple(self._boosts):
            self._regrade(session)

    def held(self) -> set[str]:
        """The classes that turns came as of, or count as of."""
        return {name for one in self._places.values() for name in (one.priority, one.turn.priority)}.union(*self._boosts.values())

    def weigh(self, path: Path, weight: int) -> None:
        """Give a tenant, program or agent a weight in every class."""
        self._weights[path] = weight
        for one in self._classes.values():
            one.tree.weigh(path, weight)

    def allot(self, path: Path, slots: int) -> None:
        """Let the node at `path` have at most `slots` of the endpoint at one time."""
        over, new = self._full(path), path not in self._quotas
        self._quotas[path] = slots
        self._hold(path, over, self._full(path))
        if new:
            # Those who wait below it are under another set of quotas from now on.
            for one in self._classes.values():
                one.arrivals = Arrivals()
            for place in self._places.values():
                if place.since_ms is None:
                    self._arrive(place)

    def enqueue(self, turn: Turn) -> None:
        """A turn comes. Raises KeyError for a class that is not declared, ValueError for an id that is here already."""
        if turn.id in self._places:
            raise ValueError(f"turn {turn.id} waits or runs already")
        place = self._places[turn.id] = _Place(turn, self._effective(turn))
        self._by_session.setdefault(turn.session, set()).add(turn.id)
        self._wait(place)

    def next(self, now_ms: int) -> Admission | None:
        """The turn that goes out now, which counts as running from here on; None when nothing may."""
        if len(self._active) >= self.limits.slots:
            return None
        for candidate in self._candidates(now_ms):
            if self._fits(candidate.one, now_ms):
                return self._admit(candidate, now_ms)
        return None

    def wake_at(self, now_ms: int) -> int | None:
        """When `next` may have an answer although nothing comes or ends, as a rate fills up. None: never by itself."""
        if len(self._active) >= self.limits.slots:
            return None
        times = [now_ms + 1 if when <= now_ms else when for when in self._rate_times(now_ms)]
        return min(times, default=None)

    def finish(self, turn: str, *, used: int, now_ms: int, asked: bool = True) -> None:
        """A running turn has ended, having used `used` tokens, and if `asked` a request. Raises KeyError if it does not run."""
        place = self._active.pop(turn)
        self._forget(place)
        self._classes[place.priority].running -= 1
        for path in prefixes(place.turn.path):
            self._use(path, -1)
        off = used - place.turn.tokens
        self._classes[place.priority].tree.finish(place.turn.path, off)
        if self._tokens is not None:
            self._tokens.take(off, now_ms)
        if self._requests is not None and not asked:
            self._requests.take(-1, now_ms)

    def charge(self, path: Path, priority: str, amount: int) -> None:
        """Charge what was used past this queue; nothing happens for a class that is not declared."""
        if priority in self._classes:
            self._classes[priority].tree.settle(path, amount)

    def withdraw(self, turn: str) -> bool:
        """Take a waiting turn back, whose session was stopped; return whether it waited."""
        place = self._places.get(turn)
        if place is None or place.since_ms is not None:
            return False
        self._leave(place)
        self._forget(place)
        return True

    def boost(self, session: str, priority: str) -> None:
        """Somebody of class `priority` waits for `session`: until `unboost` its turns count as of that class, if it is higher.

        A turn keeps the time when it came. Raises KeyError for a class that is not declared.
        """
        if priority not in self._classes:
            raise KeyError(priority)
        self._boosts.setdefault(session, Counter())[priority] += 1
        self._regrade(session)

    def unboost(self, session: str, priority: str) -> None:
        """One that waited for `session` does no longer."""
        found = self._boosts.get(session)
        if found is None or not found[priority]:
            raise ValueError(f"nobody of class {priority} waits for {session}")
        found[priority] -= 1
        if not +found:
            del self._boosts[session]
        self._regrade(session)

    def victim(self, now_ms: int) -> Turn | None:
        """The running turn that is to be stopped for one that has waited longer than its class has patience; None: none is.

        The lowest rank first, and of that the turn that began last, as the least is lost with it.
        """
        if len(self._active) < self.limits.slots:
            return None
        above = max((one.declared.height for one in self._classes.values() if self._impatient(one, now_ms)), default=None)
        if above is None:
            return None
        found = [
            (declared.height, -since, turn)
            for turn, _, since, declared in self._runs()
            if declared.preemptible and declared.height < above
        ]
        return min(found, key=lambda item: (*item[:2], item[2].id))[2] if found else None

    def patience_ends(self, now_ms: int) -> int | None:
        """When `victim` may have another answer although nothing comes or ends. None: never by itself."""
        found = []
        for one in self._classes.values():
            oldest, patience = one.arrivals.oldest(), one.declared.patience_ms
            if oldest is not None and patience is not None:
                found.append(max((self._places[oldest].turn.at_ms + patience + 1, *self._class_times(one.declared, now_ms))))
        return min((when for when in found if when > now_ms), default=None)

    def waiting(self) -> int:
        """How many turns wait."""
        return sum(len(one.tree) for one in self._classes.values())

    def running(self) -> Iterator[tuple[Turn, str, int]]:
        """Turns that run: turn, class it went as, since when."""
        yield from ((turn, priority, since) for turn, priority, since, _ in self._runs())

    def depth(self) -> dict[str, int]:
        """How many turns wait in each class."""
        return {name: len(one.tree) for name, one in self._classes.items()}

    def classes(self) -> Iterator[PriorityClass]:
        """The declared classes."""
        return (one.declared for one in self._classes.values())

    def oldest_ms(self, priority: str) -> int | None:
        """When the turn of a class came that has waited longest, of those that no quota holds back."""
        oldest = self._classes[priority].arrivals.oldest()
        return None if oldest is None else self._places[oldest].turn.at_ms

    def rates(self, now_ms: int) -> tuple[int | None, int | None]:
        """How many requests and tokens may go out at once now; None for a rate without a limit."""
        requests, tokens = (None if one is None else one.level(now_ms) for one in (self._requests, self._tokens))
        return requests, tokens

    def standings(self, priority: str) -> Iterator[Standing]:
        """The shares within a class."""
        return self._classes[priority].tree.standings()

    def preview(self, now_ms: int) -> Admission | None:
        """The turn that would go out next if there were a slot, and why, without letting it out."""
        for candidate in self._candidates(now_ms):
            one = candidate.one
            turn = self._places[candidate.oldest if candidate.aged else one.tree.peek_at(candidate.path)].turn
            waited = now_ms - turn.at_ms
            return Admission(turn, one.declared.name, waited, _why(one.declared, turn, candidate.aged, waited))
        return None

    def _candidates(self, now_ms: int) -> Iterator[_Candidate]:
        """What each class with a turn that could go would let out, the first one at the front."""
        found = []
        for one in self._classes.values():
            oldest = one.arrivals.oldest()
            if oldest is not None:
                turn = self._places[oldest].turn
                start = self._starts.get(one.declared.name)
                # A class that does not age comes last whatever its rank: it gets what is left.
                late = -one.declared.rank if start is None else turn.at_ms - start
                found.append((start is None, late, turn.at_ms, oldest, one))
        found.sort(key=lambda item: item[:4])
        for number, (*_, oldest, one) in enumerate(found):
            # It is by its age that it goes before one of a higher rank that waits too. Then who has waited longest goes.
            if any(other.declared.height > one.declared.height for *_, other in found[number + 1 :]):
                yield _Candidate(one, self._places[oldest].turn.path, oldest, aged=True)
            elif (path := one.tree.next_path()) is not None:
                yield _Candidate(one, path, oldest, aged=False)

    def _admit(self, candidate: _Candidate, now_ms: int) -> Admission:
        one, path = candidate.one, candidate.path
        if candidate.aged:
            name = candidate.oldest
            one.tree.take(path, name, charge=0)
        else:
            name = one.tree.dequeue_at(path, charge=0)
        place = self._places[name]
        one.arrivals.drop(name, self._domain(path))
        # The estimate is the turn's own, so it is charged once it is known which turn it is.
        one.tree.settle(path, place.turn.tokens)
        place.since_ms = now_ms
        self._active[name] = place
        one.running += 1
        for prefix in prefixes(path):
            self._use(prefix, 1)
        if self._requests is not None:
            self._requests.take(1, now_ms)
        if self._tokens is not None:
            self._tokens.take(place.turn.tokens, now_ms)
        waited = now_ms - place.turn.at_ms
        return Admission(place.turn, one.declared.name, waited, _why(one.declared, place.turn, candidate.aged, waited))

    def _wait(self, place: _Place) -> None:
        turn = place.turn
        self._classes[place.priority].tree.enqueue(turn.path, turn.id, order=_order(turn))
        self._arrive(place)

    def _arrive(self, place: _Place) -> None:
        turn = place.turn
        self._classes[place.priority].arrivals.add(turn.id, self._domain(turn.path), turn.at_ms, self._full)

    def _leave(self, place: _Place) -> None:
        one, turn = self._classes[place.priority], place.turn
        one.tree.remove(turn.path, turn.id)
        one.arrivals.drop(turn.id, self._domain(turn.path))

    def _runs(self) -> Iterator[tuple[Turn, str, int, PriorityClass]]:
        for place in self._active.values():
            if place.since_ms is not None:
                yield place.turn, place.priority, place.since_ms, self._classes[place.priority].declared

    def _fits(self, one: _Class, now_ms: int) -> bool:
        declared = one.declared
        if declared.slots is not None and one.running >= declared.slots:
            return False
        return all(when <= now_ms for when in self._class_times(declared, now_ms))

    def _class_times(self, declared: PriorityClass, now_ms: int) -> Iterator[int]:
        """When each rate lets a turn of the class out."""
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                yield bucket.when(max(1, bucket.per_minute * declared.leave // 100 + 1), now_ms)

    def _rate_times(self, now_ms: int) -> Iterator[int]:
        for one in self._classes.values():
            if one.arrivals.oldest() is not None and (one.declared.slots is None or one.running < one.declared.slots):
                yield max(self._class_times(one.declared, now_ms), default=now_ms)

    def _impatient(self, one: _Class, now_ms: int) -> bool:
        """Whether a turn of the class has waited beyond its patience, and would go if there were a slot."""
        oldest, patience = one.arrivals.oldest(), one.declared.patience_ms
        if oldest is None or patience is None or now_ms - self._places[oldest].turn.at_ms <= patience:
            return False
        return self._fits(one, now_ms)

    def _effective(self, turn: Turn) -> str:
        """The class that a turn counts as: its own, or the highest of those that wait for its session."""
        names = (turn.priority, *(+self._boosts.get(turn.session, Counter())))
        return max(names, key=lambda name: self._classes[name].declared.height)

    def _regrade(self, session: str) -> None:
        for name in sorted(self._by_session.get(session, ())):
            place = self._places[name]
            effective = self._effective(place.turn)
            if effective == place.priority:
                continue
            if place.since_ms is None:
                self._leave(place)
                place.priority = effective
                self._wait(place)
            else:
                # It is charged in the class that it runs in.
                was, now = self._classes[place.priority], self._classes[effective]
                was.running, now.running = was.running - 1, now.running + 1
                was.tree.finish(place.turn.path, -place.turn.tokens)
                now.tree.adopt(place.turn.path, place.turn.tokens)
                place.priority = effective

    def _full(self, path: Path) -> bool:
        return self._used[path] >= self._quotas.get(path, NEVER)

    def _domain(self, path: Path) -> Domain:
        """The quotas that a turn of `path` is under."""
        return tuple(prefix for prefix in prefixes(path) if prefix in self._quotas) if self._quotas else ()

    def _use(self, path: Path, by: int) -> None:
        before = self._full(path)
        self._used[path] += by
        self._hold(path, before, self._full(path))

    def _hold(self, path: Path, was: bool, now: bool) -> None:
        if was == now:
            return
        for one in self._classes.values():
            (one.tree.hold if now else one.tree.release)(path)
            one.arrivals.shut(path, 1 if now else -1)

    def _forget(self, place: _Place) -> None:
        del self._places[place.turn.id]
        mine = self._by_session[place.turn.session]
        mine.discard(place.turn.id)
        if not mine:
            del self._by_session[place.turn.session]


def _order(turn: Turn) -> tuple[int, int, int]:
    """Earliest deadline, then risk, then arrival; whoever has no deadline, or a late one, is due some time all the same."""
    window = (turn.at_ms // STALE_MS + 2) * STALE_MS
    return min(max(turn.deadline_ms, turn.at_ms), window), -turn.risk, turn.at_ms


def _why(declared: PriorityClass, turn: Turn, aged: bool, waited_ms: int) -> str:
    if aged:
        return f"class {declared.name} has risen by its age: its oldest turn has waited {waited_ms} ms"
    share = f"{'/'.join(turn.path)} is the furthest behind its share in class {declared.name}"
    return share if turn.deadline_ms == NEVER else f"{share}, and its deadline is the earliest there"
