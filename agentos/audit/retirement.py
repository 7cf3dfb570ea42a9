"""Retiring a period: a month that is over is exported, and its streams are dropped whole, by name.

    plan = await retirement.plan("202505")
    # … whoever asked exports the sessions as packs, verifies them, keeps them …
    done = await retirement.retire("202505", packs, basis="retention of 183 days has passed", overrule=False, …)

The month is looked through without keeping anybody waiting; then, alone, it is made sure that nothing has moved meanwhile. Each
stream's end is told in the audit chain first, with its size, root and packs, signed (`audit.retired`): from then on every
checkpoint names the root that it ended with. Then the streams and the blobs of the period are dropped, the keys of sessions of
retired periods destroyed (but for those that a session of another period shares), the workspaces removed. The read models
follow the log by themselves. A crash in between is made up for by `finish`, at each start. Nothing is dropped on the word of an
event that our key has not signed: whoever writes into the log could else have any month dropped by the next start.

Refused is a month that is not over, and whatever an erasure refuses: a session that is not over, a hold, a retention that has not
passed; and packs that this runtime did not make (`audit.exported`), that keep a payload back, or that do not hold exactly the
sessions of the period, each up to its end. That somebody keeps the packs is his word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, ChainBroken, Conflict, NotFound, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.ids import Clock
from agentos.abi.record import header_of
from agentos.abi.retention import kept_until, month_end
from agentos.audit.audit_chain import PERIOD, AuditRecord, Entry, Hold, retired_entry
from agentos.audit.erasure import Candidate, Declared, Erasure, listed, refused
from agentos.audit.exported import Exported, ends_of
from agentos.audit.retired import Retired
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import AUDIT_CHAIN, is_session_stream, period_of, session_of

BLOBS: Final = "BLOB_"

BREATH: Final = 256
"""Sessions that are looked at before somebody else gets a turn."""

_PARTS: Final = ("EV", "period", "shard")


class Streams(Protocol):
    """The streams of the tenant's account, sealed as they are stored."""

    @property
    def log(self) -> EventLog:
        """The log as it is stored: headers, and payloads that nobody opened."""

    async def drop(self, names: Sequence[str]) -> None:
        """Append nothing to these any more, and drop them whole. Safe to repeat. Raises LogUnavailable."""


class Notary(Protocol):
    """Keeps the tenant's log under checkpoints."""

    async def retire(self, streams: Sequence[str], packs: Sequence[str]) -> Sequence[dict[str, Json]]:
        """What the event of each stream is to say, signed (`Prover.retire`). Raises Unavailable, ChainBroken."""

    async def vouched(self) -> Mapping[str, Retired]:
        """The streams that our key has signed to be retired, as the audit chain has them. Raises ChainBroken for one unsigned."""

    async def sign(self) -> None:
        """Make a checkpoint of what is there now. Raises Unavailable, ChainBroken."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One evidence pack: its digest (`sha256:<hex>`) and the sessions in it."""

    digest: str
    sessions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeriodPlan:
    """What retiring a period would drop. `sizes` are bytes stored, by session, `last` the headers that they end with.

    `ends` are the streams and the position up to which they were read, `declared` is what retention was read from.
    """

    period: str
    ends: Mapping[str, int]
    candidates: tuple[Candidate, ...]
    sizes: Mapping[str, int]
    last: Mapping[str, bytes]
    declared: Declared
    holds: tuple[Hold, ...]
    over: bool

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of the period, by name."""
        return tuple(self.ends)

    def refused(self, *, overrule: bool) -> AgentOSError | None:
        """Why it must not be carried out, None when it may."""
        if not self.over:
            return Conflict(f"period {self.period} is not over", mend="a month is retired after its last day, UTC")
        if self.holds:
            hold = self.holds[0]
            return Conflict(
                f"{hold.what} is under legal hold {hold.id} ({hold.reason}; {hold.actor}, {rfc3339(hold.time_ms)})",
                mend=f"whoever may decides that the hold is over: agentos audit release {hold.id} --reason '…'",
            )
        return refused(self.candidates, overrule=overrule, done="retired")

    def to_dict(self) -> dict[str, Json]:
        refusal, overruled = self.refused(overrule=False), self.refused(overrule=True)
        return {
            "period": self.period,
            "streams": list(self.streams),
            "sessions": [{**one.to_dict(), "bytes": self.sizes[one.session]} for one in self.candidates],
            "events": sum(one.events for one in self.candidates),
            "bytes": sum(self.sizes.values()),
            "agents": sorted({one.agent for one in self.candidates if one.agent is not None}),
            "refused": None if refusal is None else refusal.to_dict(),
            "overrule_helps": refusal is not None and overruled is None,
        }


class Retirement:
    """Retires periods of one tenant; takes turns with its erasures."""

    def __init__(self, erasure: Erasure, streams: Streams, notary: Notary, clock: Clock) -> None:
        self._erasure = erasure
        self._streams = streams
        self._notary = notary
        self._clock = clock
        self._finished: set[str] = set()

    async def plan(self, period: str) -> PeriodPlan:
        """What retiring `period` would drop. Raises UsageError for what is no month, NotFound, Conflict for a retired one."""
        return await self._plan(await self._erasure.chain.record(), period)

    async def retire(
        self, period: str, packs: Sequence[Pack], *, basis: str, overrule: bool, actor: str, revision: int
    ) -> PeriodPlan:
        """Drop `period`, whose sessions are in `packs`; return what was dropped.

        Raises as `PeriodPlan.refused` and `plan` say; Conflict for packs that do not hold exactly these sessions, and when
        something has moved between the look at the month and its end; ChainBroken as `finish`.
        """
        plan = await self.plan(period)
        refusal = plan.refused(overrule=overrule)
        if refusal is not None:
            raise refusal
        async with self._erasure.turn:
            record = await self._erasure.chain.record()
            await self._finish(record)
            _require_packed(plan.last, packs, record.exported)
            signed = await self._notary.retire(plan.streams, [pack.digest for pack in packs])
            overruled = any(one.kept_until_ms is not None for one in plan.candidates)

            async def decide(record: AuditRecord) -> list[Entry]:
                # A hold may have been asked for since we looked, by way of another runtime too.
                held = [one for one in plan.candidates if record.held_by(one.session, one.agent)]
                if held or record.holding(period):
                    raise Conflict(f"period {period} was put under a legal hold meanwhile", mend="agentos audit holds")
                await self._require_still(record, plan)
                return [retired_entry(one, period, basis, overruled=overruled) for one in signed]

            await self._erasure.chain.append(decide, actor=actor, revision=revision)
            await self._finish(await self._erasure.chain.record())
        await self._notary.sign()
        await self._erasure.around.forgotten()
        return plan

    async def finish(self) -> None:
        """Drop what the audit chain says was retired and is perhaps still there. Safe to repeat.

        Raises LogUnavailable, ChainBroken for a stream that is longer than it was retired with, and for an end of a stream that
        nobody whom we trust has signed: nothing is dropped then.
        """
        async with self._erasure.turn:
            there = set(await self._streams.log.streams())
            record = await self._erasure.chain.record()
            await self._finish(record)
        if any(not there.isdisjoint(streams) for streams in record.retired.values()):
            await self._erasure.around.forgotten()

    async def overdue(self) -> tuple[str, ...]:
        """The periods that are over and, by the longest retention that an agent declares now, need not be kept any more."""
        days = await self._erasure.around.longest_retention()
        retired = (await self._erasure.chain.record()).retired
        periods = {period for name in await self._streams.log.streams() if (period := period_in(name)) is not None}
        now = self._clock.now_ms()
        return tuple(one for one in sorted(periods - retired.keys()) if days and kept_until(month_end(one), days) <= now)

    async def _plan(self, record: AuditRecord, period: str) -> PeriodPlan:
        if PERIOD.fullmatch(period) is None:
            raise UsageError(f"{period!r} is no period", mend="write year and month: 202611")
        if period in record.retired:
            raise _retired_before(period)
        ends = await self._ends(period)
        if not ends:
            raise NotFound(f"there are no sessions of period {period}", mend="a period is a month, as 202611")
        last: dict[str, bytes] = {}
        sizes: dict[str, int] = {}
        for stream in ends:
            ends[stream] = 0
            async with aclosing(self._streams.log.scan(stream)) as events:
                async for stored in events:
                    session = session_of(stored.subject)
                    last[session] = header_of(stored.data)
                    sizes[session] = sizes.get(session, 0) + len(stored.data)
                    ends[stream] = stored.position
        declared = await self._erasure.around.declared()
        candidates = []
        for number, session in enumerate(sorted(last)):
            if number % BREATH == 0:
                await asyncio.sleep(0)
            candidates.append(await self._erasure.candidate(record, declared, last[session]))
        await declared.require_current()
        over = month_end(period) <= self._clock.now_ms() and not self._unborn(period, last)
        return PeriodPlan(period, ends, tuple(candidates), sizes, last, declared, record.holding(period), over)

    async def _ends(self, period: str) -> dict[str, int]:
        """The streams of `period`, by name, and their ends."""
        return {name: end for name, end in sorted((await self._streams.log.ends()).items()) if period_in(name) == period}

    def _unborn(self, period: str, known: Collection[str]) -> list[str]:
        """The sessions of `period` that are just being created."""
        return [one for one in self._erasure.around.live() if period_of(one) == period and one not in known]

    async def _require_still(self, record: AuditRecord, plan: PeriodPlan) -> None:
        """Raises Conflict when the month, or what is declared, is not any more what the plan was made from."""
        if plan.period in record.retired:
            raise _retired_before(plan.period)
        await plan.declared.require_current()
        if self._unborn(plan.period, plan.last) or await self._ends(plan.period) != plan.ends:
            raise Conflict(f"period {plan.period} has grown while it was looked through", mend="plan it again")

    async def _finish(self, record: AuditRecord) -> None:
        pending = sorted(record.retired.keys() - self._finished)
        if not pending:
            return
        signed = await self._notary.vouched()
        for period in pending:
            _require_vouched(period, record.retired[period], signed)
        for period in pending:
            await self._drop(period, record.retired[period])
            await self._destroy_keys(record.retired.keys())
            rooms = await asyncio.to_thread(self._erasure.around.workspaces)
            await self._erasure.remove_workspaces({session for session in rooms if period_of(session) == period})
            self._finished.add(period)

    async def _drop(self, period: str, sizes: Mapping[str, int]) -> None:
        for stream, size in sizes.items():
            end = await self._streams.log.end(stream)
            if end > size:
                raise ChainBroken(f"the stream was retired with {size} events and has {end}", where=stream)
        await self._streams.drop([*sorted(sizes), f"{BLOBS}{period}"])

    async def _destroy_keys(self, retired: Collection[str]) -> None:
        """The keys of which every session is of a retired period."""
        keys = await self._erasure.keys.sessions()
        needed = {key for session, key in keys.items() if period_of(session) not in retired}
        await self._erasure.keys.destroy(sorted(set(keys.values()) - needed))


def period_in(stream: str) -> str | None:
    """The month of the sessions in a stream, `202611` of `EV_202611_0`; None for a stream that has none."""
    parts = stream.split("_")
    return parts[1] if is_session_stream(stream) and len(parts) == len(_PARTS) and PERIOD.fullmatch(parts[1]) else None


def _require_vouched(period: str, sizes: Mapping[str, int], signed: Mapping[str, Retired]) -> None:
    """What the audit chain says of `period` is what was signed. Raises ChainBroken."""
    for stream, size in sizes.items():
        one = signed.get(stream)
        if one is None or one.tree.size != size or period_in(stream) != period:
            raise ChainBroken(
                f"{stream} is not dropped: that it was retired with period {period} and {size} events is not signed",
                where=AUDIT_CHAIN,
                mend="find out who wrote that into the log: agentos audit verify",
            )


def _require_packed(last: Mapping[str, bytes], packs: Sequence[Pack], made: Mapping[str, Exported]) -> None:
    """The packs are ours, keep nothing back, and hold exactly the sessions that end with `last`. Raises Conflict."""
    mend = "export them anew: agentos audit retire"
    for pack in packs:
        known = made.get(pack.digest)
        if known is None:
            raise Conflict(f"this runtime has made no pack {pack.digest}", mend=mend)
        if known.withheld:
            raise Conflict(f"pack {pack.digest} keeps {known.withheld} payloads back, which would be lost", mend=mend)
    packed = [session for pack in packs for session in pack.sessions]
    missing, foreign = sorted(last.keys() - set(packed)), sorted(set(packed) - last.keys())
    if missing or foreign:
        which = f"{listed(missing)} in no pack" if missing else f"{listed(foreign)} of no such period"
        raise Conflict(f"the packs do not hold what would be dropped: {which}", mend=mend)
    for pack in packs:
        if made[pack.digest].ends != ends_of({session: last[session] for session in pack.sessions}):
            raise Conflict(f"pack {pack.digest} does not hold the sessions that it is said to, up to their ends", mend=mend)


def _retired_before(period: str) -> Conflict:
    return Conflict(f"period {period} was retired already", mend="its events are in the packs that were exported then")
