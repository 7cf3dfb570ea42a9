"""A backup as a file: a plain tar of members in one spelling, the last two being the manifest and its signature.

    tenants/default/EV_0.s2     the server's own archive of one stream
    …
    fleet/REG.s2
    manifest.json               what every stream is: size, digest, positions, root, configuration (`backup_manifest`)
    manifest.sig                Ed25519 over SIGNED_PREFIX and the manifest, 128 hex digits

`BackupWriter` writes it front to back, `open_backup` reads it and believes nothing: a header is what we write for that name and
size or it is refused, padding is zeros, nothing stands behind the end, and every member is in the manifest with its digest. So no
byte can be changed unseen.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from agentos.abi.errors import EvidenceError
from agentos.abi.event import parse_rfc3339
from agentos.audit.keyring import KeyRing
from agentos.audit.note import signed_by
from agentos.audit.rotation import TrustedKey, chain_of
from agentos.audit.trust import Trust
from agentos.boot.backup_manifest import MANIFEST, MEND, LogEntry, Manifest, StreamEntry

SIGNATURE: Final = "manifest.sig"

SIGNED_PREFIX: Final = b"agentos backup manifest v1\x00"
"""What is signed is this followed by the manifest's bytes, so that no signature made for anything else fits."""

MAX_MANIFEST: Final = 64 * 1024 * 1024
"""Largest manifest, in bytes: some 50,000 streams."""

MAX_MEMBERS: Final = 200_000

PIECE: Final = 1024 * 1024
"""Bytes read or written at one time."""

_BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = bytes(2 * _BLOCK)
_NAME: Final = re.compile(r"(?:fleet|tenants/[a-z][a-z0-9-]{0,62})/[A-Z][A-Z0-9_]{0,62}\.s2|manifest\.(?:json|sig)", re.ASCII)


class Writing:
    """A member while it is written: counts and hashes what passes."""

    def __init__(self, file: BinaryIO, told: Callable[[int], None]) -> None:
        self._file = file
        self._told = told
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        """Append to the member. Raises OSError."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        self._told(len(data))

    @property
    def sha256(self) -> str:
        """The digest of what was written, in hex."""
        return self._hash.hexdigest()


class BackupWriter:
    """Writes members into `file`, which can be sought in: the size of a member is known only when it ends.

    `told` hears of every byte count that was written.
    """

    def __init__(self, file: BinaryIO, told: Callable[[int], None]) -> None:
        self._file = file
        self._told = told

    @contextmanager
    def member(self, name: str) -> Iterator[Writing]:
        """The next member; it is whole when the block ends. Raises OSError."""
        begin = self._file.tell()
        self._file.write(bytes(_BLOCK))
        writing = Writing(self._file, self._told)
        yield writing
        self._file.write(bytes(-writing.size % _BLOCK))
        end = self._file.tell()
        self._file.seek(begin)
        self._file.write(_header(name, writing.size))
        self._file.seek(end)

    def finish(self, manifest: Manifest, ring: KeyRing) -> None:
        """The manifest, its signature by the key in use, and the end. Raises OSError."""
        data = manifest.to_bytes()
        for name, content in ((MANIFEST, data), (SIGNATURE, ring.current.sign(SIGNED_PREFIX + data).hex().encode())):
            with self.member(name) as writing:
                writing.write(content)
        self._file.write(_END)


@dataclass(frozen=True, slots=True)
class Slice:
    """Where a member lies in the file."""

    offset: int
    size: int


class Member:
    """A member while it is read, as a file has it; `check` at the end."""

    def __init__(self, file: BinaryIO, at: Slice) -> None:
        self._file = file
        self._at = at
        self._read = 0
        self._hash = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        self._file.seek(self._at.offset + self._read)
        data = self._file.read(min(size, self._at.size - self._read))
        self._read += len(data)
        self._hash.update(data)
        return data

    @property
    def sha256(self) -> str:
        """The digest of what was read so far, in hex."""
        return self._hash.hexdigest()


class Backup:
    """A backup that was opened: `manifest` can be read; its signature and digests hold once `check` has said so."""

    def __init__(self, file: BinaryIO, manifest: Manifest, members: Mapping[str, Slice], raw: bytes, signature: bytes) -> None:
        self.manifest = manifest
        self._file = file
        self._members = members
        self._raw = raw
        self._signature = signature

    def keys(self, trust: Trust) -> tuple[TrustedKey, ...]:
        """The keys that count for somebody who trusts `trust` and sees the rotations. Raises EvidenceError."""
        return trust.keys(chain_of(self.manifest.rotations))

    def require_signed(self, keys: Sequence[TrustedKey]) -> None:
        """Whether one of `keys` signed the manifest while it was in use. Raises EvidenceError."""
        made_ms = parse_rfc3339(self.manifest.created_at)
        signers = [key for key in keys if signed_by(key.public, self._signature, SIGNED_PREFIX + self._raw)]
        if not signers:
            known = any(key.id == self.manifest.key for key in keys)
            said = "the manifest or the signature was edited" if known else f"it says {self.manifest.key}"
            raise EvidenceError(f"the backup is not signed by a trusted key: {said}", where=SIGNATURE)
        if not any(key.counts_at(made_ms) for key in signers):
            raise EvidenceError(f"the backup is signed by key {signers[0].id}, which was not in use at its time", where=SIGNATURE)

    def check(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every archive and compare its digest; `progress` is told bytes as they are read. Raises EvidenceError, OSError."""
        for log in self.manifest.logs:
            for entry in log.streams:
                archive = self.archive(log, entry)
                while piece := archive.read(PIECE):
                    if progress is not None:
                        progress(len(piece))
                self.require(log, entry, archive)

    def archive(self, log: LogEntry, entry: StreamEntry) -> Member:
        """The archive of a stream, to be read front to back."""
        return Member(self._file, self._members[log.member(entry.name)])

    def require(self, log: LogEntry, entry: StreamEntry, archive: Member) -> None:
        """Whether what was read of `archive` is what the manifest names. Raises EvidenceError."""
        if archive.sha256 != entry.sha256:
            raise EvidenceError("the archive is not the one that the manifest names", where=log.member(entry.name), mend=MEND)


def open_backup(file: BinaryIO) -> Backup:
    """Read the layout and the manifest of a backup. Raises EvidenceError where a byte is not as we write it, OSError."""
    members = _members(file)
    if list(members)[-2:] != [MANIFEST, SIGNATURE]:
        raise EvidenceError("the backup does not end with a manifest and its signature", mend=MEND)
    if members[MANIFEST].size > MAX_MANIFEST or members[SIGNATURE].size != 128:
        raise EvidenceError("the manifest or its signature is of no size that we write", mend=MEND)
    raw = Member(file, members[MANIFEST]).read(MAX_MANIFEST)
    hexed = Member(file, members[SIGNATURE]).read(128)
    if re.fullmatch(rb"[0-9a-f]{128}", hexed) is None:
        raise EvidenceError("the signature is not 128 hex digits", where=SIGNATURE, mend=MEND)
    manifest = Manifest.parse(raw)
    named = {log.member(entry.name): entry.size for log in manifest.logs for entry in log.streams}
    held = {name: at.size for name, at in members.items() if name not in (MANIFEST, SIGNATURE)}
    if list(named.items()) != list(held.items()):
        odd = next((name for name in (*named, *held) if named.get(name) != held.get(name)), "their order differs")
        raise EvidenceError(f"the manifest and the file do not name the same members: {odd}", where=MANIFEST, mend=MEND)
    return Backup(file, manifest, members, raw, bytes.fromhex(hexed.decode("ascii")))


def _members(file: BinaryIO) -> dict[str, Slice]:
    """Where each member lies, every byte between them looked at."""
    found: dict[str, Slice] = {}
    end = file.seek(0, 2)
    at = 0
    while True:
        file.seek(at)
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):
            break
        name, size = _read_header(block, at)
        if name in found or len(found) >= MAX_MEMBERS:
            raise EvidenceError(f"two members are called {name}, or there are too many", where=f"byte {at}", mend=MEND)
        found[name] = Slice(at + _BLOCK, size)
        behind = at + _BLOCK + size
        at = behind + -size % _BLOCK
        if at > end:
            raise EvidenceError("the file ends inside a member: it was cut", where=f"byte {end}", mend=MEND)
        file.seek(behind)
        if any(file.read(at - behind)):
            raise EvidenceError("there is something where nothing is written", where=f"byte {behind}", mend=MEND)
    file.seek(at)
    if end != at + len(_END) or file.read(len(_END)) != _END:
        raise EvidenceError("the file does not end where its members end", where=f"byte {at}", mend=MEND)
    if not found:
        raise EvidenceError("this is no backup: it holds nothing", mend=MEND)
    return found


def _header(name: str, size: int) -> bytes:
    """The one header of a member: its own name and size, everything else fixed."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, 0
    return entry.tobuf(tarfile.GNU_FORMAT)


def _read_header(block: bytes, at: int) -> tuple[str, int]:
    try:
        entry = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        fits = _NAME.fullmatch(entry.name) is not None and entry.size >= 0 and _header(entry.name, entry.size) == block
    except (tarfile.TarError, ValueError) as error:
        said = "the file ends without its end mark: it was cut" if len(block) < _BLOCK else f"no member of a backup: {error}"
        raise EvidenceError(said, where=f"byte {at}", mend=MEND) from error
    if not fits:
        raise EvidenceError("a member is not written as a backup has it", where=f"byte {at}", mend=MEND)
    return entry.name, entry.size
