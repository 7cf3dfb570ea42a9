"""Receiving a delegation: whether an envelope begins a child, and the child's beginning.

    sender known → signature → form → tenant → expiry → the parent's log: decided, allowed, this child, still open → the child

Nothing in an envelope is believed beyond its signature. That a child is to begin, as which agent, with which words and with
whose authority is read in the log of the session that delegates, as it is at that moment. So a forged, foreign, stale or
repeated envelope begins nothing, and one that is good begins one child however often it comes: the child's id is in the decided
event, and a session that has it is begun once.

Where a good signature names a parent, a refusal is told to it, and its call goes on without that child. What names no parent that
could be told is for whoever calls this to count.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Final, Protocol

from agentos.abi import event as ev
from agentos.abi.canonical import Json, digest, parse_strict
from agentos.abi.envelope import MAX_ENVELOPE, Envelope, read_task_subject, signed
from agentos.abi.errors import AgentOSError, Conflict, Frozen, NotFound, PayloadErased, SequenceConflict, Unavailable
from agentos.abi.ids import Clock
from agentos.abi.record import header_of
from agentos.drivers.delegating import Terms, delegates
from agentos.drivers.port import ToolSpec
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject
from agentos.kernel.asking import class_of
from agentos.kernel.gate import SYSTEM
from agentos.kernel.lineage import given_to_child
from agentos.kernel.port import Configuration, ConfigurationSource
from agentos.kernel.sessions import Sessions
from agentos.projections.session import Call, SessionState, Step

log = logging.getLogger(__name__)

PACKED: Final = 4
"""Children that get files are begun so many at a time: what is handed over is in memory until the child has it."""

PROVEN: Final = 4096
"""Decided events whose place in a log is remembered: children of one call come together."""


class Outbox(Protocol):
    """How envelopes are sent."""

    async def send(self, tenant: str, envelope: Envelope) -> None:
        """Send one; it is durable when this returns. The same child sent twice begins once. Raises LogUnavailable."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """That a child does not begin, for its parent: a `code` of this module's `Code` and a sentence."""

    tenant: str
    parent: str
    call: str
    child: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Handover:
    """The files that a child begins with: a tar archive of its `input/`, and the labels by folder or file in it."""

    archive: bytes | None = None
    file_labels: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    labels: tuple[str, ...] = ()
    """What comes with them into the child from its first event, besides what its parent carries."""


class Delegating(Protocol):
    """The side that delegates, as the receiver needs it."""

    async def hand_over(self, tenant: str, parent: SessionState, call: str, index: int) -> Handover:
        """The files that this child begins with. Raises UsageError for what cannot be handed over."""

    async def refused(self, refusal: Refusal) -> None:
        """Record that a child does not begin, and let its call go on without it. Safe to repeat.

        Raises Conflict or NotFound when its parent cannot be told, LogUnavailable.
        """

    def has_refused(self, tenant: str, child: str) -> bool:
        """Whether its parent goes on without this child: then it does not begin any more."""

    async def began(self, tenant: str, parent: str, call: str, child: str) -> None:
        """A child has begun, perhaps before: one that nobody waits for any more is ended. Safe to repeat."""


class Code(StrEnum):
    """Why an envelope begins nothing. The first five name no parent that could be believed."""

    MALFORMED = "delegation.malformed"
    SENDER = "delegation.sender"
    FORGED = "delegation.forged"
    TENANT = "delegation.tenant"
    PARENT = "delegation.parent"
    OVER = "delegation.over"
    EXPIRED = "delegation.expired"
    UNDECIDED = "delegation.undecided"
    CLOSED = "delegation.closed"
    CHILD = "delegation.child"
    TOOL = "delegation.tool"
    TAKEN = "delegation.taken"
    UNUSABLE = "delegation.unusable"
    REFUSED = "delegation.refused"
    INTERNAL = "delegation.internal"


class Verdict(StrEnum):
    """What becomes of a message."""

    BEGUN = "begun"
    KNOWN = "known"
    """Its child has begun before."""
    REFUSED = "refused"
    LATER = "later"
    """The log is away, or the parent is frozen: it is delivered again."""


@dataclass(frozen=True, slots=True)
class Received:
    """What became of one message. `code` and `message` say why it was refused or put off."""

    verdict: Verdict
    code: str = ""
    message: str = ""
    told: bool = False
    """Whether the parent has been told of a refusal."""


class _No(Exception):
    """The envelope begins nothing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message


@dataclass(frozen=True, slots=True)
class _Parent:
    """A session that delegates: its state, and the tip of its chain then."""

    state: SessionState
    seq: int
    hash: str


class Receiver:
    """Begins the children of all tenants."""

    def __init__(
        self,
        sessions: Sessions,
        source: ConfigurationSource,
        delegating: Delegating,
        clock: Clock,
        *,
        streams: Callable[[str], EventLog],
        trusted: Callable[[str], Collection[str]],
        verify: Callable[[str, bytes, bytes], bool],
        join: Callable[[str, str, str], Awaitable[None]],
        frozen: Callable[[SessionState, Configuration], bool],
    ) -> None:
        """`streams`: a tenant's log as it is stored, headers and sealed payloads. `trusted`: the public keys of those who may
        send in a tenant. `verify` tells whether a key has signed bytes (key, bytes, signature). `join` lets a child (tenant,
        child, parent) share the key of the parent's payloads, whose words it repeats. `frozen`: whether a session is held.
        """
        self._sessions = sessions
        self._source = source
        self._delegating = delegating
        self._clock = clock
        self._streams = streams
        self._trusted = trusted
        self._verify = verify
        self._join = join
        self._frozen = frozen
        self._packing = asyncio.Semaphore(PACKED)
        self._reading: dict[tuple[str, str], asyncio.Task[_Parent]] = {}
        self._proven: OrderedDict[tuple[str, str, int, str], str] = OrderedDict()

    async def receive(self, tenant: str, subject: str, body: bytes, signature: bytes | None) -> Received:
        """Judge one message of the queue of `tenant`, and begin what it is to begin. Never raises for what is in the message.

        When this returns, a child that has begun and a refusal that was told are durable.
        """
        try:
            envelope = self._read(tenant, subject, body, signature)
        except _No as no:
            return Received(Verdict.REFUSED, no.code, no.message)
        try:
            return await self._begin(tenant, envelope)
        except (Unavailable, SequenceConflict, Frozen) as error:
            return Received(Verdict.LATER, error.code, error.message)
        except _No as no:
            return await self._refuse(tenant, envelope, no)

    def _read(self, tenant: str, subject: str, body: bytes, signature: bytes | None) -> Envelope:
        """The envelope of a message that a trusted sender has signed for this tenant. Raises _No."""
        try:
            sender, child = read_task_subject(subject)
        except ValueError as error:
            raise _No(Code.MALFORMED, str(error)) from error
        if sender not in self._trusted(tenant):
            raise _No(Code.SENDER, "nobody who may delegate in this tenant has that key")
        if len(body) > MAX_ENVELOPE or signature is None or not self._verify(sender, signed(subject, body), signature):
            raise _No(Code.FORGED, "the signature is not that of the sender")
        try:
            envelope = Envelope.from_bytes(body)
        except ValueError as error:
            raise _No(Code.MALFORMED, str(error)) from error
        if envelope.child != child:
            raise _No(Code.MALFORMED, "the subject names another child")
        if envelope.tenant != tenant:
            raise _No(Code.TENANT, "it was meant for another tenant")
        return envelope

    async def _begin(self, tenant: str, envelope: Envelope) -> Received:
        """Begin the child. Raises _No, Unavailable, SequenceConflict."""
        try:
            parent = await self._parent(tenant, envelope.parent)
        except (NotFound, PayloadErased) as error:
            raise _No(Code.PARENT, error.message) from error
        if self._clock.now_ms() >= envelope.expires_ms:
            raise _No(Code.EXPIRED, "it came after its time")
        try:
            configuration = self._source.current(tenant)
        except NotFound as error:
            raise Unavailable(error.message) from error  # its tenant is not declared now: as its sessions, it waits for that
        state = parent.state
        call, tool = await self._judge(parent, configuration, envelope)
        if self._delegating.has_refused(tenant, envelope.child):
            raise _No(Code.REFUSED, "its parent was told that it does not begin")
        if self._frozen(state, configuration):
            return Received(Verdict.LATER, Frozen.code, f"session {state.id} is frozen")
        try:
            terms = Terms.of(tool)
            task = terms.tasks(call.args)[envelope.index]
            async with self._packing if task.inputs or task.reduces or "events" in call.args else contextlib.nullcontext():
                files = await self._delegating.hand_over(tenant, state, call.call, envelope.index)
                child = await self._sessions.create(
                    tenant,
                    task.agent,
                    task.goal,
                    files.archive,
                    state.actor,
                    labels=sorted({*state.labels, *files.labels}),
                    file_labels=files.file_labels,
                    prepare=partial(self._share_key, tenant, state.id),
                    session=envelope.child,
                    origin=origin(state, call, envelope, terms, configuration),
                )
        except (Unavailable, SequenceConflict, Frozen):
            raise
        except AgentOSError as error:
            raise _No(Code.UNUSABLE, error.message) from error
        if not is_child(child, envelope):
            raise _No(Code.TAKEN, f"session {envelope.child} is another one")
        await self._delegating.began(tenant, state.id, call.call, envelope.child)
        if child.seq > 1:
            return Received(Verdict.KNOWN)
        await self._look_back(tenant, state.id, envelope.child)
        return Received(Verdict.BEGUN)

    async def _judge(self, parent: _Parent, configuration: Configuration, envelope: Envelope) -> tuple[Call, ToolSpec]:
        """The call that the envelope is of, and its tool. Raises _No."""
        state = parent.state
        call = state.calls.get(envelope.call)
        if call is None or not await self._is_decided(parent, call, envelope):
            raise _No(Code.UNDECIDED, f"session {state.id} has not decided this at {envelope.decided}")
        if state.over:
            raise _No(Code.OVER, f"session {state.id} is {state.state}")
        if call.step is not Step.ALLOWED:
            raise _No(Code.CLOSED, f"call {call.call} is {call.step}")
        children: Sequence[str] = state.delegations.get(call.call, ())
        if envelope.index >= len(children) or children[envelope.index] != envelope.child:
            raise _No(Code.CHILD, f"call {call.call} names another child at {envelope.index}")
        tool = configuration.tools.get(call.tool)
        if tool is None or not delegates(tool):
            raise _No(Code.TOOL, f"tool {call.tool} does not delegate")
        if envelope.index >= Terms.of(tool).children(call.args):
            raise _No(Code.TOOL, f"tool {call.tool} does not delegate that any more")
        return call, tool

    async def _is_decided(self, parent: _Parent, call: Call, envelope: Envelope) -> bool:
        """Whether event `decided` of the parent's log has the hash `head` and allowed the call."""
        if (parent.seq, parent.hash, call.decided) == (envelope.decided, envelope.head, parent.seq):
            return True  # a session that does nothing but wait for its children ends with it
        key = (envelope.tenant, envelope.parent, envelope.decided, call.call)
        if key not in self._proven and envelope.decided <= parent.seq:
            self._proven[key] = await self._look_up(*key)
            while len(self._proven) > PROVEN:
                self._proven.popitem(last=False)
        return self._proven.get(key) == envelope.head

    async def _look_up(self, tenant: str, session: str, seq: int, call: str) -> str:
        """The hash of event `seq` if it allowed `call`, else empty. Reads headers alone, up to there."""
        number = 0
        async for stored in self._streams(tenant).read(session_subject(session)):
            number += 1
            if number == seq:
                header = header_of(stored.data)
                told = parse_strict(header)
                allowed = told["type"] == ev.SYSCALL_DECIDED and told.get("call") == call and told.get("decision") == "allow"
                return digest(header) if allowed and told["seq"] == seq else ""
        return ""

    async def _parent(self, tenant: str, session: str) -> _Parent:
        """The session that delegates; those who ask at the same time are told together. Raises NotFound, Unavailable, _No."""
        key = (tenant, session)
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._read_parent(tenant, session))
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        return await asyncio.shield(reading)

    async def _read_parent(self, tenant: str, session: str) -> _Parent:
        async with self._sessions.journal(tenant, session) as journal:
            return _Parent(journal.state, journal.head.seq, journal.head.hash)

    async def _share_key(self, tenant: str, parent: str, child: str) -> None:
        await self._join(tenant, child, parent)

    async def _look_back(self, tenant: str, parent: str, child: str) -> None:
        """End the child if its parent ended while it was being begun: whoever ends children did not know of it then."""
        if parent in self._sessions.live(tenant) or not (await self._sessions.state(tenant, parent)).over:
            return
        try:
            await self._sessions.cancel(tenant, child, reason=f"session {parent}, which delegated to it, is over", actor=SYSTEM)
        except Conflict:
            log.info("session %s ended before it could be cancelled", child)

    async def _refuse(self, tenant: str, envelope: Envelope, no: _No) -> Received:
        """Tell the parent, unless the child has begun: then it is an envelope that came again, later."""
        try:
            if await self._has_begun(tenant, envelope):
                return Received(Verdict.KNOWN)
            if no.code not in {Code.PARENT, Code.OVER}:
                told = Refusal(tenant, envelope.parent, envelope.call, envelope.child, no.code, no.message)
                await self._delegating.refused(told)
                return Received(Verdict.REFUSED, no.code, no.message, told=True)
        except (Unavailable, SequenceConflict) as error:
            return Received(Verdict.LATER, error.code, error.message)
        except (Conflict, NotFound, PayloadErased) as error:
            log.info("session %s cannot be told that %s does not begin: %s", envelope.parent, envelope.child, error.message)
        return Received(Verdict.REFUSED, no.code, no.message)

    async def _has_begun(self, tenant: str, envelope: Envelope) -> bool:
        try:
            return is_child(await self._sessions.state(tenant, envelope.child), envelope)
        except (NotFound, PayloadErased):
            return False


def is_child(state: SessionState, envelope: Envelope) -> bool:
    """Whether `state` is the child that the envelope names, begun before or just now."""
    came = state.delegated or {}
    named = (envelope.child, envelope.parent, envelope.call, envelope.index)
    return (state.id, came.get("parent"), came.get("call"), came.get("index")) == named


def origin(parent: SessionState, call: Call, envelope: Envelope, terms: Terms, configuration: Configuration) -> dict[str, Json]:
    """What the first event of a child says of where it comes from: the chain of delegators, first the top, last its parent.

    Its class and deadline are its parent's: who waits for it is served no later for having delegated.
    """
    before = parent.delegated or {}
    agent = configuration.agents.get(parent.agent)
    tools, kept = terms.narrowed_tools(call.args), before.get("tools")
    delegator: dict[str, Json] = {
        "session": parent.id,
        "agent": parent.agent,
        "labels": dict(agent.labels) if agent is not None else {},
        "tool": call.tool,
        "tools": tools,
    }
    delegated: dict[str, Json] = {
        "parent": parent.id,
        "call": call.call,
        "index": envelope.index,
        "decided": envelope.decided,
        "tool": call.tool,
        "lineage": [*before.get("lineage", ()), parent.id],
        "delegators": [*before.get("delegators", ()), delegator],
        "tools": kept if tools is None else tools if kept is None else sorted({*tools} & {*kept}),
        **given_to_child(parent, terms.narrowed_budget(call.args)),
    }
    urgency: dict[str, Json] = {"priority": class_of(parent, configuration)}
    if parent.deadline_ms is not None:
        urgency["deadline_ms"] = parent.deadline_ms
    return {"parent": parent.id, "delegated": delegated, **urgency}
