"""Collecting model calls into batches, submitting those, waiting for them; over restarts too.

    batches = Batches(stores, endpoint, timer, random)
    reply = await batches.ask(call)          # waits for others of its model, then for the provider: hours

The first call of a model opens a window. When that closes, or as many calls as may be are there, their submission is stored, the
batch is made, and its id is stored. Then it is looked after with growing pauses until it has ended, and each result goes to its
call. A record stays until every one of its calls has been settled, which is when its outcome is in the log, or its session is
over. A batch none of whose calls anybody waits for any more is cancelled at the provider.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentos.abi.canonical import digest_of
from agentos.abi.errors import AgentOSError, DriverError, LogUnavailable
from agentos.abi.ids import Random
from agentos.drivers.batch_flight import Entry, Flight, GivenUp, Lookout, Patience
from agentos.drivers.batching import (
    TOKEN_BYTES,
    BatchCall,
    BatchEndpoint,
    BatchGone,
    BatchStore,
    BatchUnsure,
    Gathering,
    Submission,
    Timer,
    members_of,
)
from agentos.drivers.port import ModelReply, ModelUnavailable

log = logging.getLogger(__name__)

SIDE_BY_SIDE: Final = 32
"""Calls of a batch that are looked up in the log at one time before it goes out."""


@dataclass(slots=True, eq=False)
class _Window:
    """Calls of one model that are collected. `closed` is set when it is to be submitted before its time."""

    gathering: Gathering
    entries: dict[str, Entry] = field(default_factory=dict)
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class Batches:
    """`batching.Batching`, for every tenant. `stores` gives a tenant's store; `endpoint` the batch API of a provider by name."""

    def __init__(
        self,
        stores: Callable[[str], BatchStore],
        endpoint: Callable[[str], Awaitable[BatchEndpoint]],
        timer: Timer,
        random: Random,
        patience: Patience | None = None,
    ) -> None:
        self._stores = stores
        self._endpoint = endpoint
        self._timer = timer
        self._random = random
        self._patience = patience or Patience()
        self._desks: dict[str, _Desk] = {}

    async def ask(self, call: BatchCall) -> ModelReply:
        """See `Batching.ask`."""
        return await self._desk(call.tenant).ask(call)

    def settled(self, tenant: str, session: str) -> None:
        """See `Batching.settled`."""
        if tenant in self._desks:
            self._desks[tenant].drop(session, only_given=True)

    def ended(self, tenant: str, session: str) -> None:
        """A session is over: nobody waits for its calls any more. May be told more than once."""
        if tenant in self._desks:
            self._desks[tenant].drop(session, only_given=False)

    async def recover(self, tenant: str, over: Callable[[str], Awaitable[bool]]) -> None:
        """At start: forget the calls of sessions that have ended; `over` tells which. Raises LogUnavailable, DriverError."""
        desk = self._desk(tenant)
        await desk.load()
        for session in sorted(desk.by_session):
            if await over(session):
                desk.drop(session, only_given=False)

    async def close(self) -> None:
        """Stop looking after batches. They go on at the provider, and are found again."""
        tasks = [task for desk in self._desks.values() for task in desk.tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _desk(self, tenant: str) -> _Desk:
        if tenant not in self._desks:
            self._desks[tenant] = _Desk(self._stores(tenant), self._endpoint, self._timer, self._random, self._patience)
        return self._desks[tenant]


class _Desk:
    """The batches of one tenant."""

    def __init__(
        self,
        store: BatchStore,
        endpoint: Callable[[str], Awaitable[BatchEndpoint]],
        timer: Timer,
        random: Random,
        patience: Patience,
    ) -> None:
        self.by_session: defaultdict[str, set[str]] = defaultdict(set)
        """By session: the identities of calls that are not settled."""
        self.tasks: set[asyncio.Task[None]] = set()
        self._store = store
        self._endpoint = endpoint
        self._timer = timer
        self._random = random
        self._lookout = Lookout(endpoint, timer, patience)
        self._windows: dict[str, _Window] = {}
        self._flights: dict[str, Flight] = {}
        """By identity of each call that is not settled."""
        self._loading = asyncio.Lock()
        self._loaded = False

    async def load(self) -> None:
        """Read what was submitted before, once. Raises LogUnavailable, DriverError."""
        async with self._loading:
            if not self._loaded:
                # Of two records of one call the later counts, and before it one whose batch is known to have been made.
                for submission in sorted(await self._store.all(), key=lambda one: (one.batch is not None, one.at_ms)):
                    self._take(Flight(submission, {identity for identity, _ in submission.members}))
                self._loaded = True

    async def ask(self, call: BatchCall) -> ModelReply:
        """See `Batching.ask`."""
        await self.load()
        entry = Entry(call, asyncio.get_running_loop().create_future())
        flight = self._flights.get(call.identity)
        if flight is not None:
            flight.waiting[call.identity] = entry
            self._follow(flight)
        else:
            self._collect(entry)
        try:
            return await entry.ready
        finally:
            if entry.ready.cancelled():
                self._leave(entry)

    def drop(self, session: str, *, only_given: bool) -> None:
        """Nobody comes any more for the calls of a session; `only_given`: for those whose result was given."""
        for identity in tuple(self.by_session.get(session, ())):
            flight = self._flights[identity]
            if only_given and identity not in flight.given:
                continue
            self._untie(flight, identity, session)
            if not flight.open:
                self._spawn(self._forget(flight), f"forget batch {flight.submission.batch}")

    def _untie(self, flight: Flight, identity: str, session: str) -> None:
        flight.open.discard(identity)
        del self._flights[identity]
        self.by_session[session].discard(identity)
        if not self.by_session[session]:
            del self.by_session[session]

    def _collect(self, entry: Entry) -> None:
        """Put a call into the window of its model."""
        call = entry.call
        key = digest_of([call.model.name, call.model.provider, dict(call.model.settings)])
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(Gathering(call.most))
            self._spawn(self._close_window(key, window, call.window_ms), f"batch of model {call.model.name}")
        window.gathering.add(call)
        window.entries[call.identity] = entry
        if window.gathering.full:
            # Who comes from now on is in the next one.
            del self._windows[key]
            window.closed.set()

    def _leave(self, entry: Entry) -> None:
        """A call was given up. If it was submitted, its batch goes on."""
        identity = entry.call.identity
        for window in self._windows.values():
            if window.entries.get(identity) is entry:
                del window.entries[identity]
                window.gathering.drop(identity)
        flight = self._flights.get(identity)
        if flight is not None and flight.waiting.get(identity) is entry:
            del flight.waiting[identity]

    async def _close_window(self, key: str, window: _Window, wait_ms: int) -> None:
        """Submit what has come into a window once it is over."""
        timed = asyncio.ensure_future(self._timer.sleep(wait_ms / 1000))
        full = asyncio.ensure_future(window.closed.wait())
        try:
            await asyncio.wait((timed, full), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timed.cancel()
            full.cancel()
            if self._windows.get(key) is window:
                del self._windows[key]
        try:
            looks = asyncio.Semaphore(SIDE_BY_SIDE)
            await asyncio.gather(*(_still(entry, looks) for entry in window.entries.values()))
            entries = {identity: entry for identity, entry in window.entries.items() if not entry.ready.done()}
            if entries:
                await self._submit(entries)
        finally:
            for entry in window.entries.values():
                entry.fail(_left())

    async def _submit(self, entries: dict[str, Entry]) -> None:
        calls = {identity: entry.call for identity, entry in entries.items()}
        model = next(iter(calls.values())).model
        token = self._random.token(TOKEN_BYTES).hex()
        submission = Submission(token, model, self._timer.now_ms(), members_of(calls))
        flight = Flight(submission, set(calls), entries)
        self._take(flight)
        try:
            # Before it goes out: who comes after a crash looks for it, and submits nothing twice.
            await self._store.put(submission)
        except AgentOSError as error:
            self._end(flight, error)
            # It may have been stored after all.
            await self._delete(flight)
            return
        flight.task = asyncio.current_task()
        await self._look_after(flight, calls)

    def _take(self, flight: Flight) -> None:
        for identity, session in flight.submission.members:
            earlier = self._flights.get(identity)
            self._flights[identity] = flight
            self.by_session[session].add(identity)
            if earlier is not None:
                # Its record outlived a store that was away. Nobody comes for the call there; what was made of it is cancelled.
                earlier.open.discard(identity)
                if not earlier.open:
                    self._spawn(self._forget(earlier), f"forget batch {earlier.submission.batch}")

    def _follow(self, flight: Flight) -> None:
        """See to it that somebody looks after a batch."""
        if flight.task is None or flight.task.done():
            flight.task = self._spawn(self._look_after(flight, {}), f"batch {flight.submission.batch}")

    async def _look_after(self, flight: Flight, calls: dict[str, BatchCall]) -> None:
        """Make the batch of `calls` (none: it was submitted before), and bring each call that waits its result."""
        error = _left()
        try:
            if flight.submission.batch is None and not await self._make(flight, calls):
                return
            if not flight.open:
                await self._forget(flight)
                return
            await self._lookout.until_ended(flight)
            while flight.waiting:
                await self._lookout.deliver(flight)
        except (BatchGone, GivenUp) as problem:
            error = problem
            self._end(flight, problem)
            await self._delete(flight)
        finally:
            for entry in flight.waiting.values():
                entry.fail(error)

    async def _make(self, flight: Flight, calls: dict[str, BatchCall]) -> bool:
        """See to it that the batch is made and its id is kept; False when it was not, of which the calls are told."""
        submission, unsure = flight.submission, True
        error: DriverError = ModelUnavailable("the batch was not made", where=f"model {submission.model.name}")
        batch = None
        if calls:
            requests = [(submission.request_id(identity), call.request) for identity, call in calls.items()]
            try:
                endpoint = await self._endpoint(submission.model.provider)
                batch, unsure = await endpoint.create(submission.model, requests), False
            except BatchUnsure as problem:
                error = ModelUnavailable(problem.message, where=problem.where)
                log.warning("a batch of %d calls may have been made: %s", len(requests), problem.message)
            except DriverError as problem:
                error, unsure = problem, False
        if unsure:
            batch = await self._lookout.find(submission, {one.submission.batch for one in self._flights.values()})
        if batch is None:
            again = list(flight.waiting.values()) if not calls else []
            if again:
                # They come from before a restart, and never went out.
                flight.waiting.clear()
            self._end(flight, error)
            await self._delete(flight)
            for entry in again:
                self._collect(entry)
            return False
        log.info("batch %s of %d calls of model %s", batch, len(submission.members), submission.model.name)
        flight.submission = replace(submission, batch=batch)
        try:
            await self._store.put(flight.submission)
        except AgentOSError as problem:
            # After a restart it is looked for.
            log.warning("the id of batch %s cannot be kept: %s", batch, problem)
        return True

    def _end(self, flight: Flight, error: Exception) -> None:
        """A submission came to nothing: whoever waits is told, and asks anew."""
        for identity, session in flight.submission.members:
            if identity in flight.open:
                self._untie(flight, identity, session)
        for entry in flight.waiting.values():
            entry.fail(error)
        flight.waiting.clear()

    async def _forget(self, flight: Flight) -> None:
        """Nobody comes for anything of it: cancel what is not done, and keep its record no longer."""
        batch, model = flight.submission.batch, flight.submission.model
        if batch is None:
            # It is being made, or looked for, and forgotten after that; one that nobody looks after is looked for now.
            self._follow(flight)
            return
        if not flight.ended:
            try:
                await (await self._endpoint(model.provider)).cancel(model, batch)
                log.info("batch %s is cancelled: nobody waits for it", batch)
            except DriverError as error:
                log.warning("batch %s cannot be cancelled: %s", batch, error.message)
            if flight.task is not None and flight.task is not asyncio.current_task():
                flight.task.cancel()
        await self._delete(flight)

    async def _delete(self, flight: Flight) -> None:
        try:
            await self._store.delete(flight.submission.token)
        except AgentOSError as error:
            # After a restart its sessions say whether anybody comes for it.
            log.warning("the record of batch %s cannot be removed: %s", flight.submission.batch, error)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


async def _still(entry: Entry, looks: asyncio.Semaphore) -> None:
    """Ask whether a call may still go out; it fails by what keeps it."""
    async with looks:
        if not entry.ready.done():
            try:
                await entry.call.still()
            except AgentOSError as error:
                entry.fail(error)


def _left() -> AgentOSError:
    """What calls are told that were left alone in a way that nobody foresaw: they are made again, and look for their batch."""
    return LogUnavailable("the batch is not looked after any more", mend="repeating is safe")
