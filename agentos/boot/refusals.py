"""Envelopes that were refused and name nobody who could be told: counted, and said in the tenant's audit chain.

At most one event a minute and tenant, however many come: whoever can make messages must not be able to fill a chain that is kept
for ever. Each event is about one code, the one that waits longest, and says how often it came and when it came first and last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.errors import AgentOSError
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, refused_entry
from agentos.kernel.gate import SYSTEM
from agentos.kernel.port import Timer

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
"""Seconds between two events of a tenant."""


@dataclass(slots=True)
class _Count:
    code: str
    count: int
    first_ms: int
    last_ms: int


class Refusals:
    """Counts per tenant and code. `chain` and `revision` are those of a tenant."""

    def __init__(self, chain: Callable[[str], AuditChain], revision: Callable[[str], int], timer: Timer) -> None:
        self._chain = chain
        self._revision = revision
        self._timer = timer
        self._counts: dict[str, dict[str, _Count]] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}

    def count(self, tenant: str, code: str, message: str) -> None:
        """One more. The first is told at once, with a line in the log; what comes within the minute is told together."""
        now, counts = self._timer.now_ms(), self._counts.setdefault(tenant, {})
        found = counts.get(code)
        if found is None:
            log.warning("a delegation that came to tenant %s begins nothing (%s): %s", tenant, code, message)
            found = counts[code] = _Count(code, 0, now, now)
        found.count, found.last_ms = found.count + 1, now
        if tenant not in self._telling:
            self._telling[tenant] = asyncio.create_task(self._tell_on(tenant), name=f"refusals of {tenant}")

    async def close(self) -> None:
        """Tell what was not told yet."""
        for task in self._telling.values():
            task.cancel()
        if self._telling:
            await asyncio.wait(self._telling.values())
        self._telling = {}
        for tenant, counts in self._counts.items():
            while counts:
                if not await self._tell(tenant):
                    break

    async def _tell_on(self, tenant: str) -> None:
        """Tell one code after the other until none waits."""
        try:
            while self._counts[tenant]:
                await self._tell(tenant)
                await self._timer.sleep(EVERY_S)
        finally:
            if self._telling.get(tenant) is asyncio.current_task():
                del self._telling[tenant]

    async def _tell(self, tenant: str) -> bool:
        """Store what waits longest; return whether it is stored."""
        counts = self._counts[tenant]
        told = counts.pop(min(counts.values(), key=lambda one: one.first_ms).code)

        async def entry(_: AuditRecord) -> Sequence[Entry]:
            return [refused_entry("delegation", told.code, told.count, told.first_ms, told.last_ms)]

        async def store() -> None:
            await self._chain(tenant).append(entry, actor=SYSTEM, revision=self._revision(tenant))

        storing = asyncio.create_task(store())
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            # What is on its way to the log is not told a second time.
            await asyncio.wait([storing])
            if storing.cancelled() or storing.exception() is not None:
                _add(counts, told)
            raise
        except AgentOSError as error:
            log.warning("%d refused delegations of tenant %s are not in its audit chain: %s", told.count, tenant, error)
            _add(counts, told)
            return False
        return True


def _add(counts: dict[str, _Count], told: _Count) -> None:
    """Put back what was not stored; more may have come meanwhile."""
    later = counts.setdefault(told.code, _Count(told.code, 0, told.first_ms, told.last_ms))
    later.count, later.first_ms = later.count + told.count, told.first_ms
