"""Workspaces that no session has: a creation that never reached the log left its folder, with the input of a run in it.

A runtime that dies between the folder and the first event leaves one, and so does a log that was away. Nobody would ever remove
it: there is no session to erase, and no month to retire it with. So somebody looks for them, every hour (`boot.daemons`).

What may belong to a session is never removed. A stray is a folder with a name that `new_id` makes, both name and folder older
than an hour, of a session that nobody runs or creates; the index does not know it; the log, which has just been found in order up
to its last checkpoint and has streams of that month, answers that it has no event of it. A log that does not answer, that was
changed, or that knows nothing of the month (somebody else's, perhaps) says nothing of the kind.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Collection
from typing import Final

from agentos.abi.errors import AgentOSError
from agentos.abi.ids import Clock, time_of
from agentos.audit.retirement import period_in
from agentos.boot.checkpoints import Checkpoints
from agentos.boot.hands import HandsOf
from agentos.boot.tenants import Tenant, Tenants
from agentos.eventlog.subject import period_of, session_subject
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.projections import read
from agentos.projections.store import Store

log = logging.getLogger(__name__)

AGE_MS: Final = 3_600_000
"""How old a folder must be: what was sent to the log before that has arrived by now, or never will."""


class Strays:
    """Removes the strays of all tenants."""

    def __init__(
        self,
        tenants: Tenants,
        checkpoints: Checkpoints,
        sessions: Sessions,
        workspaces: Workspaces,
        hands: HandsOf,
        clock: Clock,
    ) -> None:
        self._hands = hands
        self._tenants = tenants
        self._checkpoints = checkpoints
        self._sessions = sessions
        self._workspaces = workspaces
        self._clock = clock

    async def sweep(self) -> int:
        """Look once; return how many were removed. What goes wrong is told in the log of the runtime, until the next look."""
        total = 0
        for tenant in self._tenants.all():
            try:
                removed = await self._sweep(tenant)
            except (AgentOSError, OSError) as error:
                log.warning("workspaces of tenant %s that no session has cannot be looked for: %s", tenant.name, error)
            else:
                total += removed
                if removed:
                    log.info("removed %d workspaces of tenant %s whose sessions never came to be", removed, tenant.name)
        return total

    async def _sweep(self, tenant: Tenant) -> int:
        names = await asyncio.to_thread(aged, self._workspaces, tenant.name, self._clock.now_ms() - AGE_MS)
        names = await asyncio.to_thread(unknown, tenant.store, names)
        if not names:
            return 0
        # A log that is not what was signed, or ends before it, proves nothing by what it lacks.
        await self._checkpoints.get(tenant.name).now()
        periods = {period_in(stream) for stream in await tenant.streams.streams()}
        removed = 0
        for name in names:
            if period_of(name) not in periods or await tenant.streams.last(session_subject(name)) is not None:
                continue
            if name not in self._sessions.live(tenant.name):
                await asyncio.to_thread(self._workspaces.destroy, tenant.name, name)
                await asyncio.to_thread(self._hands.destroy, tenant.name, name)
                removed += 1
        return removed


def aged(workspaces: Workspaces, tenant: str, before_ms: int) -> list[str]:
    """The folders that are named as sessions are, and were made and last changed before that time; by name."""
    found = []
    for name in sorted(workspaces.sessions(tenant)):
        made = time_of(name) if name.startswith("s-") else None
        if made is None or made >= before_ms:
            continue
        seen = workspaces.path(tenant, name).lstat()
        if stat.S_ISDIR(seen.st_mode) and seen.st_mtime_ns // 1_000_000 < before_ms:
            found.append(name)
    return found


def unknown(index: Store, names: Collection[str]) -> list[str]:
    """Those of `names` that the index has no session of."""
    return [name for name in names if read.session(index, name) is None]
