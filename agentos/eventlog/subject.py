"""Which subject and which stream an event lives in.

A tenant's account has the streams `EV_0` and `EV_1`; a session's subject is `ev.<shard>.<session>`, the shard being a hash
of the session id. Payloads too large for an event are in its stream `BLOB`, as `blob.<hex>`. The registry's account has the
stream `REG` with `reg.revision`, `reg.principal` and `reg.blob.<hex>`. Each account has the stream `CKPT` with the signed
checkpoints of its log, `ckpt.<tenant>` or `ckpt.REG`.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

SHARDS: Final = 2
"""Streams per tenant. One session never spans two.

Two, because a batch is committed per stream: with four, 64 sessions that wait are too few for each (0.5 of the raw batches), with
one, 1,000 are too many (0.7); with two, both keep above 0.8.
"""

EVENT_STREAMS: Final = tuple(f"EV_{shard}" for shard in range(SHARDS))
BLOB_STREAM: Final = "BLOB"
REGISTRY_STREAM: Final = "REG"
REVISIONS: Final = "reg.revision"
PRINCIPALS: Final = "reg.principal"
CHECKPOINT_STREAM: Final = "CKPT"


def session_subject(session: str) -> str:
    """`ev.1.s-0k3v9…` for a session id."""
    return f"ev.{zlib.crc32(session.encode('ascii')) % SHARDS}.{session}"


def session_of(subject: str) -> str:
    """The session id of a session's subject."""
    return subject.rsplit(".", 1)[1]


def blob_subject(digest: str) -> str:
    """Where the registry's blob with `digest` (`sha256:<hex>`) lives."""
    return f"reg.blob.{digest.removeprefix('sha256:')}"


def checkpoint_subject(name: str) -> str:
    """Where the checkpoints of the log `name` (a tenant, or `REG`: the registry) live."""
    return f"ckpt.{name}"


def payload_subject(digest: str) -> str:
    """Where a tenant's blob with `digest` (`sha256:<hex>`) lives."""
    return f"blob.{digest.removeprefix('sha256:')}"


_ROOTS: Final = {"reg": REGISTRY_STREAM, "ckpt": CHECKPOINT_STREAM, "blob": BLOB_STREAM}
_STREAMS: Final = {stream: root for root, stream in _ROOTS.items()}
_SUBJECT: Final = re.compile(r"(?:ev\.([0-9]+)|(reg|ckpt|blob))(?:\.[A-Za-z0-9_-]+)+", re.ASCII)


def stream_of(subject: str) -> str:
    """The stream that stores `subject`. Raises ValueError for a subject of no stream of ours, wildcards among them."""
    found = _SUBJECT.fullmatch(subject)
    if found is None:
        raise ValueError(f"{subject!r} belongs to no stream")
    return _ROOTS[found[2]] if found[1] is None else f"EV_{found[1]}"


def subjects_of(stream: str) -> str:
    """The subjects that `stream` stores, as a NATS wildcard: `ev.1.>`. Raises ValueError for a stream of no name of ours."""
    if stream in _STREAMS:
        return f"{_STREAMS[stream]}.>"
    shard = stream.removeprefix("EV_")
    if shard == stream or not shard.isdecimal() or not shard.isascii():
        raise ValueError(f"{stream!r} is no stream of the event log")
    return f"ev.{shard}.>"
