"""What the runtime holds per tenant: a connection into its account, its log, its read model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from nats.aio.client import Client

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound
from agentos.boot.backend import Backend
from agentos.boot.home import Home
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import EVENT_STREAMS
from agentos.projections import read
from agentos.projections.projector import Projector
from agentos.projections.store import Store


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
        served = self.get(tenant)
        await served.projector.caught_up()
        states = ("running", "waiting") if live_only else (None,)
        rows = [row for state in states for row in await asyncio.to_thread(_sessions, served.store, state, limit)]
        return sorted(rows, key=lambda row: (row["created_ms"], row["id"]), reverse=True)[:limit]

    async def approvals(self, tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        """See `control.session_verbs.Reader`."""
        served = self.get(tenant)
        await served.projector.caught_up()
        return await asyncio.to_thread(_approvals, served.store, "waiting" if waiting_only else None)

    async def close(self) -> None:
        """Stop the projectors and disconnect."""
        for tenant in self._open.values():
            await tenant.projector.stop()
            tenant.store.close()
            await tenant.client.close()
        self._open = {}


def _sessions(store: Store, state: str | None, limit: int) -> list[dict[str, Json]]:
    return read.sessions(store, state=state, limit=limit)


def _approvals(store: Store, state: str | None) -> list[dict[str, Json]]:
    return read.approvals(store, state=state)
