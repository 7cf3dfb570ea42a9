"""The verbs about sessions."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.freeze import Freeze
from agentos.abi.ids import Clock, Random, is_name
from agentos.abi.record import decode
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import session_subject
from agentos.kernel.opening import MAX_GOAL
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import MAX_BYTES, Workspaces
from agentos.projections.session import SessionState
from agentos.scheduler.precondition import Precondition

MAX_WAIT_MS: Final = 20_000
MAX_UPLOADS: Final = 4
"""Uploads under way per principal, MAX_BYTES together at most; the oldest is dropped for what is new."""

UPLOAD_MS: Final = 600_000
"""How long an upload that nobody adds to, and nobody uses, is kept."""

MAX_PAGE: Final = 8 * 1024 * 1024
"""Most bytes of events in one answer, as they are stored; at least one event is in it."""


@dataclass(slots=True)
class _Upload:
    """Input on its way; `touched` is when it last grew."""

    touched: int
    data: bytearray = field(default_factory=bytearray)


MAX_DUE_MS: Final = 366 * 86_400_000
"""Furthest deadline of a run."""

MAX_NAMED: Final = 50
"""Most sessions that a run names in one list of those that it begins after."""

MAX_TIME_MS: Final = 253_402_300_799_999
"""Latest time that has a date: the end of the year 9999."""

MAX_ROWS: Final = 10_000
"""Most sessions in one answer."""

MAX_SUBJECT: Final = 512
"""Longest id of a data subject, in characters."""


class Reader(Protocol):
    """The read models, as these verbs need them; answers include everything that the log held when asked."""

    async def sessions(self, tenant: str, *, live_only: bool, limit: int, parent: str | None = None) -> list[dict[str, Json]]:
        """Sessions, newest first; `parent`: those that came of it."""


Held = Callable[[str, Sequence[str] | None], Freeze | None]
"""What holds work of a tenant that is done for these agents; for None: anything that holds something of the tenant."""


def nothing(tenant: str, agents: Sequence[str] | None) -> None:
    return None


class SessionVerbs:
    """session.create|upload|get|list|events|cancel|workspace."""

    def __init__(
        self,
        sessions: Sessions,
        logs: Callable[[str], EventLog],
        reader: Reader,
        workspaces: Workspaces,
        clock: Clock,
        random: Random,
        assign: Callable[[str, str, str], Awaitable[None]] | None = None,
        held: Held | None = None,
    ) -> None:
        """`assign` lets a session (tenant, session, data subject) that is being created share the key of a data subject; `held`
        tells what is frozen, nothing by default."""
        self._assign = assign
        self._held = held or nothing
        self._sessions = sessions
        self._logs = logs
        self._reader = reader
        self._workspaces = workspaces
        self._clock = clock
        self._random = random
        self._uploads: dict[str, dict[str, _Upload]] = {}

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "session.create": self.create,
            "session.upload": self.upload,
            "session.get": self.get,
            "session.list": self.list,
            "session.events": self.events,
            "session.cancel": self.cancel,
            "session.workspace": self.workspace,
        }

    async def upload(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Take a part of a run's input: {upload?, data (base64)} → {upload, bytes}."""
        take = Params(params)
        name, text = take.text_or_none("upload"), take.text("data", longest=16 * 1024 * 1024)
        take.end()
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise UsageError("parameter data: expected base64") from error
        self._drop_old_uploads()
        mine = self._uploads.setdefault(caller.name, {})
        if name is None:
            while len(mine) >= MAX_UPLOADS:
                del mine[next(iter(mine))]
            name = self._random.token(12).hex()
            mine[name] = _Upload(0)
        if name not in mine:
            raise NotFound(f"no upload {name}", mend="begin again")
        if len(mine[name].data) + len(data) > MAX_BYTES:
            del mine[name]
            raise UsageError(f"the input is larger than {MAX_BYTES} bytes")
        while sum(len(one.data) for one in mine.values()) + len(data) > MAX_BYTES:
            del mine[next(one for one in mine if one != name)]
        mine[name].data += data
        mine[name].touched = self._clock.now_ms()
        return {"upload": name, "bytes": len(mine[name].data)}

    def _drop_old_uploads(self) -> None:
        oldest = self._clock.now_ms() - UPLOAD_MS
        for owner, theirs in tuple(self._uploads.items()):
            kept = {name: one for name, one in theirs.items() if one.touched > oldest}
            if kept:
                self._uploads[owner] = kept
            else:
                del self._uploads[owner]

    async def create(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Start a session: {agent, goal, upload?, labels?: [name], file_labels?: {place: [name]}, subject?, priority?,
        due_in_ms?, after?: [session], after_any?: [session], not_before_ms?, begin_in_ms?} → the session.

        `after` names sessions that must have finished before it begins, `after_any` sessions that must have ended; the time is
        given by the clock or from now on.
        """
        take = Params(params)
        agent, goal = take.text("agent"), take.text("goal", longest=MAX_GOAL)
        upload, labels = take.text_or_none("upload"), take.names("labels")
        places, subject = take.mapping("file_labels"), take.text_or_none("subject", longest=MAX_SUBJECT)
        priority, due = take.text_or_none("priority", longest=63), take.number("due_in_ms", default=0, highest=MAX_DUE_MS)
        begin = self._precondition(take)
        take.end()
        if subject is not None and self._assign is None:
            raise UsageError("there are no keys of data subjects here")
        file_labels = {place: Params({"file_labels": named}).names("file_labels") for place, named in places.items()}
        archive = None
        if upload is not None:
            self._drop_old_uploads()
            found = self._uploads.get(caller.name, {}).pop(upload, None)
            if found is None:
                raise NotFound(f"no upload {upload}", mend="begin again")
            archive = bytes(found.data)

        async def prepare(session: str) -> None:
            if subject is not None and self._assign is not None:
                await self._assign(caller.tenant, session, subject)

        state = await self._sessions.create(
            caller.tenant,
            agent,
            goal,
            archive,
            caller.actor,
            priority=priority,
            due_in_ms=due or None,
            begin=begin,
            labels=labels,
            file_labels=file_labels,
            prepare=prepare,
        )
        return describe(state)

    def _precondition(self, take: Params) -> Precondition | None:
        """What has to hold before a run begins; None for nothing. Raises UsageError."""
        after, after_any = take.names("after", most=MAX_NAMED), take.names("after_any", most=MAX_NAMED)
        at, within = (
            take.number("not_before_ms", default=0, highest=MAX_TIME_MS),
            take.number("begin_in_ms", default=0, highest=MAX_DUE_MS),
        )
        if at and within:
            raise UsageError("not_before_ms and begin_in_ms say the same thing", mend="give one of them")
        if within:
            at = self._clock.now_ms() + within
        return Precondition(at or None, after, after_any) if at or after or after_any else None

    async def get(self, caller: Caller, params: dict[str, Json]) -> Json:
        """One session: {session} → the session; `frozen` says what holds it."""
        take = Params(params)
        session = take_session(take)
        take.end()
        state = await self._sessions.state(caller.tenant, session)
        above = () if state.delegated is None else state.delegated.get("delegators", ())
        held = self._held(caller.tenant, [state.agent, *(str(one["agent"]) for one in above)])
        if held is None or state.over:
            return describe(state)
        frozen = {"freeze": held.id, "scope": held.scope.to_dict(), "by": held.actor, "reason": held.reason}
        return describe(state) | {"frozen": frozen}

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """The tenant's sessions, newest first: {all?, limit?, parent?} → [row]; with `parent` those that came of that one.

        A row that something holds has `frozen`, the id of the freeze.
        """
        take = Params(params)
        everything, limit = take.flag("all"), take.number("limit", default=100, lowest=1, highest=MAX_ROWS)
        parent = take.text_or_none("parent", longest=63)
        take.end()
        rows = await self._reader.sessions(caller.tenant, live_only=not everything, limit=limit, parent=parent)
        if self._held(caller.tenant, None) is None:
            return rows
        live = await self._reader.sessions(caller.tenant, live_only=True, limit=MAX_ROWS)
        known = {row["id"]: row for row in live}
        for row in rows:
            if row["id"] in known and (held := self._held(caller.tenant, _agents(row, known))) is not None:
                row["frozen"] = held.id
        return rows

    async def events(self, caller: Caller, params: dict[str, Json]) -> Json:
        """The events of a session behind `position`: {session, seq?, position?, wait_ms?} → {events, seq, position, more}.

        `seq` and `position` are those of the answer before. An answer holds about MAX_PAGE bytes; `more` says that there are
        further events already. With `wait_ms`, an answer without events comes only after that time.
        """
        take = Params(params)
        session = take_session(take)
        seq = take.number("seq", default=0, highest=2**53)
        position = take.number("position", default=0, highest=2**53)
        wait_ms = take.number("wait_ms", default=0, highest=MAX_WAIT_MS)
        take.end()
        found, more = await self._behind(caller.tenant, session, position)
        if not found and position == 0:
            raise NotFound(f"no session {session} in tenant {caller.tenant}", mend="list them: agentos ps --all")
        if not found and wait_ms:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sessions.wait_beyond(caller.tenant, session, seq), wait_ms / 1000)
            found, more = await self._behind(caller.tenant, session, position)
        events = [decode(stored.data) for stored in found]
        if events:
            seq, position = events[-1]["seq"], found[-1].position
        return {"events": events, "seq": seq, "position": position, "more": more}

    async def _behind(self, tenant: str, session: str, position: int) -> tuple[Sequence[Stored], bool]:
        """What lies behind `position`, up to a page, and whether there is more."""
        found: list[Stored] = []
        size = 0
        async for stored in self._logs(tenant).read(session_subject(session), after=position):
            size += len(stored.data)
            if found and size > MAX_PAGE:
                return found, True
            found.append(stored)
        return found, False

    async def cancel(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Stop a session for good: {session, reason} → the session."""
        take = Params(params)
        session, reason = take_session(take), take.text("reason")
        take.end()
        return describe(await self._sessions.cancel(caller.tenant, session, reason=reason, actor=caller.actor))

    async def workspace(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Where a session's workspace is on the runtime's host: {session} → {path}."""
        take = Params(params)
        session = take_session(take)
        take.end()
        await self._sessions.state(caller.tenant, session)
        return {"path": str(self._workspaces.path(caller.tenant, session))}


def _agents(row: Mapping[str, Json], known: Mapping[str, Mapping[str, Json]]) -> list[str]:
    """For whom a session acts: its own agent, and those of the sessions above it, which live as long as it does."""
    found = [str(row["agent"])]
    while row["origin"] == "delegated" and row["parent"] in known:
        row = known[row["parent"]]
        found.append(str(row["agent"]))
    return found


def take_session(take: Params) -> str:
    """The parameter `session`. Raises UsageError for what cannot be the id of one."""
    session = take.text("session")
    if not is_name(session):
        raise UsageError(f"{session!r} is no session id")
    return session


def describe(state: SessionState) -> dict[str, Json]:
    """A session for people and programs (`schemas/v1/session.json`)."""
    body: dict[str, Json] = {
        "session": state.id,
        "tenant": state.tenant,
        "agent": state.agent,
        "state": str(state.state),
        "goal": state.goal,
        "actor": state.actor,
        "config_revision": state.config_revision,
        "seq": state.seq,
        "turn": state.turn,
        "calls": state.tool_calls,
        "tokens": state.input_tokens + state.output_tokens,
        "labels": sorted(state.labels),
    }
    if state.deferred is not None:
        body["deferred"] = dict(state.deferred)
    if state.paused is not None:
        body["paused"] = dict(state.paused)
    if state.stopped is not None:
        body["stopped"] = dict(state.stopped)
    if state.waiting_for is not None and state.waiting is not None:
        waiting = state.calls[state.waiting_for]
        body["waiting_for"] = {
            "call": waiting.call,
            "tool": waiting.tool,
            "args": dict(waiting.args),
            "args_digest": waiting.args_digest,
            "expires_ms": state.waiting["expires"],
            "needed": state.waiting["needed"],
            "given": state.waiting["given"],
        }
    if state.result is not None:
        body["result"] = state.result
    if state.error is not None:
        body["error"] = dict(state.error)
    return body
