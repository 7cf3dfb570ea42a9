"""Snapshots of sessions as files, one for each: `<folder>/<session>.state`, mode 0600, replaced whole.

    8 bytes   AGSTATE1
    4 bytes   the header's length, big-endian
    header    canonical JSON: {"tenant", "session", "seq", "hash", "position", "version", "key", "nonce"}; the last two in hex
    the rest  the body, compressed (zlib) and sealed with AES-256-GCM under that key; all before it is the associated data

So a file that was changed, cut, or put in the place of another session's, another tenant's or another position's does not open.
Whatever does not open is deleted, with a line in the log: it is made anew. Files and not rows of a database, so that deleting
one leaves no pages behind; nothing is synced, since what a power cut breaks does not open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentos.abi.canonical import NotCanonical, canonical
from agentos.abi.chain import Head
from agentos.abi.errors import Unavailable
from agentos.abi.exact import read_exact
from agentos.abi.ids import Random
from agentos.eventlog.keys import ID_BYTES, Key, KeyStore
from agentos.eventlog.snapshots import Snapshot
from agentos.eventlog.subject import session_subject, stream_of

log = logging.getLogger(__name__)

MAGIC: Final = b"AGSTATE1"

SUFFIX: Final = ".state"

FRESH: Final = ".new"
"""What the name of a file ends with until it is whole."""

LARGEST: Final = 1 << 30
"""Bytes of a file at most; a session whose snapshot is larger is read from the log."""

_NONCE: Final = 12
_LENGTH: Final = struct.Struct(">I")
_MAX_HEADER: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Header:
    tenant: str
    session: str
    seq: int
    hash: str
    position: int
    version: str
    key: str
    nonce: str

    def to_bytes(self) -> bytes:
        """All that stands before what is sealed."""
        data = canonical(asdict(self))
        return MAGIC + _LENGTH.pack(len(data)) + data

    @classmethod
    def read(cls, file: BinaryIO) -> _Header:
        """The header that `file` begins with. Raises ValueError for anything else."""
        start = file.read(len(MAGIC) + _LENGTH.size)
        if len(start) < len(MAGIC) + _LENGTH.size or not start.startswith(MAGIC):
            raise ValueError("no snapshot")
        (length,) = _LENGTH.unpack(start[len(MAGIC) :])
        if length > _MAX_HEADER:
            raise ValueError("no snapshot")
        try:
            body = read_exact(file.read(length))
        except NotCanonical as error:
            raise ValueError("no snapshot") from error
        if not isinstance(body, dict) or {name: type(value).__name__ for name, value in body.items()} != _FIELDS:
            raise ValueError("a snapshot of another version")
        found = cls(**body)
        if (len(found.key_id), len(bytes.fromhex(found.nonce))) != (ID_BYTES, _NONCE):
            raise ValueError("a snapshot of another version")
        return found

    @property
    def key_id(self) -> bytes:
        return bytes.fromhex(self.key)


_FIELDS: Final = {field.name: str(field.type) for field in fields(_Header)}


class SnapshotFiles:
    """`SnapshotStore` of `tenant` in `folder`, which is made with the first snapshot (mode 0700)."""

    def __init__(self, folder: Path, tenant: str, keys: KeyStore, random: Random) -> None:
        self._folder = folder
        self._tenant = tenant
        self._keys = keys
        self._random = random

    async def find(self, session: str) -> Snapshot | None:
        """See `SnapshotStore.find`."""
        path = self._path(session)
        if path is None:
            return None
        try:
            found = await asyncio.to_thread(_read, path)
            if found is None:
                return None
            header, sealed = found
            key = await self._keys.find(header.key_id) if (header.tenant, header.session) == (self._tenant, session) else None
            if key is not None:
                body = await asyncio.to_thread(_open, key, header, sealed)
                return Snapshot(session, Head(header.seq, header.hash), header.position, header.version, body)
            why = "its key was destroyed, or it is another session's"
        except (OSError, ValueError, InvalidTag, zlib.error) as error:
            # Of which class is told, and no more: `error` may quote what it found.
            why = type(error).__name__
        log.warning("the snapshot of session %s is of no use, and is deleted: %s", session, why)
        await self.drop(session)
        return None

    async def keep(self, snapshot: Snapshot) -> None:
        """See `SnapshotStore.keep`."""
        path = self._path(snapshot.session)
        if path is None:
            return
        key = await self._keys.of_session(snapshot.session)
        header = _Header(
            tenant=self._tenant,
            session=snapshot.session,
            seq=snapshot.head.seq,
            hash=snapshot.head.hash,
            position=snapshot.position,
            version=snapshot.version,
            key=key.id.hex(),
            nonce=self._random.token(_NONCE).hex(),
        )
        try:
            await asyncio.to_thread(_write, path, header, key, snapshot.body)
        except (OSError, OverflowError) as error:
            raise Unavailable(f"the snapshot of session {snapshot.session} cannot be kept: {error}", where=str(path)) from error

    async def drop(self, session: str) -> None:
        """See `SnapshotStore.drop`."""
        path = self._path(session)
        if path is not None:
            await asyncio.to_thread(_delete, [path])

    async def sweep(self, streams: Collection[str]) -> int:
        """See `SnapshotStore.sweep`. Files that are no snapshots go as well, but for one that is perhaps just being written."""
        headers = await asyncio.to_thread(_headers, self._folder)
        gone = [path for path, header in headers.items() if not await self._needed(path, header, streams)]
        await asyncio.to_thread(_delete, gone)
        return len(gone)

    async def _needed(self, path: Path, header: _Header | None, streams: Collection[str]) -> bool:
        if header is None:
            return path.name.endswith(f"{SUFFIX}{FRESH}")
        where = path.with_name(path.name.removesuffix(FRESH))
        if self._path(header.session) != where or stream_of(session_subject(header.session)) not in streams:
            return False
        return await self._keys.find(header.key_id) is not None

    def _path(self, session: str) -> Path | None:
        """None for a name that is not to be one of a file: no session has it."""
        return self._folder / f"{session}{SUFFIX}" if _NAME.fullmatch(session) else None


def _read(path: Path) -> tuple[_Header, bytes] | None:
    """The header and what is sealed; None where there is no file. Raises OSError; ValueError for one that is none of ours."""
    try:
        handle = os.open(path, _READ)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise ValueError("no file of ours")
        return _Header.read(file), file.read(LARGEST)


def _headers(folder: Path) -> dict[Path, _Header | None]:
    """Every file in `folder` with its header; None for what is no snapshot."""
    found: dict[Path, _Header | None] = {}
    for path in sorted(folder.glob("*")):
        try:
            with os.fdopen(os.open(path, _READ), "rb") as file:
                found[path] = _Header.read(file)
        except (OSError, ValueError):
            found[path] = None
    return found


def _open(key: Key, header: _Header, sealed: bytes) -> bytes:
    return zlib.decompress(AESGCM(key.secret).decrypt(bytes.fromhex(header.nonce), sealed, header.to_bytes()))


def _write(path: Path, header: _Header, key: Key, body: bytes) -> None:
    """Raises OSError; OverflowError for what is too large."""
    above = header.to_bytes()
    sealed = AESGCM(key.secret).encrypt(bytes.fromhex(header.nonce), zlib.compress(body, 1), above)
    if len(above) + len(sealed) > LARGEST:
        raise OverflowError(f"it has more than {LARGEST} bytes")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + FRESH)
    try:
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, _WRITE, 0o600), "wb") as file:
            file.write(above)
            file.write(sealed)
        fresh.replace(path)
    except OSError:
        _delete([fresh])
        raise


def _delete(paths: Iterable[Path]) -> None:
    """Delete them. One that cannot be deleted does not open either, or is as good as the one that will take its place."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be deleted: %s", path, error.strerror)
