"""What the read models answer: sessions, their syscalls, open approvals, spend, faults. Plain values, newest first where cut.

`index` says what happened; `text`, where it is given, adds the words, which are empty without it. Every function opens
connections of its own and blocks: call it in a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentos.abi.canonical import Json
from agentos.projections.read_model import ReadModel
from agentos.projections.worded import Row, Words, opened, whole_approval, whole_session, whole_syscall


def sessions(
    index: ReadModel,
    text: ReadModel | None = None,
    *,
    state: str | None = None,
    agent: str | None = None,
    parent: str | None = None,
    origin: str | None = None,
    trigger: str | None = None,
    live_only: bool = False,
    limit: int = 100,
) -> list[Row]:
    """Rows of `sessions`, newest first, at most `limit`. `live_only`: those that have not ended.

    `parent`: those that it was forked into or has delegated to; `origin`: one of delegated, trigger, standing; `trigger`: those
    that this one began.
    """
    asked = {"state": state, "agent": agent, "parent": parent, "origin": origin, "trigger_name": trigger}
    wanted = [(column, value) for column, value in asked.items() if value is not None]
    conditions = [f"{column} = ?" for column, _ in wanted]
    if live_only:
        conditions.append("state IN ('deferred', 'running', 'waiting', 'paused')")
    # Only the column names above get into the text.
    statement = f"SELECT * FROM sessions WHERE {' AND '.join(conditions) or '1'} ORDER BY created_ms DESC, id DESC LIMIT ?"  # noqa: S608
    return _rows(index, text, whole_session, statement, (*(value for _, value in wanted), limit))


def ended(index: ReadModel, *, since_ms: int) -> list[tuple[str, str, str, int]]:
    """Sessions that ended at `since_ms` or later, the oldest first: id, agent, state, when (ms since the epoch)."""
    statement = (
        "SELECT id, agent, state, updated_ms FROM sessions"
        " WHERE state IN ('finished', 'failed', 'cancelled', 'halted') AND updated_ms >= ? ORDER BY updated_ms, id"
    )
    with index.reader() as connection:
        return [tuple(row) for row in connection.execute(statement, (since_ms,))]


def fired(index: ReadModel, *, trigger: str, firing: str) -> str | None:
    """The id of the session that this firing of a trigger began; None if there is none."""
    statement = "SELECT id FROM sessions WHERE trigger_name = ? AND firing = ? LIMIT 1"
    with index.reader() as connection:
        row = connection.execute(statement, (trigger, firing)).fetchone()
    return None if row is None else str(row[0])


def names(index: ReadModel, *, state: str) -> list[str]:
    """The ids of all sessions in a state, in no order."""
    with index.reader() as connection:
        return [row[0] for row in connection.execute("SELECT id FROM sessions WHERE state = ?", (state,))]


def session(index: ReadModel, name: str, text: ReadModel | None = None) -> Row | None:
    """The row of one session, None if the log has none."""
    found = _rows(index, text, whole_session, "SELECT * FROM sessions WHERE id = ?", (name,))
    return found[0] if found else None


def syscalls(index: ReadModel, session: str, text: ReadModel | None = None) -> list[Row]:
    """The syscalls of one session in the order in which they were first decided."""
    return _rows(index, text, whole_syscall, "SELECT * FROM syscalls WHERE session = ? ORDER BY rowid", (session,))


def approvals(index: ReadModel, text: ReadModel | None = None, *, state: str | None = "waiting", limit: int = 1000) -> list[Row]:
    """Rows of `approvals`, oldest first; `state` is waiting, approved, denied, expired, withdrawn, or None for all."""
    ordered = "ORDER BY asked_ms, session, call LIMIT ?"
    if state is None:
        return _rows(index, text, whole_approval, f"SELECT * FROM approvals {ordered}", (limit,))  # noqa: S608 - a constant
    return _rows(index, text, whole_approval, f"SELECT * FROM approvals WHERE state = ? {ordered}", (state, limit))  # noqa: S608


def due(index: ReadModel, *, now_ms: int, limit: int = 1000) -> tuple[list[str], int | None]:
    """Sessions whose question has ended, the longest over first, and when the next one ends (None: none is known)."""
    with index.reader() as connection:
        over = connection.execute(
            "SELECT session FROM approvals WHERE state = 'waiting' AND expires_ms <= ? ORDER BY expires_ms LIMIT ?",
            (now_ms, limit),
        ).fetchall()
        following = connection.execute(
            "SELECT min(expires_ms) FROM approvals WHERE state = 'waiting' AND expires_ms > ?", (now_ms,)
        ).fetchone()
    return [row[0] for row in over], following[0]


def spend(index: ReadModel, *, since: str = "", until: str = "9999", agent: str | None = None) -> list[Row]:
    """What was used: `{day, agent, tool, model, calls, failed, input_tokens, output_tokens, duration_us}`, by day and agent.

    `since` (included) and `until` (not) are days in UTC, such as `2026-11-21`. `failed` calls are among `calls`; `model` is empty
    for a tool.
    """
    columns = "day, agent, tool, model, calls, failed, input_tokens, output_tokens, duration_us"
    condition = "" if agent is None else " AND agent = ?"
    values = (since, until) if agent is None else (since, until, agent)
    with index.reader() as connection:
        statement = f"SELECT {columns} FROM spend WHERE day >= ? AND day < ?{condition} ORDER BY day, agent, tool, model"  # noqa: S608 - see above
        return [dict(row) for row in connection.execute(statement, values)]


def faults(*models: ReadModel, limit: int = 100) -> list[Row]:
    """What could not be read: `{stream, position, session, kind, error}`.

    Kinds are undecodable, foreign, chain and shape (of the index), payload (of the text model).
    """
    found: list[Row] = []
    for model in models:
        with model.reader() as connection:
            statement = "SELECT stream, position, session, kind, error FROM faults ORDER BY stream, position LIMIT ?"
            found += (dict(row) for row in connection.execute(statement, (limit,)))
    return sorted(found, key=lambda row: (row["stream"], row["position"], row["kind"]))[:limit]


def _rows(
    index: ReadModel,
    text: ReadModel | None,
    whole: Callable[[Mapping[str, Json], Words], Row],
    statement: str,
    values: tuple[Json, ...],
) -> list[Row]:
    with opened(index, text) as (connection, words):
        return [whole(row, words) for row in connection.execute(statement, values).fetchall()]
