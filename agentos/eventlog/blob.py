"""Payloads too large for an event: bytes stored once under their own digest, in `blob.<hex>` of the account's stream BLOB.

    blobs = LogBlobs(log)                                        # any event log; the stream BLOB must be there
    name = await blobs.put(answer)                               # "sha256:…", durable; goes into the event
    answer = await blobs.get(name)                               # verified

A blob is put before the event that names it, so an event never names what is not there; a blob that no event names (a crash in
between) harms nobody. It is cut into pieces that any server takes. Nothing is ever changed: putting the same bytes again is a
repeated append, which the log recognises.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from agentos.abi.canonical import digest
from agentos.abi.errors import ChainBroken, NotFound, SequenceConflict, TooLarge
from agentos.eventlog.port import EventLog, Message
from agentos.eventlog.subject import payload_subject

LARGE: Final = 256 * 1024
"""Bytes from which on a payload belongs here and not into its event."""

LARGEST: Final = 256 * 1024 * 1024
"""Bytes of a blob at most: it is held in memory."""

PIECE: Final = 512 * 1024
"""Bytes of a piece: half of what a NATS server takes by default, so that blobs move between servers."""

TOGETHER: Final = 8
"""Pieces of one append: what a server stores within a fraction of a second."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class BlobStore(Protocol):
    """Content-addressed bytes of one account. Every method raises LogUnavailable when the store cannot be reached."""

    async def put(self, data: bytes) -> str:
        """Store `data` durably and return its digest, `sha256:<hex>`. Safe to repeat, at any time, by anybody.

        Raises TooLarge beyond LARGEST, ChainBroken if other bytes stand under its digest.
        """

    async def get(self, name: str) -> bytes:
        """The bytes with the digest `name`, checked against it.

        Raises NotFound if there are none, ChainBroken if they were changed or are not whole, ValueError for what is no digest.
        """


class LogBlobs:
    """The blobs in an event log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def put(self, data: bytes) -> str:
        """See `BlobStore.put`."""
        name = digest(data)
        subject = payload_subject(name)
        if len(data) > LARGEST:
            raise TooLarge(f"a blob of {len(data)} bytes is too large, {LARGEST} are the most", where=subject)
        pieces = [
            Message(f"{subject}-{start}-{min(len(data), start + PIECE)}", data[start : start + PIECE])
            for start in range(0, max(len(data), 1), PIECE)
        ]
        after = 0
        try:
            for first in range(0, len(pieces), TOGETHER):
                after = await self._log.append(subject, pieces[first : first + TOGETHER], after=after)
        except SequenceConflict:
            await self.get(name)  # cut otherwise, or not the bytes they claim to be
        return name

    async def get(self, name: str) -> bytes:
        """See `BlobStore.get`."""
        if _DIGEST.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no digest of a blob")
        subject = payload_subject(name)
        pieces = [stored.data async for stored in self._log.read(subject)]
        if not pieces:
            raise NotFound("no such blob", where=subject, mend="restore the stream BLOB from a backup")
        data = b"".join(pieces)
        if digest(data) != name:
            raise ChainBroken(
                "the stored bytes do not have the digest that names them",
                where=subject,
                mend="restore the stream BLOB from a backup",
            )
        return data
