"""Sessions that are to run and run nowhere are taken over: at start, and whenever one is found.

A runtime that crashed leaves some. Others come about while it runs: an append that was given up, or that a runtime before us had
sent, is stored late, and creates a session or answers the question of one when nobody looks any more. So somebody looks all the
time, in the read model. The session's journal has the last word: one that is over, waits or is run already is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, NotFound, PayloadErased, Unavailable
from agentos.boot.tenants import Tenant, Tenants
from agentos.drivers.batch_desk import Batches
from agentos.kernel.cascade import Cascade
from agentos.kernel.locks import LockKeeper
from agentos.kernel.port import Timer
from agentos.kernel.sessions import Sessions
from agentos.projections import read

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""Seconds between two looks. What stands at two looks is taken over: at the first one its own task may just have ended."""

MANY: Final = 10_000
"""Sessions that one look finds at most; the next one finds the others."""

PATIENCE_S: Final = 5.0
"""Seconds to wait for an index that is behind its log. One that is built anew takes longer; much of what runs in it is over."""

LEAVE_MS: Final = 300_000
"""How long a session that could not be taken over (its chain is broken, its payload is erased) is left alone."""


class Standing:
    """Takes over sessions of all tenants."""

    def __init__(
        self, sessions: Sessions, tenants: Tenants, timer: Timer, locks: LockKeeper, batches: Batches, cascade: Cascade
    ) -> None:
        self._sessions = sessions
        self._locks = locks
        self._batches = batches
        self._cascade = cascade
        self._tenants = tenants
        self._timer = timer
        self._seen: dict[str, frozenset[str]] = {}
        self._left: dict[tuple[str, str], int] = {}
        self._late: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._timer.sleep(LOOK_S)
            await self.look()

    async def take_over(self, tenant: Tenant) -> None:
        """At start: run on what a runtime before us left running, and count what waits for people among the live.

        One that cannot be read holds up no other; while the log is away it is tried again in the background. So it is while the
        index is being built anew: nothing else waits for it. Raises LogUnavailable.
        """
        if not await _current(tenant):
            log.warning("the index of tenant %s is being built from the log: its sessions are taken over once it is", tenant.name)
            self._late.add(tenant.name)
            return
        self._late.discard(tenant.name)
        found = await asyncio.to_thread(read.sessions, tenant.store, origin="delegated", live_only=True, limit=MANY)
        await self._cascade.recover(tenant.name, [(row["id"], row["parent"]) for row in found if row["parent"]])
        for state in ("waiting", "paused"):
            self._sessions.adopt(tenant.name, await asyncio.to_thread(read.names, tenant.store, state=state))
        for row in await _to_run(tenant):
            log.info("resuming session %s", row["id"])
            await self._resume(tenant.name, row["id"])
        await self._unlock(tenant)

    async def look(self) -> None:
        """Take over what has stood since the last look."""
        now = self._timer.now_ms()
        self._left = {key: until for key, until in self._left.items() if until > now}
        for tenant in self._tenants.all():
            try:
                if tenant.name in self._late:
                    await self.take_over(tenant)
                    continue
                if not await _current(tenant):
                    continue
                rows = await _to_run(tenant)
            except (sqlite3.Error, Unavailable) as error:
                # The file is broken, the disk is full, the log is away: the projector says so, and the next look finds it mended.
                log.warning("the sessions of tenant %s cannot be looked up: %s", tenant.name, error)
                continue
            standing = frozenset(row["id"] for row in rows if not self._sessions.runs(tenant.name, row["id"]))
            for session in sorted(standing & self._seen.get(tenant.name, frozenset())):
                if (tenant.name, session) not in self._left:
                    log.warning("session %s is to run and runs nowhere: taking it over", session)
                    await self._resume(tenant.name, session)
            self._seen[tenant.name] = standing

    async def _unlock(self, tenant: Tenant) -> None:
        """Let go of what sessions hold that ended before they could."""

        async def over(session: str) -> bool:
            try:
                return (await self._sessions.state(tenant.name, session)).over
            except (NotFound, PayloadErased):
                return True

        try:
            await self._locks.recover(tenant.name, over)
        except AgentOSError as error:
            # Their leases end them.
            log.warning("the locks of tenant %s cannot be looked through: %s", tenant.name, error)
        try:
            await self._batches.recover(tenant.name, over)
        except AgentOSError as error:
            log.warning("the batches of tenant %s cannot be looked through: %s", tenant.name, error)

    async def _resume(self, tenant: str, session: str) -> None:
        try:
            await self._sessions.resume(tenant, session)
        except AgentOSError as error:
            log.warning("session %s of tenant %s cannot be resumed: %s", session, tenant, error)
            self._left[(tenant, session)] = self._timer.now_ms() + LEAVE_MS


async def _to_run(tenant: Tenant) -> list[dict[str, Json]]:
    """The rows of sessions that somebody is to see to: they run, or begin once something holds."""
    found = [await asyncio.to_thread(read.sessions, tenant.store, state=state, limit=MANY) for state in ("deferred", "running")]
    return [row for rows in found for row in rows]


async def _current(tenant: Tenant) -> bool:
    """Whether the index holds all that the log holds, or does in a moment. Raises LogUnavailable, Unavailable."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await tenant.projector.caught_up()
    except TimeoutError:
        return False
    return True
