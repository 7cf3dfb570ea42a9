"""Triggers, put together: their records in a bucket, what the log says of runs, who switched them off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agentos.abi.errors import ChainBroken, Unavailable
from agentos.abi.ids import Random
from agentos.audit.audit_chain import AuditChain
from agentos.boot.configuration import Configurations
from agentos.boot.failpoints import Failpoints
from agentos.boot.tenants import Tenant, Tenants
from agentos.control.principal import Handlers
from agentos.control.trigger_verbs import TriggerVerbs
from agentos.drivers.adapters.triggers_nats import NatsProgress
from agentos.kernel.ending import outcome_of
from agentos.kernel.port import Tenure, Timer
from agentos.kernel.sessions import Sessions
from agentos.projections import read
from agentos.projections.session import SessionState
from agentos.supervisor.launch import PastRun
from agentos.supervisor.progress import Moved
from agentos.supervisor.run_ends import Ended
from agentos.supervisor.triggers import Triggers

log = logging.getLogger(__name__)

PATIENCE_S: Final = 20.0
"""Seconds to wait for an index that is behind its log."""

OVER: Final = ("finished", "failed", "cancelled", "halted")


class LogPast:
    """`supervisor.triggers.Log`, from the tenants' logs and indexes."""

    def __init__(self, tenants: Tenants, sessions: Sessions) -> None:
        self._tenants = tenants
        self._sessions = sessions

    async def outcome(self, tenant: str, session: str) -> str | None:
        """See `supervisor.launch.Past`."""
        try:
            return await outcome_of(self._tenants.log(tenant), session)
        except ChainBroken as error:
            # Nothing may begin in its place on the word of such an event.
            log.warning("%s", error)
            return None

    async def runs_of(self, tenant: str, trigger: str, *, most: int) -> Sequence[PastRun]:
        """See `supervisor.launch.Past`."""
        served = await self._current(tenant)
        rows = await asyncio.to_thread(read.sessions, served.store, trigger=trigger, limit=most)
        return [
            PastRun(row["id"], row["firing"], row["state"], row["state"] in OVER, row["created_ms"])
            for row in rows
            if row["firing"]
        ]

    async def began(self, tenant: str, trigger: str, firing: str) -> str | None:
        """See `supervisor.launch.Past`."""
        return await asyncio.to_thread(read.fired, self._tenants.get(tenant).store, trigger=trigger, firing=firing)

    async def ended(self, tenant: str, since_ms: int) -> Sequence[Ended]:
        """See `supervisor.run_ends.Ends`."""
        served = await self._current(tenant)
        found = await asyncio.to_thread(read.ended, served.store, since_ms=since_ms)
        return [Ended(*row) for row in found]

    async def state(self, tenant: str, session: str) -> SessionState:
        """See `supervisor.run_ends.Ends`."""
        return await self._sessions.state(tenant, session)

    async def _current(self, tenant: str) -> Tenant:
        served = self._tenants.get(tenant)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await served.projector.caught_up()
        except TimeoutError as error:
            raise Unavailable(f"the index of tenant {tenant} is behind its log", mend="ask again in a moment") from error
        return served


class ChainSwitches:
    """`supervisor.timetable.Switches`, from the tenants' audit chains."""

    def __init__(self, chains: Callable[[str], AuditChain]) -> None:
        self._chains = chains

    async def read(self, tenant: str) -> Mapping[str, tuple[bool, int]]:
        """See `Switches.read`."""
        record = await self._chains(tenant).record()
        return {name: (one.on, one.time_ms) for (what, name), one in record.switched.items() if what == "trigger"}


def progress_stores(tenants: Tenants, random: Random) -> Callable[[str], NatsProgress]:
    """The records of a tenant's triggers. What it gives raises NotFound for a tenant that is not served."""
    made: dict[str, NatsProgress] = {}

    def store(tenant: str) -> NatsProgress:
        served = tenants.get(tenant)
        if tenant not in made:
            made[tenant] = NatsProgress(served.client, random, Moved, lambda: served.streams.replicas)
        return made[tenant]

    return store


def make_triggers(
    tenants: Tenants,
    configurations: Configurations,
    sessions: Sessions,
    chains: Callable[[str], AuditChain],
    tenure: Tenure,
    timer: Timer,
    random: Random,
    points: Failpoints | None = None,
) -> Triggers:
    """The triggers of a runtime; to be told of changes of the configuration, and to be run."""
    past = LogPast(tenants, sessions)
    stores = progress_stores(tenants, random)
    kept = (lambda tenant: points.records(stores(tenant))) if points else stores
    triggers = Triggers(kept, configurations, sessions, past, ChainSwitches(chains), tenure, timer)
    sessions.at_end(triggers.ended)
    return triggers


def trigger_handlers(
    triggers: Triggers,
    tenants: Tenants,
    sessions: Sessions,
    chains: Callable[[str], AuditChain],
    revision: Callable[[str], int],
    timer: Timer,
    random: Random,
) -> Handlers:
    """The verbs about triggers."""
    past = LogPast(tenants, sessions)

    async def runs(tenant: str, trigger: str, most: int) -> Sequence[PastRun]:
        return await past.runs_of(tenant, trigger, most=most)

    return TriggerVerbs(triggers, runs, chains, revision, timer, random).handlers()
