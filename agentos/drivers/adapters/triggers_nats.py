"""How far the triggers of a tenant are, in a key-value bucket of its account: one entry a record or mark, by compare and set.

The bucket is in no backup: after a restore, what the triggers have started is read from the log, and nothing that fell into the
time between is made up for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats.aio.client import Client

from agentos.abi.errors import SequenceConflict
from agentos.abi.ids import Random
from agentos.eventlog.adapters.bucket import Bucket

BUCKET: Final = "TRIGGERS"


class NatsProgress:
    """`supervisor.progress.ProgressStore` in the account that `client` leads into. `moved` makes the error of a lost race."""

    def __init__(
        self, client: Client, random: Random, moved: Callable[[], Exception], replicas: Callable[[], int] = lambda: 1
    ) -> None:
        """`replicas`: in how many the tenant's log is kept now."""
        self._bucket = Bucket(client, BUCKET, random, replicas=replicas)
        self._moved = moved

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """See `ProgressStore.read`."""
        return await self._bucket.get(key)

    async def write(self, key: str, data: bytes, *, expected: int | None) -> int:
        """See `ProgressStore.write`."""
        try:
            return await self._bucket.put(key, data, expected=expected)
        except SequenceConflict as error:
            raise self._moved() from error

    async def forget(self, key: str) -> None:
        """See `ProgressStore.forget`."""
        await self._bucket.forget(key)

    async def all(self) -> list[tuple[str, bytes]]:
        """See `ProgressStore.all`. The bucket gets as many replicas as the tenant's log has."""
        await self._bucket.align()
        prefix = f"$KV.{BUCKET}."
        return [(stored.subject.removeprefix(prefix), stored.data) async for stored in self._bucket.entries()]
