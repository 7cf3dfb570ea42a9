"""What is due by the clock: triggers with a schedule, and work of the runtime itself. One task for all of them.

Each has a cursor in its record: up to there its schedule was looked at. What lies between the cursor and now is due; how much of
it is done that nobody was there for is for the declaration to say. The cursor moves with the intent of the firing, in one write:
so a time is neither lost nor done twice, whenever the runtime dies. It never goes back where the clock does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from agentos.abi.errors import AgentOSError, Frozen, NotFound, Relieved
from agentos.abi.event import rfc3339
from agentos.kernel.firing import Cron, Firing, Missed, TriggerSpec
from agentos.kernel.port import Timer
from agentos.scheduler.cron import Schedule
from agentos.supervisor.launch import CRON, Launcher
from agentos.supervisor.progress import Progress

log = logging.getLogger(__name__)

LONGEST_SLEEP_S: Final = 20.0
"""Seconds until the clock is looked at again at the latest: somebody may have set it, or the machine may have been suspended."""

LATE_MS: Final = 60_000
"""How late a time may be found and still count as one that was not missed."""

AGAIN_MS: Final = 5_000
"""How long after a failure a trigger is looked at again; from the third in a row on twice as long, up to `LONGEST_AGAIN_MS`."""

LONGEST_AGAIN_MS: Final = 60_000

MOST_MISSED: Final = 1000
"""Times that are made up for at most, the newest ones."""

AHEAD_MS: Final = 86_400_000
"""A cursor that is further ahead of the clock was set by a clock that was wrong: it is set back."""

SIDE_BY_SIDE: Final = 8

_Key = tuple[str, str]
"""Tenant and trigger."""


class Switches(Protocol):
    """Which triggers people have switched off, by the tenant's audit chain."""

    async def read(self, tenant: str) -> Mapping[str, tuple[bool, int]]:
        """By trigger: whether it is on, and since when (ms). One that is not among them is on. Raises LogUnavailable."""


@dataclass(frozen=True, slots=True)
class Due:
    """Which times are done now, the oldest first, how many are not, and up to when the schedule was looked at by that."""

    times: tuple[int, ...]
    missed: int
    cursor_ms: int


def due(schedule: Schedule, missed: Missed, cursor_ms: int, now_ms: int) -> Due | None:
    """What of a schedule is due at `now_ms`; None for nothing."""
    times, _ = schedule.between(cursor_ms, now_ms, most=MOST_MISSED)
    if not times:
        return None
    match missed:
        case Missed.SKIP:
            chosen = [time for time in times if now_ms - time <= LATE_MS]
        case Missed.LAST:
            chosen = times[-1:]
        case Missed.ALL:
            chosen = times
    return Due(tuple(chosen), len(times) - len(chosen), times[-1])


def aligned(progress: Progress, source: str, now_ms: int) -> Progress:
    """A record whose cursor is one of `source`, and of a clock that may be right: else it begins now.

    What another source, or another schedule, would have had is not missed.
    """
    if progress.schedule == source and progress.cursor_ms <= now_ms + AHEAD_MS:
        return progress
    return replace(progress, schedule=source, cursor_ms=now_ms, since_ms=now_ms)


@dataclass(slots=True)
class _Entry:
    """What is known of one trigger between two looks. `again_ms`: not before, whatever is due."""

    spec: TriggerSpec
    next_ms: int | None
    again_ms: int = 0
    failed: int = 0
    """How many looks in a row have failed."""

    def put_off(self, now_ms: int) -> None:
        """It failed: look again, later each time."""
        self.next_ms, self.again_ms = 0, now_ms + min(AGAIN_MS << max(self.failed - 1, 0), LONGEST_AGAIN_MS)
        self.failed = min(self.failed + 1, 16)


class Timetable:
    """Fires what is due. `declared` gives all that goes by a schedule, by tenant; `work` does what is for a daemon."""

    def __init__(
        self,
        launcher: Launcher,
        declared: Callable[[], Iterator[tuple[str, TriggerSpec]]],
        switches: Switches,
        timer: Timer,
        work: Callable[[TriggerSpec, int], Awaitable[None]],
    ) -> None:
        self._launcher = launcher
        self._declared = declared
        self._switches = switches
        self._timer = timer
        self._work = work
        self._entries: dict[_Key, _Entry] = {}
        self._seen: frozenset[_Key] | None = None
        """What was declared at the last look; None before the first."""
        self._fresh: set[_Key] = set()
        """What was declared since, and has not begun anew yet."""
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        """Look again, also at what has failed: something has changed."""
        for entry in self._entries.values():
            entry.again_ms = entry.failed = 0
        self._stirred.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._stirred.clear()
            await self.look()
            await self._sleep()

    async def look(self) -> None:
        """Do all that is due now. One that cannot be done holds up no other."""
        declared = {(tenant, spec.name): spec for tenant, spec in self._declared()}
        self._entries = {key: entry for key, entry in self._entries.items() if entry.spec == declared.get(key)}
        self._fresh = {key for key in self._fresh if key in declared}
        if self._seen is not None:
            self._fresh |= declared.keys() - self._seen
        self._seen = frozenset(declared)
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(key: _Key, spec: TriggerSpec) -> None:
            async with places:
                await self._look_at(key, spec)

        now = self._timer.now_ms()
        await asyncio.gather(*(one(key, spec) for key, spec in declared.items() if self._is_due(key, now)))

    def _is_due(self, key: _Key, now_ms: int) -> bool:
        entry = self._entries.get(key)
        return entry is None or (entry.next_ms is not None and max(entry.next_ms, entry.again_ms) <= now_ms)

    async def _look_at(self, key: _Key, spec: TriggerSpec) -> None:
        entry = self._entries.setdefault(key, _Entry(spec, 0))
        try:
            entry.next_ms = await self._do(key[0], spec)
            entry.failed = 0
        except Relieved as error:
            log.warning("trigger %s of tenant %s is left to another runtime: %s", spec.name, key[0], error)
            entry.next_ms, entry.again_ms = 0, self._timer.now_ms() + 60_000
        except NotFound as error:
            # Its tenant is not served yet, or no more.
            log.info("trigger %s of tenant %s cannot be looked at: %s", spec.name, key[0], error)
            entry.put_off(self._timer.now_ms())
        except Frozen as error:
            log.info("trigger %s of tenant %s waits: %s", spec.name, key[0], error.message)
            entry.put_off(self._timer.now_ms())
        except AgentOSError as error:
            log.warning("trigger %s of tenant %s cannot fire now, trying again: %s", spec.name, key[0], error)
            entry.put_off(self._timer.now_ms())
        except Exception:
            # The outermost frame of a trigger: whatever is wrong with it keeps no other one from firing.
            log.exception("trigger %s of tenant %s cannot be looked at", spec.name, key[0])
            entry.next_ms, entry.again_ms = 0, self._timer.now_ms() + 60_000

    async def _do(self, tenant: str, spec: TriggerSpec) -> int | None:
        """Do what is due of one trigger; return when something is next."""
        if not isinstance(spec.on, Cron):
            return None
        schedule, now = spec.on.schedule, self._timer.now_ms()
        on, since = (await self._switches.read(tenant)).get(spec.name, (True, 0))
        if not spec.daemon:
            # What was taken before it was switched off is done, too.
            await self._launcher.finish_open(tenant, spec)
        if not on:
            return schedule.after(now)
        if (tenant, spec.name) in self._fresh:
            # Where it was declared before and was not for a while, nothing of that while is missed.
            await self._launcher.change(tenant, spec, lambda one: replace(one, cursor_ms=max(one.cursor_ms, now)))
            self._fresh.discard((tenant, spec.name))
        progress = await self._launcher.change(tenant, spec, lambda one: aligned(one, str(schedule), now))
        cursor = max(progress.cursor_ms, since)
        found = due(schedule, spec.on.missed, cursor, now)
        if found is None:
            return schedule.after(cursor)
        missed = found.missed
        if missed:
            log.info("trigger %s of tenant %s: %d times have passed and are not made up for", spec.name, tenant, missed)
        for time in found.times:
            await self._fire(tenant, spec, time, missed)
            missed = 0
        if not found.times:
            await self._launcher.change(tenant, spec, lambda one: _passed(one, found.cursor_ms, missed))
        return schedule.after(found.cursor_ms)

    async def _fire(self, tenant: str, spec: TriggerSpec, time: int, missed: int) -> None:
        if spec.daemon:
            await self._launcher.change(tenant, spec, lambda one: _passed(one, time, missed))
            await self._work(spec, time)
            return
        firing = Firing(spec.name, rfc3339(time), time, CRON)
        fired = await self._launcher.fire(tenant, spec, firing, cursor_ms=time, missed=missed)
        if not fired.again:
            log.info("trigger %s of tenant %s, due %s: %s %s", spec.name, tenant, firing.id, fired.outcome, fired.why)

    async def _sleep(self) -> None:
        """Until something is due, or has changed."""
        now = self._timer.now_ms()
        times = [max(entry.next_ms, entry.again_ms) for entry in self._entries.values() if entry.next_ms is not None]
        seconds = min((min(times, default=now + 3_600_000) - now) / 1000, LONGEST_SLEEP_S)
        waits = [
            asyncio.ensure_future(self._timer.sleep(max(seconds, 0.01))),
            asyncio.ensure_future(self._stirred.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.wait(waits)


def _passed(progress: Progress, cursor_ms: int, missed: int) -> Progress:
    return replace(progress, cursor_ms=max(progress.cursor_ms, cursor_ms), missed=progress.missed + missed)
