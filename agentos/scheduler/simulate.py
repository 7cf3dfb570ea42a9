"""A workload on a virtual clock, scheduled by the code that schedules for real.

    run = simulate(read_workload(body))
    run.rows[0]                                                  # Row(endpoint="large", path=("acme", "support", "triage-3"), …)

`simulate` drives one `Arbiter` per endpoint through every arrival, every end and every rate that fills up, in the order of time,
and keeps each turn that went out as a row, so that whoever doubts a figure of the report can compute it again. `fifo` and
`round-robin` are the two schedulers that it is compared with: the first serves in order of arrival, the second takes agents in
turn; neither knows weights, classes or quotas. Each agent draws from a source of its own, so its n-th turn is as long under every
scheduler, and whatever others do.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, Protocol

from agentos.scheduler.arbiter import NEVER, Arbiter, Turn
from agentos.scheduler.budget import Account, Exceeded, Ledger, Reservation
from agentos.scheduler.rates import Bucket
from agentos.scheduler.share import Path, prefixes
from agentos.scheduler.workload import Crowd, Endpoint, Workload

SCHEDULERS: Final = ("fair", "fifo", "round-robin")


@dataclass(frozen=True, slots=True)
class Row:
    """One turn that went out: who got how much of what, and when. Times in ms of the virtual clock.

    `order`: when it came, began and ended among all that happened, for what happened in one ms. A turn that was stopped comes
    again as another turn.
    """

    turn: str
    endpoint: str
    path: Path
    priority: str
    tokens: int
    came_ms: int
    began_ms: int
    ended_ms: int
    order: tuple[int, int, int]
    said: int = 0
    """What was said that it would use."""
    stopped: bool = False
    """Whether it was stopped for a more urgent one; what it had used until then counts."""
    due_ms: int | None = None
    job: str = ""
    """The first of the turns that it is a part of; itself when none of them was stopped before."""


@dataclass(frozen=True, slots=True)
class Left:
    """A turn that waited at the end, or still ran (`began_ms`)."""

    turn: str
    endpoint: str
    path: Path
    priority: str
    tokens: int
    """What was said of it."""
    came_ms: int
    order: tuple[int, int | None]
    began_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """A budget: what it was, what was used of it, the most that was used and reserved at one time."""

    path: Path
    limit: int
    used: int
    peak: int


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a workload: every row in the order of their ends, and what was not done at the end.

    `refused`: turns that a budget did not let come. `woken`: how often a rate that had filled up let something go on.
    """

    workload: Workload
    scheduler: str
    rows: tuple[Row, ...]
    left: tuple[Left, ...]
    budgets: tuple[Spent, ...] = ()
    came: int = 0
    refused: int = 0
    woken: int = 0


class Queue(Protocol):
    """What a scheduler of the comparison has to do; `Arbiter` does it too."""

    def enqueue(self, turn: Turn) -> None: ...

    def take(self, now_ms: int) -> Turn | None: ...

    def finish(self, turn: str, *, used: int, now_ms: int) -> None: ...

    def wake_at(self, now_ms: int) -> int | None: ...

    def victim(self, now_ms: int) -> Turn | None: ...


def simulate(workload: Workload, scheduler: str = "fair") -> Run:
    """Run a workload to its end. The same workload always gives the same run."""
    return _Simulation(workload, scheduler).run()


@dataclass(slots=True)
class _Job:
    """What an agent wants done: one turn, or several when it is stopped."""

    crowd: Crowd
    path: Path
    tokens: int
    """What is left of it."""
    used: int = 0
    held: Reservation | None = None
    name: str = ""
    """Its first turn."""


@dataclass(slots=True)
class _Turn:
    """A turn that waits or runs."""

    turn: Turn
    job: _Job
    number: int
    draw: random.Random
    began_ms: int | None = None
    began: int = 0


class _Simulation:
    def __init__(self, workload: Workload, scheduler: str) -> None:
        self._workload = workload
        self._scheduler = scheduler
        self._numbers = count()
        self._agenda: list[tuple[int, int, Callable[[int], None]]] = []
        self._ends = {one.name: one for one in workload.endpoints}
        self._queues = {one.name: _queue(scheduler, one, workload) for one in workload.endpoints}
        self._wakes: dict[str, int] = {}
        self._turns: dict[str, _Turn] = {}
        self._rows: list[Row] = []
        self._ledger = Ledger()
        self._peaks = dict.fromkeys(workload.budgets, 0)
        self._came = self._refused = self._woken = 0

    def run(self) -> Run:
        for path, tokens in self._workload.budgets.items():
            self._ledger.limit(_account(path), "tokens", tokens)
        for crowd in self._workload.crowds:
            for path in crowd.paths():
                self._begin(crowd, path)
        while self._agenda and self._agenda[0][0] <= self._workload.duration_ms:
            now, _, act = heapq.heappop(self._agenda)
            act(now)
        left = [
            Left(
                one.turn.id,
                one.job.crowd.endpoint,
                one.turn.path,
                one.turn.priority,
                one.turn.tokens,
                one.turn.at_ms,
                (one.number, None if one.began_ms is None else one.began),
                one.began_ms,
            )
            for one in self._turns.values()
        ]
        budgets = tuple(
            Spent(path, limit, self._ledger.used(_account(path), "tokens"), self._peaks[path])
            for path, limit in sorted(self._workload.budgets.items())
        )
        counts = (self._came, self._refused, self._woken)
        return Run(self._workload, self._scheduler, tuple(self._rows), tuple(left), budgets, *counts)

    def _at(self, when: int, act: Callable[[int], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), act))

    def _begin(self, crowd: Crowd, path: Path) -> None:
        draw = random.Random(f"{self._workload.seed}/{'/'.join(path)}")  # noqa: S311 - a workload that can be repeated
        if crowd.per_minute is None:
            # Two waiting: when one goes out the other is there already, so that the agent never stops being backlogged.
            for _ in range(2):
                self._at(crowd.from_ms, partial(self._arrive, crowd, path, draw))
        else:
            self._at(crowd.from_ms + _gap(crowd, draw), partial(self._arrive, crowd, path, draw))

    def _arrive(self, crowd: Crowd, path: Path, draw: random.Random, now: int) -> None:
        self._come(crowd, path, draw, now)
        self._serve(crowd.endpoint, now)
        if crowd.per_minute is not None:
            self._at(now + _gap(crowd, draw), partial(self._arrive, crowd, path, draw))

    def _come(self, crowd: Crowd, path: Path, draw: random.Random, now: int) -> None:
        if now >= crowd.until_ms:
            return
        job = _Job(crowd, path, draw.randint(*crowd.tokens))
        risk = draw.randint(0, 9) if crowd.fail_fast else 0
        self._came += 1
        accounts = [_account(prefix) for prefix in prefixes(path) if prefix in self._workload.budgets]
        if accounts:
            # The most that it may use, whatever is said of it: so no budget is ever overdrawn.
            held = self._ledger.reserve(accounts, {"tokens": crowd.tokens[1]})
            if isinstance(held, Exceeded):
                self._refused += 1
                return
            job.held = held
            for prefix in prefixes(path):
                if prefix in self._peaks:
                    both = self._ledger.used(_account(prefix), "tokens") + self._ledger.reserved(_account(prefix), "tokens")
                    self._peaks[prefix] = max(self._peaks[prefix], both)
        due = NEVER if crowd.deadline_ms is None else now + crowd.deadline_ms
        self._enqueue(job, max(1, round(job.tokens * crowd.estimate)), now, due, risk, draw)

    def _enqueue(self, job: _Job, said: int, now: int, due: int, risk: int, draw: random.Random) -> None:
        number = next(self._numbers)
        turn = Turn(f"t{number}", "/".join(job.path), job.path, job.crowd.priority, said, now, due, risk)
        job.name = job.name or turn.id
        self._turns[turn.id] = _Turn(turn, job, number, draw)
        self._queues[job.crowd.endpoint].enqueue(turn)
        patience = self._workload.classes[turn.priority].patience_ms
        if patience is not None:
            self._at(now + patience + 1, partial(self._hurry, turn.id))

    def _serve(self, endpoint: str, now: int) -> None:
        queue = self._queues[endpoint]
        while (turn := queue.take(now)) is not None:
            one = self._turns[turn.id]
            one.began_ms, one.began = now, next(self._numbers)
            takes = max(1, -(-one.job.tokens * 1000 // self._ends[endpoint].tokens_per_second))
            self._at(now + takes, partial(self._end, turn.id))
            if one.job.crowd.per_minute is None and not one.job.used:
                self._come(one.job.crowd, one.job.path, one.draw, now)
        when = queue.wake_at(now)
        if when is not None and self._wakes.get(endpoint) != when:
            self._wakes[endpoint] = when
            self._at(when, partial(self._wake, endpoint))

    def _wake(self, endpoint: str, now: int) -> None:
        if self._wakes.get(endpoint) == now:
            del self._wakes[endpoint]
            self._woken += 1
            self._serve(endpoint, now)

    def _end(self, name: str, now: int, *, used: int | None = None) -> None:
        one = self._turns.pop(name, None)
        if one is None or one.began_ms is None:
            return  # it was stopped before
        job, turn = one.job, one.turn
        spent = job.tokens if used is None else used
        job.used, job.tokens = job.used + spent, job.tokens - spent
        if job.held is not None and not job.tokens:
            self._ledger.settle(job.held, {"tokens": job.used})
        self._queues[job.crowd.endpoint].finish(name, used=spent, now_ms=now)
        order = (one.number, one.began, next(self._numbers))
        due = None if turn.deadline_ms == NEVER else turn.deadline_ms
        times = (turn.at_ms, one.began_ms, now)
        row = Row(
            name, job.crowd.endpoint, turn.path, turn.priority, spent, *times, order, turn.tokens, bool(job.tokens), due, job.name
        )
        self._rows.append(row)
        self._serve(job.crowd.endpoint, now)

    def _hurry(self, name: str, now: int) -> None:
        """Somebody's patience is over: stop a turn for it, which comes again with what is left of it."""
        waits = self._turns.get(name)
        if waits is None or waits.began_ms is not None:
            return
        endpoint = waits.job.crowd.endpoint
        victim = self._queues[endpoint].victim(now)
        if victim is None:
            return
        one = self._turns[victim.id]
        assert one.began_ms is not None  # noqa: S101 - it runs
        done = min(one.job.tokens - 1, (now - one.began_ms) * self._ends[endpoint].tokens_per_second // 1000)
        self._end(victim.id, now, used=done)
        self._enqueue(one.job, max(1, victim.tokens - done), now, victim.deadline_ms, victim.risk, one.draw)
        self._serve(endpoint, now)


def _gap(crowd: Crowd, draw: random.Random) -> int:
    return max(1, round(draw.expovariate((crowd.per_minute or 1) / 60_000)))


def _account(path: Path) -> Account:
    return "share", "/".join(path)


class _Fair:
    """The arbiter, as the simulation asks."""

    def __init__(self, endpoint: Endpoint, workload: Workload) -> None:
        self._arbiter = Arbiter(endpoint.name, endpoint.limits, workload.classes)
        for path, weight in workload.weights.items():
            self._arbiter.weigh(path, weight)
        for path, slots in workload.quotas.items():
            self._arbiter.allot(path, slots)
        self.enqueue = self._arbiter.enqueue
        self.finish = self._arbiter.finish
        self.wake_at = self._arbiter.wake_at
        self.victim = self._arbiter.victim

    def take(self, now_ms: int) -> Turn | None:
        admission = self._arbiter.next(now_ms)
        return None if admission is None else admission.turn


class _Plain:
    """First come first served, or agents in turn; it keeps to the endpoint's slots and rates, and knows nothing else."""

    def __init__(self, endpoint: Endpoint, *, rounds: bool) -> None:
        limits = endpoint.limits
        self._slots, self._rounds, self._running = limits.slots, rounds, 0
        self._requests = None if limits.requests_per_minute is None else Bucket(limits.requests_per_minute)
        self._tokens = None if limits.tokens_per_minute is None else Bucket(limits.tokens_per_minute)
        self._said: dict[str, int] = {}
        self._lines: dict[Path, deque[Turn]] = {}
        self._line: deque[Path] = deque()

    def enqueue(self, turn: Turn) -> None:
        name = turn.path if self._rounds else ()
        mine = self._lines.setdefault(name, deque())
        mine.append(turn)
        if len(mine) == 1:
            self._line.append(name)

    def take(self, now_ms: int) -> Turn | None:
        if self._running >= self._slots or not self._line or self._when(now_ms) > now_ms:
            return None
        self._running += 1
        name = self._line.popleft()
        turn = self._lines[name].popleft()
        if self._lines[name]:
            self._line.append(name)
        self._said[turn.id] = turn.tokens
        for bucket, amount in ((self._requests, 1), (self._tokens, turn.tokens)):
            if bucket is not None:
                bucket.take(amount, now_ms)
        return turn

    def finish(self, turn: str, *, used: int, now_ms: int) -> None:
        self._running -= 1
        said = self._said.pop(turn)
        if self._tokens is not None:
            self._tokens.take(used - said, now_ms)

    def wake_at(self, now_ms: int) -> int | None:
        if self._running >= self._slots or not self._line:
            return None
        return max(now_ms + 1, self._when(now_ms))

    def victim(self, now_ms: int) -> Turn | None:
        return None

    def _when(self, now_ms: int) -> int:
        return max((bucket.when(1, now_ms) for bucket in (self._requests, self._tokens) if bucket is not None), default=now_ms)


def _queue(scheduler: str, endpoint: Endpoint, workload: Workload) -> Queue:
    if scheduler == "fair":
        return _Fair(endpoint, workload)
    if scheduler not in SCHEDULERS:
        raise ValueError(f"{scheduler} is not one of {', '.join(SCHEDULERS)}")
    return _Plain(endpoint, rounds=scheduler == "round-robin")
