"""Work of the runtime itself that goes by a schedule: one run at a time, its outcome told in the listing and in the log.

Each has a schedule of its own, which a Trigger of the tenant `default` that names it takes the place of.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, NotFound
from agentos.abi.ids import DEFAULT_TENANT
from agentos.kernel.firing import Cron, Fired, Missed, Outcome, TriggerSpec
from agentos.kernel.port import Timer
from agentos.scheduler.cron import schedule as read_schedule
from agentos.supervisor.launch import Launcher

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[Mapping[str, Json]]]
"""One run of a daemon; what it gives is told: a few names and numbers."""

LONGEST_TOLD: Final = 1000
"""Characters that are kept of what a run gives."""

HOME: Final = DEFAULT_TENANT
"""The tenant whose Triggers may name daemons, and where their records are."""


@dataclass(frozen=True, slots=True)
class _Daemon:
    spec: TriggerSpec
    """As it is where nobody declares otherwise."""
    work: Work


class Daemons:
    """Every daemon that was added."""

    def __init__(self, launcher: Launcher, timer: Timer) -> None:
        self._launcher = launcher
        self._timer = timer
        self._known: dict[str, _Daemon] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def add(self, name: str, work: Work, schedule: str) -> None:
        """One more. Raises ValueError for what is no schedule."""
        on = Cron(read_schedule(schedule), Missed.LAST)
        self._known[name] = _Daemon(TriggerSpec(name, "", "", on, daemon=name), work)

    def specs(self, declared: Mapping[str, TriggerSpec]) -> list[TriggerSpec]:
        """What goes by a schedule: the declared ones that name a daemon, and the others as they are by themselves."""
        named = [spec for spec in declared.values() if spec.daemon in self._known]
        taken = {spec.daemon for spec in named} | set(declared)
        return [*named, *(one.spec for name, one in self._known.items() if name not in taken)]

    def runs(self, spec: TriggerSpec) -> bool:
        """Whether it is at work now."""
        return spec.daemon in self._running

    async def begin(self, spec: TriggerSpec, at_ms: int) -> None:
        """Have it work, in a task of its own, unless it is at work. Raises NotFound."""
        known = self._known.get(spec.daemon)
        if known is None:
            raise NotFound(
                f"this runtime has no daemon {spec.daemon}", mend=f"one of: {', '.join(sorted(self._known)) or 'none'}"
            )
        if spec.daemon in self._running:
            skipped = Fired(Outcome.SKIPPED, None, "its last run is not over")
            await self._launcher.change(HOME, spec, lambda one: one.told(str(at_ms), at_ms, skipped))
            return
        task = asyncio.create_task(self._run(spec, known.work, at_ms), name=f"daemon {spec.daemon}")
        self._running[spec.daemon] = task
        task.add_done_callback(lambda _: self._running.pop(spec.daemon, None))

    async def fire(self, spec: TriggerSpec) -> Fired:
        """Have it work now, because a person wants it. Raises Conflict if it is at work."""
        if self.runs(spec):
            raise Conflict(f"the daemon {spec.daemon} is at work", mend="wait; agentos trigger show says when it is done")
        await self.begin(spec, self._timer.now_ms())
        return Fired(Outcome.STARTED, None, "it is at work; agentos trigger show says what came of it")

    async def close(self) -> None:
        """Stop what is at work: the next run begins anew."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, spec: TriggerSpec, work: Work, at_ms: int) -> None:
        begun = self._timer.monotonic_us()
        log.info("daemon %s begins", spec.daemon)
        try:
            told = await work()
            fired = Fired(Outcome.DONE, None, json.dumps(told, sort_keys=True)[:LONGEST_TOLD] if told else "")
        except AgentOSError as error:
            fired = Fired(Outcome.FAILED, None, f"{error.code}: {error.message}"[:LONGEST_TOLD])
        except Exception:
            # The outermost frame of a daemon: the next run is due all the same.
            log.exception("daemon %s failed in an unexpected way", spec.daemon)
            fired = Fired(Outcome.FAILED, None, "it failed in an unexpected way; the runtime's log says how")
        took_ms = (self._timer.monotonic_us() - begun) // 1000
        log.info("daemon %s: %s after %d ms %s", spec.daemon, fired.outcome, took_ms, fired.why)
        try:
            await self._launcher.change(HOME, spec, lambda one: one.told(str(at_ms), at_ms, fired))
        except AgentOSError as error:
            log.warning("what came of daemon %s cannot be kept: %s", spec.daemon, error)
