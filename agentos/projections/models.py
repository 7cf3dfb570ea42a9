"""The read models of all tenants: one projector each, started when a tenant is first asked about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from agentos.abi.canonical import Json
from agentos.eventlog.port import EventLog
from agentos.projections import read
from agentos.projections.projector import Projector
from agentos.projections.store import Store


class ReadModels:
    """One file per tenant: `folder`/<tenant>.db. `logs` gives a tenant's log and raises NotFound for no tenant."""

    def __init__(self, folder: Path, logs: Callable[[str], EventLog]) -> None:
        self._folder = folder
        self._logs = logs
        self._projectors: dict[str, Projector] = {}
        self._opening = asyncio.Lock()

    async def projector(self, tenant: str) -> Projector:
        """The running projector of `tenant`. Raises NotFound."""
        async with self._opening:
            projector = self._projectors.get(tenant)
            if projector is None:
                log = self._logs(tenant)
                store = await asyncio.to_thread(Store.open, self._folder / f"{tenant}.db", tenant=tenant)
                projector = Projector(log, store)
                self._projectors[tenant] = projector
            await projector.start()
            return projector

    async def sessions(self, tenant: str, *, live_only: bool, limit: int) -> list[dict[str, Json]]:
        """Sessions, newest first; includes everything that the log held when asked."""
        projector = await self.projector(tenant)
        await projector.caught_up()
        return await asyncio.to_thread(read.sessions, projector.store, live_only=live_only, limit=limit)

    async def approvals(self, tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        """Approvals, oldest first; includes everything that the log held when asked."""
        projector = await self.projector(tenant)
        await projector.caught_up()
        return await asyncio.to_thread(read.approvals, projector.store, state="waiting" if waiting_only else None)

    async def close(self) -> None:
        """Stop every projector and close its store."""
        async with self._opening:
            for projector in self._projectors.values():
                await projector.stop()
                await asyncio.to_thread(projector.store.close)
            self._projectors.clear()
