"""The audit chain of a tenant: what was done to its log itself, in a chain of its own that is never dropped.

Ten types of open events stand in it, each by the principal who did it:

    agentos.audit.erased     payloads of sessions are gone for good, on this basis, with these keys (the tombstone)
    agentos.audit.held       a session, an agent's sessions or a period must be kept whatever else is asked (a legal hold)
    agentos.audit.released   that hold is over
    agentos.audit.exported   an evidence pack left the runtime: its digest, and what was in it (`audit.exported`)
    agentos.audit.unlocked   a lock was taken from the session that held it
    agentos.audit.frozen     a kill switch was thrown: nothing of its scope decides or acts any more
    agentos.audit.thawed     and taken back
    agentos.audit.switched   an agent or a trigger was enabled or disabled
    agentos.audit.refused    something came that no decision of ours had asked for, so many times
    agentos.audit.retired    a stream was exported and dropped whole

`AuditRecord` is the fold of the chain. `append` decides on the newest record and stores behind exactly that one: what somebody
else stored meanwhile, a hold perhaps, makes it decide anew. An event is durable before anything is done that it tells of.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.erased import erased_by
from agentos.abi.errors import ChainBroken, SequenceConflict
from agentos.abi.event import Event
from agentos.abi.freeze import Freeze, FreezeScope, ScopeKind, read_scope
from agentos.abi.ids import FLEET, Clock, Random, is_name, new_id
from agentos.audit.exported import Exported, read_exported
from agentos.eventlog.keys import ID_BYTES
from agentos.eventlog.port import EventLog, Message
from agentos.eventlog.subject import AUDIT_CHAIN, AUDIT_NAME, period_of
from agentos.registry.journal import Journal, Tip

Entry = tuple[str, dict[str, Json]]
"""Type and payload of an event to be."""

PERIOD: Final = re.compile(r"[0-9]{4}(?:0[1-9]|1[0-2])", re.ASCII)
"""A month, `202611`."""


@dataclass(frozen=True, slots=True)
class Erased:
    """One tombstone: the sessions whose payloads are gone, and the keys (16 bytes each) that were destroyed."""

    id: str
    sessions: tuple[str, ...]
    keys: tuple[bytes, ...]
    basis: str
    overruled: bool
    actor: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Hold:
    """One legal hold, on exactly one of: a session, all sessions of an agent, all sessions of a period."""

    id: str
    session: str | None
    agent: str | None
    period: str | None
    reason: str
    actor: str
    time_ms: int

    @property
    def key(self) -> tuple[str, Json]:
        """What it is on: ("session", id), ("agent", name) or ("period", month)."""
        return next(iter(self.target().items()))

    @property
    def what(self) -> str:
        """`session s-…`, `agent triage` or `period 202611`."""
        return next(f"{kind} {name}" for kind, name in self.target().items())

    def target(self) -> dict[str, Json]:
        """The one of `session`, `agent`, `period` that is held."""
        named = {"session": self.session, "agent": self.agent, "period": self.period}
        return {kind: name for kind, name in named.items() if name is not None}


@dataclass(frozen=True, slots=True)
class Switched:
    """An agent or a trigger that was enabled or disabled."""

    what: str
    name: str
    on: bool
    reason: str
    actor: str
    time_ms: int


@dataclass(slots=True)
class AuditRecord:
    """What the audit chain says. Changed by its chain alone."""

    erased: dict[str, Erased] = field(default_factory=dict)
    """Session → its tombstone."""
    tombstones: list[Erased] = field(default_factory=list)
    holds: dict[str, Hold] = field(default_factory=dict)
    """The holds in force, by id, oldest first."""
    _holding: dict[tuple[str, Json], dict[str, Hold]] = field(default_factory=dict)
    """The same by what they are on: ("session", id), ("agent", name) or ("period", month)."""
    released: dict[str, Hold] = field(default_factory=dict)
    retired: dict[str, dict[str, int]] = field(default_factory=dict)
    """Period → its streams that were retired, and how many events each had. Whether that was signed is in `audit.retired`."""
    frozen: dict[str, Freeze] = field(default_factory=dict)
    """The freezes in force, by id, oldest first; those of the fleet among them."""
    thawed: dict[str, Freeze] = field(default_factory=dict)
    """Those that were taken back."""
    switched: dict[tuple[str, str], Switched] = field(default_factory=dict)
    """By kind (`agent`, `trigger`) and name: how it was switched last."""
    exported: dict[str, Exported] = field(default_factory=dict)
    """The evidence packs that this runtime made, by digest."""

    def held_by(self, session: str, agent: str | None) -> tuple[Hold, ...]:
        """The holds that keep a session of `agent`. One of nobody knows which agent may be of any."""
        agents = [key for key in self._holding if key[0] == "agent"] if agent is None else [("agent", agent)]
        keys: list[tuple[str, Json]] = [("session", session), ("period", period_of(session)), *agents]
        return tuple(hold for key in keys for hold in self._holding.get(key, {}).values())

    def holding(self, period: str) -> tuple[Hold, ...]:
        """The holds on a period itself."""
        return tuple(self._holding.get(("period", period), {}).values())

    def take(self, event: Event, tenant: str) -> None:
        """Fold one event of `tenant` in. Raises ValueError, KeyError or TypeError for a foreign one or one of an unknown type."""
        data = event.data
        if event.tenant != tenant:
            raise ValueError(f"it belongs to tenant {event.tenant}")
        match event.type:
            case ev.AUDIT_ERASED:
                self._take_erased(event)
            case ev.AUDIT_HELD:
                hold = _hold(event)
                self.holds[hold.id] = hold
                self._holding.setdefault(hold.key, {})[hold.id] = hold
            case ev.AUDIT_RELEASED:
                hold = self.released[data["hold"]] = self.holds.pop(data["hold"])
                del self._holding[hold.key][hold.id]
            case ev.AUDIT_EXPORTED:
                pack = read_exported(data)
                self.exported[pack.pack] = pack
            case ev.AUDIT_FILES:
                _text(data, "place"), _text(data, "op")
            case ev.AUDIT_UNLOCKED:
                _text(data, "lock"), _text(data, "reason")
            case ev.AUDIT_FROZEN:
                freeze = _freeze(event)
                self.frozen[freeze.id] = freeze
            case ev.AUDIT_THAWED:
                self.thawed[data["freeze"]] = self.frozen.pop(data["freeze"])
            case ev.AUDIT_SWITCHED:
                switched = _switched(event)
                self.switched[switched.what, switched.name] = switched
            case ev.AUDIT_REFUSED:
                _text(data, "what"), _text(data, "code")
            case ev.AUDIT_RETIRED:
                period, size = _text(data, "period"), data["size"]
                if PERIOD.fullmatch(period) is None or type(size) is not int:
                    raise ValueError("a retired stream has a period and a size")
                self.retired.setdefault(period, {})[_text(data, "stream")] = size
            case _:
                # A newer version may have kept something by it that this one would destroy.
                raise ValueError(f"the type {event.type} is not known to this version")

    def _take_erased(self, event: Event) -> None:
        data = event.data
        sessions, keys = erased_by(event), tuple(bytes.fromhex(key) for key in data["keys"])
        if not all(is_name(session) for session in sessions) or any(len(key) != ID_BYTES for key in keys):
            raise ValueError("a tombstone names sessions and keys")
        overruled = data["overruled"] is True
        made = Erased(event.id, sessions, keys, _text(data, "basis"), overruled, event.actor, event.time_ms)
        self.tombstones.append(made)
        for session in sessions:
            self.erased.setdefault(session, made)


class AuditChain:
    """Reader and one of the writers of a tenant's audit chain."""

    def __init__(self, log: EventLog, tenant: str, clock: Clock, random: Random) -> None:
        self._journal = Journal(log, AUDIT_CHAIN, AUDIT_NAME)
        self._log = log
        self._tenant = tenant
        self._clock = clock
        self._random = random
        self._tip = Tip.start()
        self._record = AuditRecord()
        self._turn = asyncio.Lock()

    async def record(self) -> AuditRecord:
        """What the chain says now, each event checked against it. Raises ChainBroken, LogUnavailable."""
        async with self._turn:
            await self._refresh()
            return self._record

    async def append(
        self,
        decide: Callable[[AuditRecord], Awaitable[Sequence[Entry]]],
        *,
        actor: str,
        revision: int,
        hasty: bool = False,
    ) -> tuple[Event, ...]:
        """Store what `decide` says of the newest record, all or none, durably; return the events.

        `decide` is asked again when somebody else was first; what it raises goes through, and nothing is stored. `hasty` asks it
        of the record as it was read last, so that one question to the log is all that it takes. Raises
        LogUnavailable, which leaves open whether it was stored: ask for the record.
        """
        async with self._turn:
            if not hasty:
                await self._refresh()
            while True:
                made = self._events(await decide(self._record), actor, revision)
                if not made:
                    return ()
                messages = [Message(event.id, stored) for event, stored in made]
                try:
                    await self._log.append(AUDIT_CHAIN, messages, after=self._tip.position)
                except SequenceConflict:
                    tip = self._tip
                    await self._refresh()
                    if self._tip == tip:
                        raise  # nobody was first: the log refused for a reason of its own
                    continue
                if not hasty:
                    await self._refresh()
                return tuple(event for event, _ in made)

    async def _refresh(self) -> None:
        tip, events = await self._journal.news(self._tip)
        for event in events:
            try:
                self._record.take(event, self._tenant)
            except (ValueError, LookupError, TypeError) as error:
                # Half folded: begun anew the next time, and refused again, until somebody mends it.
                self._tip, self._record = Tip.start(), AuditRecord()
                raise ChainBroken(f"is no event of an audit chain: {error}", where=f"{AUDIT_CHAIN}#{event.seq}") from error
        self._tip = tip

    def _events(self, entries: Sequence[Entry], actor: str, revision: int) -> list[tuple[Event, bytes]]:
        made: list[tuple[Event, bytes]] = []
        head = self._tip.head
        for kind, data in entries:
            event = Event(
                id=new_id("e", self._clock, self._random),
                type=kind,
                tenant=self._tenant,
                subject=AUDIT_NAME,
                seq=head.seq + 1,
                prev=head.hash,
                time_ms=self._clock.now_ms(),
                actor=actor,
                config_revision=revision,
                policy_digest=None,
                data=data,
            )
            stored = event.to_bytes()
            head = event.head(stored)
            made.append((event, stored))
        return made


def erased_entry(sessions: Sequence[str], keys: Sequence[bytes], basis: str, *, overruled: bool) -> Entry:
    """A tombstone to be."""
    named = [key.hex() for key in keys]
    return ev.AUDIT_ERASED, {"sessions": list(sessions), "keys": named, "basis": basis, "overruled": overruled}


def held_entry(hold: str, target: Mapping[str, Json], reason: str) -> Entry:
    """A hold to be; `target` is one of `session`, `agent`, `period` with its name."""
    return ev.AUDIT_HELD, {"hold": hold, **target, "reason": reason}


def released_entry(hold: str, reason: str) -> Entry:
    """The end of a hold to be."""
    return ev.AUDIT_RELEASED, {"hold": hold, "reason": reason}


def unlocked_entry(lock: str, session: str | None, token: int, reason: str) -> Entry:
    """A lock that is to be taken from its holder: digest of the resource's name, and who holds it by which token."""
    held: dict[str, Json] = {} if session is None else {"session": session, "token": token}
    return ev.AUDIT_UNLOCKED, {"lock": lock, **held, "reason": reason}


def files_entry(place: str, op: str, reason: str) -> Entry:
    """A change that a person is about to make to the files of a place; which files, the versions of the place say."""
    return ev.AUDIT_FILES, {"place": place, "op": op, "reason": reason}


def retired_entry(signed: Mapping[str, Json], period: str, basis: str, *, overruled: bool) -> Entry:
    """The end of a stream to be; `signed` is what `Prover.retire` says of it."""
    return ev.AUDIT_RETIRED, {**signed, "period": period, "basis": basis, "overruled": overruled}


def frozen_entry(freeze: str, scope: FreezeScope, reason: str, in_force_us: int) -> Entry:
    """A freeze, which holds in memory already since `in_force_us` after it was asked for."""
    return ev.AUDIT_FROZEN, {"freeze": freeze, "scope": scope.to_dict(), "reason": reason, "in_force_us": in_force_us}


def thawed_entry(freeze: str, reason: str) -> Entry:
    """The end of a freeze to be."""
    return ev.AUDIT_THAWED, {"freeze": freeze, "reason": reason}


def switched_entry(what: str, name: str, reason: str, *, on: bool) -> Entry:
    """An agent or a trigger that is to be on, or off, from now."""
    return ev.AUDIT_SWITCHED, {"what": what, "name": name, "on": on, "reason": reason}


def refused_entry(what: str, code: str, count: int, first_ms: int, last_ms: int) -> Entry:
    """So many of something were refused between two times."""
    return ev.AUDIT_REFUSED, {"what": what, "code": code, "count": count, "first_ms": first_ms, "last_ms": last_ms}


def _freeze(event: Event) -> Freeze:
    data = event.data
    scope = read_scope(data["scope"])
    tenant = FLEET if scope.kind is ScopeKind.FLEET else event.tenant
    return Freeze(_text(data, "freeze"), tenant, scope, _text(data, "reason"), event.actor, event.time_ms)


def _switched(event: Event) -> Switched:
    data = event.data
    if type(data["on"]) is not bool:
        raise TypeError("`on` is true or false")
    return Switched(_text(data, "what"), _text(data, "name"), data["on"], _text(data, "reason"), event.actor, event.time_ms)


def _hold(event: Event) -> Hold:
    data = event.data
    named = {kind: data.get(kind) for kind in ("session", "agent", "period")}
    given = [name for name in named.values() if name is not None]
    if len(given) != 1 or not isinstance(given[0], str):
        raise ValueError("a hold is on one session, agent or period")
    return Hold(_text(data, "hold"), **named, reason=_text(data, "reason"), actor=event.actor, time_ms=event.time_ms)


def _text(data: Mapping[str, Json], key: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"`{key}` is text")
    return value
