"""What JetStream says when it does not store: its error codes, sorted by what can be done, and told in our words.

Numbers and names are those of `server/errors.json` of nats-server 2.15.
"""

from __future__ import annotations

from typing import Any, Final

from agentos.abi.errors import LogUnavailable

OTHER_CONFIG: Final = 10058
"""The stream exists with another configuration."""

KNOWN_ID: Final = 10201
"""The batch holds a message whose id is stored already (or stands twice in it)."""

MOVED: Final = frozenset({10071, 10164, KNOWN_ID})
"""Somebody else was first, or we were, earlier: wrong last sequence, the same within a batch, a known id. Nothing is stored."""

BATCHES_OFF: Final = 10174
"""This stream takes no atomic batches."""

BATCH_TOO_LARGE: Final = 10199
"""More messages than the server's `max_batch_size`."""

LATER: Final = frozenset({10158, 10167, 10176, 10210})
"""The same may succeed in a moment: an id under way, too many requests, a batch that arrived torn, too many open batches."""

ACCOUNT_FULL: Final = 10002
"""No room in the account: the tenant's own limit, nobody else's."""

FULL: Final = frozenset({ACCOUNT_FULL, 10023, 10028, 10047, 10077})
"""No room: of the account, of the server (resources, memory, storage), or the store failed."""

MISSING: Final = frozenset({10059})
"""There is no such stream."""

TOO_FEW_PEERS: Final = frozenset({10005, 10074})
"""Not so many servers: none suits the placement, or a server that stands alone was asked for replicas."""


def explain(where: str, refusal: dict[str, Any]) -> LogUnavailable:
    """A refusal of the JetStream API as an error about `where` (a subject or stream)."""
    code, said = refusal.get("err_code"), str(refusal.get("description", "no reason given"))
    if code == ACCOUNT_FULL:
        return LogUnavailable(
            f"the event log has no space left: {said}",
            where=where,
            mend="raise spec.limits.logMiB of the Tenant, or drop months that are over (agentos audit retire)",
        )
    if code in FULL or "no space left" in said:
        return LogUnavailable(
            f"the event log has no space left: {said}",
            where=where,
            mend="free space on its disk or raise the limit of the server",
        )
    if code in TOO_FEW_PEERS:
        return LogUnavailable(
            f"the server cannot keep so many replicas: {said}",
            where=where,
            mend="declare fewer in spec.log.replicas of the Tenant, or add servers to the cluster",
        )
    if code in MISSING:
        return LogUnavailable(
            f"the event log has no such stream: {said}", where=where, mend="start the runtime, it makes its streams"
        )
    return LogUnavailable(f"the event log refuses: {said} ({code})", where=where, mend="look into the log of the nats-server")
