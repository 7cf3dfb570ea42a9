"""Sessions that clients outside drive: their verbs, and the end of those that nobody uses any more.

A client that goes away without a word leaves a session that rests. Once nobody has asked anything of it for as long as its Agent
says (`spec.gateway.idleSeconds`), the runtime finishes it. What waits for a person waits on: that question has an end of its own.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError
from agentos.boot.configuration import Configurations
from agentos.boot.tenants import Tenants
from agentos.control.gateway_verbs import GatewayVerbs, Stop, finish
from agentos.control.principal import Handlers
from agentos.control.session_verbs import Held
from agentos.kernel.port import GatewaySpec, Timer
from agentos.kernel.sessions import Sessions
from agentos.projections import read

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""Seconds between two looks."""

MANY: Final = 10_000
"""Sessions that one look finds at most; the next one finds the others."""

UNUSED: Final = "nobody used it any more"
"""The result of a session that the runtime has finished."""


def gateway_handlers(sessions: Sessions, configurations: Configurations, timer: Timer, stop: Stop, frozen: Held) -> Handlers:
    """The verbs `gateway.*`; `stop` ends a call that acts, `frozen` tells what holds work of an agent."""
    return GatewayVerbs(sessions, configurations.current, timer, stop, frozen).handlers()


class Idle:
    """Finishes served sessions of all tenants that nobody uses."""

    def __init__(self, sessions: Sessions, tenants: Tenants, configurations: Configurations, timer: Timer) -> None:
        self._sessions = sessions
        self._tenants = tenants
        self._configurations = configurations
        self._timer = timer

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._timer.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Finish what is unused now. What cannot be looked up, or finished, is met again at the next look."""
        for tenant in self._tenants.all():
            try:
                rows = await asyncio.to_thread(read.sessions, tenant.store, origin="served", state="running", limit=MANY)
            except sqlite3.Error as error:
                log.warning("the served sessions of tenant %s cannot be looked up: %s", tenant.name, error)
                continue
            for row in rows:
                try:
                    if self._unused(tenant.name, row):
                        await finish(self._sessions, tenant.name, row["id"], UNUSED)
                        log.info("session %s: no client used it any more", row["id"])
                except AgentOSError as error:
                    log.warning("session %s of tenant %s cannot be finished, unused as it is: %s", row["id"], tenant.name, error)

    def _unused(self, tenant: str, row: dict[str, Json]) -> bool:
        """Raises NotFound for a tenant that is not declared any more."""
        session, windows = row["id"], self._sessions.windows
        if windows.busy(tenant, session) or not self._sessions.runs(tenant, session):
            return False
        agent = self._configurations.current(tenant).agents.get(row["agent"])
        idle_ms = (agent.gateway if agent is not None else GatewaySpec()).idle_ms
        used = max(int(row["updated_ms"]), windows.used_ms(tenant, session))
        return self._timer.now_ms() - used > idle_ms
