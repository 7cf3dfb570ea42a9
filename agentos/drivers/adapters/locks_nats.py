"""The locks of a tenant in a key-value bucket of its account: one entry a resource, changed by compare and set.

The revision of an entry only grows, over all resources: it is the fencing token. The bucket is in no backup, for a lock says who
is at work now. So that a token is higher than all before also when the bucket was made anew, on an empty server or after a
restore, its first revision is the time in milliseconds: no tenant changes its locks a thousand times a second, year in, year out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client

from agentos.abi.errors import SequenceConflict
from agentos.abi.ids import Clock, Random
from agentos.drivers.locks import Lock, LockUnreadable, Moved, key_of
from agentos.eventlog.adapters.bucket import Bucket

log = logging.getLogger(__name__)

BUCKET: Final = "LOCKS"

KEPT_MS: Final = 86_400_000
"""How long an entry that nobody holds is kept at least: it answers a call that is made again after a crash."""


class NatsLocks:
    """`LockStore` in the account that `client` is connected to."""

    def __init__(self, client: Client, clock: Clock, random: Random, replicas: Callable[[], int] = lambda: 1) -> None:
        """`replicas`: in how many the tenant's log is kept now."""
        self._bucket = Bucket(client, BUCKET, random, replicas=replicas, first_revision=clock.now_ms)
        self._clock = clock

    async def read(self, resource: str) -> Lock:
        """See `LockStore.read`."""
        found = await self._bucket.get(key_of(resource))
        if found is None:
            return Lock(resource)
        lock = Lock.from_bytes(*found)
        if lock.resource != resource:
            raise LockUnreadable("the stored record of a lock is of another resource", revision=lock.revision)
        return lock

    async def write(self, lock: Lock) -> Lock:
        """See `LockStore.write`."""
        try:
            revision = await self._bucket.put(key_of(lock.resource), lock.to_bytes(), expected=lock.revision)
        except SequenceConflict as error:
            raise Moved from error
        return Lock(lock.resource, revision, lock.holder, lock.freed)

    async def all(self) -> list[Lock]:
        """See `LockStore.all`."""
        found: dict[str, Lock] = {}
        async for stored in self._bucket.entries():
            try:
                lock = Lock.from_bytes(stored.data, stored.position)
            except LockUnreadable as error:
                log.warning("%s: %s", stored.subject, error.message)
            else:
                found[lock.resource] = lock
        return [found[resource] for resource in sorted(found)]

    async def tidy(self) -> int:
        """See `LockStore.tidy`. The newest entry stays, so that the server never has to guess which revision comes next.

        The bucket gets as many replicas as the tenant's log has.
        """
        await self._bucket.align()
        locks = await self.all()
        newest, before, gone = max((lock.revision for lock in locks), default=0), self._clock.now_ms() - KEPT_MS, 0
        for lock in locks:
            if lock.holder is None and lock.revision < newest and (lock.freed is None or lock.freed.at_ms < before):
                # Up to this revision only: an entry that was taken meanwhile stays.
                await self._bucket.forget(key_of(lock.resource), below=lock.revision + 1)
                gone += 1
        return gone
