"""Admission: who may ask an endpoint now. Every model call, every call of a limited tool and every place to run passes here.

A request is queued at the first of its candidates whose circuit lets calls through, and goes out in the order of
`scheduler.Arbiter`: class, share, deadline. Nothing is polled: a queue is looked at when a request comes, a call ends, what is
declared changes, or a time has come that the arbiter or the circuit named. What is let out holds a `Ticket`, and gives it back
exactly once, with what it used and what that says of the endpoint.

    admissions = Admissions(timer)
    admissions.declare("acme", configuration.arbitration)
    with await admissions.admit(request) as ticket:
        ...
        ticket.succeeded(used=412)                               # or failed, or nothing: then it was never asked
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Final, Self

from agentos.abi.canonical import Json
from agentos.kernel.port import Timer
from agentos.scheduler.arbiter import NEVER, Admission, Arbiter, Limits, Turn
from agentos.scheduler.circuit import Breaker
from agentos.scheduler.classes import PriorityClass
from agentos.scheduler.declared import BUILT_IN, STANDARD, UNBOUNDED, Arbitration, Circuit
from agentos.scheduler.share import Path
from agentos.scheduler.top import EndpointView, Top, endpoint_view
from agentos.scheduler.window import Window

WINDOW_MS: Final = 300_000
"""How far back the figures of a queue reach."""

PoolKey = tuple[str, ...]
"""(tenant, model) of an endpoint, ("batch", tenant, model) of its batches, ("tool", tenant, tool) of a tool, or `PLACES`."""

BATCH: Final = "batch"
"""The first word of the key of an endpoint's batches, which any number of calls are let into."""

PLACES: Final[PoolKey] = ("places",)
"""The places to run in."""

_KINDS: Final = {"places": "harness"}
"""What queues are called in `agentos top`, where that is another word than the first of their key."""


@dataclass(frozen=True, slots=True)
class Request:
    """What asks to be let in. `tokens` is what it is expected to use; `deadline_ms` when it is due, by the clock."""

    tenant: str
    session: str
    call: str
    agent: str
    priority: str
    candidates: tuple[PoolKey, ...]
    """Where it may go, the first choice first; at least one."""
    program: str = "default"
    tokens: int = 1
    deadline_ms: int | None = None
    risk: int = 0
    """Of turns of one agent that are due at the same time the one with the most goes first."""

    @property
    def path(self) -> Path:
        """Who pays."""
        return self.tenant, self.program, self.agent


@dataclass(slots=True)
class Pool:
    """One queue and what is known of it."""

    key: PoolKey
    arbiter: Arbiter
    window: Window
    breaker: Breaker | None = None
    """None: nothing here can be out of order."""
    tickets: dict[str, Ticket] = field(default_factory=dict)
    """Those that are out, by turn."""
    waking: asyncio.Task[None] | None = None
    wakes_ms: int = 0

    @property
    def name(self) -> str:
        """What it is called in `agentos top`: `tenant/model`, or `tenant/tool`."""
        return "/".join(self.key if self.breaker is not None else self.key[1:])


class Ticket:
    """One request that was let in. The first word about how it ended counts; leaving the `with` block without one releases it."""

    def __init__(self, owner: Admissions, pool: Pool, request: Request, admission: Admission, tried: bool) -> None:
        self._owner = owner
        self._pool = pool
        self.request = request
        self.admission = admission
        self.tried = tried
        """Whether it is the call that tries an endpoint which was out of order."""
        self.stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once somebody above has waited too long: what runs is to be stopped, and its place in the queue begins anew."""
        self.begun = False
        """Whether the endpoint was asked, so that it may have used something even if nobody says what."""
        self.billed: tuple[int, int] | None = None
        """Tokens of its request and its answer, once the provider has counted them, whatever came of the answer."""
        self.lost = False
        """Whether a model has begun to answer, and nobody has counted what it used."""
        self._ended = False

    @property
    def key(self) -> PoolKey:
        """Where it was let in."""
        return self._pool.key

    @property
    def batched(self) -> bool:
        """Whether its call goes into a batch."""
        return len(self.key) == 3 and self.key[0] == BATCH

    def told(self) -> dict[str, Json]:
        """What the log is told of it."""
        admission = self.admission
        return {
            "endpoint": "/".join(self.key),
            "class": admission.priority,
            "waited_ms": admission.waited_ms,
            "why": admission.why,
        }

    def succeeded(self, used: int) -> None:
        """It was answered, having used so many tokens."""
        if self._end(used) and self._pool.breaker is not None:
            self._pool.breaker.succeeded()
        self._owner.look(self._pool)

    def failed(self, retry_after_ms: int | None = None, used: int = 0) -> None:
        """The endpoint is to blame for its failure; it may have used tokens, and may ask to be left alone for a time."""
        if self._end(used) and self._pool.breaker is not None:
            now = self._owner.now_ms()
            self._pool.breaker.failed(now, tried=self.tried, retry_after_ms=retry_after_ms)
        self._owner.reroute(self._pool)

    def release(self, used: int | None = None) -> None:
        """It is over, and that says nothing of the endpoint. `used` None: nothing, or if it had begun, what was expected."""
        if used is None:
            used = self.request.tokens if self.begun else 0
        # A model that was not asked, because the call was denied, has none of its calls a minute used up.
        asked = self.begun or used > 0 or self._pool.breaker is None
        if self._end(used, asked=asked) and self._pool.breaker is not None:
            self._pool.breaker.released(tried=self.tried)
        self._owner.look(self._pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._ended:
            self.release()

    def _end(self, used: int, *, asked: bool = True) -> bool:
        """Give the slot back; return whether this is the first word about it."""
        if self._ended:
            return False
        self._ended = True
        now, turn = self._owner.now_ms(), self.admission.turn
        del self._pool.tickets[turn.id]
        self._pool.arbiter.finish(turn.id, used=used, now_ms=now, asked=asked)
        self._pool.window.ended(turn.path, self.admission.priority, tokens=used, now_ms=now)
        return True


class Waiting:
    """A request in a queue. `ready` gets its ticket."""

    def __init__(self, owner: Admissions, request: Request, turn: Turn, pool: Pool) -> None:
        self._owner = owner
        self.request = request
        self.turn = turn
        self.pool = pool
        self.ready: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()

    async def ticket(self) -> Ticket:
        """Wait for it. Cancelling takes the request back, or gives the ticket back that came at the same moment."""
        if not self.ready.done():
            try:
                await asyncio.wait((self.ready,))
            except asyncio.CancelledError:
                self.withdraw()
                raise
        return self.ready.result()

    def withdraw(self) -> None:
        """Nobody waits for it any more."""
        if self.ready.done():
            self.ready.result().release()
        else:
            self._owner.drop(self)


class Admissions:
    """All queues of a runtime."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._began_ms = timer.now_ms() - timer.monotonic_us() // 1000
        self._pools: dict[PoolKey, Pool] = {}
        self._waiting: dict[str, Waiting] = {}
        self._numbers = count(1)
        self._declared: dict[str, Arbitration] = {}
        self._limits: dict[PoolKey, tuple[Limits, Circuit | None]] = {}
        self._classes: Mapping[str, PriorityClass] = BUILT_IN
        self._weights: dict[Path, int] = {}
        self._boosts: Counter[tuple[str, str]] = Counter()
        self._void: Counter[tuple[str, str]] = Counter()
        """Boosts to classes that were not declared."""

    def now_ms(self) -> int:
        """The time by which is waited: it began as that of the clock on the wall, and goes on when that one is set."""
        return self._began_ms + self._timer.monotonic_us() // 1000

    def declare(self, tenant: str, arbitration: Arbitration) -> None:
        """What is declared for a tenant from now on; costs nothing when it is what was declared before."""
        if self._declared.get(tenant) is arbitration:
            return
        self._declared[tenant] = arbitration
        # One that is not declared any more stays as it was for those that came as of it, and no longer than they do.
        used = {name for _, name in self._boosts}.union(*(pool.arbiter.held() for pool in self._pools.values()))
        kept = {name: one for name, one in self._classes.items() if name in used}
        self._classes = {**kept, **arbitration.priorities}
        for endpoint in arbitration.endpoints.values():
            self._limits[endpoint.key] = endpoint.limits, endpoint.circuit
        for key in [key for key in self._limits if key[:2] == ("tool", tenant) and len(key) == 3]:
            self._limits[key] = Limits(UNBOUNDED), None
        for name, limits in arbitration.tool_limits.items():
            self._limits["tool", tenant, name] = limits, None
        gone = {path: 1 for path in self._weights if path[0] == tenant and path not in arbitration.weights}
        changed = {**gone, **arbitration.weights}
        self._weights = {path: weight for path, weight in {**self._weights, **changed}.items() if weight != 1}
        for pool in self._pools.values():
            limits, circuit = self._limits.get(pool.key, (pool.arbiter.limits, None))
            pool.arbiter.reconfigure(limits, self._classes, now_ms=self.now_ms())
            if circuit is not None and pool.breaker is not None:
                pool.breaker.declared = circuit
            for path, weight in changed.items():
                pool.arbiter.weigh(path, weight)
        for pool in self._pools.values():
            self.look(pool)

    def ask(self, request: Request) -> Waiting:
        """Queue a request; it may be let in at once. A class that nobody has declared counts as the standard one."""
        now = self.now_ms()
        priority = request.priority if request.priority in self._classes else STANDARD
        name = f"{request.tenant}/{request.session}/{request.call}#{next(self._numbers)}"
        due = NEVER if request.deadline_ms is None else request.deadline_ms + now - self._timer.now_ms()
        turn = Turn(name, request.session, request.path, priority, request.tokens, now, due, request.risk)
        waiting = self._waiting[name] = Waiting(self, request, turn, self._best(request, now))
        waiting.pool.arbiter.enqueue(turn)
        self.look(waiting.pool)
        return waiting

    async def admit(self, request: Request) -> Ticket:
        """Queue a request and wait until it is let in."""
        return await self.ask(request).ticket()

    def open(self, key: PoolKey) -> bool:
        """Whether the circuit of an endpoint lets a call through now; how many wait there is another thing."""
        breaker = self._pool(key).breaker
        return breaker is None or breaker.may(self.now_ms())

    def charge(self, key: PoolKey, request: Request, used: int) -> None:
        """Charge what a call has used of an endpoint that it was not queued at, as one in a batch."""
        self._pool(key).arbiter.charge(request.path, self.effective(request.session, request.priority), used)

    def bound(self, key: PoolKey, slots: int) -> None:
        """Limit what is no declared endpoint, such as places, to so many at one time."""
        self._limits[key] = Limits(slots), None

    def depth(self, key: PoolKey) -> int:
        """How many wait there."""
        return self._pool(key).arbiter.waiting()

    def pools(self) -> Iterator[Pool]:
        """Every queue that something has asked for."""
        yield from self._pools.values()

    def snapshot(self, names: Container[str] | None = None) -> Top:
        """How the queues stand now: every one, or those of `names` alone and the places."""
        now = self.now_ms()
        pools = [pool for pool in self._pools.values() if names is None or pool.key == PLACES or pool.name in names]
        return Top(now, WINDOW_MS, tuple(self._view(pool, now) for pool in pools))

    def height(self, priority: str) -> tuple[bool, int]:
        """What classes are compared by."""
        return self._classes[priority if priority in self._classes else STANDARD].height

    def boost(self, session: str, priority: str) -> None:
        """Somebody of class `priority` waits for `session`: until `unboost` it counts everywhere as of that, if it is higher.

        A class that is not declared lifts nobody.
        """
        if priority not in self._classes:
            self._void[session, priority] += 1
            return
        self._boosts[session, priority] += 1
        for pool in self._pools.values():
            pool.arbiter.boost(session, priority)
            self.look(pool)

    def unboost(self, session: str, priority: str) -> None:
        """One that waited for `session` does no longer. Raises ValueError if nobody of that class did."""
        if self._void[session, priority]:
            self._void[session, priority] -= 1
            self._void = +self._void
            return
        if self._boosts[session, priority] < 1:
            raise ValueError(f"nobody of class {priority} waits for {session}")
        self._boosts[session, priority] -= 1
        self._boosts = +self._boosts
        for pool in self._pools.values():
            pool.arbiter.unboost(session, priority)
            self.look(pool)

    def effective(self, session: str, own: str) -> str:
        """The class that a session of class `own` counts as."""
        boosts = [name for (lifted, name) in self._boosts if lifted == session]
        return max((own if own in self._classes else STANDARD, *boosts), key=self.height)

    def look(self, pool: Pool) -> None:
        """Let out what may go now, stop what is to make room, and see to it that somebody looks again in time."""
        now = self.now_ms()
        while pool.breaker is None or pool.breaker.may(now):
            admission = pool.arbiter.next(now)
            if admission is None:
                break
            self._let_in(pool, admission, now)
        victim = pool.arbiter.victim(now) if pool.breaker is not None else None
        if victim is not None and not (stop := pool.tickets[victim.id].stop).done():
            stop.set_result(None)
        self._arm(pool, now)

    def reroute(self, pool: Pool) -> None:
        """The circuit of an endpoint may have opened: who waits there and may go elsewhere does; look again."""
        now = self.now_ms()
        if pool.breaker is not None and not pool.breaker.may(now):
            for waiting in [one for one in self._waiting.values() if one.pool is pool and len(one.request.candidates) > 1]:
                best = self._best(waiting.request, now)
                if best is not pool:
                    pool.arbiter.withdraw(waiting.turn.id)
                    # It keeps the time when it came.
                    best.arbiter.enqueue(waiting.turn)
                    waiting.pool = best
                    self.look(best)
        self.look(pool)

    def drop(self, waiting: Waiting) -> None:
        """Take a request back that waits."""
        if self._waiting.pop(waiting.turn.id, None) is not None:
            waiting.pool.arbiter.withdraw(waiting.turn.id)
            self.look(waiting.pool)

    async def close(self) -> None:
        """Look no more."""
        tasks = [pool.waking for pool in self._pools.values() if pool.waking is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _view(self, pool: Pool, now: int) -> EndpointView:
        kind = "model" if pool.breaker is not None else pool.key[0]
        return endpoint_view(
            _KINDS.get(kind, kind),
            pool.name,
            pool.arbiter,
            pool.window,
            weights=self._weights,
            now_ms=now,
            circuit=str(pool.breaker.state(now)) if pool.breaker is not None else "closed",
        )

    def _let_in(self, pool: Pool, admission: Admission, now: int) -> None:
        waiting = self._waiting.pop(admission.turn.id)
        tried = pool.breaker is not None and pool.breaker.began(now)
        ticket = Ticket(self, pool, waiting.request, admission, tried)
        pool.tickets[admission.turn.id] = ticket
        pool.window.admitted(admission.priority, waited_ms=admission.waited_ms, now_ms=now)
        waiting.ready.set_result(ticket)

    def _best(self, request: Request, now: int) -> Pool:
        """The first candidate that lets calls through; if none does, the one that will first."""
        pools = [self._pool(key) for key in request.candidates]
        return min(pools, key=lambda pool: _opens(pool, now))

    def _pool(self, key: PoolKey) -> Pool:
        found = self._pools.get(key)
        if found is not None:
            return found
        limits, circuit = self._limits.get(key, (Limits(UNBOUNDED), None))
        now = self.now_ms()
        arbiter = Arbiter("/".join(key), limits, self._classes, now_ms=now)
        for path, weight in self._weights.items():
            arbiter.weigh(path, weight)
        for (session, priority), times in self._boosts.items():
            for _ in range(times):
                arbiter.boost(session, priority)
        breaker = Breaker(circuit or Circuit()) if len(key) == 2 else None
        pool = self._pools[key] = Pool(key, arbiter, Window(WINDOW_MS), breaker)
        return pool

    def _arm(self, pool: Pool, now: int) -> None:
        """See to it that the queue is looked at when its time has come."""
        when = self._next_look(pool, now)
        if pool.waking is not None:
            if when is not None and pool.wakes_ms <= when:
                return
            pool.waking.cancel()
            pool.waking = None
        if when is not None:
            pool.wakes_ms = when
            pool.waking = asyncio.create_task(self._wake(pool, when - now), name=f"look at the queue of {'/'.join(pool.key)}")

    def _next_look(self, pool: Pool, now: int) -> int | None:
        if not pool.arbiter.waiting():
            return None
        opens = pool.breaker.may_at(now) if pool.breaker is not None else now
        if opens is None or opens > now:
            return opens
        times = (pool.arbiter.wake_at(now), pool.arbiter.patience_ends(now) if pool.breaker is not None else None)
        return min((when for when in times if when is not None), default=None)

    async def _wake(self, pool: Pool, wait_ms: int) -> None:
        await self._timer.sleep(wait_ms / 1000)
        pool.waking = None
        self.look(pool)


def _opens(pool: Pool, now: int) -> int:
    when = pool.breaker.may_at(now) if pool.breaker is not None else now
    # One that is being tried will say soon whether it is in order, but nobody knows when.
    return NEVER if when is None else when
