"""What the runtime holds per tenant: a connection into its account, its log, its read model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, Unavailable
from agentos.boot.backend import Backend
from agentos.boot.home import Home
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import EVENT_STREAMS
from agentos.projections import read
from agentos.projections.projector import Projector
from agentos.projections.store import Store

PATIENCE_S: Final = 20.0
"""Seconds that a question waits for the read model to hold all that the log holds."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One served tenant."""

    name: str
    client: Client
    log: EventLog
    store: Store
    projector: Projector


class Tenants:
    """The served tenants. A tenant, once opened, is served until the runtime stops: its log outlives its declaration."""

    def __init__(self, backend: Backend, home: Home) -> None:
        self._backend = backend
        self._home = home
        self._open: dict[str, Tenant] = {}

    async def open(self, name: str) -> Tenant | None:
        """Connect, make the streams, start the projector. None when the tenant is open already."""
        if name in self._open:
            return None
        client = await self._backend.connect(name)
        await ensure_streams(client, EVENT_STREAMS)
        log = JetStreamLog(client)
        store = await asyncio.to_thread(Store.open, self._home.read / f"{name}.db", tenant=name)
        projector = Projector(log, store)
        await projector.start()
        tenant = self._open[name] = Tenant(name, client, log, store, projector)
        return tenant

    def get(self, name: str) -> Tenant:
        """A served tenant. Raises NotFound."""
        if name not in self._open:
            raise NotFound(f"there is no tenant {name}", mend="declare it: kind Tenant; agentos get tenant lists them")
        return self._open[name]

    def all(self) -> tuple[Tenant, ...]:
        """The served tenants by name."""
        return tuple(self._open[name] for name in sorted(self._open))

    def log(self, name: str) -> EventLog:
        """The event log of a tenant. Raises NotFound."""
        return self.get(name).log

    async def sessions(self, tenant: str, *, live_only: bool, limit: int) -> list[dict[str, Json]]:
        """See `control.session_verbs.Reader`."""
        store = await self._caught_up(tenant)
        return await asyncio.to_thread(lambda: read.sessions(store, live_only=live_only, limit=limit))

    async def approvals(self, tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        """See `control.session_verbs.Reader`."""
        store = await self._caught_up(tenant)
        return await asyncio.to_thread(lambda: read.approvals(store, state="waiting" if waiting_only else None))

    async def _caught_up(self, tenant: str) -> Store:
        """The read model of `tenant` once it holds all that the log holds now. Raises Unavailable when that takes too long."""
        served = self.get(tenant)
        try:
            await asyncio.wait_for(served.projector.caught_up(), PATIENCE_S)
        except TimeoutError as error:
            raise Unavailable(
                f"the read model of tenant {tenant} is behind its log", mend="ask again; agentos status says how far behind"
            ) from error
        return served.store

    async def close(self) -> None:
        """Stop the projectors and disconnect."""
        for tenant in self._open.values():
            await tenant.projector.stop()
            tenant.store.close()
            await tenant.client.close()
        self._open = {}
