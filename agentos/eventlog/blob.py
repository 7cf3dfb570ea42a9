"""Payloads too large for an event: bytes stored under their own digest, in `blob.<period>.<hex>` of the stream `BLOB_<period>`.

    blobs = LogBlobs(log)                                        # any event log
    name = await blobs.put(answer, subject)                      # "sha256:…", durable; goes into an event of `subject`
    answer = await blobs.get(name, subject)                      # verified

A blob is kept beside the events of the period that its session began in, and is dropped with them; in one period the same bytes
are stored once.

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
from agentos.eventlog.subject import payload_subject, period_of, session_of, stream_of

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

    async def put(self, data: bytes, subject: str) -> str:
        """Store `data` durably for an event of `subject` and return its digest, `sha256:<hex>`. Safe to repeat, by anybody.

        Raises TooLarge beyond LARGEST, ChainBroken if other bytes stand under its digest.
        """

    async def get(self, name: str, subject: str) -> bytes:
        """The bytes with the digest `name` that an event of `subject` names, checked against it.

        Raises NotFound if there are none, ChainBroken if they were changed or are not whole, ValueError for what is no digest.
        """


class LogBlobs:
    """The blobs in an event log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def put(self, data: bytes, subject: str) -> str:
        """See `BlobStore.put`."""
        name = digest(data)
        place = _place(name, subject)
        if len(data) > LARGEST:
            raise TooLarge(f"a blob of {len(data)} bytes is too large, {LARGEST} are the most", where=place)
        pieces = [
            Message(f"{place}-{start}-{min(len(data), start + PIECE)}", data[start : start + PIECE])
            for start in range(0, max(len(data), 1), PIECE)
        ]
        after = 0
        try:
            for first in range(0, len(pieces), TOGETHER):
                after = await self._log.append(place, pieces[first : first + TOGETHER], after=after)
        except SequenceConflict:
            await self.get(name, subject)  # cut otherwise, or not the bytes they claim to be
        return name

    async def get(self, name: str, subject: str) -> bytes:
        """See `BlobStore.get`."""
        if _DIGEST.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no digest of a blob")
        place = _place(name, subject)
        pieces = [stored.data async for stored in self._log.read(place)]
        if not pieces:
            raise NotFound("no such blob", where=place, mend=f"restore the stream {stream_of(place)} from a backup")
        data = b"".join(pieces)
        if digest(data) != name:
            raise ChainBroken(
                "the stored bytes do not have the digest that names them",
                where=place,
                mend=f"restore the stream {stream_of(place)} from a backup",
            )
        return data


def _place(name: str, subject: str) -> str:
    return payload_subject(name, period_of(session_of(subject)))
