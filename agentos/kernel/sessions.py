"""All sessions of the runtime: created, run, parked, woken by an approval, cancelled, resumed after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, ChainBroken, Conflict, LogUnavailable, NotFound, SequenceConflict
from agentos.abi.ids import Random, new_id
from agentos.drivers.port import Driver
from agentos.eventlog.port import EventLog
from agentos.kernel.gate import SYSTEM, Gate
from agentos.kernel.journal import Journal
from agentos.kernel.port import ConfigurationSource, Timer
from agentos.kernel.turn import Runner
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import SessionState, State, Step

log = logging.getLogger(__name__)

MAX_RUNNING: Final = 64
"""Sessions that hold a harness process at one time; the others wait their turn in order of arrival."""

MAX_GOAL: Final = 64 * 1024


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
    ) -> None:
        self._logs = logs
        self._source = source
        self._gate = gate
        self._runner = runner
        self._drivers = drivers
        self._workspaces = workspaces
        self._timer = timer
        self._random = random
        self._journals: dict[tuple[str, str], Journal] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}
        self._places = asyncio.Semaphore(MAX_RUNNING)

    async def create(self, tenant: str, agent: str, goal: str, archive: bytes | None, actor: str) -> SessionState:
        """Start a session of `agent`; return it as created.

        Raises NotFound for an agent that is not declared, Conflict when the tenant has as many live sessions as it may,
        UsageError for input that cannot be taken.
        """
        configuration = self._source.current(tenant)
        if agent not in configuration.agents:
            known = ", ".join(sorted(configuration.agents)) or "none"
            raise NotFound(f"no agent {agent} in tenant {tenant}", mend=f"declared agents: {known}")
        live = sum(1 for key in self._journals if key[0] == tenant)
        if live >= configuration.max_sessions:
            raise Conflict(
                f"tenant {tenant} has {live} live sessions and may have {configuration.max_sessions}",
                mend="wait, cancel one, or raise spec.limits.sessions of the tenant",
            )
        session = new_id("s", self._timer, self._random)
        journal = Journal(self._logs(tenant), tenant, session, self._timer, self._random)
        self._journals[tenant, session] = journal
        try:
            inputs = await asyncio.to_thread(self._workspaces.create, tenant, session, archive)
            data: dict[str, Json] = {"agent": agent, "goal": goal, "inputs": [item.to_dict() for item in inputs]}
            state = await journal.record(
                ev.SESSION_CREATED,
                data,
                actor=actor,
                revision=configuration.revision,
                policy=configuration.policy_digest,
            )
        except BaseException:
            del self._journals[tenant, session]
            raise
        self._start(journal)
        return state

    async def resume(self, tenant: str, session: str) -> None:
        """Take a session over after a restart and run it on, unless it is over or waits for a person."""
        async with self._journal(tenant, session) as journal:
            if journal.state.over or (tenant, session) in self._tasks:
                return
            configuration = self._source.current(tenant)
            await journal.record(
                ev.SESSION_OWNED,
                {"epoch": journal.state.epoch + 1},
                actor=SYSTEM,
                revision=journal.state.config_revision,
                policy=configuration.policy_digest,
            )
            await self._gate.settle(journal, configuration)
            if journal.state.state is State.RUNNING:
                self._start(journal)

    async def answer(
        self, tenant: str, session: str, *, granted: bool, reason: str, actor: str, call: str | None = None
    ) -> SessionState:
        """A person's answer to the question that a session waits for; a yes and a no both wake it.

        Raises Conflict when the session does not wait (any more), or waits for another call than `call`.
        """
        async with self._journal(tenant, session) as journal:
            state = journal.state
            waiting = state.calls.get(state.waiting_for or "")
            if state.state is not State.WAITING or waiting is None or waiting.step is not Step.ASKED:
                raise Conflict(f"session {session} does not wait for an approval: it is {state.state}")
            if call is not None and call != waiting.call:
                raise Conflict(f"session {session} waits for call {waiting.call}, not for {call}")
            configuration = self._source.current(tenant)
            kind = ev.APPROVAL_GRANTED if granted else ev.APPROVAL_DENIED
            data: dict[str, Json] = {"call": waiting.call, "args_digest": waiting.args_digest, "reason": reason}
            state = await journal.record(
                kind,
                data,
                actor=actor,
                revision=state.config_revision,
                policy=configuration.policy_digest,
                only_if_seq=journal.head.seq,
            )
            self._start(journal)
            return state

    async def cancel(self, tenant: str, session: str, *, reason: str, actor: str) -> SessionState:
        """Stop a session for good. Raises Conflict when it is already over."""
        async with self._journal(tenant, session) as journal:
            task = self._tasks.get((tenant, session))
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            if journal.state.over:
                raise Conflict(f"session {session} is already {journal.state.state}")
            configuration = self._source.current(tenant)
            return await journal.record(
                ev.SESSION_CANCELLED,
                {"reason": reason},
                actor=actor,
                revision=journal.state.config_revision,
                policy=configuration.policy_digest,
            )

    async def state(self, tenant: str, session: str) -> SessionState:
        """The session as it stands. Raises NotFound."""
        async with self._journal(tenant, session) as journal:
            return journal.state

    async def wait_beyond(self, tenant: str, session: str, seq: int) -> None:
        """Return once a live session has more than `seq` events; at once for a session that is not live."""
        journal = self._journals.get((tenant, session))
        if journal is not None and not journal.state.over:
            await journal.wait_beyond(seq)

    def running(self) -> int:
        """How many sessions run or wait for a place to run."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stop running; every session can be resumed from the log."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @asynccontextmanager
    async def _journal(self, tenant: str, session: str) -> AsyncIterator[Journal]:
        """The session's one journal, loaded from the log if nobody holds it; commands on one session take turns."""
        key = (tenant, session)
        lock = self._opening.setdefault(key, asyncio.Lock())
        async with lock:
            journal = self._journals.get(key)
            if journal is None:
                journal = await Journal.load(self._logs(tenant), tenant, session, self._timer, self._random)
                self._journals[key] = journal
            try:
                yield journal
            finally:
                self._forget(journal)

    def _start(self, journal: Journal) -> None:
        key = (journal.tenant, journal.session)
        self._journals[key] = journal
        task = asyncio.create_task(self._run(journal), name=f"session {journal.session}")
        self._tasks[key] = task

    async def _run(self, journal: Journal) -> None:
        key = (journal.tenant, journal.session)
        try:
            async with self._places:
                await self._runner.run(journal)
        except SequenceConflict as error:
            log.warning("session %s is written by another runtime: letting go of it (%s)", journal.session, error)
            self._journals.pop(key, None)
        except LogUnavailable as error:
            log.warning("session %s stops until the log is back: %s", journal.session, error)
            self._journals.pop(key, None)
            retry = asyncio.create_task(self._come_back(journal.tenant, journal.session))
            self._tasks[key] = retry
            return
        except AgentOSError as error:
            log.exception("session %s failed", journal.session)
            await self._fail(journal, error)
        finally:
            if self._tasks.get(key) is asyncio.current_task():
                del self._tasks[key]
            await self._drivers.release(journal.session)
            self._forget(journal)

    async def _come_back(self, tenant: str, session: str) -> None:
        """Resume a session once the log answers again."""
        key = (tenant, session)
        delay = 0.2
        try:
            while True:
                await self._timer.sleep(delay)
                delay = min(delay * 2, 5.0)
                try:
                    self._tasks.pop(key, None)
                    await self.resume(tenant, session)
                except LogUnavailable:
                    continue
                except ChainBroken:
                    log.exception("session %s cannot be resumed", session)
                return
        finally:
            if self._tasks.get(key) is asyncio.current_task():
                del self._tasks[key]

    async def _fail(self, journal: Journal, error: AgentOSError) -> None:
        if journal.state.over:
            return
        try:
            await journal.record(
                ev.SESSION_FAILED,
                {"error": {"code": error.code, "message": error.message}},
                actor=SYSTEM,
                revision=journal.state.config_revision,
                policy=None,
            )
        except AgentOSError:
            log.exception("session %s: its failure could not be recorded", journal.session)

    def _forget(self, journal: Journal) -> None:
        """Drop a journal that nobody works on: what it knows is in the log."""
        key = (journal.tenant, journal.session)
        if key in self._tasks or self._journals.get(key) is not journal:
            return
        if journal.state.over:
            self._opening.pop(key, None)
            del self._journals[key]
        elif journal.state.state is State.WAITING:
            del self._journals[key]
