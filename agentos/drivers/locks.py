"""Locks with leases and fencing tokens: the values, the port to the store that keeps them, the port that a driver calls.

    grant = await locks.lock(place, "ledger", wait_ms=30_000, lease_ms=300_000)
    await locks.unlock(place, "ledger", grant.token)

A lock is held by a session, until it lets go, ends, or its lease is over. After the lease somebody else may take it, and a former
holder that was only slow does not know. So each time a lock changes hands its holder gets a token that is higher than every
earlier one. A resource that must not be harmed has to be told the token with each change, and refuse one that is lower than the
highest it has seen: no lock can do that for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from agentos.abi.canonical import Json, NotCanonical, canonical, parse_strict
from agentos.abi.errors import DriverError
from agentos.drivers.port import CallContext

LONGEST_NAME: Final = 128
"""Most characters of a resource's name."""

MAX_WAIT_S: Final = 3600
MAX_LEASE_S: Final = 86_400
LEASE_S: Final = 300
"""Seconds that a lock is held for where the call does not say."""

VERSION: Final = 1
"""Of the stored records."""

MAX_TOKEN: Final = 2**53 - 1
"""What JSON numbers hold exactly."""


class LockDeadlock(DriverError):
    """Waiting would never end: those in the cycle wait for each other. The message names them and what they hold."""

    code = "lock.deadlock"


class LockHeld(DriverError):
    """Somebody else holds the lock, and did so for as long as the caller would wait. Asking again later can help."""

    code = "lock.held"
    retryable = True


class LockLost(DriverError):
    """The lock is not the caller's any more, or never was: its token counts for nothing."""

    code = "lock.lost"


class LockUnreadable(DriverError):
    """What is stored of a lock is no record of one: nobody gets it until a person breaks it. `revision` is where it stands."""

    code = "lock.unreadable"

    def __init__(self, message: str, *, revision: int = 0, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, where=where, mend=mend or "an operator can break the lock: agentos locks break")
        self.revision = revision


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock: since when, and until when unless it is renewed (ms since the epoch).

    `token` is the revision under which this holder got it; None: the revision of the record that says so.
    """

    session: str
    call: str
    agent: str
    since_ms: int
    expires_ms: int
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Freed:
    """Who let go last, and the token that ended with it: the same call, made again after a crash, is answered as before."""

    session: str
    token: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Lock:
    """What is stored of one resource. `revision` counts the changes of all locks of a tenant; 0: nothing is stored."""

    resource: str
    revision: int = 0
    holder: Holder | None = None
    freed: Freed | None = None

    @property
    def token(self) -> int:
        """The holder's token. Only of a lock that is held."""
        return self.revision if self.holder is None or self.holder.token is None else self.holder.token

    def free(self, now_ms: int) -> bool:
        """Whether somebody else may take it."""
        return self.holder is None or self.holder.expires_ms <= now_ms

    def to_bytes(self) -> bytes:
        """What the store keeps, without the revision, which is the store's."""
        body: dict[str, Json] = {"v": VERSION, "resource": self.resource}
        if self.holder is not None:
            one = self.holder
            body["holder"] = {
                "session": one.session,
                "call": one.call,
                "agent": one.agent,
                "since": one.since_ms,
                "expires": one.expires_ms,
                **({} if one.token is None else {"token": one.token}),
            }
        if self.freed is not None:
            body["freed"] = {"session": self.freed.session, "token": self.freed.token, "at": self.freed.at_ms}
        return canonical(body)

    @classmethod
    def from_bytes(cls, stored: bytes, revision: int) -> Lock:
        """Raises LockUnreadable."""
        try:
            body = parse_strict(stored)
            if _number(body, "v") != VERSION:
                raise ValueError(f"version {body['v']}")  # noqa: TRY301 - one handler for all that can be wrong
            held, freed = body.get("holder"), body.get("freed")
            return cls(
                _text(body, "resource"),
                revision,
                None if held is None else _holder(held),
                None if freed is None else Freed(_text(freed, "session"), _number(freed, "token"), _number(freed, "at")),
            )
        except (NotCanonical, ValueError, LookupError, TypeError) as error:
            raise LockUnreadable(f"the stored record of a lock cannot be read: {error}", revision=revision) from error


@dataclass(frozen=True, slots=True)
class Grant:
    """A lock that the caller has, until `expires_ms` (ms since the epoch)."""

    resource: str
    token: int
    expires_ms: int


class Moved(Exception):
    """The record is not at the expected revision any more: somebody else was first."""


class LockStore(Protocol):
    """The locks of one tenant, each with a revision that only grows, over all of them. Every method raises LogUnavailable."""

    async def read(self, resource: str) -> Lock:
        """The newest record. Raises LockUnreadable."""

    async def write(self, lock: Lock) -> Lock:
        """Store `lock` behind exactly `lock.revision`, durably; give it with its new revision. Raises Moved."""

    async def tidy(self) -> int:
        """Forget what has not been held for long; return how many."""

    async def all(self) -> list[Lock]:
        """Every record that can be read, by resource."""


class Locks(Protocol):
    """What the primitives `lock` and `unlock` call."""

    async def lock(self, place: CallContext, resource: str, *, wait_ms: int, lease_ms: int) -> Grant:
        """Take a lock, or wait for it. Raises LockHeld, LockDeadlock, LogUnavailable (the same call may be made again)."""

    async def unlock(self, place: CallContext, resource: str, token: int) -> None:
        """Let go of a lock. Raises LockLost, LogUnavailable."""


def key_of(resource: str) -> str:
    """The key under which a resource's record is stored: a digest, for a name may hold what a key may not."""
    return hashlib.sha256(resource.encode("utf-8")).hexdigest()


def _holder(body: Mapping[str, Json]) -> Holder:
    return Holder(
        _text(body, "session"),
        _text(body, "call"),
        _text(body, "agent"),
        _number(body, "since"),
        _number(body, "expires"),
        None if body.get("token") is None else _number(body, "token"),
    )


def _text(body: Mapping[str, Json], key: str) -> str:
    value = body[key]
    if not isinstance(value, str):
        raise TypeError(f"`{key}` is text")
    return value


def _number(body: Mapping[str, Json], key: str) -> int:
    value = body[key]
    if type(value) is not int:
        raise TypeError(f"`{key}` is a whole number")
    return value
