"""What a way out is opened with: credentials that go into headers, and how much may pass. Values; the adapters do the work.

Credential: HeaderCredential("Authorization", lambda: f"Bearer {leases.value('github')}", hosts=("api.github.com",))
Bounds:     Bounds(seconds=30, body_bytes=8 << 20)
Unasked():  a Gatekeeper for requests of the runtime itself, such as those to a vault; never for one of a tool
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentos.egress.asking import NetRequest, Permit
from agentos.egress.names import covers


@dataclass(frozen=True, slots=True)
class HeaderCredential:
    """A header that is put into requests to `hosts` at the last moment, in place of one of the same name that is there."""

    header: str
    value: Callable[[], str] = field(repr=False)
    """Gives the whole value of the header, just before it is sent. May raise a DriverError: nothing is sent then."""
    hosts: tuple[str, ...] = ()
    """Hosts, normalised, or `*.` and a name: any host below it. None of them: it is never sent."""

    def is_for(self, host: str) -> bool:
        """Whether it belongs into a request to `host`."""
        return any(covers(pattern, host) for pattern in self.hosts)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much passes, and how long it may take."""

    connect_s: float = 10.0
    """Seconds for one address: connection and TLS."""
    idle_s: float = 60.0
    """Seconds without a byte, while one is waited for."""
    seconds: float | None = 300.0
    """Seconds for a request as a whole, until its response has been read. None: no such bound, for streams of events."""
    header_bytes: int = 65_536
    """Most bytes of the head of a response."""
    body_bytes: int = 64 << 20
    """Most bytes of the body of a response, as it is sent."""
    request_bytes: int = 64 << 20
    """Most bytes of the body of a request."""


@dataclass(frozen=True, slots=True)
class ProxyBounds:
    """What the clients of one proxy may take up. `each` bounds every request that it makes for them."""

    connections: int = 64
    """Connections at one time; more are answered 503."""
    head_bytes: int = 65_536
    """Most bytes of the head of a request."""
    head_s: float = 15.0
    """Seconds from the first byte of a head to its last, and for a handshake."""
    idle_s: float = 120.0
    """Seconds without a byte, between requests and in a body."""
    tunnel_idle_s: float = 600.0
    """Seconds without a byte either way in a tunnel."""
    each: Bounds = field(default_factory=lambda: Bounds(seconds=3600.0, idle_s=300.0, body_bytes=4 << 30, request_bytes=4 << 30))


class Unasked:
    """A Gatekeeper that lets everything pass and records nothing: for requests of the runtime itself, never for one of a tool."""

    async def ask(self, request: NetRequest) -> Permit:
        return _Unrecorded()


class _Unrecorded:
    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        """Nobody wants to know."""

    async def failed(self, message: str) -> None:
        """Nobody wants to know."""


def credentials_for(credentials: Sequence[HeaderCredential], host: str) -> tuple[HeaderCredential, ...]:
    """Those that belong into a request to `host`."""
    return tuple(one for one in credentials if one.is_for(host))
