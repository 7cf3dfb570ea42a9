"""The doors by which the outside starts runs: deliveries of webhooks, events of publishers, files of shared spaces."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from agentos.abi.errors import NotFound, UsageError
from agentos.abi.ids import Random
from agentos.boot.arrivals import Arrivals
from agentos.boot.backend import Backend
from agentos.boot.inbound import Inbound
from agentos.boot.tenants import Tenant, Tenants
from agentos.boot.walls import PLAIN
from agentos.control.rate import BURST_S, Allowance, Rate
from agentos.drivers.adapters.space_arrivals import SqliteArrivals
from agentos.drivers.adapters.space_labels import SqliteSpaceLabels
from agentos.drivers.spaces import Spaces
from agentos.eventlog.adapters.events_in import MAX_EVENT, MAX_STREAM, EventsIn
from agentos.kernel.port import Timer
from agentos.registry.principal import PUBLISHER, Principals
from agentos.supervisor.triggers import Triggers

log = logging.getLogger(__name__)

EVENT_UNIT: Final = 64 * 1024
"""Bytes of an event that count as one more event against its publisher's rate."""

INBOUND_PART: Final = 4
"""Events that wait may fill one of so many parts of a tenant's log."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where webhooks are taken: a host and a port (0: any free one)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """`127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`. Raises UsageError."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"{text!r} is no place to listen", mend="write HOST:PORT, for example 127.0.0.1:8080")
        return cls(host, int(port))

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Doors:
    """Opened once the runtime can run sessions, closed before it stops."""

    def __init__(
        self,
        triggers: Triggers,
        tenants: Tenants,
        backend: Backend,
        spaces: Spaces,
        records: SqliteSpaceLabels,
        timer: Timer,
        random: Random,
    ) -> None:
        self._triggers = triggers
        self._tenants = tenants
        self._backend = backend
        self._arrivals = Arrivals(triggers, spaces, SqliteArrivals(records), timer)
        self._timer = timer
        self._random = random
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.url = ""
        """Where webhooks are taken; empty where they are not."""

    async def open(self, stack: AsyncExitStack, principals: Principals, listen: Listen | None) -> None:
        """Open all of them; what closes them goes onto `stack`. Raises AgentOSError where webhooks cannot listen."""
        stack.push_async_callback(self._close)
        self._begin("files", self._arrivals.run())

        def follow() -> None:
            for tenant in self._tenants.all():
                self._hear(tenant, principals)

        follow()
        self._triggers.on_change(follow)
        if listen is None:
            return
        # Only who takes webhooks pays for the server.
        from agentos.boot.webhooks import Webhooks
        from agentos.control.adapters.webhook_server import WebhookServer

        webhooks = Webhooks(self._triggers, os.environ, self._timer, self._random)
        server = WebhookServer(listen.host, listen.port, webhooks.receive)
        await server.start()
        stack.push_async_callback(server.stop)
        self.url = server.url
        if not listen.local:
            log.warning("webhooks are taken from other machines, over plain HTTP: put a proxy that ends TLS before %s", self.url)

    @property
    def watching(self) -> int:
        """How many shared spaces are watched."""
        return self._arrivals.watching

    def _hear(self, tenant: Tenant, principals: Principals) -> None:
        """Hear the publishers of a tenant, if nobody does yet."""
        name = f"events {tenant.name}"
        if name in self._tasks:
            return

        async def allowed(publisher: str) -> bool:
            try:
                found = await principals.get(publisher)
            except NotFound:
                return False
            return found.valid and found.tenant == tenant.name and PUBLISHER in found.roles

        rate = Rate(_allowance(PLAIN.events_per_second))

        def wait(publisher: str, size: int) -> float:
            given, now = _allowance(self._backend.walls(tenant.name).events_per_second), self._timer.monotonic_us()
            return max(rate.take(publisher, now, given) for _ in range(1 + min(size, MAX_EVENT) // EVENT_UNIT))

        def room() -> int:
            most = self._backend.log_bytes(tenant.name)
            return MAX_STREAM if most is None else min(MAX_STREAM, most // INBOUND_PART)

        events = EventsIn(
            tenant.client,
            allowed=allowed,
            replicas=lambda: tenant.streams.replicas,
            door=tenant.door,
            wait=wait,
            room=room,
        )
        self._begin(name, Inbound(tenant.name, events, self._triggers, self._timer).run())

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = asyncio.create_task(work, name=name)
        task.add_done_callback(_look)

    async def _close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())


def _allowance(events_per_second: int) -> Allowance:
    # The largest event must be able to pass at all.
    return Allowance(events_per_second, events_per_second * BURST_S + 1 + MAX_EVENT // EVENT_UNIT)


def _look(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a door is shut until the runtime is started again", exc_info=task.exception())
