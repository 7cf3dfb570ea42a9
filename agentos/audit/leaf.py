"""What of an event is a leaf: of a session's the header, which stays when the payload is erased; of all else the stored bytes.

Only the streams of sessions hold payloads apart. So a TAB in what the registry or the audit chain stores hides nothing behind it.
"""

from __future__ import annotations

from typing import Final

from agentos.abi.record import header_of
from agentos.audit.merkle import leaf_hash

SESSIONS: Final = "EV_"
"""How the names of the streams of sessions begin."""


def hashed(stream: str, data: bytes) -> bytes:
    """The part of `data`, as `stream` stores it or as a record, that is hashed."""
    return header_of(data) if stream.startswith(SESSIONS) else data


def leaf_of(stream: str, data: bytes) -> bytes:
    """The leaf hash (32 bytes) of what `stream` stores."""
    return leaf_hash(hashed(stream, data))
