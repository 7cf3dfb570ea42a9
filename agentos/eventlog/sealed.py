"""An event log that seals payloads: records above it, ciphertext below it.

    log = SealedLog(JetStreamLog(client), keys, blobs, random)

What is stored of a session's event is its header, a TAB, and the opening sealed with AES-256-GCM: under the key of the session
(or of the data subject that it is about), with the header as associated data, so that no payload can be moved to another event. A
sealed opening of more than LARGE bytes goes to the blob store, and its digest into the event. On the way up everything is opened
again; where the key was destroyed, the header is all there is; what does not open with its key comes as an empty opening, which
is never the one that a header names, so that every reader finds the fault in its place. Events without an opening pass as they
are.

Layout of the sealed part: one byte of version; then for version 1 the key's id (16), a nonce (12) and the ciphertext with its
tag; for version 2 the SHA-256 (32) of a blob that holds such a version 1. The nonce is random, so that two writers who seal
different payloads under one number (the slower of whom the log refuses) do not share one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentos.abi.errors import ChainBroken, NotFound
from agentos.abi.ids import Random
from agentos.abi.record import join, split
from agentos.eventlog.blob import LARGE, BlobStore
from agentos.eventlog.keys import ID_BYTES, Key, KeyStore
from agentos.eventlog.port import EventLog, Message, Stored
from agentos.eventlog.subject import is_session_subject, session_of

INLINE: Final = b"\x01"
BLOB: Final = b"\x02"
_NONCE: Final = 12


class SealedLog:
    """`EventLog` over another one. Every method raises LogUnavailable too when keys or blobs cannot be reached."""

    def __init__(self, log: EventLog, keys: KeyStore, blobs: BlobStore, random: Random) -> None:
        self._log = log
        self._keys = keys
        self._blobs = blobs
        self._random = random

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        """See `EventLog.append`. Raises PayloadErased for a session whose key was destroyed."""
        if is_session_subject(subject):
            key = await self._keys.of_session(session_of(subject))
            messages = [replace(message, data=await self._seal(subject, key, message.data)) for message in messages]
        return await self._log.append(subject, messages, after=after)

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        """See `EventLog.read`."""
        async with aclosing(self._log.read(subject, after=after)) as coming:
            async for stored in coming:
                yield await self._open(stored)

    async def last(self, subject: str) -> Stored | None:
        """See `EventLog.last`."""
        stored = await self._log.last(subject)
        return None if stored is None else await self._open(stored)

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        """See `EventLog.scan`."""
        async with aclosing(self._log.scan(stream, after=after)) as coming:
            async for stored in coming:
                yield await self._open(stored)

    async def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        """See `EventLog.follow`."""
        async with aclosing(self._log.follow(stream, after=after)) as coming:
            async for stored in coming:
                yield await self._open(stored)

    async def end(self, stream: str) -> int:
        """See `EventLog.end`."""
        return await self._log.end(stream)

    async def ends(self) -> dict[str, int]:
        """See `EventLog.ends`."""
        return await self._log.ends()

    async def streams(self) -> tuple[str, ...]:
        """See `EventLog.streams`."""
        return await self._log.streams()

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        """See `EventLog.new_streams`."""
        return await self._log.new_streams(known)

    async def _seal(self, subject: str, key: Key, record: bytes) -> bytes:
        header, opening = split(record)
        if opening is None:
            return record
        nonce = self._random.token(_NONCE)
        sealed = INLINE + key.id + nonce + AESGCM(key.secret).encrypt(nonce, opening, header)
        if len(sealed) > LARGE:
            name = await self._blobs.put(sealed, subject)
            sealed = BLOB + bytes.fromhex(name.removeprefix("sha256:"))
        return join(header, sealed)

    async def _open(self, stored: Stored) -> Stored:
        header, sealed = split(stored.data)
        if sealed is None or not is_session_subject(stored.subject):
            return stored
        try:
            opening = await self._opening(stored.subject, header, sealed)
        except (InvalidTag, ValueError, NotFound, ChainBroken):
            opening = b""  # changed, moved, or of a version that this one does not know
        return replace(stored, data=join(header, opening))

    async def _opening(self, subject: str, header: bytes, sealed: bytes) -> bytes | None:
        """None when its key is gone. Raises one of what `_open` catches."""
        if sealed[:1] == BLOB:
            sealed = await self._blobs.get(f"sha256:{sealed[1:].hex()}", subject)
        if sealed[:1] != INLINE:
            raise ValueError("sealed in another way")
        key = await self._keys.find(sealed[1 : 1 + ID_BYTES])
        if key is None:
            return None
        body = sealed[1 + ID_BYTES :]
        return AESGCM(key.secret).decrypt(body[:_NONCE], body[_NONCE:], header)
