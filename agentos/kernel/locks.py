"""Locks of sessions: taken, waited for in order, handed on, taken back when a session ends or a person breaks them.

The store says who holds what, by compare and set; nothing of it is believed from memory. What is in memory only is who waits:
after a crash each call that waited is made again, and waits anew. A lock is handed over by one task per resource that somebody
waits for: it takes the lock for the first in the queue as soon as it is free or its lease is over, so that nobody is woken in
vain, and nobody who comes later gets in between.

A call that a crash hid is made again: whoever holds the lock already is answered with the token that it has.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from agentos.abi.errors import AgentOSError, DriverError, LogUnavailable, NotFound
from agentos.drivers.locks import Freed, Grant, Holder, Lock, LockHeld, LockLost, LockStore, LockUnreadable, Moved
from agentos.drivers.port import CallContext
from agentos.kernel.port import ConfigurationSource, Timer
from agentos.kernel.seat import Displaced
from agentos.kernel.waiting import Victim, Waiter, Waiting
from agentos.kernel.waits import Waits
from agentos.scheduler.declared import STANDARD

log = logging.getLogger(__name__)

TRIES: Final = 16
"""How often a change is tried while somebody else, another runtime perhaps, changes the same lock."""

MOST_HELD: Final = 256
"""Locks that a session holds at most."""

TIDY_MS: Final = 3_600_000
"""How often what nobody holds any more is forgotten, where locks are let go of."""

PAUSE_S: Final = 1.0
"""Seconds until letting go for a session that has ended is tried again."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Standing:
    """A lock as it stands, and the sessions that wait for it, in the order in which they would get it."""

    lock: Lock
    waiters: tuple[tuple[str, str], ...]
    """Session and agent of each."""


class LockKeeper:
    """`drivers.locks.Locks`, for every tenant. `stores` gives a tenant's store; raises NotFound."""

    def __init__(self, stores: Callable[[str], LockStore], source: ConfigurationSource, timer: Timer, waits: Waits) -> None:
        self._stores = stores
        self._source = source
        self._timer = timer
        self._waits = waits
        self.idle: Callable[[str, asyncio.Future[Any]], Awaitable[None]] = _alone
        """How a session waits for something: in a place that may be needed by another one, by which Displaced is raised."""
        self._desks: dict[str, _Desk] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def lock(self, place: CallContext, resource: str, *, wait_ms: int, lease_ms: int) -> Grant:
        """See `drivers.locks.Locks.lock`. Cancelling leaves the queue; what was taken by then is the session's until it ends.

        Raises Displaced when the session's place is needed meanwhile: it stays in the queue, and the same call goes on there.
        """
        desk, key = self._desk(place.tenant), (place.session, place.call)
        waiter = desk.parked.pop(key, None)
        if waiter is None or _given(waiter):
            granted: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
            waiter = Waiter(place.session, place.call, place.agent, resource, self._priority(place), lease_ms, granted)
        try:
            if waiter.patience is None:
                grant = await _whole(desk.take(waiter, wait=wait_ms > 0))
                if grant is not None:
                    return grant
                waiter.patience = asyncio.create_task(desk.be_patient(waiter, wait_ms), name=f"patience of {place.session}")
            await self.idle(place.session, waiter.granted)
            return waiter.granted.result()
        except Displaced:
            desk.parked[key] = waiter
            raise
        finally:
            if desk.parked.get(key) is not waiter:
                desk.drop(waiter)

    async def unlock(self, place: CallContext, resource: str, token: int) -> None:
        """See `drivers.locks.Locks.unlock`."""
        desk, now = self._desk(place.tenant), self._timer.now_ms()
        await _whole(desk.give_back(place.session, resource, token))
        if now - desk.tidied_ms >= TIDY_MS:
            desk.tidied_ms = now
            self._spawn(self._tidy(desk), f"forget locks of {place.tenant}")

    def ended(self, tenant: str, session: str) -> None:
        """A session is over: what it holds is let go of, in the background. May be told more than once."""
        desk = self._desks.get(tenant)
        if desk is None:
            return
        for key in [key for key in desk.parked if key[0] == session]:
            desk.drop(desk.parked.pop(key))
        if desk.held.get(session):
            self._spawn(self._release(desk, session), f"locks of {session}")

    async def recover(self, tenant: str, over: Callable[[str], Awaitable[bool]]) -> None:
        """At start: let go for sessions that have ended; `over` tells which. Raises LogUnavailable."""
        desk = self._desk(tenant)
        desk.tidied_ms = self._timer.now_ms()
        await desk.store.tidy()
        for lock in await desk.store.all():
            if lock.holder is not None:
                desk.held[lock.holder.session].add(lock.resource)
        for session in sorted(desk.held):
            if await over(session):
                self.ended(tenant, session)

    async def standing(self, tenant: str) -> list[Standing]:
        """Every lock of a tenant that somebody holds or waits for, by resource. Raises LogUnavailable."""
        desk = self._desk(tenant)
        found = [lock for lock in await desk.store.all() if lock.holder is not None or desk.waiting.first(lock.resource)]
        return [Standing(one, tuple((w.session, w.agent) for w in desk.waiting.queue(one.resource))) for one in found]

    async def break_open(self, tenant: str, resource: str, record: Callable[[Lock], Awaitable[None]]) -> Lock:
        """Take a lock from whoever holds it; return what stood there. `record` is awaited first, and may refuse by raising.

        The token of the former holder counts for nothing from then on. Raises NotFound when nobody holds it, LogUnavailable.
        """
        return await _whole(self._desk(tenant).break_open(resource, record))

    async def close(self) -> None:
        """Stop handing over. What is held stays held: sessions come back."""
        tasks = [*self._tasks, *(task for desk in self._desks.values() for task in desk.serving.values())]
        for desk in self._desks.values():
            while desk.parked:
                desk.drop(desk.parked.popitem()[1])
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _desk(self, tenant: str) -> _Desk:
        if tenant not in self._desks:
            waiting = Waiting(self._waits)
            self._desks[tenant] = _Desk(self._stores(tenant), waiting, self._timer, lambda: self._victim(tenant))
        return self._desks[tenant]

    def _priority(self, place: CallContext) -> str:
        """The class of a session: its run's, or its agent's."""
        if place.priority:
            return place.priority
        try:
            return self._source.current(place.tenant).agents[place.agent].priority
        except (NotFound, KeyError):
            return STANDARD

    def _victim(self, tenant: str) -> Victim:
        try:
            return Victim(self._source.current(tenant).lock_victim)
        except NotFound:
            return Victim.REQUESTER

    async def _release(self, desk: _Desk, session: str) -> None:
        while desk.held.get(session):
            try:
                await desk.release(session)
            except LogUnavailable as error:
                log.warning("the locks of %s cannot be let go of yet: %s", session, error)
                await self._timer.sleep(PAUSE_S)
            except AgentOSError as error:
                # Their leases end them.
                log.warning("the locks of %s cannot be let go of: %s", session, error)
                return

    async def _tidy(self, desk: _Desk) -> None:
        try:
            await desk.store.tidy()
        except AgentOSError as error:
            log.warning("what nobody locks any more cannot be forgotten: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Desk:
    """The locks of one tenant. Changes of one resource take turns; each is whole, whatever becomes of who asked for it."""

    def __init__(self, store: LockStore, waiting: Waiting, timer: Timer, victim: Callable[[], Victim]) -> None:
        self.store = store
        self.waiting = waiting
        self.held: defaultdict[str, set[str]] = defaultdict(set)
        """By session: the resources that it may hold."""
        self.parked: dict[tuple[str, str], Waiter] = {}
        """Who waits without a place to run in, by session and call."""
        self.serving: dict[str, asyncio.Task[None]] = {}
        self.tidied_ms = timer.now_ms()
        self._timer = timer
        self._victim = victim
        self._changed: dict[str, asyncio.Event] = {}
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def take(self, waiter: Waiter, *, wait: bool) -> Grant | None:
        """The lock, if it is free or the session's own; else None, and `waiter` is queued. Raises LockHeld unless `wait`."""
        resource = waiter.resource
        async with self._turn(resource):
            for _ in range(TRIES):
                lock = await self.store.read(resource)
                if waiter.granted.done():
                    raise asyncio.CancelledError  # nobody waits for it any more, nor would take it out of the queue
                mine = lock.holder is not None and lock.holder.session == waiter.session
                if not mine and len(self.held.get(waiter.session, ())) >= MOST_HELD:
                    raise DriverError(f"this session holds {MOST_HELD} locks, which is the most", mend="unlock what is done with")
                if not mine and (self.waiting.first(resource) is not None or not lock.free(self._timer.now_ms())):
                    first = self.waiting.first(resource)
                    # A lock that is free goes to the first of the queue, who is about to get it.
                    free = lock.holder is None or lock.free(self._timer.now_ms())
                    holder = first.session if free and first is not None else lock.holder.session if lock.holder else ""
                    if not wait:
                        raise _held(resource, holder, "and this call does not wait")
                    self.waiting.enter(waiter, holder, self._victim())
                    self._serve(resource)
                    return None
                grant = await self._write(lock, waiter)
                if grant is not None:
                    return grant
            raise _restless(resource)

    async def be_patient(self, waiter: Waiter, wait_ms: int) -> None:
        """Give `waiter` up once it has waited so long."""
        await self._timer.sleep(wait_ms / 1000)
        self.waiting.give_up(waiter, _held(waiter.resource, waiter.holder, f"for the {wait_ms / 1000:g} s that this call waited"))

    def drop(self, waiter: Waiter) -> None:
        """Nobody comes for it any more. Once it is cancelled, whoever hands the lock over knows that nobody takes it here."""
        if not waiter.granted.cancel() and not waiter.granted.cancelled():
            waiter.granted.exception()  # it has been looked at, whatever it is
        if waiter.patience is not None:
            waiter.patience.cancel()
        self.waiting.leave(waiter)

    async def give_back(self, session: str, resource: str, token: int) -> None:
        """See `Locks.unlock`."""
        async with self._turn(resource):
            for _ in range(TRIES):
                lock = await self.store.read(resource)
                if lock.holder is not None and lock.holder.session == session and lock.token == token:
                    if await self._free(lock, session):
                        return
                elif lock.freed is not None and (lock.freed.session, lock.freed.token) == (session, token):
                    return  # this very call, made before a crash, or one like it
                else:
                    raise _lost(lock, session, token)
            raise _restless(resource)

    async def release(self, session: str) -> None:
        """Let go of everything that an ended session holds."""
        for resource in sorted(self.held.get(session, ())):
            async with self._turn(resource):
                while True:
                    try:
                        lock = await self.store.read(resource)
                    except LockUnreadable as error:
                        log.warning("a lock of %s cannot be let go of: %s", session, error)
                        self._forget(session, resource)
                        break
                    if lock.holder is None or lock.holder.session != session:
                        self._forget(session, resource)
                        break
                    if await self._free(lock, session):
                        break

    async def break_open(self, resource: str, record: Callable[[Lock], Awaitable[None]]) -> Lock:
        """See `LockKeeper.break_open`."""
        async with self._turn(resource):
            for _ in range(TRIES):
                try:
                    lock = await self.store.read(resource)
                except LockUnreadable as error:
                    lock = Lock(resource, error.revision)
                else:
                    if lock.holder is None:
                        raise NotFound(f"nobody holds {resource}", mend="list what is held: agentos locks")
                await record(lock)
                if await self._free(lock, None):
                    return lock
            raise _restless(resource)

    def _serve(self, resource: str) -> None:
        """See to it that somebody hands the lock over."""
        if resource not in self.serving:
            self.serving[resource] = asyncio.create_task(self._hand_over(resource), name=f"hand over {resource}")

    async def _hand_over(self, resource: str) -> None:
        """Serve the queue of a resource until it is empty."""
        changed = self._changed.setdefault(resource, asyncio.Event())
        # By this error their calls stay open, and are made again by whoever runs their sessions next.
        error: AgentOSError = LogUnavailable("the lock is not handed over any more", where=resource)
        try:
            while self.waiting.first(resource) is not None:
                changed.clear()
                async with self._turn(resource):
                    lock = await self._serve_first(resource)
                if lock is not None and lock.holder is not None:
                    left_ms = max(lock.holder.expires_ms - self._timer.now_ms(), 0) + 1
                    await _first_of(changed.wait(), self._timer.sleep(left_ms / 1000))
        except AgentOSError as problem:
            error = problem
        finally:
            del self.serving[resource], self._changed[resource]
            for waiter in self.waiting.queue(resource):
                self.waiting.give_up(waiter, error)

    async def _serve_first(self, resource: str) -> Lock | None:
        """Give the lock to the first of the queue if it can be given; else what keeps it."""
        lock = await self.store.read(resource)
        waiter = self.waiting.first(resource)
        if waiter is None:
            return None
        if not lock.free(self._timer.now_ms()) and lock.holder is not None and lock.holder.session != waiter.session:
            self.waiting.handed(resource, lock.holder.session)
            return lock
        grant = await _whole(self._write(lock, waiter))
        if grant is None:
            return None
        if waiter.granted.done():
            # It gave up while the lock was written for it: the next one is served.
            self.waiting.leave(waiter)
            given = await self.store.read(resource)
            if given.holder is not None and given.revision == grant.token:
                await self._free(given, waiter.session)
        else:
            self.waiting.leave(waiter)
            waiter.granted.set_result(grant)
        return None

    async def _write(self, lock: Lock, waiter: Waiter) -> Grant | None:
        """Make `waiter`'s session the holder, or renew its lease; None when somebody else was first."""
        now = self._timer.now_ms()
        before = lock.holder
        expires = now + waiter.lease_ms
        if before is not None and before.session == waiter.session:
            holder = replace(before, call=waiter.call, expires_ms=expires, token=lock.token)
        else:
            holder = Holder(waiter.session, waiter.call, waiter.agent, now, expires)
        # Before it is written, as nobody may ever tell whether it was.
        self.held[waiter.session].add(lock.resource)
        try:
            written = await self.store.write(replace(lock, holder=holder))
        except Moved:
            if before is None or before.session != waiter.session:
                self._forget(waiter.session, lock.resource)
            return None
        if before is not None and before.session != waiter.session:
            self._forget(before.session, lock.resource)
        self.waiting.handed(lock.resource, waiter.session)
        return Grant(lock.resource, written.token, expires)

    async def _free(self, lock: Lock, session: str | None) -> bool:
        """Let go; `session` None: by force, after which the holder's token is none that was given back. False: try again."""
        freed = lock.freed if session is None else Freed(session, lock.token, self._timer.now_ms())
        try:
            await self.store.write(replace(lock, holder=None, freed=freed))
        except Moved:
            return False
        if lock.holder is not None:
            self._forget(lock.holder.session, lock.resource)
        self._stir(lock.resource)
        return True

    def _stir(self, resource: str) -> None:
        if resource in self._changed:
            self._changed[resource].set()

    def _forget(self, session: str, resource: str) -> None:
        held = self.held.get(session)
        if held is not None:
            held.discard(resource)
            if not held:
                del self.held[session]

    def _turn(self, resource: str) -> asyncio.Lock:
        return self._turns.setdefault(resource, asyncio.Lock())


async def _alone(session: str, done: asyncio.Future[Any]) -> None:
    """Wait for `done` where places are not shared."""
    del session
    await asyncio.wait((done,))


def _given(waiter: Waiter) -> bool:
    """Whether it got the lock while it had no place: it is asked for once more, as its lease may be over by now."""
    done = waiter.granted
    return done.cancelled() or (done.done() and done.exception() is None)


async def _whole(work: Coroutine[Any, Any, _T]) -> _T:
    """Do `work` to its end, also when who waits for it is cancelled meanwhile, who is told so after that."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when one of `waits` has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _held(resource: str, session: str, how: str) -> LockHeld:
    return LockHeld(f"{resource} is held by {session or 'somebody else'}, {how}", mend="lock it again later, or wait longer")


def _lost(lock: Lock, session: str, token: int) -> LockLost:
    if lock.holder is None:
        now = "nobody holds it"
    elif lock.holder.session == session:
        now = f"this session holds it with token {lock.token}"
    else:
        now = f"{lock.holder.session} holds it with token {lock.token}"
    return LockLost(
        f"token {token} of {lock.resource} does not count: {now}", mend="do nothing more under it; lock it again first"
    )


def _restless(resource: str) -> LogUnavailable:
    return LogUnavailable(f"the lock of {resource} changes all the time", where=resource, mend="repeating is safe")
