"""Keeps the standing agents of all tenants alive: looks at what is declared and what has happened, and does what is to be done.

What is to be done is decided by `supervisor.supervise`, from the index of the log, the tenant's audit chain and the declarations:
there is nothing here that a restart would lose. A session is begun under an id that follows from the one before it, so whoever
crashes between the decision and the record begins the same session again, and no second one.

Nothing begins while the index is behind the log, or while the audit chain cannot be read: somebody may have disabled it there.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, NotFound, PayloadErased, Relieved, Unavailable
from agentos.abi.event import Event, rfc3339
from agentos.abi.freeze import Freeze
from agentos.abi.record import header_of
from agentos.audit.audit_chain import AuditChain, AuditRecord
from agentos.boot.tenants import Tenant, Tenants
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject, stream_of
from agentos.kernel.port import AgentSpec, ConfigurationSource, Timer
from agentos.kernel.sessions import Sessions
from agentos.projections import kept_alive
from agentos.projections.decoded import read_header
from agentos.supervisor.supervise import (
    LIVE,
    SUPERVISOR,
    Begin,
    End,
    Kept,
    Phase,
    Run,
    Switches,
    Unit,
    judge,
    session_id,
)

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Seconds between two looks while there is a standing agent; less when something is due sooner."""

IDLE_S: Final = 5.0
"""Seconds between two looks while there is none."""

AGAIN_MS: Final = 10_000
"""How long after a session could not be begun it is tried again."""

PATIENCE_S: Final = 5.0
"""Seconds to wait for an index that is behind its log."""

ROUNDS: Final = 4
"""How often a look looks again because it has done something."""

MANY: Final = 1_000
"""Live standing sessions of a tenant that one look finds at most."""

BEYOND: Final = 20
"""Sessions of a standing agent that are looked at beyond those that its limit of starts needs."""


class Supervision:
    """The supervisor. `chains` gives a tenant's audit chain, or raises Unavailable while the runtime is not ready."""

    def __init__(
        self,
        sessions: Sessions,
        tenants: Tenants,
        source: ConfigurationSource,
        timer: Timer,
        chains: Callable[[str], AuditChain],
        frozen: Callable[[str, AgentSpec], Freeze | None],
    ) -> None:
        """`frozen`: what kill switch holds an agent of a tenant."""
        self._chains = chains
        self._frozen = frozen
        self._sessions = sessions
        self._tenants = tenants
        self._source = source
        self._timer = timer
        self._turns: dict[str, asyncio.Lock] = {}
        self._stirred = asyncio.Event()
        self._since_ms = timer.now_ms()
        self._ours: dict[str, frozenset[str]] = {}
        """By tenant: the live sessions that were begun for standing agents."""
        self._ends: dict[str, dict[str, tuple[str, str]]] = {}
        """By tenant and session: who ended it, and the code of its error."""
        self._held: dict[tuple[str, str], tuple[str, int]] = {}
        """By tenant and agent: why it could not be begun, and until when it is not tried again."""
        self._told: dict[tuple[str, str], str] = {}
        """What was last said of a standing agent in the log of the runtime."""

    async def run(self) -> None:
        """Look until cancelled."""
        self._since_ms = self._timer.now_ms()
        while True:
            self._stirred.clear()
            found = await asyncio.gather(*(self._look_safely(tenant.name) for tenant in self._tenants.all()))
            now = self._timer.now_ms()
            pause = min([IDLE_S, *(max(due - now, 10) / 1000 for due in found if due is not None)])
            await self._sleep(pause)

    def stir(self) -> None:
        """Something may have changed (a revision, a freeze): what could not be begun is tried again, at once."""
        self._held.clear()
        self._stirred.set()

    def ended(self, tenant: str, session: str) -> None:
        """A session is over. May be told more than once."""
        if session in self._ours.get(tenant, ()):
            self._stirred.set()

    async def look(self, tenant: str) -> dict[str, Kept]:
        """Do what is to be done in a tenant now; return its standing agents as they stand then.

        Raises NotFound for a tenant that is not declared; Unavailable when the index is behind its log; LogUnavailable,
        ChainBroken, sqlite3.Error: nothing is begun then.
        """
        async with self._turns.setdefault(tenant, asyncio.Lock()):
            for _ in range(ROUNDS):
                kept, acted = await self._round(self._tenants.get(tenant))
                if not acted:
                    break
            return kept

    async def tail(self, tenant: str, session: str, events: int) -> int:
        """The position behind which the last `events` events of a session stand. Raises LogUnavailable."""
        return await tail(self._tenants.get(tenant).streams, session, events)

    async def number(self, tenant: str, session: str) -> int:
        """Which of its agent's sessions it is, from 1 on; 0 where nobody can tell any more (it was erased, or retired)."""
        try:
            async with aclosing(self._tenants.get(tenant).log.read(session_subject(session))) as events:
                async for stored in events:
                    told = Event.from_bytes(stored.data).data.get("standing")
                    number = told.get("number") if isinstance(told, dict) else None
                    return number if type(number) is int else 0
        except (PayloadErased, LookupError, TypeError, ValueError) as error:
            log.warning("the number of session %s cannot be read: %r", session, error)
        return 0

    async def _look_safely(self, tenant: str) -> int | None:
        """Look; return when to look again, in ms since the epoch, None for whenever."""
        try:
            kept = await self.look(tenant)
        except (NotFound, Relieved):
            return None  # the tenant is not declared any more, or another runtime serves it
        except (AgentOSError, sqlite3.Error) as error:
            log.warning("the standing agents of tenant %s cannot be looked at, trying again: %s", tenant, error)
            return None
        now = self._timer.now_ms()
        times = [one.judged.next_ms for one in kept.values() if one.judged.next_ms is not None]
        return min([now + round(LOOK_S * 1000), *times]) if kept else None

    async def _round(self, tenant: Tenant) -> tuple[dict[str, Kept], bool]:
        """One look at a tenant; whether it did anything."""
        agents = self._source.current(tenant.name).agents
        specs = {name: agent for name, agent in agents.items() if agent.standing is not None}
        if specs:
            await _current(tenant)
        rows = await asyncio.to_thread(kept_alive.live, tenant.store, limit=MANY)
        self._ours[tenant.name] = frozenset(row["id"] for row in rows)
        acted = False
        for row in rows:
            if row["agent"] not in specs:
                end = End(row["id"], f"agent {row['agent']} is not declared as a standing agent any more")
                acted |= await self._end(tenant.name, row["agent"], end)
        if not specs:
            return {}, acted
        units = await self._units(tenant, specs)
        kept = {name: Kept(units[name], one) for name, one in judge(units, self._timer.now_ms()).items()}
        for name, one in kept.items():
            self._tell(tenant.name, name, one)
            match one.judged.act:
                case Begin() as begin:
                    acted |= await self._begin(tenant.name, one.unit, begin)
                case End() as end:
                    acted |= await self._end(tenant.name, name, end)
        return kept, acted

    async def _units(self, tenant: Tenant, specs: Mapping[str, AgentSpec]) -> dict[str, Unit]:
        record = await self._chains(tenant.name).record()
        known, ends, units = self._ends.get(tenant.name, {}), dict[str, tuple[str, str]](), dict[str, Unit]()
        limits = {name: one.standing.limit_starts + BEYOND for name, one in specs.items() if one.standing is not None}
        histories = await asyncio.to_thread(kept_alive.histories, tenant.store, limits)
        for name, agent in specs.items():
            spec = agent.standing
            if spec is None:
                continue
            rows = histories[name]
            for row in rows:
                if row["state"] in {"cancelled", "failed"}:
                    ends[row["id"]] = known.get(row["id"]) or await _ended_by(tenant.streams, row["id"])
            runs = tuple(_run(row, ends.get(row["id"], ("", ""))) for row in rows)
            live = next((run for run in runs if run.live), None)
            freeze, (why, until) = self._frozen(tenant.name, agent), self._held.get((tenant.name, name), ("", 0))
            held = freeze is None and self._timer.now_ms() < until
            units[name] = Unit(
                agent=name,
                spec=spec,
                runs=runs,
                switches=switches(record, name),
                seen_ms=self._since_ms,
                rests=freeze is not None or (live is not None and self._sessions.rests(live.session)),
                held=f"frozen ({freeze.scope}): {freeze.reason}" if freeze is not None else why if held else "",
                held_until_ms=until if held else None,
            )
        self._ends[tenant.name] = ends
        return units

    async def _begin(self, tenant: str, unit: Unit, begin: Begin) -> bool:
        number = len(unit.runs) + 1
        if begin.after:
            number = (await self.number(tenant, begin.after) or len(unit.runs)) + 1
        origin: dict[str, Json] = {"standing": {"agent": unit.agent, "number": number}}
        session = session_id(tenant, unit.agent, begin)
        try:
            await self._sessions.create(tenant, unit.agent, unit.spec.goal, None, SUPERVISOR, session=session, origin=origin)
        except Relieved:
            raise
        except AgentOSError as error:
            log.warning("standing agent %s of tenant %s cannot be begun, trying again: %s", unit.agent, tenant, error)
            self._held[tenant, unit.agent] = f"it could not be begun: {error.message}", self._timer.now_ms() + AGAIN_MS
            return False
        log.info("standing agent %s of tenant %s: session %s, number %d", unit.agent, tenant, session, number)
        self._ours[tenant] = self._ours.get(tenant, frozenset()) | {session}
        return True

    async def _end(self, tenant: str, agent: str, end: End) -> bool:
        try:
            await self._sessions.cancel(tenant, end.session, reason=end.reason, actor=end.by)
        except Relieved:
            raise
        except (Conflict, NotFound):
            return False  # it has ended meanwhile, and the next look sees it
        except AgentOSError as error:
            log.warning("session %s of standing agent %s cannot be cancelled: %s", end.session, agent, error)
            return False
        log.info("standing agent %s of tenant %s: cancelled session %s: %s", agent, tenant, end.session, end.reason)
        return True

    def _tell(self, tenant: str, agent: str, kept: Kept) -> None:
        """Say in the log of the runtime that an agent was given up, or is blocked; once."""
        phase, why = kept.judged.phase, kept.judged.why
        bad = phase in {Phase.FAILED, Phase.BLOCKED}
        if bad and self._told.get((tenant, agent)) != why:
            log.warning("standing agent %s of tenant %s is %s: %s", agent, tenant, phase, why)
        self._told[tenant, agent] = why if bad else ""

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless something happens before."""
        waits = [asyncio.ensure_future(self._timer.sleep(seconds)), asyncio.ensure_future(self._stirred.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.wait(waits)


def switches(record: AuditRecord, agent: str) -> Switches:
    """What people switched of a standing agent, told from the audit chain: the last word of each kind counts."""
    enabled, started = record.switched.get(("agent", agent)), record.switched.get(("standing", agent))
    both = [one for one in (enabled, started) if one is not None]
    off = [
        f"{word} by {one.actor} at {rfc3339(one.time_ms)[:19]}Z: {one.reason}"
        for one, word in ((enabled, "disabled"), (started, "stopped"))
        if one is not None and not one.on
    ]
    return Switches(
        enabled=enabled is None or enabled.on,
        stopped=started is not None and not started.on,
        reset_ms=max((one.time_ms for one in both if one.on), default=0),
        why=off[0] if off else "",
    )


async def tail(streams: EventLog, session: str, events: int) -> int:
    """See `Supervision.tail`. Looks back from the end of the stream, further each time, so that a long session costs little."""
    subject = session_subject(session)
    end, back = await streams.end(stream_of(subject)), 256
    while True:
        after = max(0, end - back)
        positions = [stored.position async for stored in streams.read(subject, after=after)]
        if len(positions) > events:
            return positions[-events - 1]
        if not after:
            return 0
        back *= 8


def _run(row: Mapping[str, Json], end: tuple[str, str]) -> Run:
    by, code = end
    state, turned = str(row["state"]), bool(row["model_calls"])
    return Run(row["id"], state, row["created_ms"], row["updated_ms"], turned, by if state not in LIVE else "", code)


async def _ended_by(streams: EventLog, session: str) -> tuple[str, str]:
    """Who ended a session, and the code of the error, by the header of its last event; nothing where it cannot be read."""
    stored = await streams.last(session_subject(session))
    if stored is None:
        return "", ""
    try:
        header = read_header(header_of(stored.data))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        log.warning("the last event of session %s cannot be read: %r", session, error)
        return "", ""
    return header.actor, str(header.told.get("errorcode", ""))


async def _current(tenant: Tenant) -> None:
    """Return once the index holds all that the log holds. Raises Unavailable, LogUnavailable."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await tenant.projector.caught_up()
    except TimeoutError as error:
        raise Unavailable("the read model is behind the log", mend="agentos status says how far") from error
