"""What `agentos status` says of the streams of a tenant's log: how much is stored and how, and who is how far behind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentos.abi.canonical import Json
from agentos.audit.checkpoint import Checkpoint
from agentos.eventlog.adapters.streams import StreamFacts
from agentos.eventlog.subject import event_streams


def log_report(streams: Sequence[StreamFacts], behind: Mapping[str, int], signed: Checkpoint | None) -> dict[str, Json]:
    """`streams`, `stored` and `checkpoint_behind` of `schemas/v1/status.json`.

    `behind` is how many events of a stream the read model lacks, `signed` the last checkpoint. Neither speaks of streams of
    blobs and of checkpoints, which hold no events.
    """
    events = set(event_streams(one.name for one in streams))
    unsigned = {one.name: one.last - (signed.tree(one.name).size if signed else 0) for one in streams if one.name in events}
    rows: list[Json] = [
        {
            "name": one.name,
            "messages": one.messages,
            "bytes": one.bytes,
            "first": one.first,
            "last": one.last,
            "replicas": one.replicas,
            "atomic": one.atomic,
            "read_model_behind": behind.get(one.name, 0) if one.name in events else None,
            # The checkpoint may be younger than the look at the stream.
            "checkpoint_behind": max(0, unsigned[one.name]) if one.name in events else None,
        }
        for one in streams
    ]
    return {
        "checkpoint_behind": sum(max(0, count) for count in unsigned.values()),
        "stored": {"messages": sum(one.messages for one in streams), "bytes": sum(one.bytes for one in streams)},
        "streams": rows,
    }
