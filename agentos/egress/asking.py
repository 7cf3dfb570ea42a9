"""How a request that leaves is asked about: the port between whoever makes it and the kernel, which decides by policy.

Every request is one syscall of its own, `net-request`, beside the call that it is made for. It is asked about before a name is
looked up, and again for each redirect; whoever asked tells how it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError


class NetDenied(DriverError):
    """The request may not be made. The message says what policy says; nothing has left."""

    code = "driver.net"


class Scheme(StrEnum):
    """How it is made. `tunnel`: TLS that nobody here can look into, so that method and path are not known."""

    HTTP = "http"
    HTTPS = "https"
    TUNNEL = "tunnel"
    UNFIT = "unfit"
    """What came is no proper request. It is asked about so that the attempt stands in the log, and leaves in no case."""


@dataclass(frozen=True, slots=True)
class NetRequest:
    """A request as policy sees it: never its query, headers or body."""

    scheme: Scheme
    host: str
    """In lower case, ASCII (IDNA), without a final dot; an address stands as `ipaddress` writes it."""
    port: int
    method: str | None = None
    path: str | None = None
    """Normalised: no `.` and `..` parts, no empty parts (but a final slash stays), percent-encoding of unreserved ones undone."""

    def args(self) -> dict[str, Json]:
        """The arguments of the syscall, without those that are not known."""
        known: dict[str, Json] = {"scheme": str(self.scheme), "host": self.host, "port": self.port}
        if self.method is not None:
            known["method"] = self.method
        if self.path is not None:
            known["path"] = self.path
        return known


NO_REQUEST: Final = NetRequest(Scheme.UNFIT, "unfit.invalid", 1)
"""How a request is asked about that is none: none of its words is told, since they may be anything."""


class Permit(Protocol):
    """A request that was allowed. Exactly one of the two is to be told, once."""

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        """It was answered: the status (None: a tunnel), bytes each way, the address it went to."""

    async def failed(self, message: str) -> None:
        """It came to nothing, or nobody knows."""


class Gatekeeper(Protocol):
    """Who decides about the requests of one call."""

    async def ask(self, request: NetRequest) -> Permit:
        """Decide, and record that. Raises NetDenied; LogUnavailable and SequenceConflict when it cannot be recorded."""
