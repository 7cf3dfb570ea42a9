"""Batches of model calls: the values, and the ports to the provider's batch API and to what was submitted.

A provider with a batch API answers many requests at once, within hours and for less. What was submitted is kept, so that a call
that is made again after a crash finds its batch and waits for it: a `Submission` is stored before its batch is made, and once
more with the batch's id. One without an id may have been made or not; each request carries the submission's token in its id, by
which its batch is known again among the provider's own list.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentos.abi.canonical import Json, NotCanonical, canonical, parse_strict
from agentos.abi.errors import DriverError
from agentos.abi.ids import Clock
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec

VERSION: Final = 1
"""Of the stored records."""

TOKEN_BYTES: Final = 8
"""Random bytes of a submission's token."""

IDENTITY: Final = 32
"""Hex digits of a call's identity: with the token and a dash it fits the 64 characters of a request's id."""

MOST_BYTES: Final = 64 * 1024 * 1024
"""A batch is closed once its requests have so many bytes: the API takes 256 MB, and they are held in memory until then."""


class BatchUnsure(DriverError):
    """Nobody can say whether the batch was made: the connection broke, or the endpoint failed in the midst of it."""

    code = "driver.batch-unsure"
    retryable = True


class BatchGone(DriverError):
    """The endpoint knows no such batch, or keeps its results no longer."""

    code = "driver.batch-gone"


class SubmissionUnreadable(DriverError):
    """What is stored is no record of a submission: nobody waits for its batch."""

    code = "driver.batch-unreadable"


class Timer(Clock, Protocol):
    """A clock that can also wait."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


@dataclass(frozen=True, slots=True)
class BatchCall:
    """One model call that goes into a batch.

    `identity` is 32 hex digits: the same for the same call of a session, also when it is made again after a crash, and of no
    other. `still` is awaited just before the batch goes out, and raises when the call may not go out any more.
    """

    tenant: str
    session: str
    identity: str
    model: ModelSpec
    request: ModelRequest
    window_ms: int
    most: int
    still: Callable[[], Awaitable[None]] = field(compare=False)

    @property
    def size(self) -> int:
        """Bytes of the request, about."""
        request = self.request
        return len(canonical([request.system, list(request.messages), list(request.tools), request.beginning]))


@dataclass(frozen=True, slots=True)
class Submission:
    """What was or is about to be submitted. `members`: identity and session of each call. `batch`: the provider's id of it."""

    token: str
    model: ModelSpec
    at_ms: int
    members: tuple[tuple[str, str], ...]
    batch: str | None = None

    def request_id(self, identity: str) -> str:
        """The id that a call's request has in the batch."""
        return f"{identity}-{self.token}"

    def identity(self, request_id: str) -> str | None:
        """Which call a request is of; None for one that is not of this submission."""
        identity, _, token = request_id.partition("-")
        return identity if token == self.token else None

    def to_bytes(self) -> bytes:
        """What the store keeps: no word of any request."""
        return canonical(
            {
                "v": VERSION,
                "token": self.token,
                "model": {"name": self.model.name, "provider": self.model.provider, "settings": dict(self.model.settings)},
                "at": self.at_ms,
                "members": [list(member) for member in self.members],
                **({} if self.batch is None else {"batch": self.batch}),
            }
        )

    @classmethod
    def from_bytes(cls, stored: bytes) -> Submission:
        """Raises SubmissionUnreadable."""
        try:
            body = parse_strict(stored)
            if body["v"] != VERSION:
                raise ValueError(f"version {body['v']}")  # noqa: TRY301 - one handler for all that can be wrong
            model = body["model"]
            settings = model["settings"]
            return cls(
                _text(body["token"]),
                ModelSpec(_text(model["name"]), _text(model["provider"]), dict(settings.items())),
                _number(body["at"]),
                tuple((_text(identity), _text(session)) for identity, session in body["members"]),
                None if body.get("batch") is None else _text(body["batch"]),
            )
        except (NotCanonical, ValueError, LookupError, TypeError, AttributeError) as error:
            raise SubmissionUnreadable(f"the stored record of a batch cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch in the provider's list: when it was made (ms since the epoch), how many requests it has, whether it has ended."""

    batch: str
    made_ms: int
    count: int
    ended: bool


class BatchEndpoint(Protocol):
    """The batch API of a provider. Every method raises ModelUnavailable when asking again can help, DriverError when not."""

    async def create(self, model: ModelSpec, requests: Sequence[tuple[str, ModelRequest]]) -> str:
        """Make a batch of requests by id; return its id. Raises BatchUnsure when nobody can say whether it was made."""

    async def ended(self, model: ModelSpec, batch: str) -> bool:
        """Whether every request of it has come to an end. Raises BatchGone."""

    def results(self, model: ModelSpec, batch: str) -> AsyncGenerator[tuple[str, ModelReply | DriverError]]:
        """What came of each request, by its id, in any order, once it has ended. Raises BatchGone."""

    async def recent(self, model: ModelSpec, since_ms: int) -> list[Seen]:
        """The batches that were made since then, the newest first."""

    async def cancel(self, model: ModelSpec, batch: str) -> None:
        """Have what has not begun of it not done any more."""

    async def close(self) -> None:
        """Close connections."""


class BatchStore(Protocol):
    """The submissions of one tenant. Every method raises LogUnavailable."""

    async def put(self, submission: Submission) -> None:
        """Store it durably, in place of what was stored under its token."""

    async def delete(self, token: str) -> None:
        """Forget it; nothing happens when it is not there."""

    async def all(self) -> list[Submission]:
        """Every record that can be read."""


class Batching(Protocol):
    """What the kernel asks models through that declare `batch`."""

    async def ask(self, call: BatchCall) -> ModelReply:
        """Collect the call with others of its model, submit them, wait for its result; or wait for the batch that it is in.

        Cancelling drops it if it was not submitted yet; else its batch goes on, and the same call made again waits for it.
        Raises DriverError (ModelUnavailable when asking again can help), LogUnavailable when nothing could be kept of it, and
        what `call.still` raises.
        """

    def settled(self, tenant: str, session: str) -> None:
        """What was given to a call of the session is recorded: nobody comes for it again."""


class Gathering:
    """The calls of one model that are collected, by identity. Pure.

    >>> Gathering(most=2).full
    False
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls: dict[str, BatchCall] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0

    @property
    def full(self) -> bool:
        """Whether it is to be submitted at once."""
        return len(self.calls) >= self.most or self._size >= MOST_BYTES

    def add(self, call: BatchCall) -> None:
        """Collect a call; one that is there already takes its own place."""
        self.drop(call.identity)
        self.calls[call.identity] = call
        size = self._sizes[call.identity] = call.size
        self._size += size

    def drop(self, identity: str) -> None:
        """Its call is not to be made any more."""
        self.calls.pop(identity, None)
        self._size -= self._sizes.pop(identity, 0)


def pauses(first_s: float, most_s: float) -> Sequence[float]:
    """Pauses between two looks, each half as long again as the one before, up to `most_s`, which goes on for ever."""
    found = [first_s]
    while found[-1] < most_s:
        found.append(min(found[-1] * 1.5, most_s))
    return found


def members_of(calls: Mapping[str, BatchCall]) -> tuple[tuple[str, str], ...]:
    """What a submission says of its calls."""
    return tuple((identity, call.session) for identity, call in calls.items())


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Json) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value
