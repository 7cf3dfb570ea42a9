"""Triggers: what is declared, what has fired, and exactly one run for each firing.

    fired = await triggers.fire("default", Firing("digest", "delivery-7", at_ms=now, source="webhook", payload=body))

Sources that speak from outside (webhooks, subjects, files of a space) call `fire` themselves, and may forget what they told once
it returns. The clock, ends of runs and signals are seen to in here. The steps from a firing to its run: `supervisor.launch`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from agentos.abi.errors import AgentOSError, NotFound, PayloadErased, SequenceConflict, Unavailable, UsageError
from agentos.kernel.firing import MANUAL, Cron, Fired, Firing, Outcome, RunEnd, Signal, TriggerSpec, hops_from
from agentos.kernel.port import Configuration, Tenure, Timer
from agentos.supervisor.daemons import HOME, Daemons, Work
from agentos.supervisor.launch import Launcher, Past, Starts
from agentos.supervisor.progress import Progress, ProgressStore, ProgressUnreadable, mark_of
from agentos.supervisor.run_ends import Ends, RunEnds
from agentos.supervisor.timetable import Switches, Timetable

log = logging.getLogger(__name__)

MARKED_MS: Final = 8 * 86_400_000
"""How long what came of a firing is kept at least: so long somebody may tell of it again, and starts nothing."""

TIDY_S: Final = 86_400.0
"""Seconds between two times that what is not needed any more is forgotten."""


class Log(Past, Ends, Protocol):
    """What the log says of runs."""


class Configured(Protocol):
    """The configurations in force (`boot.configuration.Configurations`)."""

    @property
    def tenants(self) -> frozenset[str]:
        """The tenants that are served."""

    def current(self, tenant: str) -> Configuration:
        """The newest one of a tenant. Raises NotFound."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A trigger as it stands: its declaration, whether it is on, its record (None: unreadable), the times that come next (ms)."""

    spec: TriggerSpec
    on: bool
    progress: Progress | None
    upcoming: tuple[int, ...]
    built_in: bool = False
    at_work: bool = False


class Triggers:
    """Every trigger of every tenant, and the work of the runtime itself that goes by a schedule."""

    def __init__(
        self,
        stores: Callable[[str], ProgressStore],
        source: Configured,
        starts: Starts,
        past: Log,
        switches: Switches,
        tenure: Tenure,
        timer: Timer,
    ) -> None:
        self._stores = stores
        self._source = source
        self._switches = switches
        self._past = past
        self._timer = timer
        self._launcher = Launcher(stores, starts, past, tenure, timer)
        self._daemons = Daemons(self._launcher, timer)
        self._timetable = Timetable(self._launcher, self._scheduled, switches, timer, self._daemons.begin)
        self._run_ends = RunEnds(self._launcher, self._behind_runs, self.fire, past, switches, timer)
        self._changed: list[Callable[[], None]] = []

    async def fire(self, tenant: str, firing: Firing) -> Fired:
        """Start the run of a firing, if its trigger wants one now; durable when it returns.

        The same firing told again gives what came of it, `again`. Nothing is kept of one whose trigger is switched off. Raises
        NotFound (no such trigger), UsageError (too large), LogUnavailable and Conflict (too much is under way): then nothing is
        promised, and whoever tells of it tells again.
        """
        spec = self._spec(tenant, firing.trigger)
        if spec.daemon:
            if firing.source != MANUAL:
                raise UsageError(f"trigger {spec.name} is for the daemon {spec.daemon}, and takes no firing")
            return await self._daemons.fire(spec)
        if firing.source != MANUAL and not (await self._switches.read(tenant)).get(spec.name, (True, 0))[0]:
            return Fired(Outcome.PAUSED, None, "it is switched off")
        return await self._launcher.fire(tenant, spec, firing)

    async def signal(
        self,
        tenant: str,
        name: str,
        data: str,
        by: str,
        *,
        id: str,  # noqa: A002 - what a firing calls it
        labels: Sequence[str] = (),
        hops: int = 0,
    ) -> list[Fired]:
        """Fire the triggers that wait for the signal `name`, by `by`. `id` is its own: the same again starts nothing.

        `labels` are those of `data`; `hops`: where a session sends it, those of `firing.hops_from`. What keeps one trigger from
        firing keeps no other one, and is raised in the end, as by `fire`.
        """
        fired, failed = [], []
        for spec in self.declared(tenant, "signal"):
            if isinstance(spec.on, Signal) and spec.on.name == name:
                facts = {"signal": name, "by": by}
                told = data.encode("utf-8", "surrogatepass")
                text = "text/plain; charset=utf-8"
                now = self._timer.now_ms()
                firing = Firing(spec.name, id, now, "signal", told, text, tuple(labels), facts, hops)
                try:
                    fired.append(await self.fire(tenant, firing))
                except (SequenceConflict, Unavailable):
                    raise
                except AgentOSError as error:
                    failed.append(error)
        for why in failed:
            raise why
        return fired

    async def hops_from(self, tenant: str, session: str) -> int:
        """The `hops` of a firing that a session brings about. Raises LogUnavailable."""
        load = partial(self._past.state, tenant)
        try:
            return await hops_from(await load(session), load)
        except (NotFound, PayloadErased):
            return 1

    def declared(self, tenant: str, kind: str) -> list[TriggerSpec]:
        """The triggers of `tenant` whose source is of `kind` (`webhook` ...), by name, those switched off among them."""
        found = self._all(tenant)
        return [found[name] for name in sorted(found) if found[name].kind == kind and not found[name].daemon]

    def tenants(self) -> frozenset[str]:
        """The tenants that are served."""
        return self._source.tenants

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have `tell` called after each change of the configuration."""
        self._changed.append(tell)

    def changed(self) -> None:
        """The configuration has changed, or a trigger was switched on."""
        self._timetable.stir()
        self._run_ends.stir()
        for tell in self._changed:
            tell()

    def ended(self, tenant: str, session: str) -> None:
        """A session is over. May be told more than once."""
        self._run_ends.ended(tenant, session)

    def daemon(self, name: str, work: Work, schedule: str) -> None:
        """Have `work` done at the times of `schedule` (cron, UTC), or of the Triggers of tenant `default` that name it.

        One run at a time. What `work` gives is a small object of facts for the listing; an AgentOSError is told there. Raises
        ValueError for what is no schedule.
        """
        self._daemons.add(name, work, schedule)
        self._timetable.stir()

    async def run(self) -> None:
        """See to all of it until cancelled."""
        work: list[Coroutine[Any, Any, None]] = [self._timetable.run(), self._run_ends.run(), self._keep_tidy()]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._daemons.close()

    async def standing(self, tenant: str, *, upcoming: int = 1) -> list[Standing]:
        """Each trigger of a tenant as it stands, by name; of the tenant `default` what the runtime has built in among them."""
        switched = await self._switches.read(tenant)
        declared = self._all(tenant)
        specs = {**declared, **{spec.name: spec for spec in self._built_in(tenant)}}
        found = []
        for name in sorted(specs):
            spec = specs[name]
            try:
                progress = await self._launcher.progress(tenant, spec)
            except ProgressUnreadable as error:
                log.warning("trigger %s of tenant %s: %s", name, tenant, error)
                progress = None
            on = switched.get(name, (True, 0))[0]
            times = spec.on.schedule.upcoming(self._timer.now_ms(), upcoming) if isinstance(spec.on, Cron) and on else []
            at_work = bool(spec.daemon) and self._daemons.runs(spec)
            found.append(Standing(spec, on, progress, tuple(times), name not in declared, at_work))
        return found

    def known(self, tenant: str, name: str) -> TriggerSpec:
        """A trigger that is declared or built in. Raises NotFound."""
        return self._spec(tenant, name)

    async def reset(self, tenant: str, name: str) -> None:
        """Begin the record of a trigger anew: what it has started is read from the log. Raises NotFound, LogUnavailable."""
        spec = self._spec(tenant, name)
        await self._launcher.forget(tenant, spec.name)
        self.changed()

    async def tidy(self) -> int:
        """Forget marks that are old, and records of triggers that are not declared any more; return how many."""
        gone = 0
        before = self._timer.now_ms() - MARKED_MS
        for tenant in sorted(self._source.tenants):
            store = self._stores(tenant)
            kept = {*self._all(tenant), *(spec.name for spec in self._built_in(tenant))}
            for key, data in await store.all():
                kind, trigger = key.split(".")[:2]
                if (kind == "state" and trigger not in kept) or (kind == "mark" and _older(data, before)):
                    await store.forget(key)
                    gone += 1
        return gone

    async def _keep_tidy(self) -> None:
        while True:
            try:
                await self.tidy()
            except AgentOSError as error:
                log.warning("old firings cannot be forgotten now: %s", error)
            await self._timer.sleep(TIDY_S)

    def _all(self, tenant: str) -> Mapping[str, TriggerSpec]:
        try:
            return self._source.current(tenant).triggers
        except NotFound:
            return {}

    def _built_in(self, tenant: str) -> list[TriggerSpec]:
        declared = self._all(tenant)
        return [spec for spec in self._daemons.specs(declared) if spec.name not in declared] if tenant == HOME else []

    def _spec(self, tenant: str, name: str) -> TriggerSpec:
        found = self._source.current(tenant).triggers.get(name)
        found = found or next((spec for spec in self._built_in(tenant) if spec.name == name), None)
        if found is None:
            raise NotFound(f"no trigger {name} in tenant {tenant}", mend="list them: agentos trigger list")
        return found

    def _scheduled(self) -> Iterator[tuple[str, TriggerSpec]]:
        for tenant in sorted(self._source.tenants):
            for spec in self._all(tenant).values():
                if isinstance(spec.on, Cron) and not spec.daemon:
                    yield tenant, spec
        for spec in self._daemons.specs(self._all(HOME)):
            yield HOME, spec

    def _behind_runs(self) -> Mapping[str, Sequence[TriggerSpec]]:
        found = {}
        for tenant in self._source.tenants:
            specs = [spec for spec in self._all(tenant).values() if isinstance(spec.on, RunEnd)]
            if specs:
                found[tenant] = specs
        return found


def _older(data: bytes, before_ms: int) -> bool:
    try:
        return mark_of(data)[1] < before_ms
    except ProgressUnreadable:
        return False
