"""The sessions of standing agents are found by the index, newest first."""

from __future__ import annotations

from pathlib import Path

from agentos.projections import kept_alive
from agentos.projections.index_tables import SESSIONS
from agentos.projections.store import Store


def test_the_sessions_of_standing_agents_are_found(tmp_path: Path) -> None:
    """Of each agent as many as are wanted; those that were begun by others are none of them."""
    store = Store.open(tmp_path / "index.db", tenant="default")
    rows = [(f"s-{number}", "a" if number % 2 else "b", "finished", number) for number in range(10)]
    rows += [("s-x", "a", "waiting", 5), ("s-y", "b", "running", 6)]
    with store.writer() as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        blank = dict.fromkeys(SESSIONS.columns, 0) | {"origin": "standing"}
        told = [blank | {"id": name, "agent": agent, "state": state, "created_ms": at} for name, agent, state, at in rows]
        SESSIONS.put(connection, [*told, blank | {"id": "s-z", "agent": "a", "state": "running", "origin": "trigger"}])
    assert [row["id"] for row in kept_alive.live(store, limit=5)] == ["s-y", "s-x"]
    found = kept_alive.histories(store, {"a": 3, "b": 1, "c": 9})
    assert {agent: [row["id"] for row in rows] for agent, rows in found.items()} == {
        "a": ["s-9", "s-7", "s-x"],
        "b": ["s-8"],
        "c": [],
    }
    store.close()
