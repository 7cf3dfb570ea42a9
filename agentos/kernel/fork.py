"""A fork: a new session that goes on from any point of another one, under the declarations that are in force now.

The other session is read, and gets no event. Its first event gives the fork the folded state of the point (`projections.forked`
says what of it goes over), so the fork can be replayed from its own log alone. From then on it is a session like all others:
each call passes the gate.

Files have no versions yet: the fork's workspace is a copy of the other one as it is now. It may hold what the other session
learnt behind the point, so unless it holds the input and nothing else, all labels that the other session has now come with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.chain import Head, follow
from agentos.abi.errors import ChainBroken, NotFound, PayloadErased, TooLarge, UsageError
from agentos.abi.event import Event, rfc3339
from agentos.abi.ids import Clock
from agentos.abi.syscall import MODEL_CALL
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject
from agentos.files.guard import Guard
from agentos.kernel.port import AgentSpec, Configuration, ConfigurationSource
from agentos.kernel.provenance import outcome_labels, place_holds
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.kernel.workspace_copy import Copied, copy_workspace
from agentos.projections import context
from agentos.projections.forked import carried_over, origin
from agentos.projections.session import SessionState, Step, fold
from agentos.projections.state_document import state_document

LONGEST_SEQ: Final = 15
"""Digits of an event's number; what is longer is an event's id."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a session: its state after event `seq`, whose hash is `head`; and the session as it stands `now`."""

    seq: int
    head: str
    state: SessionState
    now: SessionState
    last_asked: int
    """The event by which the model was last called before the point; 0 before the first."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A new session, as created, and where it comes from (`projections.forked.origin`)."""

    state: SessionState
    origin: dict[str, Json]


class Forks:
    """Forks sessions."""

    def __init__(
        self,
        sessions: Sessions,
        source: ConfigurationSource,
        logs: Callable[[str], EventLog],
        workspaces: Workspaces,
        clock: Clock,
        join: Callable[[str, str, str], Awaitable[None]] | None = None,
    ) -> None:
        """`join` lets a fork (tenant, fork, session) share the key of the session whose payload it repeats."""
        self._join = join
        self._sessions = sessions
        self._source = source
        self._logs = logs
        self._workspaces = workspaces
        self._clock = clock

    async def fork(
        self,
        tenant: str,
        session: str,
        at: str,
        *,
        actor: str,
        agent: str | None = None,
        goal: str | None = None,
        reason: str | None = None,
        priority: str | None = None,
        due_in_ms: int | None = None,
    ) -> Fork:
        """Start a session that goes on behind event `at` (its number or id) of another one.

        `agent` and `goal` are the other one's unless told; so are the class and the deadline of its run, as long as the tenant
        may use that class, and the deadline is still to come. Raises NotFound for a session, event or agent that is not there,
        UsageError for a number that no event has, and for other words to a session whose model had said its last; PayloadErased,
        TooLarge, ChainBroken; and whatever `Sessions.create` raises.
        """
        point = await read_point(self._logs(tenant), tenant, session, at)
        if (goal is not None or agent not in (None, point.state.agent)) and _has_said_its_last(point.state):
            raise UsageError(
                f"at event {point.seq} the model had said its last word, and would not be asked again",
                mend=f"fork before that: --at {point.last_asked - 1}" if point.last_asked > 1 else None,
            )
        wanted = goal if goal is not None else point.state.goal

        origins: list[dict[str, Json]] = []

        async def fill(name: str, spec: AgentSpec) -> dict[str, Json]:
            if self._join is not None:
                await self._join(tenant, name, session)
            moment = self._clock.now_ms()
            copied = await self._copy(tenant, session, name)
            # Read again: what a file of the copy holds was learnt before now.
            now = (await read_point(self._logs(tenant), tenant, session, str(point.seq))).now
            told = first_payload(point, now, spec, copied, moment, self._source.current(tenant))
            forked = told["forked"] | ({"reason": reason} if reason is not None else {})
            origins.append(origin(forked))
            return told | {"goal": wanted, "forked": forked}

        try:
            state = await self._sessions.create(
                tenant, agent or point.state.agent, wanted, None, actor, priority=priority, due_in_ms=due_in_ms, fill=fill
            )
        except UsageError as error:
            if isinstance(error.__cause__, TooLarge):
                raise TooLarge(f"event {point.seq} of session {session} is too far on: {error.__cause__.message}") from error
            raise
        return Fork(state, origins[0])

    async def _copy(self, tenant: str, session: str, name: str) -> Copied:
        guard, path = Guard(), partial(self._workspaces.path, tenant)

        def copy() -> Copied:
            with self._workspaces.room(tenant, name) as take:
                return copy_workspace(path(session), path(name), guard, take)

        try:
            return await asyncio.to_thread(copy)
        except asyncio.CancelledError:
            guard.stop()
            raise


async def read_point(log: EventLog, tenant: str, session: str, at: str) -> Point:
    """Read a session from the log, checking its chain, and find the point behind event `at`. Raises as `Forks.fork` says."""
    wanted = int(at) if at.isascii() and at.isdigit() and len(at) <= LONGEST_SEQ else None
    if wanted == 0:
        raise UsageError("the events of a session are numbered from 1")
    head, state, asked = Head.empty(), SessionState(id=session, tenant=tenant), 0
    found: tuple[Head, SessionState, int] | None = None
    async for stored in log.read(session_subject(session)):
        head, body = follow(head, stored.data, subject=session)
        where = f"{session}#{head.seq}"
        try:
            event = Event.from_dict(body)
            if event.withheld:
                raise PayloadErased(f"the payload of session {session} was erased: there is nothing to fork", where=where)
            state = fold(state, event)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ChainBroken(f"is no event of a session that this version can read: {error!r}", where=where) from error
        if event.type == ev.SYSCALL_DECIDED and event.data["tool"] == MODEL_CALL:
            asked = event.seq
        if event.seq == wanted or (wanted is None and event.id == at):
            found = head, state, asked
    if head.seq == 0:
        raise NotFound(f"no session {session} in tenant {tenant}", mend="list them: agentos ps --all")
    if found is None and wanted is None:
        raise NotFound(f"session {session} has no event with the id {at[:64]}", mend=f"its events: agentos logs {session}")
    if found is None:
        raise UsageError(f"session {session} has {head.seq} events, none with number {wanted}")
    return Point(found[0].seq, found[0].hash, found[1], state, found[2])


def _has_said_its_last(state: SessionState) -> bool:
    reply = context.last_reply(state)
    return reply is not None and not any(block.get("type") == "tool_use" for block in reply["content"])


def first_payload(
    point: Point, now: SessionState, agent: AgentSpec, copied: Copied, moment: int, configuration: Configuration
) -> dict[str, Json]:
    """The payload of the fork's `session.created`, but for the words of whoever forks. `moment` is when the copy was begun."""
    before = point.state
    untouched = {(file.path, file.digest) for file in copied.files} == {(one["path"], one["digest"]) for one in before.inputs}
    labels = {*agent.goal_labels, *before.labels, *_lost(before, configuration)}
    if not untouched:
        # What children left stands among its files, and no list of inputs tells what it carries.
        came_back = (label for item in now.labelled[len(now.inputs) :] for label in item["labels"])
        labels |= {*now.labels, *_lost(now, configuration), *came_back}
    forked: dict[str, Json] = {
        "session": before.id,
        "seq": point.seq,
        "head": point.head,
        "state": state_document(before),
        "workspace": f"copied as of {rfc3339(moment)}, not as of the event",
        "files": [file.to_dict() for file in copied.files],
        "left": copied.left,
    }
    carried = carried_over(before.calls.values())
    return {
        "agent": agent.name,
        "inputs": [_input(one, agent) for one in before.inputs],
        "parent": before.id,
        "forked": forked | ({"carried": carried} if carried else {}),
        **({"labels": sorted(labels)} if labels else {}),
        **_urgency(before, configuration, moment),
    }


def _urgency(before: SessionState, configuration: Configuration, now: int) -> dict[str, Json]:
    """The class and the deadline of the run that is forked, where they still mean something."""
    declared, allowed = configuration.arbitration.priorities, configuration.arbitration.allowed
    usable = before.priority in declared and (allowed is None or before.priority in allowed)
    data: dict[str, Json] = {"priority": before.priority} if usable else {}
    if before.deadline_ms is not None and before.deadline_ms > now:
        data["deadline_ms"] = before.deadline_ms
    return data


def _lost(state: SessionState, configuration: Configuration) -> set[str]:
    """The labels that calls without an outcome would have brought: they may have acted."""
    found: set[str] = set()
    for call in state.calls.values():
        tool = configuration.tools.get(call.tool)
        if call.step is Step.ALLOWED and tool is not None:
            found.update(outcome_labels(tool, call.args, state.labelled))
    return found


def _input(item: Mapping[str, Json], agent: AgentSpec) -> dict[str, Json]:
    """An input file with the labels that it has, and those that the fork's agent declares for its place."""
    declared: Iterable[str] = (
        label for place, named in agent.file_labels.items() if place_holds(place, item["path"]) for label in named
    )
    labels = sorted({*item.get("labels", ()), *declared})
    return {**item, "labels": labels} if labels else dict(item)
