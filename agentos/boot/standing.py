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

from agentos.abi.errors import AgentOSError
from agentos.boot.tenants import Tenant, Tenants
from agentos.kernel.port import Timer
from agentos.kernel.sessions import Sessions
from agentos.projections import read

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""Seconds between two looks. What stands at two looks is taken over: at the first one its own task may just have ended."""

MANY: Final = 10_000
"""Sessions that one look finds at most; the next one finds the others."""

LEAVE_MS: Final = 300_000
"""How long a session that could not be taken over (its chain is broken, its payload is erased) is left alone."""


class Standing:
    """Takes over sessions of all tenants."""

    def __init__(self, sessions: Sessions, tenants: Tenants, timer: Timer) -> None:
        self._sessions = sessions
        self._tenants = tenants
        self._timer = timer
        self._seen: dict[str, frozenset[str]] = {}
        self._left: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._timer.sleep(LOOK_S)
            await self.look()

    async def take_over(self, tenant: Tenant) -> None:
        """At start: run on what a runtime before us left running, and count what waits for people among the live.

        One that cannot be read holds up no other; while the log is away it is tried again in the background.
        """
        await tenant.projector.caught_up()
        for state in ("waiting", "paused"):
            self._sessions.adopt(tenant.name, await asyncio.to_thread(read.names, tenant.store, state=state))
        for row in await asyncio.to_thread(read.sessions, tenant.store, state="running", limit=MANY):
            log.info("resuming session %s", row["id"])
            await self._resume(tenant.name, row["id"])

    async def look(self) -> None:
        """Take over what has stood since the last look."""
        now = self._timer.now_ms()
        self._left = {key: until for key, until in self._left.items() if until > now}
        for tenant in self._tenants.all():
            try:
                rows = await asyncio.to_thread(read.sessions, tenant.store, state="running", limit=MANY)
            except sqlite3.Error as error:
                # The file is being built anew, or the disk is full: the projector says so, and the next look finds it mended.
                log.warning("the sessions of tenant %s cannot be looked up: %s", tenant.name, error)
                continue
            standing = frozenset(row["id"] for row in rows if not self._sessions.runs(tenant.name, row["id"]))
            for session in sorted(standing & self._seen.get(tenant.name, frozenset())):
                if (tenant.name, session) not in self._left:
                    log.warning("session %s is to run and runs nowhere: taking it over", session)
                    await self._resume(tenant.name, session)
            self._seen[tenant.name] = standing

    async def _resume(self, tenant: str, session: str) -> None:
        try:
            await self._sessions.resume(tenant, session)
        except AgentOSError as error:
            log.warning("session %s of tenant %s cannot be resumed: %s", session, tenant, error)
            self._left[(tenant, session)] = self._timer.now_ms() + LEAVE_MS
