"""Leases: the right to use the values of some secrets for one call, for a bounded time, and no longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError

UNAVAILABLE: Final = "the tool cannot be used now: what it needs to act is not at hand"
"""All that is ever said of a credential that is not to be had."""


class CredentialUnavailable(DriverError):
    """The tool cannot be used now. Always the same words: whether there is such a secret is not for the model to learn."""

    code = "driver.credential"

    def __init__(self, message: str = UNAVAILABLE, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, where=where, mend=mend)


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease as it may be told: `id` is random, `decision` the hash of the event that decided the call."""

    id: str
    secret: str
    decision: str
    expires_ms: int

    def to_dict(self) -> dict[str, Json]:
        """What the log is told."""
        return {"id": self.id, "secret": self.secret, "expires": self.expires_ms}


class Leases(Protocol):
    """The leases of one call, which end with it."""

    @property
    def leases(self) -> Sequence[Lease]:
        """All of them."""

    def value(self, secret: str) -> str:
        """The value, to be handed over now and not kept. Raises CredentialUnavailable once the lease is over."""

    def keep(self, over: Callable[[], None] | None = None) -> Kept:
        """Leases of the same values, under the same ids, for a process that outlives the call: a server that is kept warm.

        They end with `end`, with the session, when a secret is revoked and when their time is over; whichever of the last three
        it is, `over` is called then, once: the process that has the values is to be stopped. Raises CredentialUnavailable when
        one of them is over already.
        """


class Kept(Leases, Protocol):
    """Leases that outlive their call."""

    @property
    def live(self) -> bool:
        """Whether all of them hold still."""

    def end(self) -> None:
        """The process is gone: they are over. Harmless when they are already."""
