"""The verbs about sessions and approvals."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from agentos.abi.canonical import Json, parse_strict
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.ids import Random, is_name
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import session_subject
from agentos.kernel.sessions import MAX_GOAL, Sessions
from agentos.kernel.workspace import MAX_BYTES, Workspaces
from agentos.projections.session import SessionState

MAX_WAIT_MS: Final = 20_000
MAX_UPLOADS: Final = 4
"""Uploads under way per principal, MAX_BYTES together at most; the oldest is dropped for what is new."""


class Reader(Protocol):
    """The read models, as these verbs need them; answers include everything that the log held when asked."""

    async def sessions(self, tenant: str, *, live_only: bool, limit: int) -> list[dict[str, Json]]:
        """Sessions, newest first."""

    async def approvals(self, tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        """Approvals, oldest first."""


class SessionVerbs:
    """session.create|upload|get|list|events|cancel|workspace and approval.list|approve|deny."""

    def __init__(
        self,
        sessions: Sessions,
        logs: Callable[[str], EventLog],
        reader: Reader,
        workspaces: Workspaces,
        random: Random,
    ) -> None:
        self._sessions = sessions
        self._logs = logs
        self._reader = reader
        self._workspaces = workspaces
        self._random = random
        self._uploads: dict[str, dict[str, bytearray]] = {}

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
            "approval.list": self.approvals,
            "approval.approve": self.approve,
            "approval.deny": self.deny,
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
        mine = self._uploads.setdefault(caller.name, {})
        if name is None:
            while len(mine) >= MAX_UPLOADS:
                del mine[next(iter(mine))]
            name = self._random.token(12).hex()
            mine[name] = bytearray()
        if name not in mine:
            raise NotFound(f"no upload {name}", mend="begin again")
        if len(mine[name]) + len(data) > MAX_BYTES:
            del mine[name]
            raise UsageError(f"the input is larger than {MAX_BYTES} bytes")
        while sum(map(len, mine.values())) + len(data) > MAX_BYTES:
            del mine[next(one for one in mine if one != name)]
        mine[name] += data
        return {"upload": name, "bytes": len(mine[name])}

    async def create(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Start a session: {agent, goal, upload?} → the session."""
        take = Params(params)
        agent, goal = take.text("agent"), take.text("goal", longest=MAX_GOAL)
        upload = take.text_or_none("upload")
        take.end()
        archive = None
        if upload is not None:
            archive = self._uploads.get(caller.name, {}).pop(upload, None)
            if archive is None:
                raise NotFound(f"no upload {upload}", mend="begin again")
        state = await self._sessions.create(
            caller.tenant, agent, goal, bytes(archive) if archive is not None else None, caller.actor
        )
        return describe(state)

    async def get(self, caller: Caller, params: dict[str, Json]) -> Json:
        """One session: {session} → the session."""
        take = Params(params)
        session = _session(take)
        take.end()
        return describe(await self._sessions.state(caller.tenant, session))

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """The tenant's sessions, newest first: {all?, limit?} → [row]."""
        take = Params(params)
        everything, limit = take.flag("all"), take.number("limit", default=100, lowest=1, highest=10_000)
        take.end()
        return await self._reader.sessions(caller.tenant, live_only=not everything, limit=limit)

    async def events(self, caller: Caller, params: dict[str, Json]) -> Json:
        """The events of a session behind `seq`: {session, seq?, position?, wait_ms?} → {events, seq, position}.

        With `wait_ms`, an answer without events comes only after that time.
        """
        take = Params(params)
        session = _session(take)
        seq = take.number("seq", default=0, highest=2**53)
        position = take.number("position", default=0, highest=2**53)
        wait_ms = take.number("wait_ms", default=0, highest=MAX_WAIT_MS)
        take.end()
        found = await self._behind(caller.tenant, session, position)
        if not found and position == 0:
            raise NotFound(f"no session {session} in tenant {caller.tenant}", mend="list them: agentos ps --all")
        if not found and wait_ms:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sessions.wait_beyond(caller.tenant, session, seq), wait_ms / 1000)
            found = await self._behind(caller.tenant, session, position)
        events = [parse_strict(stored.data) for stored in found]
        if events:
            seq, position = events[-1]["seq"], found[-1].position
        return {"events": events, "seq": seq, "position": position}

    async def _behind(self, tenant: str, session: str, position: int) -> Sequence[Stored]:
        return [stored async for stored in self._logs(tenant).read(session_subject(session), after=position)]

    async def cancel(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Stop a session for good: {session, reason} → the session."""
        take = Params(params)
        session, reason = _session(take), take.text("reason")
        take.end()
        return describe(await self._sessions.cancel(caller.tenant, session, reason=reason, actor=caller.actor))

    async def workspace(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Where a session's workspace is on the runtime's host: {session} → {path}."""
        take = Params(params)
        session = _session(take)
        take.end()
        await self._sessions.state(caller.tenant, session)
        return {"path": str(self._workspaces.path(caller.tenant, session))}

    async def approvals(self, caller: Caller, params: dict[str, Json]) -> Json:
        """What waits for a person: {all?} → [row]."""
        take = Params(params)
        everything = take.flag("all")
        take.end()
        return await self._reader.approvals(caller.tenant, waiting_only=not everything)

    async def approve(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Say yes to the call that a session waits for: {session, call?, reason} → the session."""
        return await self._answer(caller, params, granted=True)

    async def deny(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Say no to the call that a session waits for: {session, call?, reason} → the session."""
        return await self._answer(caller, params, granted=False)

    async def _answer(self, caller: Caller, params: dict[str, Json], *, granted: bool) -> Json:
        take = Params(params)
        session, call, reason = _session(take), take.text_or_none("call"), take.text("reason")
        take.end()
        return describe(
            await self._sessions.answer(caller.tenant, session, granted=granted, reason=reason, actor=caller.actor, call=call)
        )


def _session(take: Params) -> str:
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
    if state.waiting_for is not None:
        waiting = state.calls[state.waiting_for]
        body["waiting_for"] = {"call": waiting.call, "tool": waiting.tool, "args": dict(waiting.args)}
    if state.result is not None:
        body["result"] = state.result
    if state.error is not None:
        body["error"] = dict(state.error)
    return body
