"""All sessions of the runtime: created, run, parked, woken by an approval, cancelled, resumed after a restart."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical
from agentos.abi.errors import (
    AgentOSError,
    LogUnavailable,
    NotFound,
    PayloadErased,
    Relieved,
    SequenceConflict,
    TooLarge,
    UsageError,
)
from agentos.abi.ids import Random, new_id
from agentos.drivers.port import Driver
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject
from agentos.kernel.answering import Answers
from agentos.kernel.deferral import Deferrals
from agentos.kernel.ending import in_force, lose_open_calls
from agentos.kernel.gate import SYSTEM, Gate
from agentos.kernel.journal import Journal
from agentos.kernel.live import Live
from agentos.kernel.opening import admitted, opening, urgency
from agentos.kernel.places import LONGEST_PAUSE_S, Places
from agentos.kernel.port import AgentSpec, Configuration, ConfigurationSource, Timer
from agentos.kernel.runner import Runner
from agentos.kernel.snapshot import Snapshots
from agentos.kernel.waits import Waits
from agentos.kernel.workspace import InputFile, Workspaces
from agentos.projections.session import SessionState, State
from agentos.scheduler.precondition import Precondition

log = logging.getLogger(__name__)

_Key = tuple[str, str]
"""Tenant and session."""

_NO_ORIGIN: Final[Mapping[str, Json]] = MappingProxyType({})


class Sessions:
    """The sessions of every tenant. One journal per live session, so that there is one writer per subject."""

    def __init__(
        self,
        logs: Callable[[str], EventLog],
        source: ConfigurationSource,
        gate: Gate,
        runner: Runner,
        drivers: Driver,
        workspaces: Workspaces,
        timer: Timer,
        random: Random,
        snapshots: Snapshots | None = None,
        waits: Waits | None = None,
    ) -> None:
        """`waits` is the graph of all waits; None: one of its own."""
        self._logs = logs
        self._snapshots = snapshots
        self._load = partial(Journal.load, clock=timer, random=random, snapshots=snapshots)
        self._source = source
        self._gate = gate
        self._drivers = drivers
        self._workspaces = workspaces
        self._timer = timer
        self._random = random
        self._journals: dict[_Key, Journal] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._live = Live()
        self._turnstiles: weakref.WeakValueDictionary[_Key, asyncio.Lock] = weakref.WeakValueDictionary()
        self._stirred = asyncio.Event()
        self._closed = False
        self._places = Places(runner, source, runner.admissions, timer)
        self.idle, self.rests = self._places.idle, self._places.rests
        self.windows, self.windows.idle = runner.windows, self.idle
        self.at_end(self.windows.ended)
        self.deferrals = Deferrals(self, logs, source, timer, waits or Waits(runner.admissions))
        self.at_end(self.deferrals.ended)
        answers = Answers(self, source, timer)
        self.answer, self.expire = answers.answer, answers.expire

    async def create(
        self,
        tenant: str,
        agent: str,
        goal: str,
        archive: bytes | None,
        actor: str,
        *,
        priority: str | None = None,
        due_in_ms: int | None = None,
        begin: Precondition | None = None,
        labels: Sequence[str] = (),
        file_labels: Mapping[str, Sequence[str]] | None = None,
        fill: Callable[[str, AgentSpec], Awaitable[dict[str, Json]]] | None = None,
        prepare: Callable[[str], Awaitable[None]] | None = None,
        session: str | None = None,
        origin: Mapping[str, Json] = _NO_ORIGIN,
    ) -> SessionState:
        """Start a session of `agent`; return it as created. `fill` fills its workspace and gives its first payload, for a fork;
        `prepare` is told the session's id before anything is stored.

        `session` is the id that it is to have: one that is in the log already is returned as it stands, and nothing is begun, so
        that whatever has an id of its own is begun once. `origin` says where it comes from (`delegated`, `firing`, `standing`,
        `served`).

        `priority` and `due_in_ms` are the run's own class, and when it is due; before `begin` holds the session does not begin.
        `labels` are on it from its first event, `file_labels` on input files, by the folder or file below `input/` that they
        are in (`.`: all); what the Agent declares is added to both.
        Raises NotFound (no such agent or session), Conflict (too many live sessions of the tenant), UsageError (unusable input).
        """
        name = session or new_id("s", self._timer, self._random)
        # Once stored it may be found by others before we hear of it: they wait for their turn.
        async with self._turnstiles.setdefault((tenant, name), asyncio.Lock()):
            if session is None or await self._logs(tenant).last(session_subject(session)) is None:
                if begin is not None:
                    await self.deferrals.check(tenant, begin)
                if session is not None:
                    # Of a try that a crash had ended before anything of it was stored.
                    await asyncio.to_thread(self._workspaces.remove, tenant, session)
                configuration = self._source.current(tenant)
                spec = admitted(configuration, agent, live=self._live.count(tenant))
                self._gate.freezes.check_run(tenant, spec)
                due = None if due_in_ms is None else self._timer.now_ms() + due_in_ms
                own = {**urgency(configuration, spec, priority, due, begin), **origin}

                async def first(inputs: Sequence[InputFile]) -> dict[str, Json]:
                    if prepare is not None:
                        await prepare(name)
                    told = await fill(name, spec) if fill else opening(spec, goal, inputs, labels, file_labels or {})
                    return {**told, **own}

                return await self._begin(configuration, name, archive, first, actor)
        return await self.state(tenant, name)

    async def _begin(
        self,
        configuration: Configuration,
        session: str,
        archive: bytes | None,
        first: Callable[[Sequence[InputFile]], Awaitable[dict[str, Json]]],
        actor: str,
    ) -> SessionState:
        """Make the workspace, record the `first` payload, and have the session run."""
        tenant = configuration.tenant
        journal = Journal(self._logs(tenant), tenant, session, self._timer, self._random, self._snapshots)
        self._live.add((tenant, session))
        try:
            inputs = await asyncio.to_thread(self._workspaces.create, tenant, session, archive)
            try:
                payload = await first(inputs)
            except AgentOSError:
                await asyncio.to_thread(self._workspaces.remove, tenant, session)
                raise
            try:
                return await journal.record_under(configuration, ev.SESSION_CREATED, payload, actor)
            except (NotCanonical, PayloadErased, TooLarge) as error:
                await asyncio.to_thread(self._workspaces.remove, tenant, session)
                if isinstance(error, PayloadErased):
                    raise
                raise UsageError(f"the goal and the names of the input files cannot be recorded: {error}") from error
        finally:
            # Also for a caller that has given up: what the log holds is run.
            if journal.head.seq:
                self.wake(journal)
            elif journal.stale:
                self._later((tenant, session))
            else:
                self._live.discard((tenant, session))

    def at_end(self, tell: Callable[[str, str], None]) -> None:
        """Have `tell` told of each session that is over (tenant, session), perhaps more than once."""
        self._live.told.append(tell)

    def check_run(self, tenant: str, agent: str) -> None:
        """Whether no kill switch keeps a session of `agent` from beginning. Raises Frozen, NotFound for the tenant."""
        if (spec := self._source.current(tenant).agents.get(agent)) is not None:
            self._gate.freezes.check_run(tenant, spec)

    def live(self, tenant: str) -> frozenset[str]:
        """The sessions of a tenant that are not over, those just being created among them."""
        return self._live.of(tenant)

    def adopt(self, tenant: str, sessions: Iterable[str]) -> None:
        """Count sessions that a runtime before us left waiting for a person among the live ones."""
        self._live.adopt(tenant, sessions)

    async def resume(self, tenant: str, session: str) -> None:
        """Take over a session that nobody here runs and run it on, unless it is over or waits for a person.

        Called at start for what a runtime before us left, and whenever a session is found to run nowhere: what was sent by us and
        given up, or by a runtime that is gone, may be stored at any time. While the log is away it is tried again and again.
        Raises Relieved, NotFound, ChainBroken.
        """
        key = (tenant, session)
        try:
            async with self.journal(tenant, session) as journal:
                if key not in self._tasks:
                    await self._take_over(journal)
        except Relieved:
            raise
        except (LogUnavailable, SequenceConflict):  # a conflict: what the runtime before us had sent has come in meanwhile
            if key not in self._tasks:
                self._later(key)

    async def _take_over(self, journal: Journal) -> None:
        if journal.state.state is not State.RUNNING:
            self.wake(journal)
            return
        await self._gate.tenure.hold(journal.tenant)
        configuration = self._source.current(journal.tenant)
        await journal.record_under(configuration, ev.SESSION_OWNED, {"epoch": journal.state.epoch + 1}, SYSTEM)
        await self._gate.settle(journal, configuration)
        if journal.state.state is State.RUNNING:
            self._start(journal)

    def wake(self, journal: Journal) -> None:
        """Run a session on that does not run. While its harness is still leaving, its task goes on by itself: it runs again."""
        key, state = (journal.tenant, journal.session), journal.state.state
        if state is State.DEFERRED:
            self._live.add(key)
            self.deferrals.hold(journal)
        elif state is State.RUNNING and key not in self._tasks:
            self._start(journal)

    async def attend(self, journal: Journal) -> None:
        """Have a session run that its client has something for; one that a runtime before us left is taken over first."""
        if self.runs(journal.tenant, journal.session):
            self.wake(journal)
        else:
            await self._take_over(journal)

    def runs(self, tenant: str, session: str) -> bool:
        """Whether a session runs or is about to, or begins by itself once it may, or rests until its client wants something."""
        key = (tenant, session)
        return key in self._tasks or self.deferrals.holds(tenant, session) or self.windows.rests(key)

    async def cancel(self, tenant: str, session: str, *, reason: str, actor: str) -> SessionState:
        """Stop a session for good. Raises Conflict when it is already over."""
        async with self.journal(tenant, session) as journal:
            if (task := self._tasks.get((tenant, session))) is not None:
                task.cancel()
                await asyncio.wait([task])
                if self._tasks.get((tenant, session)) is task:  # it was cancelled before its first step
                    del self._tasks[tenant, session]
            try:
                # What was under way when it was stopped may be in the log.
                last = await self._load(self._logs(tenant), tenant, session) if journal.stale else journal
                # Whoever stood still meanwhile, and has read what another runtime wrote since, may not add to it.
                await self._gate.tenure.hold(tenant)
                return await self._end(last, ev.SESSION_CANCELLED, {"reason": reason}, actor)
            except BaseException as error:
                # It was stopped without a word in the log: it runs on, unless the word was stored after all.
                if not isinstance(error, SequenceConflict) and not journal.state.over:
                    self._later((tenant, session))
                raise

    async def state(self, tenant: str, session: str) -> SessionState:
        """The session as it stands. Raises NotFound."""
        async with self.journal(tenant, session) as journal:
            return journal.state

    async def wait_beyond(self, tenant: str, session: str, seq: int) -> None:
        """Return once a session has more than `seq` events, or may have; cancel to give up.

        A session that rests (it waits for a person, or is over) is waited for until somebody wakes it.
        """
        while True:
            journal = self._journals.get((tenant, session))
            if journal is None:
                await self._stirred.wait()
            elif await journal.wait_beyond(seq):
                return

    def running(self, tenant: str | None = None) -> int:
        """How many sessions run or wait for a place to run: those of all tenants, or of one."""
        return sum(tenant in (None, of) for of, _ in self._tasks)

    async def close(self) -> None:
        """Stop running; every session can be resumed from the log."""
        self._closed = True
        await self.deferrals.close()
        while tasks := list(self._tasks.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            # One that was cancelled before its first step did not take itself out.
            self._tasks = {key: task for key, task in self._tasks.items() if not task.done()}

    @asynccontextmanager
    async def journal(self, tenant: str, session: str) -> AsyncIterator[Journal]:
        """The session's one journal, loaded from the log if nobody holds it; commands on one session take turns."""
        key = (tenant, session)
        turnstile = self._turnstiles.setdefault(key, asyncio.Lock())
        async with turnstile:
            journal = self._journals.get(key)
            if journal is None or journal.stale:
                journal = await self._load(self._logs(tenant), tenant, session)
                self._hold(journal)
            try:
                await self._gate.tenure.hold(tenant)
                yield journal
            except LogUnavailable:
                # What was to be recorded may be in the log, such as the answer that wakes a session.
                if journal.stale and key not in self._tasks:
                    self._later(key)
                raise
            finally:
                self._forget(journal)

    def _hold(self, journal: Journal) -> None:
        key = (journal.tenant, journal.session)
        earlier = self._journals.get(key)
        if earlier is not None and earlier is not journal:
            earlier.wake()
        self._journals[key] = journal
        self._stirred.set()
        self._stirred = asyncio.Event()

    def _start(self, journal: Journal) -> None:
        key = (journal.tenant, journal.session)
        self._live.add(key)
        if not self.windows.has_work(journal.state):
            self.windows.rest(key)
            return
        self.windows.wake(key)
        self._hold(journal)
        if not self._closed:
            self._tasks[key] = asyncio.create_task(self._run(journal), name=f"session {journal.session}")

    def _later(self, key: _Key) -> None:
        """Look at a session again once the log is back, unless another task is about to."""
        held = self._tasks.get(key)
        if not self._closed and (held is None or held.done() or held is asyncio.current_task()):
            self._tasks[key] = asyncio.create_task(self._come_back(*key), name=f"session {key[1]} comes back")

    async def _run(self, journal: Journal) -> None:
        key = (journal.tenant, journal.session)
        parked = False
        try:
            await self._gate.freezes.park(journal, self._source)
            await self._places.run(journal)
            parked = True
        except SequenceConflict as error:
            log.warning("session %s is written by another runtime: letting go of it (%s)", journal.session, error)
            self._live.discard(key)
        except LogUnavailable as error:
            log.warning("session %s stops until the log is back: %s", journal.session, error)
            self._later(key)
        except AgentOSError as error:
            log.exception("session %s failed", journal.session)
            await self.fail(journal, error.code, error.message)
        except Exception:
            # The outermost frame of a session: an error that nobody foresaw ends it visibly, instead of leaving it to hang.
            log.exception("session %s failed in an unexpected way", journal.session)
            await self.fail(journal, "internal", "the runtime failed in an unexpected way; its log says how")
        finally:
            try:
                await self._drivers.release(journal.session)
            finally:
                if self._tasks.get(key) is asyncio.current_task():
                    del self._tasks[key]
                    if parked and journal.state.state is State.RUNNING:
                        self._start(journal)  # somebody has answered while its harness and its servers were leaving
                self._forget(journal)

    async def _come_back(self, tenant: str, session: str) -> None:
        """Take a session over once the log answers again, if it is still to be run."""
        key = (tenant, session)
        delay = 0.2
        try:
            while True:
                await self._timer.sleep(delay)
                delay = min(delay * 2, LONGEST_PAUSE_S)
                try:
                    async with self.journal(tenant, session) as journal:
                        await self._take_over(journal)
                except Relieved as error:
                    log.warning("session %s is left to another runtime: %s", session, error)
                    self._live.discard(key)
                except (LogUnavailable, SequenceConflict):
                    # A conflict: what was sent before and not answered has come in meanwhile.
                    continue
                except NotFound:
                    # It was never stored, or its tenant is not declared any more: then it is resumed when that is back.
                    self._live.discard(key)
                except AgentOSError:
                    log.exception("session %s cannot be resumed", session)
                return
        finally:
            if self._tasks.get(key) is asyncio.current_task():
                del self._tasks[key]
                if (held := self._journals.get(key)) is not None:
                    self._forget(held)

    async def fail(self, journal: Journal, code: str, message: str) -> None:
        """End a session by an error, unless it is over; while the log is away it is looked at again later."""
        if journal.state.over:
            return
        try:
            await self._end(journal, ev.SESSION_FAILED, {"error": {"code": code, "message": message}}, SYSTEM)
        except LogUnavailable:
            self._later((journal.tenant, journal.session))
        except AgentOSError:
            log.exception("session %s: its failure could not be recorded", journal.session)

    async def _end(self, journal: Journal, kind: str, data: dict[str, Json], actor: str) -> SessionState:
        """End a session from outside of its turn."""
        await lose_open_calls(journal, self._source)
        self._live.discard((journal.tenant, journal.session))
        revision, policy = in_force(journal, self._source)
        state = await journal.record(kind, data, actor=actor, revision=revision, policy=policy)
        self._live.over((journal.tenant, journal.session))
        return state

    def _forget(self, journal: Journal) -> None:
        """Drop a journal that nobody works on: what it knows is in the log."""
        key = (journal.tenant, journal.session)
        if journal.state.over:
            self._live.over(key)
        if key not in self._tasks and self._journals.get(key) is journal:
            del self._journals[key]
            journal.wake()
