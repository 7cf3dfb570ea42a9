"""The event log: append to a subject, read a subject, follow a stream. The one truth; everything else is a fold of it.

    log = MemoryLog()                                            # or JetStreamLog(client) on a running nats-server
    subject = session_subject("s-1")
    first = await log.append(subject, [Message("e-1", b"{}")], after=0)
    await log.append(subject, [Message("e-2", b"{}")], after=first)
    events = [stored.data async for stored in log.read(subject)]

    name = await LogBlobs(log).put(large, subject)               # too large for an event: its digest goes there

Adapters (`agentos.eventlog.adapters`): `memory` for unit tests (with `faults` for simulations), `jetstream` for the real one and
`streams` for what it is kept in, `nats_server` that owns a nats-server, `connection` and `credentials` for getting to it.
"""

from __future__ import annotations

from agentos.eventlog.blob import BlobStore, LogBlobs
from agentos.eventlog.port import EventLog, Message, Stored
from agentos.eventlog.subject import AUDIT_CHAIN, AUDIT_STREAM, REGISTRY_STREAM, session_of, session_subject, stream_of

__all__ = [
    "AUDIT_CHAIN",
    "AUDIT_STREAM",
    "BlobStore",
    "EventLog",
    "LogBlobs",
    "Message",
    "REGISTRY_STREAM",
    "Stored",
    "session_of",
    "session_subject",
    "stream_of",
]
