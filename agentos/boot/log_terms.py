"""What a Tenant declares about its log: in how many replicas it is kept, and whether the server must sync before it acknowledges.

What the server cannot hold is refused when it is applied, and again when a runtime starts on another server than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentos.abi.errors import UsageError
from agentos.abi.resource import Resource


@dataclass(frozen=True, slots=True)
class LogTerms:
    """`spec.log` of a Tenant."""

    replicas: int = 1
    """Servers that keep each event."""
    require_sync: bool = False
    """Whether an event counts as stored only once it is on disk."""


UNDECLARED: Final = LogTerms()


class Server(Protocol):
    """What is asked of the server: see `boot.backend.Backend`."""

    async def facts(self) -> dict[str, str | bool]:
        """What the server says of itself."""

    async def most_replicas(self) -> int:
        """How many replicas the server can keep at most."""


def log_terms(resources: Sequence[Resource], tenant: str) -> LogTerms:
    """What is declared for the log of `tenant`."""
    for item in resources:
        if item.key.kind == "Tenant" and item.key.name == tenant:
            declared = item.spec.get("log", {})
            return LogTerms(declared.get("replicas", 1), declared.get("requireSync", False))
    return UNDECLARED


async def require_terms(server: Server, resources: Sequence[Resource]) -> None:
    """Whether the server can hold what the tenants declare. Raises UsageError, Unavailable."""
    declared = {item.key.name: log_terms([item], item.key.name) for item in resources if item.key.kind == "Tenant"}
    for name, terms in sorted(declared.items()):
        if terms.replicas > 1 and (most := await server.most_replicas()) < terms.replicas:
            raise UsageError(
                f"the server keeps {most} replica of an event, tenant {name} declares {terms.replicas}",
                where=f"Tenant/{name} spec.log.replicas",
                mend="use a cluster of NATS servers (agentos up --nats), or declare replicas: 1",
            )
        if terms.require_sync and (facts := await server.facts())["sync_always"] is not True:
            raise UsageError(
                f"tenant {name} requires that the server syncs before it acknowledges; this one proves nothing: {facts['sync']}",
                where=f"Tenant/{name} spec.log.requireSync",
                mend="use the embedded server, or a server of your own with `sync_interval: always` and requireSync: false",
            )
