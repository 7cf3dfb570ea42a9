"""The work of the runtime itself that goes by a schedule, each in one bounded run over all tenants.

| daemon | when (UTC) | what a run does |
| --- | --- | --- |
| reconcile | every 10 minutes | asks the tools that can tell what came of calls whose outcome was lost |
| checkpoint | every hour | has a checkpoint over all that the logs hold, beside those that the notaries sign all the time |
| retention | every day | names the months that need not be kept any more; it drops nothing (see below) |
| strays | every hour | removes workspaces whose sessions never came to be |
| compact | every day | gives back the free pages of the index, and the snapshots that nobody can read any more |

`retention` only tells: a month is dropped when somebody has exported it and keeps the packs, and that nobody can do in the place
of the person who answers for it (`agentos audit retire`). What one tenant's part of a run fails at keeps no other one's from
being done, and is told; the next run tries again. A Trigger of the tenant `default` with `daemon` gives one another schedule.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, NotFound, Relieved, Unavailable
from agentos.abi.ids import FLEET
from agentos.boot.checkpoints import Checkpoints
from agentos.boot.erasures import Erasures
from agentos.boot.strays import Strays
from agentos.boot.tenants import Tenant, Tenants
from agentos.drivers.port import Driver, can_reconcile
from agentos.kernel.port import Configuration, ConfigurationSource
from agentos.kernel.reconcile import Reconciler
from agentos.kernel.sessions import Sessions
from agentos.projections.compaction import compact
from agentos.projections.lost import lost
from agentos.projections.session import SessionState

if TYPE_CHECKING:
    from agentos.boot.runtime import Runtime

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[Mapping[str, Json]]]
"""One run; what it gives is shown: a few names and numbers."""

Part = Callable[[Tenant], Awaitable[Mapping[str, int]]]
"""What a run does in one tenant: numbers, which are added up."""

LONGEST_S: Final = 600.0
"""Seconds that a run takes at most; what it has not come to is done by the next one."""

MOST_LOST: Final = 500
"""Lost calls of one tenant that one run looks at."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of them: `schedule` is a cron expression, in UTC."""

    name: str
    schedule: str
    work: Work


class Chores:
    """What the daemons do. `frozen`: whether a kill switch holds a session; `replicated`: whether Litestream copies the index."""

    def __init__(
        self,
        *,
        tenants: Tenants,
        sessions: Sessions,
        source: ConfigurationSource,
        drivers: Driver,
        reconciler: Reconciler,
        checkpoints: Checkpoints,
        erasures: Erasures,
        strays: Strays,
        frozen: Callable[[SessionState, Configuration], object | None],
        replicated: Callable[[], bool],
    ) -> None:
        self._tenants = tenants
        self._sessions = sessions
        self._source = source
        self._drivers = drivers
        self._reconciler = reconciler
        self._checkpoints = checkpoints
        self._erasures = erasures
        self._strays = strays
        self._frozen = frozen
        self._replicated = replicated

    def daemons(self) -> tuple[Daemon, ...]:
        """All of them, by name."""
        return (
            Daemon("checkpoint", "17 * * * *", self.checkpoint),
            Daemon("compact", "11 4 * * *", self.compact),
            Daemon("reconcile", "*/10 * * * *", self.reconcile),
            Daemon("retention", "23 3 * * *", self.retention),
            Daemon("strays", "41 * * * *", self.strays),
        )

    async def reconcile(self) -> Mapping[str, Json]:
        """{asked, settled}: sessions whose tools were asked, and lost calls of which it is known now what came of them."""
        return await self._each("reconcile", self._reconcile)

    async def checkpoint(self) -> Mapping[str, Json]:
        """{checkpoints}: logs that a fresh checkpoint covers to their ends, the registry's among them."""

        async def one(tenant: Tenant) -> Mapping[str, int]:
            await self._checkpoints.get(tenant.name).now()
            return {"checkpoints": 1}

        told = dict(await self._each("checkpoint", one))
        await self._checkpoints.get(FLEET).now()
        return told | {"checkpoints": told.get("checkpoints", 0) + 1}

    async def retention(self) -> Mapping[str, Json]:
        """{overdue}: months, of all tenants, that by the longest retention declared need not be kept any more."""

        async def one(tenant: Tenant) -> Mapping[str, int]:
            periods = await self._erasures.get(tenant.name)[1].overdue()
            for period in periods:
                log.warning(
                    "tenant %s: %s need not be kept any more: agentos audit retire %s --to DIR", tenant.name, period, period
                )
            return {"overdue": len(periods)}

        return await self._each("retention", one)

    async def strays(self) -> Mapping[str, Json]:
        """{removed}: workspaces that were removed."""
        try:
            async with asyncio.timeout(LONGEST_S):
                return {"removed": await self._strays.sweep()}
        except TimeoutError as error:
            raise _late("strays") from error

    async def compact(self) -> Mapping[str, Json]:
        """{bytes, given_up, snapshots}: bytes given back, indexes that there was no time for, snapshots that were deleted."""

        async def one(tenant: Tenant) -> Mapping[str, int]:
            snapshots = await tenant.snapshots.sweep(await tenant.streams.streams())
            if self._replicated():
                # Whoever copies a file page by page has it moved by nobody else.
                return {"snapshots": snapshots}
            done = await asyncio.to_thread(compact, tenant.store)
            return {"snapshots": snapshots, "bytes": max(0, done.before - done.after), "given_up": int(done.given_up)}

        return await self._each("compact", one)

    async def _reconcile(self, tenant: Tenant) -> Mapping[str, int]:
        configuration = self._source.current(tenant.name)
        able = {name for name, tool in configuration.tools.items() if can_reconcile(tool)}
        if not able:
            return {}
        found = await asyncio.to_thread(lost, tenant.store, limit=MOST_LOST)
        settled = asked = 0
        for session in dict.fromkeys(one.session for one in found if one.tool in able):
            try:
                number = await self._settle(tenant.name, session)
            except Relieved:
                raise
            except AgentOSError as error:
                log.warning("session %s: what came of its lost calls cannot be asked: %s", session, error)
                continue
            asked, settled = asked + 1, settled + number
        return {"asked": asked, "settled": settled}

    async def _settle(self, tenant: str, session: str) -> int:
        """Ask about the lost calls of one session; how many are lost no more."""
        async with self._sessions.journal(tenant, session) as journal:
            configuration, before = self._source.current(tenant), len(journal.state.lost)
            if journal.state.over or self._frozen(journal.state, configuration) is not None:
                return 0
            try:
                await self._reconciler.settle(journal, configuration)
            finally:
                if not self._sessions.runs(tenant, session):
                    # The servers that were started to be asked are nobody's.
                    await self._drivers.release(session)
            return before - len(journal.state.lost)

    async def _each(self, name: str, part: Part) -> dict[str, Json]:
        """Do a daemon's part in each tenant, and add up what it gives. Raises Unavailable when there was no time for all."""
        told: dict[str, Json] = {}
        failed: list[str] = []
        try:
            async with asyncio.timeout(LONGEST_S):
                for tenant in self._tenants.all():
                    try:
                        numbers = await part(tenant)
                    except (NotFound, Relieved):
                        continue  # not declared any more, or another runtime's
                    except (AgentOSError, OSError, sqlite3.Error) as error:
                        log.warning("daemon %s: tenant %s: %s", name, tenant.name, error)
                        failed.append(tenant.name)
                        continue
                    for key, number in numbers.items():
                        told[key] = told.get(key, 0) + number
        except TimeoutError as error:
            raise _late(name) from error
        return told | ({"failed": failed} if failed else {})


def schedule(runtime: Runtime, checkpoints: Checkpoints, erasures: Erasures) -> None:
    """Have all of them done by the triggers of a runtime that is just being opened."""
    tenants, sessions, workspaces = runtime.tenants, runtime.sessions, runtime.workspaces
    chores = Chores(
        tenants=tenants,
        sessions=sessions,
        source=runtime.configurations,
        drivers=runtime.drivers,
        reconciler=Reconciler(runtime.drivers, workspaces),
        checkpoints=checkpoints,
        erasures=erasures,
        strays=Strays(tenants, checkpoints, sessions, workspaces, runtime.hands, runtime.timer),
        frozen=runtime.freezes.of,
        replicated=lambda: runtime.litestream is not None,
    )
    for one in chores.daemons():
        runtime.triggers.daemon(one.name, one.work, one.schedule)


def _late(name: str) -> Unavailable:
    return Unavailable(
        f"daemon {name} was not done after {LONGEST_S:.0f} s", mend="its next run goes on; the runtime's log may say why"
    )
