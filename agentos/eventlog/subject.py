"""Which subject and which stream an event lives in.

A tenant's sessions are kept in streams by the month in which they began, so that a month that is over can be exported and dropped
whole: `EV_202611_0` and `EV_202611_1` for November 2026 (UTC). The month is read from the session's own id; a session whose id
tells no time is in the period `000000`. A session's subject is `ev.<period>.<shard>.<session>`, the shard being a hash of its
id. Payloads too large for an event are in `BLOB_<period>`, as `blob.<period>.<hex>`. What is said about the log itself (that a
payload was erased, that a month was dropped) is a chain of its own, `aud.chain` in the stream `AUD`, which is never dropped.

The registry's account has the stream `REG` with `reg.revision`, `reg.principal` and `reg.blob.<hex>`. Each account has the stream
`CKPT` with the signed checkpoints of its log, `ckpt.<tenant>` or `ckpt.REG`.

Logs that are older than the periods have `EV_0` and `EV_1` (`ev.<shard>.<session>`): they are read and proven as all others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from agentos.abi.ids import time_of

SHARDS: Final = 2
"""Streams per tenant and period. One session never spans two.

Two, because a batch is committed per stream: with four, 64 sessions that wait are too few for each (0.5 of the raw batches), with
one, 1,000 are too many (0.7); with two, both keep above 0.8.
"""

TIMELESS: Final = "000000"
"""The period of what tells no time."""

REGISTRY_STREAM: Final = "REG"
REVISIONS: Final = "reg.revision"
PRINCIPALS: Final = "reg.principal"
CHECKPOINT_STREAM: Final = "CKPT"
AUDIT_STREAM: Final = "AUD"
AUDIT_CHAIN: Final = "aud.chain"

AUDIT_NAME: Final = "audit"
"""What the events of the audit chain say that their subject is."""

_REMEMBERED: Final = 4096  # sessions whose period is not worked out again


@lru_cache(maxsize=_REMEMBERED)
def period_of(session: str) -> str:
    """The UTC month in which the session with that id began, `202611`; TIMELESS for an id that tells no time."""
    made = time_of(session)
    return TIMELESS if made is None else f"{datetime.fromtimestamp(made / 1000, UTC):%Y%m}"


def period_start(time_ms: int) -> int:
    """When the period began in which a moment is, in ms since the Unix epoch."""
    first = datetime.fromtimestamp(time_ms / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return round(first.timestamp() * 1000)


def session_subject(session: str) -> str:
    """`ev.202611.1.s-0k3v9…` for a session id."""
    return f"ev.{period_of(session)}.{zlib.crc32(session.encode('ascii')) % SHARDS}.{session}"


def is_session_subject(subject: str) -> bool:
    """Whether `subject` is that of a session."""
    return subject.startswith("ev.")


def session_of(subject: str) -> str:
    """The session id of a session's subject."""
    return subject.rsplit(".", 1)[1]


def chain_of(subject: str) -> str:
    """What the events of `subject` say that their subject is: the session's id, `audit` for the audit chain."""
    return AUDIT_NAME if subject == AUDIT_CHAIN else session_of(subject)


def blob_subject(digest: str) -> str:
    """Where the registry's blob with `digest` (`sha256:<hex>`) lives."""
    return f"reg.blob.{digest.removeprefix('sha256:')}"


def checkpoint_subject(name: str) -> str:
    """Where the checkpoints of the log `name` (a tenant, or `REG`: the registry) live."""
    return f"ckpt.{name}"


def payload_subject(digest: str, period: str) -> str:
    """Where a tenant's blob with `digest` (`sha256:<hex>`) lives that an event of `period` names."""
    return f"blob.{period}.{digest.removeprefix('sha256:')}"


_ROOTS: Final = {"reg": REGISTRY_STREAM, "ckpt": CHECKPOINT_STREAM, "aud": AUDIT_STREAM}
_STREAMS: Final = {stream: root for root, stream in _ROOTS.items()}
_SUBJECT: Final = re.compile(
    r"(?:ev\.(?:([0-9]{6})\.)?([0-9]{1,3})|blob\.([0-9]{6})|(reg|ckpt|aud))(?:\.[A-Za-z0-9_-]+)+", re.ASCII
)
_STREAM: Final = re.compile(r"EV_(?:([0-9]{6})_)?([0-9]{1,3})|BLOB_([0-9]{6})", re.ASCII)


def stream_of(subject: str) -> str:
    """The stream that stores `subject`. Raises ValueError for a subject of no stream of ours, wildcards among them."""
    found = _SUBJECT.fullmatch(subject)
    if found is None:
        raise ValueError(f"{subject!r} belongs to no stream")
    period, shard, blobs, root = found.groups()
    if root is not None:
        return _ROOTS[root]
    if blobs is not None:
        return f"BLOB_{blobs}"
    return f"EV_{shard}" if period is None else f"EV_{period}_{shard}"


def subjects_of(stream: str) -> str:
    """The subjects that `stream` stores, as a NATS wildcard: `ev.202611.1.>`. Raises ValueError for no stream of ours."""
    if stream in _STREAMS:
        return f"{_STREAMS[stream]}.>"
    found = _STREAM.fullmatch(stream)
    if found is None:
        raise ValueError(f"{stream!r} is no stream of the event log")
    period, shard, blobs = found.groups()
    if blobs is not None:
        return f"blob.{blobs}.>"
    return f"ev.{shard}.>" if period is None else f"ev.{period}.{shard}.>"


def is_ours(stream: str) -> bool:
    """Whether `stream` is one of the event log's streams, whatever it holds."""
    return stream in _STREAMS or _STREAM.fullmatch(stream) is not None


def is_session_stream(stream: str) -> bool:
    """Whether `stream` holds the events of sessions."""
    return stream.startswith("EV_")


def event_streams(names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that hold a tenant's events, by name, so by period; the audit chain's last."""
    found = {name for name in names if name == AUDIT_STREAM or (is_session_stream(name) and is_ours(name))}
    return tuple(sorted(found, key=lambda name: (name == AUDIT_STREAM, name)))
