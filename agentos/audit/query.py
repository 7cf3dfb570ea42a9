"""Questions to the record: which syscalls, by whom, decided how, by which rules. Answered from the read model.

A row is one syscall of one session (`schemas/v1/audit-row.json`). `decision` is what held in the end: a call that a person was
asked about shows `allow` or `deny` after the answer, and `asked` stays true.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.event import parse_rfc3339, rfc3339
from agentos.projections.index_tables import BY_FILTER
from agentos.projections.read_model import ReadModel
from agentos.projections.text_store import LAST_MS, first_id
from agentos.projections.worded import opened, whole_syscall

EFFECTS: Final = ("allow", "deny", "ask", "halt")
"""What `effect` may be. `ask` finds every call that a person was asked about, whatever the answer was."""

DEFAULT_LIMIT: Final = 1000
MAX_LIMIT: Final = 10_000
"""Most rows of one answer."""

FILTERS: Final = ("since", "until", "agent", "tool", "effect", "session", "actor", "rule")

COLUMNS: Final = (
    *("time", "session", "turn", "call", "agent", "actor", "tool", "tool_effect", "decision", "asked", "rules", "reasons"),
    *("observed", "args", "args_digest", "outcome", "error", "duration_us", "approval_by", "approval_reason", "approvals"),
    *("config_revision", "policy_digest"),
)
"""Fields of a row, in the order in which CSV has them."""

_UNITS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """One question; None leaves a filter open. Times are milliseconds since the epoch; `since_ms` included, `until_ms` not."""

    since_ms: int | None = None
    until_ms: int | None = None
    agent: str | None = None
    tool: str | None = None
    effect: str | None = None
    session: str | None = None
    actor: str | None = None
    """`principal/alice` (or `alice`): on whose behalf the call was made, or who answered for it (one of several counts)."""
    rule: str | None = None
    """A rule that fired for the call, such as `grants.none`."""
    limit: int = DEFAULT_LIMIT

    @classmethod
    def parse(cls, params: Mapping[str, Json], *, now_ms: int) -> AuditQuery:
        """Read `{since?, until?, agent?, tool?, effect?, session?, actor?, rule?, limit?}`, times as text. Raises UsageError."""
        unknown = sorted(params.keys() - {*FILTERS, "limit"})
        if unknown:
            raise UsageError(f"unknown filters: {', '.join(unknown)}", mend=f"there are {', '.join(FILTERS)} and limit")
        given: dict[str, str] = {}
        for name in FILTERS:
            value = params.get(name)
            if value is None:
                continue
            if not isinstance(value, str) or not value or len(value) > 256:
                raise UsageError(f"{name}: expected a text of 1 to 256 characters")
            given[name] = value
        limit = params.get("limit")
        limit = DEFAULT_LIMIT if limit is None else limit
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise UsageError(f"limit: expected a whole number from 1 to {MAX_LIMIT}")
        if given.get("effect", "allow") not in EFFECTS:
            raise UsageError(f"effect: {given['effect']!r} is none", mend=f"effects are {', '.join(EFFECTS)}")
        since, until = given.pop("since", None), given.pop("until", None)
        actor = given.pop("actor", None)
        return cls(
            since_ms=None if since is None else parse_moment(since, now_ms=now_ms),
            until_ms=None if until is None else parse_moment(until, now_ms=now_ms),
            actor=actor if actor is None or "/" in actor else f"principal/{actor}",
            limit=limit,
            **given,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, oldest first. `more` says that older ones were left off: the newest `limit` are here."""

    rows: tuple[dict[str, Json], ...]
    more: bool


def parse_moment(text: str, *, now_ms: int) -> int:
    """`15m`, `2h`, `7d` (that long ago; units s, m, h, d, w) or an RFC 3339 time, in milliseconds. Raises UsageError."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ms - int(ago[1]) * _UNITS[ago[2]]
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError) as error:
        mend = "write how long ago (15m, 2h, 7d) or a time with its zone (2026-11-21T08:30:00Z)"
        raise UsageError(f"{text!r} is no time", mend=mend) from error


def ask(index: ReadModel, query: AuditQuery, text: ReadModel | None = None) -> Answer:
    """Answer `query`, with the words of `text` where it is given. Blocks; call it in a worker thread."""
    statement, values = statement_of(query)
    with opened(index, text) as (connection, words):
        found = connection.execute(statement, values).fetchall()
        if text is not None and query.tool is not None and query.effect is None and query.rule is None:
            found = _with_refused(connection, text, query, found)
        rows = tuple(_row(whole_syscall(row, words)) for row in reversed(found[: query.limit]))
    return Answer(rows, more=len(found) > query.limit)


def statement_of(query: AuditQuery) -> tuple[str, tuple[Json, ...]]:
    """The SQL of a query and its values: newest first, one row more than asked for, to see whether there are more.

    Which index is read is said here, by the filters: SQLite knows nothing of how often a tool or an agent occurs, and would read
    through all calls of a common one to find those of a rare one.
    """
    where: list[str] = []
    values: list[Json] = []

    def add(condition: str, *given: Json) -> None:
        where.append(condition)
        values.extend(given)

    if query.since_ms is not None:
        add("TIME >= ?", query.since_ms)
    if query.until_ms is not None:
        add("TIME < ?", query.until_ms)
    narrowed = []
    for column, value in (("session", query.session), ("agent", query.agent), ("tool", query.tool)):
        if value is not None:
            add(f"s.{column} = ?", value)
            narrowed.append(column)
    if query.effect == "ask":
        add("s.asked = 1")
        narrowed.append("asked")
    elif query.effect is not None:
        add("s.decision = ?", query.effect)
        narrowed.append("decision")
    if query.session is not None:
        calls = "syscalls AS s INDEXED BY sqlite_autoindex_syscalls_1"
    else:
        calls = f"syscalls AS s INDEXED BY {BY_FILTER[tuple(narrowed)]}"
    source, time = calls, "s.started_ms"
    if query.rule is not None:
        # The rule's own index gives the order; CROSS JOIN keeps SQLite from starting at the other side.
        source = "rules AS r CROSS JOIN syscalls AS s ON s.session = r.session AND s.call = r.call"
        time = "r.started_ms"
        where.append("r.rule = ?")
        values.append(query.rule)
    count = query.limit + 1

    def select(source: str, time: str, *more: str) -> str:
        # Every piece of text in here is a constant; what the caller says goes in as a value.
        conditions = " AND ".join([*where, *more]).replace("TIME", time) or "1"
        order = f"ORDER BY {time} DESC, s.session DESC, place DESC LIMIT ?"
        return f"SELECT s.rowid AS place, s.* FROM {source} WHERE {conditions} {order}"  # noqa: S608

    if query.actor is None:
        return select(source, time), (*values, count)
    # Two questions, each in the order of its index and cut there: with OR, SQLite would sort every row of the actor first.
    if query.rule is None:
        started = source if narrowed else "syscalls AS s INDEXED BY syscalls_actor"
        answered = "answers AS a CROSS JOIN syscalls AS s ON s.session = a.session AND s.call = a.call"
        halves = [select(started, time, "s.actor = ?"), select(answered, "a.started_ms", 'a."by" = ?')]
    else:
        this = "a.started_ms = s.started_ms AND a.session = s.session AND a.call = s.call"
        halves = [
            select(source, time, "s.actor = ?"),
            select(source, time, f'EXISTS (SELECT 1 FROM answers AS a WHERE a."by" = ? AND {this})'),  # noqa: S608
        ]
    each = (*values, query.actor, count)
    united = " UNION ".join(f"SELECT * FROM ({half})" for half in halves)  # noqa: S608
    return f"{united} ORDER BY started_ms DESC, session DESC, place DESC LIMIT ?", (*each, *each, count)


def _with_refused(index: sqlite3.Connection, text: ReadModel, query: AuditQuery, found: list[sqlite3.Row]) -> list[sqlite3.Row]:
    """`found` and the refused calls whose tool was called so; only the text model knows that name, which is the model's word."""
    more = []
    since = 0 if query.since_ms is None else first_id(query.since_ms)
    until = first_id(LAST_MS if query.until_ms is None else query.until_ms)
    named = "SELECT session, call FROM texts WHERE tool = ? AND id >= ? AND id < ? ORDER BY id DESC"
    fits = "SELECT s.rowid AS place, s.* FROM syscalls AS s WHERE session = ? AND call = ? AND tool IS NULL"
    with text.reader() as words:
        for session, call in words.execute(named, (query.tool, since, until)):
            row = index.execute(fits, (session, call)).fetchone()
            if row is None or query.session not in {None, session}:
                continue
            if query.agent in {None, row["agent"]} and query.actor in {None, row["actor"]}:
                more.append(row)
                if len(more) > query.limit:
                    break
    if not more:
        return found
    return sorted([*found, *more], key=lambda row: (row["started_ms"], row["session"], row["place"]), reverse=True)[
        : query.limit + 1
    ]


def _row(row: dict[str, Json]) -> dict[str, Json]:
    row["time"] = rfc3339(row["started_ms"])
    return {column: row[column] for column in COLUMNS} | ({"erased": True} if "erased" in row else {})
