"""Blobs: canonical bytes stored once under their own digest, in `reg.blob.<hex>`.

A blob is written before the revision that names it, so a revision never names what is not there; a blob that no revision names (a
commit that lost a race) harms nobody. Reading checks the digest: bytes that were changed are never handed out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from agentos.abi.canonical import digest
from agentos.abi.errors import ChainBroken, SequenceConflict
from agentos.eventlog.port import EventLog, Message
from agentos.eventlog.subject import blob_subject

_AT_ONCE: Final = 64
"""Requests under way at a time: enough to hide the round trip, few enough not to flood the log."""


async def put_blobs(log: EventLog, blobs: Iterable[bytes]) -> None:
    """Store every blob that is not there yet. Raises ChainBroken if other bytes are stored under a blob's digest."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def put(data: bytes) -> None:
        name = digest(data)
        subject = blob_subject(name)
        async with turns:
            try:
                await log.append(subject, [Message(subject, data)], after=0)
            except SequenceConflict:
                await get_blob(log, name)

    await asyncio.gather(*(put(data) for data in dict.fromkeys(blobs)))


async def get_blobs(log: EventLog, names: Iterable[str]) -> dict[str, bytes]:
    """The blobs with the digests `names`. Raises ChainBroken for one that is missing or was changed."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def get(name: str) -> tuple[str, bytes]:
        async with turns:
            return name, await get_blob(log, name)

    return dict(await asyncio.gather(*(get(name) for name in dict.fromkeys(names))))


async def get_blob(log: EventLog, name: str) -> bytes:
    """The blob with the digest `name`. Raises ChainBroken if it is missing or was changed."""
    stored = await log.last(blob_subject(name))
    if stored is None:
        raise ChainBroken("the blob is missing from the registry", where=blob_subject(name), mend=_MEND)
    if digest(stored.data) != name:
        raise ChainBroken("the stored bytes do not have the digest that names them", where=blob_subject(name), mend=_MEND)
    return stored.data


_MEND: Final = "restore the registry's stream from a backup: no later apply can repair it"
