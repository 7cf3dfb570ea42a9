"""A batch from its submission to its results: found again when nobody knows whether it was made, looked at until it has ended.

Whether a batch was made, when nobody heard so (a crash, a broken connection), is told by the provider's list: batches made since,
with as many requests, are looked at once they have ended, for the token is in the ids of their results. Only when there is none,
some time after the submission, was it not made.

What may pass is waited for with growing pauses, a key that is refused among it: the batch goes on meanwhile, and is paid for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Final

from agentos.abi.errors import DriverError
from agentos.drivers.batching import BatchCall, BatchEndpoint, BatchGone, Submission, Timer, pauses
from agentos.drivers.port import ModelReply, ModelUnavailable, ReplyBroken

log = logging.getLogger(__name__)

SKEW_MS: Final = 600_000
"""By how much the provider's clock may be behind ours."""

GIVEN_UP_MS: Final = 26 * 3_600_000
"""How long a batch is waited for: two hours longer than a provider takes at most."""

KEPT_MS: Final = 28 * 86_400_000
"""How long the results of one that has ended are asked for: a day less than they are kept."""


class GivenUp(ModelUnavailable):
    """A batch was waited for long enough. What it may have used by then counts as used."""

    code = "driver.batch-late"
    answered = True


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a batch is looked at: after `first_s`, then with pauses that grow to `most_s`.

    `settled_ms`: how long after a submission its batch is in the provider's list, if it was made at all.
    """

    first_s: float = 2.0
    most_s: float = 300.0
    settled_ms: int = 60_000


@dataclass(slots=True)
class Entry:
    """A call that waits."""

    call: BatchCall
    ready: asyncio.Future[ModelReply]

    def fail(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)


@dataclass(slots=True, eq=False)
class Flight:
    """A submission. `open`: identities that are not settled; `given`: those whose result a call was given."""

    submission: Submission
    open: set[str]
    waiting: dict[str, Entry] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    ended: bool = False
    task: asyncio.Task[None] | None = None

    def give(self, identity: str, outcome: ModelReply | DriverError) -> None:
        """Give a call its result, if it waits for one."""
        entry = self.waiting.pop(identity, None)
        if entry is None or entry.ready.done():
            return
        self.given.add(identity)
        if isinstance(outcome, DriverError):
            entry.fail(outcome)
        else:
            entry.ready.set_result(outcome)


class Lookout:
    """Looks after submissions at the provider."""

    def __init__(self, endpoint: Callable[[str], Awaitable[BatchEndpoint]], timer: Timer, patience: Patience) -> None:
        self.endpoint = endpoint
        """The batch API of a provider by name."""
        self._timer = timer
        self._patience = patience

    async def find(self, submission: Submission, known: Collection[str | None]) -> str | None:
        """The batch of a submission, found in the provider's list; None when it was surely not made. Raises GivenUp.

        `known`: batches that are somebody else's.
        """
        others = set(known)
        model, count = submission.model, len(submission.members)
        for pause in self._pauses():
            unclear = False
            try:
                endpoint = await self.endpoint(model.provider)
                for seen in await endpoint.recent(model, submission.at_ms - SKEW_MS):
                    if seen.count != count or seen.batch in others:
                        continue
                    if not seen.ended:
                        unclear = True
                    elif await _carries(endpoint, submission, seen.batch):
                        return seen.batch
                    else:
                        others.add(seen.batch)
            except DriverError as error:
                unclear = True
                log.warning("the batches of model %s cannot be listed: %s", model.name, error.message)
            if not unclear and self._timer.now_ms() - submission.at_ms >= self._patience.settled_ms:
                return None
            self._give_up(submission)
            await self._timer.sleep(pause)
        raise AssertionError("pauses never end")

    async def until_ended(self, flight: Flight) -> None:
        """Look at a batch until it has ended. Raises BatchGone, GivenUp."""
        submission = flight.submission
        for pause in self._pauses():
            try:
                endpoint = await self.endpoint(submission.model.provider)
                flight.ended = flight.ended or await endpoint.ended(submission.model, submission.batch or "")
            except BatchGone:
                raise
            except DriverError as error:
                log.warning("batch %s cannot be looked at: %s", submission.batch, error.message)
            if flight.ended:
                return
            self._give_up(submission)
            await self._timer.sleep(pause)

    async def deliver(self, flight: Flight) -> None:
        """Give those that wait now their results. Raises BatchGone, GivenUp."""
        submission, asked = flight.submission, set(flight.waiting)
        for pause in self._pauses():
            try:
                endpoint = await self.endpoint(submission.model.provider)
                async with aclosing(endpoint.results(submission.model, submission.batch or "")) as results:
                    async for request_id, outcome in results:
                        identity = submission.identity(request_id)
                        if identity in asked:
                            flight.give(identity, outcome)
                break
            except BatchGone:
                raise
            except DriverError as error:
                log.warning("the results of batch %s cannot be read: %s", submission.batch, error.message)
            self._give_up(submission, KEPT_MS)
            await self._timer.sleep(pause)
        for identity in asked:
            missing = ReplyBroken("the batch has no result of the call", where=f"model {submission.model.name}")
            flight.give(identity, missing)

    def _give_up(self, submission: Submission, after_ms: int = GIVEN_UP_MS) -> None:
        if self._timer.now_ms() - submission.at_ms > after_ms:
            raise GivenUp(
                "the batch did not end in its time",
                where=f"model {submission.model.name}",
                mend=f"ask the provider what became of batch {submission.batch}",
            )

    def _pauses(self) -> chain[float]:
        found = pauses(self._patience.first_s, self._patience.most_s)
        return chain(found, repeat(found[-1]))


async def _carries(endpoint: BatchEndpoint, submission: Submission, batch: str) -> bool:
    """Whether a batch that has ended is that of `submission`: then its first result is of it, and so are all."""
    try:
        async with aclosing(endpoint.results(submission.model, batch)) as results:
            async for request_id, _ in results:
                return submission.identity(request_id) is not None
    except BatchGone:
        log.info("batch %s keeps no results any more", batch)
    return False
