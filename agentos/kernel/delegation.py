"""The act of delegating: children are begun, waited for and ended, and what they came to is the result of the parent's call.

Which children a call has stands in the event that decided it, so the call can be made again at any time, after a crash or once
its session got a place again: it finds its children by their ids, and begins those that are not there. An envelope goes out for
each (`abi.envelope`), and whoever receives it begins the child. Nobody polls: the end of a child is told (`Sessions.at_end`), and
what it came to is read in its log.

Whoever waits for children holds nothing: after a moment the parent's harness leaves its place, and the wait goes on by itself,
with the parent's class lent to its children, until enough of them have ended. The others are cancelled then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.envelope import LONGEST_MS, Envelope
from agentos.abi.errors import AgentOSError, Conflict, DriverError, NotFound, PayloadErased, Relieved, Unavailable
from agentos.abi.event import Event
from agentos.abi.ids import time_of
from agentos.abi.syscall import Result
from agentos.drivers.delegating import (
    DelegationDeadlock,
    DelegationFailed,
    DelegationLate,
    Ended,
    Look,
    Task,
    Terms,
)
from agentos.drivers.port import CallContext, ToolSpec
from agentos.eventlog.port import EventLog
from agentos.kernel.cascade import Cascade
from agentos.kernel.ending import GONE, outcome_of
from agentos.kernel.gate import SYSTEM
from agentos.kernel.handover import Handovers
from agentos.kernel.homecoming import Homecoming
from agentos.kernel.journal import Heard
from agentos.kernel.port import ConfigurationSource, Timer
from agentos.kernel.receiving import Handover, Outbox, Refusal
from agentos.kernel.sessions import Sessions
from agentos.kernel.waits import Waits
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import SessionState, Step

log = logging.getLogger(__name__)

GRACE_S: Final = 1.0
"""Seconds that a session waits for its children with its harness beside it: many are there by then."""

PAUSE_S: Final = 1.0
"""Seconds until what the log did not answer is tried again."""

AT_ONCE: Final = 32
"""Children of one call that are looked up at one time."""

MOST_REFUSED: Final = 100_000
"""Refusals that are remembered."""

ENOUGH: Final = "enough of the others have finished"

_T = TypeVar("_T")
_NO_RESULT: Final = frozenset({ev.SYSCALL_FAILED, ev.SYSCALL_UNKNOWN, ev.SYSCALL_REFUSED})
_OUTCOMES: Final = _NO_RESULT | {ev.SYSCALL_FINISHED}

_Key = tuple[str, str]
"""Tenant and session."""


class Idle(Protocol):
    """How a session waits (`kernel.places.Places.idle`)."""

    async def __call__(self, session: str, done: asyncio.Future[Any], grace_s: float | None = None) -> None:
        """Wait for `done`. Raises Displaced when the place of the session is given up meanwhile."""


@dataclass(frozen=True, slots=True)
class _Came:
    """What the children of a call came to, the reducing one last: enough of them did what they were to do, or not."""

    ended: tuple[Ended, ...]
    met: bool
    reduced: bool


@dataclass(slots=True, eq=False)
class _Group:
    """The children of one call, that is waited for."""

    tenant: str
    parent: str
    call: str
    priority: str
    terms: Terms
    tasks: tuple[Task, ...]
    children: tuple[str, ...]
    decided: tuple[int, str]
    """Number and hash of the event that names the children."""
    late_ms: int
    """Until when they are waited for."""
    done: asyncio.Future[_Came]
    work: asyncio.Task[None] | None = None

    @property
    def key(self) -> _Key:
        return self.tenant, self.parent

    @property
    def asked(self) -> int:
        """How many tasks there are, the reducing one not counted."""
        return len(self.tasks) - (self.terms.reduce is not None)


class Delegator:
    """`drivers.delegating.Delegations`, for every tenant. `logs` gives a tenant's log, its payloads opened."""

    def __init__(
        self,
        source: ConfigurationSource,
        logs: Callable[[str], EventLog],
        workspaces: Workspaces,
        timer: Timer,
        waits: Waits,
    ) -> None:
        """It delegates once it has been given `sessions` (`attach`) and an `outbox`."""
        self._source = source
        self._logs = logs
        self._timer = timer
        self._waits = waits
        self._handovers, self._homecoming = Handovers(workspaces, logs, self), Homecoming(workspaces, source)
        self.outbox: Outbox | None = None
        self._sessions: Sessions | None = None
        self._groups: dict[_Key, _Group] = {}
        """By the session that delegates: it waits for one call at a time."""
        self.cascade = Cascade(lambda: self.sessions, timer)
        self._ends: dict[_Key, asyncio.Future[None]] = {}
        """By child: set when it is over, or was refused."""
        self._refused: OrderedDict[_Key, Refusal] = OrderedDict()
        self._closed = False

    def attach(self, sessions: Sessions) -> None:
        """Delegate between these sessions."""
        self._sessions = sessions
        sessions.at_end(self.ended)

    @property
    def sessions(self) -> Sessions:
        if self._sessions is None:
            raise DelegationFailed("nothing is delegated here")
        return self._sessions

    async def delegate(self, tool: ToolSpec, args: Mapping[str, Json], place: CallContext) -> Result:
        """See `Delegations.delegate`. Raises Displaced when the session leaves its place: the same call goes on where it was."""
        group, terms = await self._group(tool, args, place), Terms.of(tool)
        try:
            await self.sessions.idle(place.session, group.done, GRACE_S)
            # Not before: by now the call is decided under what holds today, and its outcome is recorded next, with the labels.
            came = group.done.result()
            told = await self._homecoming.bring(*group.key, place.call, came.ended, len(place.children))
            result = (terms.reduced if came.reduced else terms.result)(place.call, told, met=came.met)
        except DriverError:
            self._drop(group)
            raise
        self._drop(group)
        return result

    async def hand_over(self, tenant: str, parent: SessionState, call: str, index: int) -> Handover:
        """See `kernel.receiving.Delegating.hand_over`."""
        return await self._handovers.pack_inputs(parent, self._source.current(tenant), call, index)

    async def refused(self, refusal: Refusal) -> None:
        """See `kernel.receiving.Delegating.refused`. Nothing is recorded of a call that waits for nobody any more."""
        tenant, child = refusal.tenant, refusal.child
        if (tenant, child) in self._refused:
            return
        async with self.sessions.journal(tenant, refusal.parent) as journal:
            known = journal.state.calls.get(refusal.call)
            if self.cascade.recalled(tenant, child):
                return
            if known is None or known.step is not Step.ALLOWED or journal.state.over:
                raise Conflict(f"call {refusal.call} of session {refusal.parent} waits for nobody")
            told = {"call": refusal.call, "child": child, "code": str(refusal.code), "message": refusal.message}
            await journal.record_under(self._source.current(tenant), ev.DELEGATION_REFUSED, told, SYSTEM)
        self._refused[tenant, child] = refusal
        while len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)
        self.cascade.drop(tenant, child)
        _set(self._ends.get((tenant, child)))

    def has_refused(self, tenant: str, child: str) -> bool:
        """See `kernel.receiving.Delegating.has_refused`."""
        return (tenant, child) in self._refused

    async def began(self, tenant: str, parent: str, call: str, child: str) -> None:
        """A child is there: one that nobody waits for any more is ended. May be told more than once."""
        await self.cascade.began(tenant, parent, call, child)

    def ended(self, tenant: str, session: str) -> None:
        """A session is over: whoever waits for it hears of it, and its own children are ended. May be told more than once."""
        self.cascade.drop(tenant, session)
        _set(self._ends.get((tenant, session)))
        group = self._groups.get((tenant, session))
        if group is not None:
            self._drop(group)
        self.cascade.dismiss(tenant, session, f"session {session}, which delegated to it, is over")

    def besides(self, hear: Heard) -> Heard:
        """Who tells of events, and who hears of them: this one besides `hear`."""

        def both(event: Event) -> None:
            hear(event)
            self.heard(event)

        return both

    def heard(self, event: Event) -> None:
        """An event of a session was recorded: the children of a call that waits for them no longer are ended.

        So are those of one that is decided again, after a crash or a pause, and is not allowed any more.
        """
        denied = event.type == ev.SYSCALL_DECIDED and event.data["decision"]["effect"] in {"deny", "halt"}
        if not (denied or event.type in _OUTCOMES):
            return
        tenant, session, call = event.tenant, event.subject, event.data["call"]
        if denied or event.type in _NO_RESULT:
            self._homecoming.put_aside(tenant, session, call, event.data["tool"])
        group = self._groups.get((tenant, session))
        if group is not None and group.call == call:
            self._drop(group)
        self.cascade.dismiss(tenant, session, f"call {call} of session {session} is closed", call=call)

    async def close(self) -> None:
        """See to nothing any more. Children go on: after a restart each call finds its own."""
        self._closed = True
        works = [group.work for group in self._groups.values() if group.work is not None]
        for task in works:
            task.cancel()
        if works:
            await asyncio.wait(works)
        await self.cascade.close()

    async def end_of(self, tenant: str, child: str, index: int) -> Ended | None:
        """See `kernel.handover.Ends.end_of`."""
        try:
            state = await self.sessions.state(tenant, child)
        except PayloadErased:
            return Ended(index, child, "", "erased")
        except NotFound:
            return None
        if not state.over:
            return None
        told = state.result if state.result is not None else str((state.error or {}).get("message", ""))
        return Ended(index, child, state.agent, str(state.state), told, tuple(sorted(state.labels)))

    async def _group(self, tool: ToolSpec, args: Mapping[str, Json], place: CallContext) -> _Group:
        """The group of a call: the one that is waited for already, or a fresh one. Raises DriverError."""
        key, terms = (place.tenant, place.session), Terms.of(tool)
        group = self._groups.get(key)
        if group is not None:
            if (group.call, group.children) == (place.call, place.children) and not self._closed:
                return group
            self._drop(group)
            await _gone(group)
        tasks = terms.tasks(args)
        if len(tasks) != len(place.children):
            raise DelegationFailed(f"the decision names {len(place.children)} children, and there are {len(tasks)} tasks")
        if await self._tried(lambda: self._is_over(place.tenant, place.children[0])) is None:
            await self._handovers.check(place.tenant, place.session, tasks)
        # Of an earlier decision about the same call, with other arguments.
        self.cascade.dismiss(
            *key, f"call {place.call} of session {place.session} was decided anew", but=place.children, call=place.call
        )
        group = _Group(
            *(place.tenant, place.session, place.call, place.priority, terms, tasks, place.children, place.decided),
            late_ms=(time_of(place.children[0]) or self._timer.now_ms()) + min(tool.timeout_ms, LONGEST_MS - 1),
            done=asyncio.get_running_loop().create_future(),
        )
        for child in place.children:
            self.cascade.add(place.tenant, place.session, place.call, child)
        self._groups[key] = group
        group.work = asyncio.create_task(self._see_to(group), name=f"delegation of {place.session}")
        return group

    def _drop(self, group: _Group) -> None:
        """Nobody waits for it any more. What its children are to do then is for the caller to say."""
        if self._groups.get(group.key) is group:
            del self._groups[group.key]
        if group.work is not None:
            group.work.cancel()
        _fail(group, DelegationFailed("nobody waits for it any more"))
        group.done.exception()  # it has been looked at, whatever it is

    async def _see_to(self, group: _Group) -> None:
        """Bring a group to its end, and its result to whoever waits for it."""
        try:
            result = await self._carry_out(group)
        except DriverError as error:
            self.cascade.dismiss(*group.key, error.message, call=group.call)
            _fail(group, error)
        except AgentOSError as error:
            self.cascade.dismiss(*group.key, "its delegation failed", call=group.call)
            _fail(group, DelegationFailed(error.message, where=error.where, mend=error.mend))
        except Exception as error:
            # Whoever waits is told, and fails visibly, instead of waiting for ever.
            log.exception("the delegation of session %s broke", group.parent)
            _fail(group, error)
        else:
            if not group.done.done():
                group.done.set_result(result)

    async def _carry_out(self, group: _Group) -> _Came:
        """Have the children do what they are to do. Raises DriverError, Relieved."""
        ended = await self._gather(group, range(group.asked))
        met = group.terms.look(group.asked, ended) is Look.MET
        reason = ENOUGH if met else "too few of the others can finish"
        rest = [group.children[index] for index in range(group.asked) if index not in ended]
        await asyncio.gather(*(self.cascade.end(group.tenant, child, reason) for child in rest))
        reduced: Ended | None = None
        if met and group.terms.reduce is not None:
            reduced = (await self._gather(group, (group.asked,)))[group.asked]
        told = [ended.get(i) or Ended(i, group.children[i], group.tasks[i].agent, "cancelled") for i in range(group.asked)]
        if reduced is not None:
            return _Came((*told, reduced), reduced.finished, reduced=True)
        return _Came(tuple(told), met, reduced=False)

    async def _gather(self, group: _Group, indices: Sequence[int]) -> dict[int, Ended]:
        """Have these children begun, and wait until enough of them have ended. Raises DelegationLate, DelegationDeadlock."""
        children = {index: group.children[index] for index in indices}
        terms = group.terms if len(children) == group.asked and 0 in children else Terms(group.terms.agents)
        ended = await self._already(group, children)
        open_ = {index: child for index, child in children.items() if index not in ended}
        cycle = self._waits.insist(group.parent, list(open_.values()), f"delegation {group.call}", group.priority)
        if cycle is not None:
            raise DelegationDeadlock(str(cycle), mend="a child waits for what this session holds: let go of it before delegating")
        follows: dict[asyncio.Task[Ended], int] = {asyncio.create_task(self._follow(group, index)): index for index in open_}
        patience = asyncio.create_task(self._timer.sleep(max(0, group.late_ms - self._timer.now_ms()) / 1000))
        try:
            while terms.look(len(children), ended) is Look.OPEN:
                if patience.done():
                    late = ", ".join(child for index, child in children.items() if index not in ended)
                    raise DelegationLate(f"not done in time: {late}", mend="raise timeoutSeconds of the tool, or ask for less")
                await asyncio.wait((*follows, patience), return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in follows if task.done()]:
                    index = follows.pop(task)
                    ended[index] = task.result()
                    self._waits.stop(group.parent, children[index])
            return ended
        finally:
            self._waits.done(group.parent)
            for one in (*follows, patience):
                one.cancel()

    async def _already(self, group: _Group, children: Mapping[int, str]) -> dict[int, Ended]:
        """Those that have ended before anybody waited for them, as after a restart."""
        room = asyncio.Semaphore(AT_ONCE)

        async def look(index: int, child: str) -> Ended | None:
            async with room:
                over = await self._tried(lambda: self._is_over(group.tenant, child))
                return await self._tried(lambda: self.end_of(group.tenant, child, index)) if over else None

        found = await asyncio.gather(*(look(index, child) for index, child in children.items()))
        return {index: ended for index, ended in zip(children, found, strict=True) if ended is not None}

    async def _follow(self, group: _Group, index: int) -> Ended:
        """Have a child begun if it has not, and wait until it is over or will never be."""
        child = group.children[index]
        key, sent = (group.tenant, child), False
        try:
            while True:
                # Looked up behind the future: its end is heard from here on.
                over = self._ends[key] = asyncio.get_running_loop().create_future()
                if (refusal := self._refused.get(key)) is not None:
                    return Ended(index, child, group.tasks[index].agent, "refused", f"{refusal.code}: {refusal.message}")
                stands = await self._tried(lambda: self._is_over(group.tenant, child))
                if stands is None and not sent:
                    await self._tried(lambda: self._send(group, index))
                    sent = True
                if not stands:
                    await asyncio.wait((over,))
                if key in self._refused:
                    continue
                ended = await self._tried(lambda: self.end_of(group.tenant, child, index))
                if ended is not None:
                    return ended
                # It was told of an end that cannot be read yet.
                await self._timer.sleep(PAUSE_S)
        finally:
            self._ends.pop(key, None)

    async def _send(self, group: _Group, index: int) -> None:
        if self.outbox is None:
            raise Unavailable("nothing is sent yet")
        seq, head = group.decided
        now = self._timer.now_ms()
        envelope = Envelope(
            group.tenant, group.parent, group.call, index, group.children[index], seq, head, now, max(group.late_ms, now + 1)
        )
        await self.outbox.send(group.tenant, envelope)

    async def _is_over(self, tenant: str, session: str) -> bool | None:
        """Whether a session has ended; None for one that is not in the log. By its last header: nothing is opened for it."""
        outcome = await outcome_of(self._logs(tenant), session)
        return None if outcome == GONE else outcome is not None

    async def _tried(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What the log answers once it does."""
        while True:
            try:
                return await ask()
            except Relieved:
                raise
            except Unavailable as error:
                log.warning("a delegation waits for the log: %s", error)
                await self._timer.sleep(PAUSE_S)


def _fail(group: _Group, error: Exception) -> None:
    if not group.done.done():
        group.done.set_exception(error)


def _set(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


async def _gone(group: _Group) -> None:
    """Return once what saw to a group has stopped."""
    if group.work is not None:
        await asyncio.wait((group.work,))
