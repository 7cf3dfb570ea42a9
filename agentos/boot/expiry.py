"""The clock of all questions: what nobody answers in time is answered by a no.

One task looks into the read model of every tenant, every second or when the next known question ends; a parked session costs
nothing but its row. The session's journal has the last word: an answer that came first stands. What ended while no runtime ran
ends when one is back. A session that cannot be ended (its chain is broken, its tenant is gone) is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Final

from agentos.abi.errors import AgentOSError
from agentos.boot.tenants import Tenants
from agentos.kernel.port import Timer
from agentos.kernel.sessions import Sessions
from agentos.projections import read

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Seconds between two looks; less when a question ends sooner."""

LEAVE_MS: Final = 10_000
"""How long a session that could not be ended is left alone."""


class Expiry:
    """Ends questions of the sessions of all tenants."""

    def __init__(self, sessions: Sessions, tenants: Tenants, timer: Timer) -> None:
        self._sessions = sessions
        self._tenants = tenants
        self._timer = timer
        self._left: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            following = await self.look()
            pause = LOOK_S if following is None else min(LOOK_S, (following - self._timer.now_ms()) / 1000)
            await self._timer.sleep(max(pause, 0.01))

    async def look(self) -> int | None:
        """End what is over now; return when the next known question ends, in milliseconds since the epoch."""
        now, ends = self._timer.now_ms(), []
        self._left = {key: until for key, until in self._left.items() if until > now}
        for tenant in self._tenants.all():
            try:
                over, following = await asyncio.to_thread(read.due, tenant.store, now_ms=now)
            except sqlite3.Error as error:
                # The file is being built anew, or the disk is full: the projector says so, and the next look finds it mended.
                log.warning("the questions of tenant %s cannot be looked up: %s", tenant.name, error)
                continue
            if following is not None:
                ends.append(following)
            for session in over:
                await self._end(tenant.name, session, now)
        return min(ends, default=None)

    async def _end(self, tenant: str, session: str, now_ms: int) -> None:
        if (tenant, session) in self._left:
            return
        try:
            if await self._sessions.expire(tenant, session):
                log.info("session %s: nobody answered in time", session)
        except AgentOSError as error:
            log.warning("session %s of tenant %s waits on, its question is over: %s", session, tenant, error)
            self._left[(tenant, session)] = now_ms + LEAVE_MS
