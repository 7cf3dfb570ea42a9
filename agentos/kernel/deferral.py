"""Sessions that begin later: once a time has come, once other sessions have ended. Until then they hold nothing.

Each is in the log with its workspace filled, and counts as a live session of its tenant; it has no task, no place and no harness.
One task sees to all of them. It sleeps until a session ends that somebody waits for, or the next time comes. What a session
waited for is looked up in the log, by the last event of each session named, so a restart only has to look again.

A deferred session holds no lock and names only sessions that were there before it, so no cycle can arise here. Whoever waits
lends its priority class to those it waits for, and these to those that they wait for themselves.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from agentos.abi import event as ev
from agentos.abi.errors import ChainBroken, LogUnavailable, NotFound, Relieved, SequenceConflict
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject
from agentos.kernel.asking import class_of
from agentos.kernel.ending import GONE, in_force, outcome_of
from agentos.kernel.gate import SYSTEM
from agentos.kernel.journal import Journal
from agentos.kernel.port import ConfigurationSource, Timer
from agentos.kernel.waits import Waits
from agentos.projections.session import SessionState, State
from agentos.scheduler.declared import STANDARD
from agentos.scheduler.precondition import Deferred, Impossible, Precondition, precondition

log = logging.getLogger(__name__)

WAVE: Final = 32
"""Sessions that are looked at together, so that their beginnings are committed together."""

LONGEST_SLEEP_S: Final = 600.0
"""Seconds until the clock is looked at again at the latest: somebody may have set it, or the machine may have been suspended."""

AGAIN_MS: Final = 1000
"""How long after the log was away a session is looked at again."""

IMPOSSIBLE: Final = "precondition"
"""Error code of a session whose precondition can never hold."""

_Key = tuple[str, str]
"""Tenant and session."""


class Beginner(Protocol):
    """What is done with a session that is deferred no longer."""

    def journal(self, tenant: str, session: str) -> AbstractAsyncContextManager[Journal]:
        """Its one journal. Raises NotFound, Relieved, ChainBroken, PayloadErased, LogUnavailable."""

    def wake(self, journal: Journal) -> None:
        """Have it run as its state says."""

    async def fail(self, journal: Journal, code: str, message: str) -> None:
        """End it by an error."""


class Deferrals:
    """Every session that has not begun yet. `logs` gives a tenant's log."""

    def __init__(
        self,
        begins: Beginner,
        logs: Callable[[str], EventLog],
        source: ConfigurationSource,
        timer: Timer,
        waits: Waits,
    ) -> None:
        self._begins = begins
        self._logs = logs
        self._source = source
        self._timer = timer
        self._waits = waits
        self._held: dict[_Key, Precondition] = {}
        self._behind: defaultdict[_Key, dict[_Key, None]] = defaultdict(dict)
        """By session: who named it."""
        self._outcomes: dict[_Key, str] = {}
        """How those ended that are named and have."""
        self._due: dict[_Key, None] = {}
        self._alarms: list[tuple[int, _Key]] = []
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def check(self, tenant: str, wanted: Precondition) -> None:
        """Whether every session that is named exists. Raises NotFound, LogUnavailable."""
        for name in wanted.sessions:
            if await self._logs(tenant).last(session_subject(name)) is None:
                raise NotFound(f"no session {name} in tenant {tenant}", mend="list them: agentos ps --all")

    def hold(self, journal: Journal) -> None:
        """See to a session that is deferred, from now on. May be told more than once."""
        key, state = (journal.tenant, journal.session), journal.state
        if self._closed:
            return
        if key not in self._held:
            wanted = self._held[key] = precondition(state.deferred or {})
            for name in wanted.sessions:
                self._behind[key[0], name][key] = None
            open_ = [name for name in wanted.sessions if (key[0], name) not in self._outcomes]
            self._waits.wait(key[1], open_, "to begin", self._priority(state))
            if wanted.not_before_ms is not None:
                heapq.heappush(self._alarms, (wanted.not_before_ms, key))
        self._look_at(key)

    def holds(self, tenant: str, session: str) -> bool:
        """Whether a session is seen to here."""
        return (tenant, session) in self._held

    def ended(self, tenant: str, session: str) -> None:
        """A session is over: who waited for it is looked at. May be told more than once."""
        key = (tenant, session)
        self._drop(key)
        if key not in self._outcomes:
            for waiter in self._behind.get(key, ()):
                self._look_at(waiter)

    async def close(self) -> None:
        """See to nothing any more; after a restart each is held again."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _priority(self, state: SessionState) -> str:
        try:
            return class_of(state, self._source.current(state.tenant))
        except NotFound:
            return STANDARD

    def _look_at(self, key: _Key) -> None:
        self._due[key] = None
        self._stirred.set()
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="deferred sessions")

    def _drop(self, key: _Key) -> None:
        """It is deferred no longer, or somebody else sees to it."""
        wanted = self._held.pop(key, None)
        if wanted is None:
            return
        self._due.pop(key, None)
        self._waits.done(key[1])
        for name in wanted.sessions:
            behind = self._behind[key[0], name]
            behind.pop(key, None)
            if not behind:
                del self._behind[key[0], name]
                self._outcomes.pop((key[0], name), None)
        self._stirred.set()

    async def _run(self) -> None:
        """See to all of them until none is left."""
        while self._held:
            self._stirred.clear()
            now = self._timer.now_ms()
            while self._alarms and self._alarms[0][0] <= now:
                self._due[heapq.heappop(self._alarms)[1]] = None
            wave = list(self._due)[:WAVE]
            for key in wave:
                del self._due[key]
            if wave:
                await asyncio.gather(*map(self._look, wave))
            elif self._alarms:
                await self._sleep(min((self._alarms[0][0] - now) / 1000, LONGEST_SLEEP_S))
            else:
                await self._stirred.wait()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless something happens before."""
        waits = [asyncio.ensure_future(self._timer.sleep(seconds)), asyncio.ensure_future(self._stirred.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.wait(waits)

    async def _look(self, key: _Key) -> None:
        """Begin a session if what it waits for holds, fail it if that can never be."""
        try:
            await self._decide(key)
        except Relieved as error:
            log.warning("session %s is left to another runtime: %s", key[1], error)
            self._drop(key)
        except (LogUnavailable, SequenceConflict) as error:
            log.warning("session %s cannot be looked at now, trying again: %s", key[1], error)
            self._again(key)
        except Exception:
            # The outermost frame of a session that has not begun: whatever is wrong with it keeps no other one from beginning.
            log.exception("session %s cannot begin", key[1])
            self._drop(key)

    def _again(self, key: _Key) -> None:
        heapq.heappush(self._alarms, (self._timer.now_ms() + AGAIN_MS, key))

    async def _decide(self, key: _Key) -> None:
        wanted = self._held.get(key)
        if wanted is None:
            return
        outcomes = {name: await self._outcome((key[0], name)) for name in wanted.sessions}
        known = {name: outcome for name, outcome in outcomes.items() if outcome != GONE}
        found = wanted.look(self._timer.now_ms(), known)
        if isinstance(found, Deferred):
            return
        async with self._begins.journal(*key) as journal:
            if journal.state.state is not State.DEFERRED:
                # A person has cancelled or paused it meanwhile, or what we sent and gave up has come in.
                self._drop(key)
                self._begins.wake(journal)
            elif isinstance(found, Impossible):
                await self._begins.fail(journal, IMPOSSIBLE, found.reason)
                if not journal.state.over:
                    self._again(key)
            else:
                revision, policy = in_force(journal, self._source)
                told = {"outcomes": {name: outcome for name, outcome in known.items() if outcome is not None}}
                await journal.record(ev.SESSION_BEGUN, told, actor=SYSTEM, revision=revision, policy=policy)
                self._drop(key)
                self._begins.wake(journal)

    async def _outcome(self, key: _Key) -> str | None:
        """How a session ended: finished, failed, cancelled, halted; `GONE` for one that does not exist, None if it has not."""
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = await self._read_outcome(key)
            if outcome is not None and key in self._behind:
                self._outcomes[key] = outcome
                for waiter in self._behind[key]:
                    self._waits.stop(waiter[1], key[1])
                    # The end may be read here before it is told, and is not heard then.
                    self._look_at(waiter)
        return outcome

    async def _read_outcome(self, key: _Key) -> str | None:
        try:
            return await outcome_of(self._logs(key[0]), key[1])
        except ChainBroken as error:
            # Whoever asks what came of that session is told; nothing begins on the word of such an event.
            log.warning("%s", error)
            return None
