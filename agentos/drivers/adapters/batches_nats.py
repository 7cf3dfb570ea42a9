"""The batches that a tenant has under way, in a key-value bucket of its account: one entry a submission.

The bucket is in no backup: a runtime that was restored elsewhere submits again what had no outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client

from agentos.abi.ids import Random
from agentos.drivers.batching import Submission, SubmissionUnreadable
from agentos.eventlog.adapters.bucket import Bucket

log = logging.getLogger(__name__)

BUCKET: Final = "BATCHES"


class NatsBatches:
    """`BatchStore` in the account that `client` is connected to."""

    def __init__(self, client: Client, random: Random, replicas: Callable[[], int] = lambda: 1) -> None:
        """`replicas`: in how many the tenant's log is kept now."""
        self._bucket = Bucket(client, BUCKET, random, replicas=replicas)

    async def put(self, submission: Submission) -> None:
        """See `BatchStore.put`."""
        await self._bucket.put(submission.token, submission.to_bytes())

    async def delete(self, token: str) -> None:
        """See `BatchStore.delete`."""
        await self._bucket.forget(token)

    async def all(self) -> list[Submission]:
        """See `BatchStore.all`. The bucket gets as many replicas as the tenant's log has."""
        await self._bucket.align()
        found: dict[str, Submission] = {}
        async for stored in self._bucket.entries():
            try:
                submission = Submission.from_bytes(stored.data)
            except SubmissionUnreadable as error:
                log.warning("%s: %s", stored.subject, error.message)
            else:
                found[submission.token] = submission
        return list(found.values())
