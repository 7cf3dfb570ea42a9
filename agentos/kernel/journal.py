"""The journal of one session: the only writer of its subject.

`record` turns a type and a payload into the next event of the chain, makes it durable, and folds it into `state`. An event that
is not durable is not folded: what `state` says has happened, has.

A long session is loaded from its last snapshot and the events behind it (`kernel.snapshot` says what of that is proven).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from agentos.abi.attributes import SESSION_LEVEL, attributes_of, session_attributes, trace_of
from agentos.abi.canonical import Json
from agentos.abi.chain import Head, follow
from agentos.abi.errors import ChainBroken, Conflict, LogUnavailable, NotFound, PayloadErased, SequenceConflict
from agentos.abi.event import HARNESS_STOPPED, SYSCALL_DECIDED, SYSCALL_FAILED, SYSCALL_FINISHED, SYSCALL_UNKNOWN, Event
from agentos.abi.ids import Clock, Random
from agentos.abi.record import SALT_BYTES
from agentos.eventlog.port import EventLog, Message, Stored
from agentos.eventlog.subject import session_subject
from agentos.kernel.port import Configuration
from agentos.kernel.snapshot import Snapshots, Standing
from agentos.projections.session import SessionState, fold

_OUTCOMES: Final = frozenset({SYSCALL_FINISHED, SYSCALL_FAILED, SYSCALL_UNKNOWN})

Heard = Callable[[Event], None]
"""Who is told of events as they are recorded."""


class Journal:
    """Write access to one session. `state` is the folded session, `head` the tip of its chain."""

    def __init__(
        self, log: EventLog, tenant: str, session: str, clock: Clock, random: Random, snapshots: Snapshots | None = None
    ) -> None:
        """`snapshots`: where this session's are kept; None: it has none, and is always read whole."""
        self._log = log
        self._clock = clock
        self._random = random
        self._snapshots = snapshots
        self._subject = session_subject(session)
        self._position = 0
        self._turnstile = asyncio.Lock()
        self._grown = asyncio.Event()
        self.tenant = tenant
        self.session = session
        self.stale = False
        """Whether the log may hold more than `state`: an append failed without telling, or somebody else has written."""
        self.head = Head.empty()
        self.decisions: dict[str, tuple[Head, tuple[str, ...]]] = {}
        """By call: the decision about it that was recorded here, and who had approved it. Of calls without an outcome."""
        self.state = SessionState(id=session, tenant=tenant)
        self._of_session: dict[str, str | int] = {}
        self.heard: Heard | None = None
        """Told of every event that is recorded from now on, once it is stored and folded."""
        self.inherited: frozenset[str] = frozenset()
        """Calls that are not the session's own: it was forked with them."""
        self.kept = 0
        """Events in the session's last snapshot, as far as is known here."""

    @classmethod
    async def load(
        cls, log: EventLog, tenant: str, session: str, clock: Clock, random: Random, snapshots: Snapshots | None = None
    ) -> Journal:
        """Read a session from the log, checking its chain. Raises NotFound, ChainBroken, PayloadErased or LogUnavailable."""
        standing = await snapshots.find(tenant, session) if snapshots is not None else None
        journal = cls(log, tenant, session, clock, random, snapshots)
        if snapshots is not None and standing is not None:
            try:
                await journal._go_on(standing)
            except (ChainBroken, PayloadErased) as error:
                # Whether the snapshot is wrong or the log, the log alone can say.
                await snapshots.drop(standing, f"the log says otherwise ({error.code} at {error.where})")
                journal = cls(log, tenant, session, clock, random, snapshots)
        if journal.head.seq == 0:
            async for stored in log.read(journal._subject):
                journal._read(stored)
        if journal.head.seq == 0:
            raise NotFound(f"no session {session} in tenant {tenant}", mend="list them: agentos ps --all")
        journal._keep()
        return journal

    async def _go_on(self, standing: Standing) -> None:
        """Stand where `standing` says, once the log agrees, and read what came then. Raises as `load`."""
        # The message that it stands on is read too: a log that was restored from before ends sooner, or has another one there.
        async with aclosing(self._log.read(self._subject, after=standing.position - 1)) as coming:
            first = await anext(coming, None)
            if first is None or first.position != standing.position or not _is_head(first, standing):
                where = f"{self.session}#{standing.head.seq}"
                raise ChainBroken("the log does not hold the event that it stands on", where=where)
            self.head, self.state, self.inherited = standing.head, standing.state, standing.inherited
            self._position, self._of_session, self.kept = standing.position, standing.of_session, standing.head.seq
            async for stored in coming:
                self._read(stored)

    def _read(self, stored: Stored) -> None:
        """Take in the next event as it is stored. Raises ChainBroken, PayloadErased."""
        self.head, body = follow(self.head, stored.data, subject=self.session)
        try:
            event = Event.from_dict(body)
            if event.withheld:
                raise PayloadErased(f"the payload of session {self.session} was erased", where=f"{self.session}#{event.seq}")
            self._take(event)
            self._of_session = self._of_session or _of_session(event)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            where = f"{self.session}#{self.head.seq}"
            raise ChainBroken(f"is no event of a session that this version can read: {error!r}", where=where) from error
        self._position = stored.position

    def standing(self) -> Standing:
        """All that the journal knows, as it is now."""
        state, inherited, of_session = self.state, self.inherited, self._of_session
        return Standing(self.tenant, self.session, self.head, self._position, state, inherited, of_session)

    def _keep(self) -> None:
        """Have a snapshot taken if it is time for one."""
        snapshots, seq = self._snapshots, self.head.seq
        if snapshots is not None and snapshots.due(seq, self.kept) and snapshots.take(self.standing()):
            # Also one that will fail: it is tried again when the session has grown as much again.
            self.kept = seq

    async def record(
        self,
        kind: str,
        data: dict[str, Json],
        *,
        actor: str,
        revision: int,
        policy: str | None,
        only_if_seq: int | None = None,
    ) -> SessionState:
        """Append one event and return the new state.

        `only_if_seq` refuses (Conflict) when the session has moved on since the caller looked.
        Raises LogUnavailable or SequenceConflict when the event was not stored by us as far as can be told (the journal is
        `stale` then, to be loaded again), TooLarge when it never can be. Cancelling the caller does not tear an append that is
        under way.
        """
        return await _whole(self._record(kind, data, actor, revision, policy, only_if_seq))

    async def record_under(
        self, configuration: Configuration, kind: str, data: dict[str, Json], actor: str, *, only_if_seq: int | None = None
    ) -> SessionState:
        """`record` under a configuration."""
        revision, policy = configuration.revision, configuration.policy_digest
        return await self.record(kind, data, actor=actor, revision=revision, policy=policy, only_if_seq=only_if_seq)

    async def _record(
        self, kind: str, data: dict[str, Json], actor: str, revision: int, policy: str | None, only_if_seq: int | None
    ) -> SessionState:
        async with self._turnstile:
            if self.stale:
                # Something else of the session was on its way to the log, and nobody knows whether it came there.
                raise LogUnavailable(f"session {self.session} is to be read from the log again", where=self._subject)
            if self.state.over and kind != HARNESS_STOPPED:
                raise Conflict(f"session {self.session} is already {self.state.state}")
            if only_if_seq is not None and only_if_seq != self.head.seq:
                raise Conflict(f"session {self.session} has moved on while you looked", mend="look again")
            name = self._random.token(16).hex()
            # The first event tells the session's own attributes, and all others repeat them.
            of_session = self._of_session or session_attributes(actor, data)
            event = Event(
                id=name,
                type=kind,
                tenant=self.tenant,
                subject=self.session,
                seq=self.head.seq + 1,
                prev=self.head.hash,
                time_ms=self._clock.now_ms(),
                actor=actor,
                config_revision=revision,
                policy_digest=policy,
                data=data,
                attributes=of_session | attributes_of(kind, data) | {"traceparent": trace_of(self.session, name)},
            )
            stored = event.to_record(self._random.token(SALT_BYTES))
            try:
                self._position = await self._log.append(self._subject, [Message(event.id, stored)], after=self._position)
            except (LogUnavailable, SequenceConflict):
                self.stale = True
                raise
            self._of_session = of_session
            self.head = event.head(stored)
            if kind == SYSCALL_DECIDED:
                self.decisions[data["call"]] = self.head, tuple(one["by"] for one in data.get("approvals", ()))
            elif kind in _OUTCOMES:
                self.decisions.pop(data["call"], None)
            self._take(event)
            self._keep()
            if self.heard is not None:
                self.heard(event)
            self.wake()
            return self.state

    def _take(self, event: Event) -> None:
        self.state = fold(self.state, event)
        if event.seq == 1:
            self.inherited = frozenset(self.state.calls)

    async def confirm(self) -> None:
        """Look whether the log still ends with our own last event of the session.

        Raises SequenceConflict if somebody has written since (the journal is `stale` then), LogUnavailable if it cannot be told.
        """
        async with self._turnstile:
            last = await self._log.last(self._subject)
            if last is None or last.position != self._position:
                self.stale = True
                raise SequenceConflict(f"session {self.session} has been taken over", where=self._subject)

    async def wait_beyond(self, seq: int) -> bool:
        """Wait for the next event if the session has no more than `seq`; return whether it has more then. Cancel to give up.

        False means that this journal may not be the one that grows: see which one is kept, and ask that.
        """
        if self.head.seq <= seq:
            await self._grown.wait()
        return self.head.seq > seq

    def wake(self) -> None:
        """Make those who wait look again."""
        self._grown.set()
        self._grown = asyncio.Event()


def _is_head(stored: Stored, standing: Standing) -> bool:
    """Whether `stored` is the event that `standing` ends with, and its payload is there."""
    try:
        event = Event.from_bytes(stored.data)
    except (LookupError, TypeError, ValueError, AttributeError):
        return False
    return event.head(stored.data) == standing.head and event.subject == standing.session and not event.withheld


def _of_session(event: Event) -> dict[str, str | int]:
    """The session's own attributes as an event of it carries them."""
    return {name: value for name, value in event.attributes.items() if name in SESSION_LEVEL and name != "traceparent"}


async def _whole(work: Awaitable[SessionState]) -> SessionState:
    """Await `work` to its end even if the caller is cancelled meanwhile; then let the cancellation through."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await asyncio.wait([task])
        raise
