"""Calls of which nobody knows what came of them, and of whose sessions somebody may still be told."""

from __future__ import annotations

from typing import Final, NamedTuple

from agentos.projections.read_model import ReadModel

_LOST: Final = """
SELECT s.id, c.call, c.tool, s.agent FROM sessions AS s JOIN syscalls AS c ON c.session = s.id
WHERE s.state IN ('running', 'waiting', 'paused') AND c.outcome = 'unknown' AND c.tool IS NOT NULL
ORDER BY s.created_ms, s.id, c.rowid LIMIT ?
"""


class Lost(NamedTuple):
    """One of them."""

    session: str
    call: str
    tool: str
    agent: str


def lost(index: ReadModel, *, limit: int) -> list[Lost]:
    """Those of sessions that have begun and are not over, the oldest sessions first. Blocks; call it in a worker thread."""
    with index.reader() as connection:
        return [Lost(*row) for row in connection.execute(_LOST, (limit,))]
