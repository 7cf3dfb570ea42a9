"""What the read model answers: sessions, their syscalls, open approvals, faults. Plain values, newest first where a limit cuts.

Every function opens a connection of its own and blocks: call it in a worker thread.
"""

from __future__ import annotations

import json
from typing import Final

from agentos.abi.canonical import Json
from agentos.projections.store import Store

JSON_COLUMNS: Final = frozenset({"rules", "reasons", "observed", "args", "approvals", "obligations", "rewritten", "answers"})
"""Columns that hold JSON text; answers hold the value."""

_INTERNAL: Final = frozenset({"head", "paused"})


def plain(row: Json) -> dict[str, Json]:
    """A row as a JSON object: JSON columns parsed, `asked` a bool, internal columns left out."""
    body = {key: row[key] for key in row.keys() if key not in _INTERNAL}  # noqa: SIM118 - a sqlite3.Row iterates over its values
    for key in JSON_COLUMNS & body.keys():
        body[key] = json.loads(body[key])
    if "asked" in body:
        body["asked"] = bool(body["asked"])
    return body


def sessions(
    store: Store, *, state: str | None = None, agent: str | None = None, live_only: bool = False, limit: int = 100
) -> list[dict[str, Json]]:
    """Rows of `sessions`, newest first, at most `limit`. `live_only`: those that have not ended."""
    wanted = [(column, value) for column, value in (("state", state), ("agent", agent)) if value is not None]
    conditions = [f"{column} = ?" for column, _ in wanted]
    if live_only:
        conditions.append("state IN ('running', 'waiting', 'paused')")
    # Only the column names above get into the text.
    statement = f"SELECT * FROM sessions WHERE {' AND '.join(conditions) or '1'} ORDER BY created_ms DESC, id DESC LIMIT ?"  # noqa: S608
    return _rows(store, statement, (*(value for _, value in wanted), limit))


def session(store: Store, name: str) -> dict[str, Json] | None:
    """The row of one session, None if the log has none."""
    found = _rows(store, "SELECT * FROM sessions WHERE id = ?", (name,))
    return found[0] if found else None


def syscalls(store: Store, session: str) -> list[dict[str, Json]]:
    """The syscalls of one session in the order in which they were first decided."""
    return _rows(store, "SELECT * FROM syscalls WHERE session = ? ORDER BY rowid", (session,))


def approvals(store: Store, *, state: str | None = "waiting", limit: int = 1000) -> list[dict[str, Json]]:
    """Rows of `approvals`, oldest first; `state` is waiting, approved, denied, expired, withdrawn, or None for all."""
    if state is None:
        return _rows(store, "SELECT * FROM approvals ORDER BY asked_ms, session, call LIMIT ?", (limit,))
    return _rows(store, "SELECT * FROM approvals WHERE state = ? ORDER BY asked_ms, session, call LIMIT ?", (state, limit))


def due(store: Store, *, now_ms: int, limit: int = 1000) -> tuple[list[str], int | None]:
    """Sessions whose question has ended, the longest over first, and when the next one ends (None: none is known)."""
    with store.reader() as connection:
        over = connection.execute(
            "SELECT session FROM approvals WHERE state = 'waiting' AND expires_ms <= ? ORDER BY expires_ms LIMIT ?",
            (now_ms, limit),
        ).fetchall()
        following = connection.execute(
            "SELECT min(expires_ms) FROM approvals WHERE state = 'waiting' AND expires_ms > ?", (now_ms,)
        ).fetchone()
    return [row[0] for row in over], following[0]


def faults(store: Store, *, limit: int = 100) -> list[dict[str, Json]]:
    """What could not be read: `{stream, position, session, kind, error}`; kinds are undecodable, foreign, chain, shape."""
    return _rows(store, "SELECT * FROM faults ORDER BY stream, position LIMIT ?", (limit,))


def _rows(store: Store, statement: str, values: tuple[Json, ...]) -> list[dict[str, Json]]:
    with store.reader() as connection:
        return [plain(row) for row in connection.execute(statement, values)]
