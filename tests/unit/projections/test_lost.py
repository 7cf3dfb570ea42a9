"""Lost calls are found by the index, of sessions that can still be told of them."""

from __future__ import annotations

from pathlib import Path

from agentos.projections.index_tables import SESSIONS, SYSCALLS
from agentos.projections.lost import Lost, lost
from agentos.projections.store import Store


def test_lost_calls_of_live_sessions_are_found(tmp_path: Path) -> None:
    """Not those of sessions that are over, nor calls that came to an outcome, nor names that are a model's own word."""
    store = Store.open(tmp_path / "index.db", tenant="default")
    sessions = [("s-1", "running", 5), ("s-2", "finished", 6), ("s-3", "paused", 4), ("s-4", "deferred", 1)]
    calls = [("s-1", "c1", "pay", "unknown"), ("s-1", "c2", "pay", "finished"), ("s-1", "c3", None, "unknown")]
    calls += [("s-2", "c1", "pay", "unknown"), ("s-3", "c9", "pay", "unknown"), ("s-4", "c1", "pay", "pending")]
    with store.writer() as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        blank = dict.fromkeys(SESSIONS.columns, 0)
        SESSIONS.put(
            connection, [blank | {"id": name, "state": state, "created_ms": at, "agent": "a"} for name, state, at in sessions]
        )
        blank = dict.fromkeys(SYSCALLS.columns, 0)
        rows = [{"session": name, "call": call, "tool": tool, "outcome": outcome} for name, call, tool, outcome in calls]
        SYSCALLS.put(connection, [blank | row for row in rows])
    assert lost(store, limit=10) == [Lost("s-3", "c9", "pay", "a"), Lost("s-1", "c1", "pay", "a")]
    assert lost(store, limit=1) == [Lost("s-3", "c9", "pay", "a")]
    store.close()
