"""The layout of an evidence pack: its members, what is signed, and the one sequence of bytes that its ZIP container has.

Writer and verifier share this module; `docs/evidence.md` describes it for everybody else. Members are stored, never compressed,
under fixed times and attributes, so that the same members are always the same bytes, and a pack that is not exactly those bytes
is refused.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Final

from agentos.abi.errors import EvidenceError

FORMAT: Final = "agentos-evidence/v3"
"""The manifest's `format`."""

FORMAT_V2: Final = "agentos-evidence/v2"
"""The format before payloads stood apart from headers: still read."""

FORMAT_V1: Final = "agentos-evidence/v1"
"""The format before packs held checkpoints: still read."""

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
README: Final = "README.txt"
REVISIONS: Final = "registry/revisions.jsonl"
PRINCIPALS: Final = "registry/principals.jsonl"
AUDIT: Final = "audit/chain.jsonl"

SIGNED_PREFIX: Final = b"agentos evidence manifest v1\x00"
"""What is signed is this followed by the bytes of the manifest, so that no signature made for anything else fits."""

MAX_PACK: Final = 2**31 - 1
"""Largest pack in bytes: beyond it ZIP needs another layout."""

MAX_MEMBERS: Final = 65_534
"""Most members of a pack, for the same reason."""

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_VERSION: Final = 10
_MADE_BY: Final = (3 << 8) | _VERSION
_DATE: Final = 0x0021  # 1980-01-01, the first day that ZIP knows
_ATTRIBUTES: Final = 0o100644 << 16
_NAME: Final = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def events_member(session: str) -> str:
    """Where the events of a session lie."""
    return f"events/{session}.jsonl"


def blob_member(digest: str) -> str:
    """Where the blob with `digest` (`sha256:<hex>`) lies."""
    return f"registry/blobs/{digest.removeprefix('sha256:')}.json"


def key_id(raw: bytes) -> str:
    """The id of an Ed25519 public key: the SHA-256 of its 32 raw bytes."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def zip_members(members: Mapping[str, bytes]) -> bytes:
    """The container of `members`, in their order. Raises EvidenceError for more than the layout can hold."""
    if len(members) > MAX_MEMBERS:
        raise EvidenceError(f"a pack holds at most {MAX_MEMBERS} members, this one needs {len(members)}", mend=_NARROW)
    size = sum(len(data) + 2 * len(name) for name, data in members.items())
    size += len(members) * (_LOCAL.size + _CENTRAL.size) + _END.size
    if size > MAX_PACK:
        raise EvidenceError(f"a pack holds at most {MAX_PACK} bytes, this one needs {size}", mend=_NARROW)
    body, directory = bytearray(), bytearray()
    for member, data in members.items():
        name = member.encode("ascii")
        fields = (_VERSION, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(name), 0)
        directory += _CENTRAL.pack(b"PK\x01\x02", _MADE_BY, *fields, 0, 0, 0, _ATTRIBUTES, len(body)) + name
        body += _LOCAL.pack(b"PK\x03\x04", *fields) + name + data
    count = len(members)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory + end)


def unzip_members(data: bytes) -> dict[str, bytes]:
    """The members of a container, in order, read front to back. Compare `zip_members` of them with `data` for the rest.

    Raises EvidenceError where the bytes leave the layout. Nothing is decompressed, so nothing can grow.
    """
    if len(data) > MAX_PACK:
        raise EvidenceError(f"the file has {len(data)} bytes, a pack at most {MAX_PACK}")
    members: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\x03\x04":
        where = f"byte {at}"
        if len(data) < at + _LOCAL.size:
            raise EvidenceError("the file ends inside a member's header", where=where)
        _, _, flags, method, _, _, _, stored, size, name_size, extra_size = _LOCAL.unpack_from(data, at)
        if flags or method or extra_size or stored != size:
            raise EvidenceError("a member is compressed, encrypted or carries extra fields: packs have none of that", where=where)
        start = at + _LOCAL.size + name_size
        raw = data[at + _LOCAL.size : start]
        if _NAME.fullmatch(raw) is None:
            raise EvidenceError(f"a member is called {raw[:80]!r}", where=where)
        at = start + size
        if at > len(data):
            raise EvidenceError("the file ends inside a member", where=where)
        name = raw.decode("ascii")
        if name in members:
            raise EvidenceError(f"two members are called {name}", where=where)
        members[name] = data[start:at]
    if not members:
        raise EvidenceError("this is no evidence pack: it does not begin with a member", where="byte 0")
    return members


_NARROW: Final = "narrow the export with --session or --since"
