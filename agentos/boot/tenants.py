"""What the runtime holds per tenant: a connection into its account, its log, its read model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, Unavailable
from agentos.abi.ids import Random
from agentos.audit.retired import named_retired
from agentos.boot.backend import Backend
from agentos.boot.home import Home
from agentos.boot.log_terms import UNDECLARED, LogTerms
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.adapters.snapshot_file import SnapshotFiles
from agentos.eventlog.blob import LogBlobs
from agentos.eventlog.port import EventLog
from agentos.eventlog.sealed import SealedLog
from agentos.projections import read
from agentos.projections.projector import Projector
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore

PATIENCE_S: Final = 20.0
"""Seconds that a question waits for the read model to hold all that the log holds."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One served tenant."""

    name: str
    client: Client
    door: Client
    """Where its principals knock: see `boot.backend`."""
    streams: JetStreamLog
    """The log as it is stored: headers, and payloads sealed."""
    keys: SqliteKeyStore
    """What opens the payloads."""
    log: EventLog
    """The log as it is read and written."""
    store: Store
    """The index: what happened, without a word."""
    projector: Projector
    text: TextStore
    """The words: goals, arguments, results, reasons."""
    wordsmith: Projector
    """The projector of `text`."""
    snapshots: SnapshotFiles
    """Long sessions as they stood, sealed as the log is."""


class Tenants:
    """The served tenants. A tenant, once opened, is served until the runtime stops: its log outlives its declaration."""

    def __init__(self, backend: Backend, home: Home, random: Random) -> None:
        self._backend = backend
        self._home = home
        self._random = random
        self._open: dict[str, Tenant] = {}

    async def open(self, name: str, terms: LogTerms = UNDECLARED) -> Tenant | None:
        """Connect, keep the streams as declared, start the projector. None when the tenant is open already.

        Raises LogUnavailable when the server cannot keep them so.
        """
        if name in self._open:
            return None
        client = await self._backend.connect(name)
        door = await self._backend.connect_door(name)
        streams = JetStreamLog(client, replicas=terms.replicas)
        await streams.declare(terms.replicas)
        # Signed or not: what is said to have been retired is not written to before the notary has looked at it.
        streams.forbid([name async for name in named_retired(streams)])
        keys = await asyncio.to_thread(SqliteKeyStore.open, self._home.payload_keys / f"{name}.db", self._random)
        log = SealedLog(streams, keys, LogBlobs(streams), self._random)
        store = await asyncio.to_thread(Store.open, self._home.read / f"{name}.db", tenant=name)
        # The index is made of headers alone, so nothing is opened for it.
        projector = Projector(streams, store)
        text = await asyncio.to_thread(TextStore.open, self._home.read / f"{name}.text.db", tenant=name)
        wordsmith = Projector(log, text)
        await projector.start()
        await wordsmith.start()
        snapshots = SnapshotFiles(self._home.snapshots / name, name, keys, self._random)
        tenant = self._open[name] = Tenant(name, client, door, streams, keys, log, store, projector, text, wordsmith, snapshots)
        return tenant

    async def declare(self, terms: Mapping[str, LogTerms]) -> None:
        """Keep the streams of the served tenants as declared now. Raises LogUnavailable when the server cannot."""
        for name, tenant in self._open.items():
            await tenant.streams.declare(terms.get(name, UNDECLARED).replicas)

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

    async def sessions(self, tenant: str, *, live_only: bool, limit: int, parent: str | None = None) -> list[dict[str, Json]]:
        """See `control.session_verbs.Reader`."""
        served = await self._caught_up(tenant)
        return await asyncio.to_thread(
            lambda: read.sessions(served.store, served.text, parent=parent, live_only=live_only, limit=limit)
        )

    async def approvals(self, tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        """See `control.session_verbs.Reader`."""
        served, state = await self._caught_up(tenant), "waiting" if waiting_only else None
        return await asyncio.to_thread(lambda: read.approvals(served.store, served.text, state=state))

    async def live_of(self, tenant: str, agent: str) -> list[str]:
        """The live sessions of an agent, oldest first, the newest thousand of them."""
        served = await self._caught_up(tenant)
        rows = await asyncio.to_thread(lambda: read.sessions(served.store, agent=agent, live_only=True, limit=1000))
        return [row["id"] for row in reversed(rows)]

    async def _caught_up(self, tenant: str) -> Tenant:
        """The tenant once its read models hold all that the log holds now. Raises Unavailable when that takes too long."""
        served = self.get(tenant)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await served.projector.caught_up()
                await served.wordsmith.caught_up()
        except TimeoutError as error:
            raise Unavailable(
                f"the read model of tenant {tenant} is behind its log", mend="ask again; agentos status says how far behind"
            ) from error
        return served

    async def close(self) -> None:
        """Stop the projectors and disconnect."""
        for tenant in self._open.values():
            for projector in (tenant.projector, tenant.wordsmith):
                await projector.stop()
                projector.store.close()
            await tenant.door.close()
            await tenant.client.close()
            tenant.keys.close()
        self._open = {}
