"""What joins the runtime to one MCP server, whether it is a process in a sandbox or listens somewhere.

A link is opened for the first call, and outlives it. `Current` says for which call the server is at work at this moment: a
request that leaves is asked about on behalf of that call, and when there is none nothing leaves and no credential is to be had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from mcp.client._transport import TransportStreams

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError
from agentos.credentials.lease import CredentialUnavailable, Kept, Lease, Leases
from agentos.egress.asking import Gatekeeper

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Longest message of a server, in bytes; a server that says more is stopped."""

GRACE_S: Final = 1.0
"""How long a server may take to leave once it was asked to, in seconds."""

Streams = TransportStreams
"""What a client reads its messages from, and what it writes to."""


@dataclass(eq=False, slots=True)
class Current:
    """The call that a server is at work for: who is asked about its requests, and its credentials. Both None: no call is made."""

    gatekeeper: Gatekeeper | None = None
    held: Leases | None = None
    refused: AgentOSError | None = None
    """Why the call, or what comes before it, did not leave."""
    sent: bool = False
    """Whether the call may have left."""

    cut: Callable[[], Awaitable[None]] | None = None
    """Cuts what was let through for a call that is over; None: there is nothing to cut."""

    def end(self) -> None:
        """The call is over: nothing leaves any more in its name."""
        self.gatekeeper = self.held = None

    def now(self) -> Gatekeeper | None:
        """Who decides about a request of this moment; None: nobody, and it is denied."""
        return self.gatekeeper

    @property
    def leases(self) -> Sequence[Lease]:
        """See `Leases.leases`."""
        return () if self.held is None else self.held.leases

    def value(self, secret: str) -> str:
        """See `Leases.value`."""
        return self._now().value(secret)

    def keep(self, over: Callable[[], None] | None = None) -> Kept:
        """See `Leases.keep`."""
        return self._now().keep(over)

    def _now(self) -> Leases:
        if self.held is None:
            raise CredentialUnavailable
        return self.held


class Link(Protocol):
    """A server that was reached."""

    @property
    def ended(self) -> bool:
        """Whether nothing will be answered any more."""

    @property
    def fault(self) -> str | None:
        """What the server did wrong, if it was given up for that."""

    @property
    def report(self) -> Mapping[str, Json]:
        """What the log is told of where it works; empty for a server that is not ours."""

    def last_words(self) -> str:
        """The last that it said beside the protocol, for a message; "" if it said nothing."""

    def begin(self) -> None:
        """A call begins: what it may say is counted anew."""

    def streams(self) -> AbstractAsyncContextManager[Streams]:
        """The transport for `mcp.Client`."""

    @property
    def polite(self) -> bool:
        """Whether who gives a call up waits until the server was told of it, for GRACE_S at most."""

    async def farewell(self) -> None:
        """Calls were given up: wait until the server was told, for GRACE_S at most."""

    def kill(self) -> None:
        """Stop it now."""


class Connect(Protocol):
    """How the server is reached, until the block is left."""

    def __call__(self, current: Current) -> AbstractAsyncContextManager[Link]:
        """Reach it on behalf of the calls that `current` names from now on. Raises AgentOSError, OSError or ValueError."""
