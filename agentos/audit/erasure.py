"""Erasure: the payload of sessions is made unreadable for good, and the log stays what it was.

    erasure = Erasure("default", log, chain, keys, around, clock)
    plan = await erasure.plan(Wanted(sessions=("s-0k3v9…",)))
    done = await erasure.erase(Wanted(sessions=("s-0k3v9…",)), basis="request 17", overrule=False, actor="principal/ann", …)

What is stored of a session is its headers and a payload sealed under a key (`eventlog.sealed`). So erasing is: to write a
tombstone into the audit chain, durably; to destroy the key; to remove the workspace; to wait until the read models have dropped
what they took from the payload. No event is touched: chains, trees and signatures hold as before, and every copy of the log, in
whatever backup, holds ciphertext of a key that is nowhere.

The tombstone comes first, so that a crash at any moment is made up for: `finish`, at each start, carries out again what the chain
says. Refused is what must be kept: a session that is not over (unless it is to be cancelled for that, which its log records),
one under a legal hold, one whose agent's retention has not passed (unless it is overruled, which is recorded), and one that
shares its key with sessions that were not named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, NotFound, UsageError
from agentos.abi.event import Event, end_told, rfc3339
from agentos.abi.ids import Clock, Random, new_id
from agentos.abi.retention import days_kept, kept_until
from agentos.audit.audit_chain import (
    PERIOD,
    AuditChain,
    AuditRecord,
    Entry,
    Hold,
    erased_entry,
    held_entry,
    released_entry,
)
from agentos.eventlog.keys import KeyStore
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject

TOGETHER: Final = 5000
"""Sessions that one tombstone names at most."""

NAMED: Final = 10
"""Names that an error lists."""


class Declared(Protocol):
    """What is declared in a tenant at one moment: read once, asked for every session of a plan."""

    async def governance(self, agent: str, revision: int) -> Sequence[dict[str, Json]]:
        """The `governance` of an agent as it is declared and as it was at `revision`; none where it is not declared."""

    async def require_current(self) -> None:
        """Raises Conflict when something else is declared by now."""


class Around(Protocol):
    """What of a tenant lies outside of its log."""

    async def declared(self) -> Declared:
        """What is declared now."""

    def live(self) -> frozenset[str]:
        """The sessions that run, wait, or are just being created."""

    def workspaces(self) -> frozenset[str]:
        """The sessions that have a workspace. Blocks."""

    async def cancel(self, session: str, *, reason: str, actor: str) -> None:
        """Stop a session that is not over; one that is over by now is left as it is."""

    def remove_workspace(self, session: str) -> None:
        """Remove it whole, if it is there. Blocks. Raises AgentOSError when something of it stays."""

    async def longest_retention(self) -> int:
        """The most days that an agent of the tenant is declared to be kept now; 0: none declares any."""

    async def forgotten(self) -> None:
        """Wait until the read models have taken in the end of the audit chain. Raises Unavailable when that takes too long."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be erased: these sessions, or all of one data subject."""

    sessions: tuple[str, ...] = ()
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session that is to be erased or retired. `ended_ms` is None while it is not over."""

    session: str
    agent: str | None
    events: int
    ended_ms: int | None
    retention_days: int
    kept_until_ms: int | None
    """Until when retention wants it kept, were it to end now if it is not over; None when that has passed."""
    holds: tuple[Hold, ...]

    def to_dict(self) -> dict[str, Json]:
        return {
            "session": self.session,
            "agent": self.agent,
            "events": self.events,
            "ended": None if self.ended_ms is None else rfc3339(self.ended_ms),
            "retention_days": self.retention_days,
            "kept_until": None if self.kept_until_ms is None else rfc3339(self.kept_until_ms),
            "holds": [hold.id for hold in self.holds],
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What an erasure would do. `already` are sessions that were erased before.

    `unborn` have one of the keys and no event: they were retired, or never came to be, and may have left a workspace (a fork's is
    a copy of the other session's).
    """

    candidates: tuple[Candidate, ...]
    keys: tuple[bytes, ...]
    already: tuple[str, ...]
    unborn: tuple[str, ...] = ()

    def refused(self, *, overrule: bool, cancel: bool = False) -> AgentOSError | None:
        """Why it must not be carried out, None when it may; with `cancel`, once what runs has been cancelled."""
        return refused(self.candidates, overrule=overrule, cancel=cancel, done="erased")

    def to_dict(self, *, overrule: bool = False, cancel: bool = False) -> dict[str, Json]:
        """As the verb `audit.erasure` answers: `refused` is what `erase` would say when it is asked like this."""
        refusal, overruled = self.refused(overrule=overrule, cancel=cancel), self.refused(overrule=True, cancel=cancel)
        return {
            "sessions": [one.to_dict() for one in self.candidates],
            "events": sum(one.events for one in self.candidates),
            "agents": sorted({one.agent for one in self.candidates if one.agent is not None}),
            "already": list(self.already),
            "refused": None if refusal is None else refusal.to_dict(),
            "overrule_helps": refusal is not None and overruled is None,
        }


def refused(candidates: Sequence[Candidate], *, overrule: bool, done: str, cancel: bool = False) -> AgentOSError | None:
    """Why these sessions cannot be `done` (erased, retired), None when they can; with `cancel` those that run may be stopped."""
    running = [one.session for one in candidates if one.ended_ms is None and not cancel]
    if running:
        way = ", or have the erasure do it: --cancel-running" if done == "erased" else ""
        return Conflict(
            f"{listed(running)} {'is' if len(running) == 1 else 'are'} not over, and what runs cannot be {done}",
            mend=f"end it first: agentos session cancel {running[0]} --reason '…'{way}",
        )
    held = [(one, one.holds[0]) for one in candidates if one.holds]
    if held:
        hold = held[0][1]
        return Conflict(
            f"{listed([one.session for one, _ in held])} must be kept: {hold.what} is under legal hold {hold.id} "
            f"({hold.reason}; {hold.actor}, {rfc3339(hold.time_ms)})",
            mend=f"whoever may decides that the hold is over: agentos audit release {hold.id} --reason '…'",
        )
    kept = sorted((one.kept_until_ms, one) for one in candidates if one.kept_until_ms is not None) if not overrule else []
    if kept:
        until, last = kept[-1]
        return Conflict(
            f"{listed([one.session for _, one in kept])} must be kept until {rfc3339(until)}: agent {last.agent} declares "
            f"a retention of {last.retention_days} days",
            mend="wait, or overrule it by name, which is recorded: --overrule-retention",
        )
    return None


def listed(names: Sequence[str]) -> str:
    """`session a`, or `sessions a, b and 7 more`."""
    shown = ", ".join(names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"session{'s' if len(names) > 1 else ''} {shown}{more}"


class Erasure:
    """Erasures and holds of one tenant. One at a time; sessions get their keys between them (`assign`, `join`)."""

    def __init__(
        self, tenant: str, log: EventLog, chain: AuditChain, keys: KeyStore, around: Around, clock: Clock, random: Random
    ) -> None:
        self.tenant = tenant
        self.log = log
        self.chain = chain
        self.keys = keys
        self.around = around
        self.turn = asyncio.Lock()
        """Held by whoever destroys keys, and by whoever shares one."""
        self._clock = clock
        self._random = random
        self._finished: set[str] = set()

    async def assign(self, session: str, subject: str) -> None:
        """Let a session that is just being created share the key of a data subject."""
        async with self.turn:
            await self.keys.assign(session, subject)

    async def join(self, session: str, other: str) -> None:
        """Let a fork that is just being created share the key of the session that it repeats. Raises PayloadErased."""
        async with self.turn:
            await self.keys.join(session, other)

    async def finish(self) -> int:
        """Carry out what the audit chain says and was perhaps not carried out to its end; return how many keys were still there.

        Safe to repeat. Raises ChainBroken, LogUnavailable, AgentOSError for a workspace that cannot be removed.
        """
        async with self.turn:
            return await self._finish(await self.chain.record())

    async def plan(self, wanted: Wanted) -> Plan:
        """What erasing `wanted` would do. Raises NotFound; Conflict for a session that shares its key with one not named."""
        return await self._plan(await self.chain.record(), wanted)

    async def erase(
        self,
        wanted: Wanted,
        *,
        basis: str,
        overrule: bool,
        actor: str,
        revision: int,
        seen: Collection[str] | None = None,
        cancel: bool = False,
    ) -> Plan:
        """Erase `wanted` on `basis`; return what was erased. Nothing of it can be read any more when this returns.

        `seen` are the sessions that the person was shown: Conflict when there are others by now. With `cancel`, those that are
        not over are cancelled first, by `actor`, if nothing else keeps them. Raises Conflict as `Plan.refused` says, and as
        `plan` and `finish`. LogUnavailable leaves open whether the tombstone is stored: repeat it, or the next start carries it
        out.
        """
        made: list[Plan] = []
        if cancel:
            await self._cancel(_permitted(await self.plan(wanted), seen, overrule=overrule, cancel=True), actor)

        async def decide(record: AuditRecord) -> list[Entry]:
            plan = _permitted(await self._plan(record, wanted), seen, overrule=overrule)
            made[:] = [plan]
            overruled = any(one.kept_until_ms is not None for one in plan.candidates)
            names = [*(one.session for one in plan.candidates), *plan.unborn]
            # Also of a data subject of whom nothing was stored: who it is stands beside the key.
            starts = range(0, max(len(names), 1), TOGETHER) if plan.keys else ()
            return [erased_entry(names[at : at + TOGETHER], plan.keys, basis, overruled=overruled) for at in starts]

        async with self.turn:
            await self._finish(await self.chain.record())
            await self.chain.append(decide, actor=actor, revision=revision)
            await self._finish(await self.chain.record())
        await self.around.forgotten()
        return made[0]

    async def hold(self, target: dict[str, str], *, reason: str, actor: str, revision: int) -> Hold:
        """Keep one `session`, the sessions of one `agent`, or those of one `period`, until it is released; return the hold.

        Raises NotFound for a session that is not there, Conflict for one that was erased, UsageError for what is no period.
        """
        ((kind, name),) = target.items()
        period = target.get("period")
        if period is not None and PERIOD.fullmatch(period) is None:
            raise UsageError(f"{period!r} is no period", mend="write year and month: 202611")
        hold = new_id("h", self._clock, self._random)

        async def decide(record: AuditRecord) -> list[Entry]:
            if kind == "session" and name in record.erased:
                raise Conflict(f"session {name} was erased already")
            if kind == "session" and await self.log.last(session_subject(name)) is None:
                raise _no_session(name, self.tenant)
            if kind == "period" and name in record.retired:
                raise Conflict(f"period {name} was retired already")
            return [held_entry(hold, dict(target), reason)]

        # Not between the look of an erasure at the holds and its tombstone.
        async with self.turn:
            await self.chain.append(decide, actor=actor, revision=revision)
            return (await self.chain.record()).holds[hold]

    async def release(self, hold: str, *, reason: str, actor: str, revision: int) -> Hold:
        """End a hold; return it. Raises NotFound, Conflict for one that is over."""

        async def decide(record: AuditRecord) -> list[Entry]:
            if hold in record.released:
                raise Conflict(f"hold {hold} is over already")
            if hold not in record.holds:
                raise NotFound(f"there is no hold {hold}", mend="list them: agentos audit holds")
            return [released_entry(hold, reason)]

        async with self.turn:
            await self.chain.append(decide, actor=actor, revision=revision)
            return (await self.chain.record()).released[hold]

    async def candidate(self, record: AuditRecord, declared: Declared, last: bytes) -> Candidate:
        """The session whose last stored event is `last`, payload or none."""
        event = Event.from_bytes(last)
        agent = event.attributes.get("agent")
        named = agent if isinstance(agent, str) else None
        ended = event.time_ms if end_told(event.type, event.attributes) is not None else None
        days, until = 0, None
        if named is not None:
            days = max((days_kept(one) for one in await declared.governance(named, event.config_revision)), default=0)
        now = self._clock.now_ms()
        if (kept := kept_until(now if ended is None else ended, days)) > now:
            until = kept
        return Candidate(event.subject, named, event.seq, ended, days, until, record.held_by(event.subject, named))

    async def _cancel(self, plan: Plan, actor: str) -> None:
        for one in plan.candidates:
            if one.ended_ms is None:
                await self.around.cancel(one.session, reason="its payload is to be erased", actor=actor)

    async def _plan(self, record: AuditRecord, wanted: Wanted) -> Plan:
        keys = await (self._of_subject(wanted.subject) if wanted.subject is not None else self._of_sessions(record, wanted))
        names = sorted({name for sessions in keys.values() for name in sessions})
        declared = await self.around.declared()
        found = {name: await self._look(record, declared, name) for name in names if name not in record.erased}
        await declared.require_current()
        already = {*(name for name in (*names, *wanted.sessions) if name in record.erased)}
        return Plan(
            tuple(one for one in found.values() if one is not None),
            tuple(sorted(keys)),
            tuple(sorted(already)),
            tuple(name for name, one in found.items() if one is None),
        )

    async def _of_subject(self, subject: str) -> dict[bytes, tuple[str, ...]]:
        found = await self.keys.of_subject(subject)
        if found is None:
            raise NotFound("there is no such data subject", mend="it was erased before, or no session was run for it")
        return {found[0]: found[1]}

    async def _of_sessions(self, record: AuditRecord, wanted: Wanted) -> dict[bytes, tuple[str, ...]]:
        keys: dict[bytes, tuple[str, ...]] = {}
        for name in wanted.sessions:
            if name in record.erased:
                continue
            found = await self.keys.sharing(name)
            if found is None:
                if await self.log.last(session_subject(name)) is None:
                    raise _no_session(name, self.tenant)
                raise Conflict(
                    f"there is no key of session {name} here, so its payload cannot be read, and not be erased for good either",
                    mend="put the file of the payload keys back that it was sealed with, then erase it",
                )
            keys[found[0]] = found[1]
        others = sorted({name for names in keys.values() for name in names} - set(wanted.sessions) - record.erased.keys())
        if others:
            every = " ".join(f"--session {name}" for name in (*wanted.sessions, *others)[:NAMED])
            raise Conflict(
                f"{listed(wanted.sessions)} shares a key with {listed(others)}: they are about the same data subject, or one was "
                "forked from the other",
                mend=f"erase them together: agentos audit erase {every}, or all of the data subject: --data-subject ID",
            )
        return keys

    async def _look(self, record: AuditRecord, declared: Declared, session: str) -> Candidate | None:
        """None for a session that was never stored, or was retired."""
        last = await self.log.last(session_subject(session))
        if last is not None:
            return await self.candidate(record, declared, last.data)
        if session in self.around.live():
            raise Conflict(f"session {session} is just being created", mend="wait until it is over")
        return None

    async def _finish(self, record: AuditRecord) -> int:
        pending = [one for one in record.tombstones if one.id not in self._finished]
        if not pending:
            return 0
        there = await self.keys.destroy(sorted({key for one in pending for key in one.keys}))
        await self.remove_workspaces({session for one in pending for session in one.sessions})
        self._finished.update(one.id for one in pending)
        return there

    async def remove_workspaces(self, sessions: Collection[str]) -> None:
        """Remove those that are there, as many as can be; raises the first AgentOSError."""
        failed: list[AgentOSError] = []
        for session in sorted(await asyncio.to_thread(self.around.workspaces) & frozenset(sessions)):
            try:
                await asyncio.to_thread(self.around.remove_workspace, session)
            except AgentOSError as error:
                failed.append(error)
        if failed:
            raise failed[0]


def _permitted(plan: Plan, seen: Collection[str] | None, *, overrule: bool, cancel: bool = False) -> Plan:
    """`plan`, if it holds nothing that was not `seen` and may be carried out. Raises Conflict."""
    if seen is not None and not {one.session for one in plan.candidates} <= set(seen):
        raise Conflict("there are other sessions than you were shown", mend="look again")
    refusal = plan.refused(overrule=overrule, cancel=cancel)
    if refusal is not None:
        raise refusal
    return plan


def _no_session(name: str, tenant: str) -> NotFound:
    return NotFound(f"no session {name} in tenant {tenant}", mend="list them: agentos ps --all")
