"""From a firing to exactly one run: taken, then started, then done with, each step one that may be repeated.

1. The trigger's record is read, then the firing's mark: what is done with is answered from there.
2. What overlap allows is decided on the runs that are not over, and is written down as an intent, by compare and set. So of two
   who decide at one time one decides again; and as the mark was read behind the record, neither misses what the other has done.
3. The session is created under the id that the intent names. Where the log has it already it is left as it stands.
4. The mark is written, then the intent is taken out.

A crash between any two of these leaves something that the next one to come finds and finishes. An intent of a schedule is
finished by the runtime itself; the others by whoever has not been answered and tells of the firing again. Where nobody does, what
the log says counts: the run was started, or it never will be.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import logging
import tarfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from agentos.abi.canonical import Json, canonical
from agentos.abi.errors import Conflict, Denied, NotFound, Relieved, SequenceConflict, TooLarge, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.ids import derived_id
from agentos.kernel.firing import MAX_HOPS, MAX_ID, MAX_PAYLOAD, Fired, Firing, Outcome, Overlap, TriggerSpec
from agentos.kernel.port import Tenure, Timer
from agentos.projections.session import SessionState
from agentos.scheduler.precondition import Precondition
from agentos.supervisor.overlap import Skip, overlapping
from agentos.supervisor.progress import (
    MAX_LIVE,
    MAX_OPEN,
    Intent,
    Moved,
    Progress,
    ProgressStore,
    mark_of,
    mark_to_bytes,
)

log = logging.getLogger(__name__)

TRIES: Final = 16
"""How often a record is written while somebody else changes it."""

FEW: Final = 32
"""Runs that are not looked up where they may overlap anyway."""

ABANDONED_MS: Final = 600_000
"""How long after it was taken an intent that nobody has told of again is looked up in the log."""

CRON: Final = "cron"
WEBHOOK: Final = "webhook"


class Starts(Protocol):
    """The sessions, as a trigger needs them (`kernel.sessions.Sessions`)."""

    async def create(
        self,
        tenant: str,
        agent: str,
        goal: str,
        archive: bytes | None,
        actor: str,
        *,
        priority: str | None = None,
        due_in_ms: int | None = None,
        begin: Precondition | None = None,
        labels: Sequence[str] = (),
        file_labels: Mapping[str, Sequence[str]] | None = None,
        session: str | None = None,
        origin: Mapping[str, Json] = ...,
    ) -> SessionState:
        """Start a session, once under one id. Raises NotFound, Conflict, UsageError, Denied, TooLarge, LogUnavailable."""

    async def cancel(self, tenant: str, session: str, *, reason: str, actor: str) -> SessionState:
        """Stop a session for good. Raises Conflict when it is over, NotFound, LogUnavailable."""

    def check_run(self, tenant: str, agent: str) -> None:
        """Whether no kill switch keeps a session of `agent` from beginning. Raises Frozen."""

    def live(self, tenant: str) -> frozenset[str]:
        """The sessions that are not over, as far as this runtime has taken them over yet."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that a trigger has started, as the log has it."""

    session: str
    firing: str
    state: str
    over: bool
    created_ms: int


class Past(Protocol):
    """What the log says of runs. Every method raises LogUnavailable or Unavailable."""

    async def outcome(self, tenant: str, session: str) -> str | None:
        """How a session ended (finished, failed, cancelled, halted, gone); None for one that has not."""

    async def runs_of(self, tenant: str, trigger: str, *, most: int) -> Sequence[PastRun]:
        """The newest runs of a trigger."""

    async def began(self, tenant: str, trigger: str, firing: str) -> str | None:
        """The session that a firing began, as far as the index knows by now; None for none."""


def record_key(trigger: str) -> str:
    """Under which key the record of a trigger is kept."""
    return f"state.{trigger}"


def mark_key(trigger: str, name: str) -> str:
    """Under which key the mark of a firing is kept."""
    return f"mark.{trigger}.{hashlib.sha256(name.encode()).hexdigest()[:32]}"


class Launcher:
    """Starts the runs of firings. `stores` gives the records of a tenant; raises NotFound."""

    def __init__(self, stores: Callable[[str], ProgressStore], starts: Starts, past: Past, tenure: Tenure, timer: Timer) -> None:
        self._stores = stores
        self._starts = starts
        self._past = past
        self._tenure = tenure
        self._timer = timer
        self._turns: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()

    async def fire(
        self, tenant: str, spec: TriggerSpec, firing: Firing, *, cursor_ms: int | None = None, missed: int = 0
    ) -> Fired:
        """See `Triggers.fire`. Of a schedule: `cursor_ms` is up to where it is looked at by this, with so many times `missed`."""
        _check(firing)
        if firing.hops > MAX_HOPS:
            why = f"more than {MAX_HOPS} runs began one at the end, or by a signal, of the other"
            log.warning("trigger %s of tenant %s does not fire: %s", spec.name, tenant, why)
            return Fired(Outcome.SKIPPED, None, why)
        async with self._turn(tenant, spec.name):
            await self._finish_open(tenant, spec)
            for _ in range(TRIES):
                try:
                    return await self._fire(tenant, spec, firing, cursor_ms, missed)
                except Moved:
                    continue
                except Relieved:
                    raise
                except SequenceConflict:
                    # Somebody else has created the session of this very intent meanwhile: it is found at the next try.
                    continue
        raise Conflict(f"the record of trigger {spec.name} changes all the time", mend="tell of it again")

    async def finish_open(self, tenant: str, spec: TriggerSpec) -> None:
        """Start the runs of intents that need nothing but themselves. Raises what `Starts.create` raises and may pass."""
        async with self._turn(tenant, spec.name):
            await self._finish_open(tenant, spec)

    async def progress(self, tenant: str, spec: TriggerSpec) -> Progress:
        """The record of a trigger; of one that has none, what the log says of it. Raises ProgressUnreadable, LogUnavailable."""
        found = await self._stores(tenant).read(record_key(spec.name))
        if found is not None:
            return Progress.from_bytes(*found)
        return await self._first(tenant, spec)

    async def change(self, tenant: str, spec: TriggerSpec, change: Callable[[Progress], Progress]) -> Progress:
        """Change the record of a trigger; `change` is asked again if somebody else was first. Returns what is stored."""
        for _ in range(TRIES):
            before = await self.progress(tenant, spec)
            after = change(before)
            if after == before and before.revision:
                return before
            try:
                return await self._write(tenant, spec, after)
            except Moved:
                continue
        raise Conflict(f"the record of trigger {spec.name} changes all the time", mend="try again")

    async def forget(self, tenant: str, trigger: str) -> None:
        """Drop the record of a trigger. What the log says of its runs is read again when it is needed."""
        await self._stores(tenant).forget(record_key(trigger))

    def _turn(self, tenant: str, trigger: str) -> asyncio.Lock:
        return self._turns.setdefault((tenant, trigger), asyncio.Lock())

    async def _write(self, tenant: str, spec: TriggerSpec, progress: Progress) -> Progress:
        """Store a record. Raises Moved."""
        revision = await self._stores(tenant).write(record_key(spec.name), progress.to_bytes(), expected=progress.revision)
        return replace(progress, revision=revision)

    async def _first(self, tenant: str, spec: TriggerSpec) -> Progress:
        """The record of a trigger that has none: it is new, or its record was lost, and the log knows what it has started."""
        store, now = self._stores(tenant), self._timer.now_ms()
        runs = await self._past.runs_of(tenant, spec.name, most=MAX_LIVE)
        for run in runs:
            known = Fired(Outcome.STARTED, run.session, "the log has it")
            await store.write(mark_key(spec.name, run.firing), mark_to_bytes(known, now), expected=None)
        live = tuple(run.session for run in reversed(runs) if not run.over)
        return Progress(since_ms=now, cursor_ms=now, live=live, started=len(runs))

    async def _fire(self, tenant: str, spec: TriggerSpec, firing: Firing, cursor_ms: int | None, missed: int) -> Fired:
        """One try. Raises Moved when the record has changed meanwhile."""
        await self._tenure.hold(tenant)
        progress = await self.progress(tenant, spec)
        intent = progress.intent(firing.name)
        if intent is None:
            # Behind the record: whoever was done between the two reads has changed the record, and ours is not stored then.
            known = await self._known(tenant, spec, progress, firing)
            if known is not None:
                return known
            # As if nobody were there: what its declaration says of overlap and of missed times counts after the thaw.
            self._starts.check_run(tenant, spec.agent)
            # Those of intents that somebody died over may have been started, too.
            live = await self._still_live(tenant, spec, progress.live)
            begun = [one.session for one in progress.open if await self._is_begun(tenant, one)]
            looked = replace(
                progress,
                live=live,
                cursor_ms=progress.cursor_ms if cursor_ms is None else max(progress.cursor_ms, cursor_ms),
                missed=progress.missed + missed,
            )
            found = overlapping(spec.overlap, (*live, *begun))
            if isinstance(found, Skip):
                skipped = Fired(Outcome.SKIPPED, None, found.why)
                await self._write(tenant, spec, looked.told(firing.name, firing.at_ms, skipped))
                await self._mark(tenant, spec, firing.name, firing.source, skipped)
                return skipped
            if len(progress.open) >= MAX_OPEN:
                raise Conflict(f"{MAX_OPEN} firings of trigger {spec.name} are under way", mend="tell of it again later")
            intent = self._intent(tenant, spec, firing, found.after, found.replaces, missed)
            await self._write(tenant, spec, looked.take(intent))
        try:
            fired = await self._carry_out(tenant, spec, intent, firing)
        except SequenceConflict:
            raise
        except Conflict:
            # No run can begin now. Whoever tells of it again is looked at anew: what has begun meanwhile counts for overlap.
            if not intent.whole and await self._past.outcome(tenant, intent.session) == "gone":
                await self.change(tenant, spec, partial(Progress.dropped, intent=intent))
            raise
        await self._settle(tenant, spec, intent, fired)
        return fired

    def _intent(
        self, tenant: str, spec: TriggerSpec, firing: Firing, after: tuple[str, ...], replaces: tuple[str, ...], missed: int
    ) -> Intent:
        # By our clock, not by the firing's: the session's id says in which month's stream it is kept.
        now, name = self._timer.now_ms(), firing.name
        return Intent(
            id=name,
            at_ms=firing.at_ms,
            taken_ms=now,
            session=derived_id("s", now, tenant, spec.name, name),
            source=firing.source,
            after=after,
            replaces=replaces,
            whole=firing.source == CRON,
            actor=firing.actor or f"trigger/{spec.name}",
            labels=firing.labels,
            missed=missed,
            hops=firing.hops,
        )

    async def _known(self, tenant: str, spec: TriggerSpec, progress: Progress, firing: Firing) -> Fired | None:
        """What came of a firing that is done with; None for a new one."""
        if firing.source == CRON:
            passed = Fired(Outcome.SKIPPED, None, "that time has been looked at", again=True)
            return passed if firing.at_ms <= progress.cursor_ms else None
        found = await self._stores(tenant).read(mark_key(spec.name, firing.name))
        if found is not None:
            return replace(mark_of(found[0])[0], again=True)
        if firing.source == WEBHOOK:
            # Marks are forgotten in the end, and a signature need not say when it was made: the log still knows what it began.
            session = await self._past.began(tenant, spec.name, firing.name)
            return None if session is None else Fired(Outcome.STARTED, session, "the log has it", again=True)
        return None

    async def _mark(self, tenant: str, spec: TriggerSpec, name: str, source: str, fired: Fired) -> None:
        # A schedule tells of no time again that its record has passed.
        if source != CRON:
            data = mark_to_bytes(fired, self._timer.now_ms())
            await self._stores(tenant).write(mark_key(spec.name, name), data, expected=None)

    async def _still_live(self, tenant: str, spec: TriggerSpec, live: tuple[str, ...]) -> tuple[str, ...]:
        if spec.overlap is Overlap.ALLOW and len(live) < FEW:
            return live
        here = self._starts.live(tenant)

        async def still(session: str) -> bool:
            return session in here or await self._past.outcome(tenant, session) is None

        found = await asyncio.gather(*map(still, live))
        return tuple(session for session, runs in zip(live, found, strict=True) if runs)

    async def _is_begun(self, tenant: str, intent: Intent) -> bool:
        return await self._past.outcome(tenant, intent.session) is None

    async def _finish_open(self, tenant: str, spec: TriggerSpec) -> None:
        found = await self._stores(tenant).read(record_key(spec.name))
        if found is None:
            return
        for intent in Progress.from_bytes(*found).open:
            if intent.whole:
                await self._tenure.hold(tenant)
                again = Firing(spec.name, intent.id, intent.at_ms, intent.source, labels=intent.labels, hops=intent.hops)
                fired = await self._carry_out(tenant, spec, intent, again)
                await self._settle(tenant, spec, intent, fired)
            elif intent.taken_ms < self._timer.now_ms() - ABANDONED_MS:
                if await self._past.outcome(tenant, intent.session) == "gone":
                    await self.change(tenant, spec, partial(Progress.dropped, intent=intent))
                else:
                    await self._settle(tenant, spec, intent, Fired(Outcome.STARTED, intent.session, ""))

    async def _carry_out(self, tenant: str, spec: TriggerSpec, intent: Intent, firing: Firing) -> Fired:
        """Do what an intent says. Raises what may pass: Conflict (too many sessions, Frozen), LogUnavailable, a full disk."""
        if intent.replaces:
            # Nothing is ended for a run that cannot begin.
            self._starts.check_run(tenant, spec.agent)
        for session in intent.replaces:
            await self._replace(tenant, session, f"trigger {spec.name} has fired again ({intent.id})", f"trigger/{spec.name}")
        told: dict[str, Json] = {"trigger": spec.name, "id": intent.id, "at_ms": intent.at_ms}
        if intent.hops:
            told["hops"] = intent.hops
        try:
            await self._starts.create(
                tenant,
                spec.agent,
                spec.goal,
                await asyncio.to_thread(_packed, firing, intent),
                intent.actor,
                priority=spec.priority,
                due_in_ms=spec.deadline_ms,
                begin=Precondition(after_any=intent.after) if intent.after else None,
                labels=spec.labels,
                file_labels={".": firing.labels} if firing.labels else None,
                session=intent.session,
                origin={"firing": told},
            )
        except (NotFound, UsageError, Denied, TooLarge) as error:
            log.warning("trigger %s of tenant %s cannot start its run: %s", spec.name, tenant, error.message)
            return Fired(Outcome.FAILED, None, f"{error.code}: {error.message}")
        if intent.after:
            return Fired(Outcome.QUEUED, intent.session, f"it begins after {', '.join(intent.after)}")
        return Fired(Outcome.STARTED, intent.session, f"{len(intent.replaces)} replaced" if intent.replaces else "")

    async def _replace(self, tenant: str, session: str, reason: str, actor: str) -> None:
        try:
            await self._starts.cancel(tenant, session, reason=reason, actor=actor)
        except SequenceConflict:
            raise
        except (Conflict, NotFound) as error:
            log.info("run %s need not be replaced: %s", session, error.message)

    async def _settle(self, tenant: str, spec: TriggerSpec, intent: Intent, fired: Fired) -> None:
        await self._mark(tenant, spec, intent.id, intent.source, fired)
        await self.change(tenant, spec, lambda progress: progress.done(intent, fired))


def _check(firing: Firing) -> None:
    if not 1 <= len(firing.id) <= MAX_ID:
        raise UsageError(f"the id of a firing has 1 to {MAX_ID} characters")
    if firing.payload is not None and len(firing.payload) > MAX_PAYLOAD:
        raise UsageError(f"the payload of a firing has at most {MAX_PAYLOAD} bytes")


def _packed(firing: Firing, intent: Intent) -> bytes:
    """The input of the run: `firing.json` and, if there is one, `payload`."""
    facts: dict[str, Json] = {
        "trigger": firing.trigger,
        "id": firing.id,
        "source": firing.source,
        "at": rfc3339(intent.at_ms),
        "facts": dict(firing.facts),
    }
    if intent.missed:
        facts["missed"] = intent.missed
    files: dict[str, bytes] = {}
    if firing.payload is not None:
        files["payload"] = firing.payload
        facts["payload"] = {"bytes": len(firing.payload), "content_type": firing.content_type}
    files["firing.json"] = canonical(facts)
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
