"""Full-text search in what people wrote and models said: goals, arguments, results, replies, reasons.

Words are found whole, without regard to case; all of them must stand in the text of one event. A `*` at the end of a word finds
what begins so; words in one argument (`"to the customer"`) must follow one another. Newest first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.event import rfc3339
from agentos.projections.read_model import ReadModel
from agentos.projections.text_store import first_id, time_of

MARKS: Final = ("\u00ab", "\u00bb")
"""What stands around a hit in a snippet: « and »."""

AROUND: Final = 24
"""Words of a snippet, at most."""

MAX_WORDS: Final = 32
"""Most words of one search."""

_START: Final = "\x02"
_END: Final = "\x03"


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; None leaves a filter open. `since_ms` is included."""

    words: tuple[str, ...]
    session: str | None = None
    agent: str | None = None
    since_ms: int | None = None
    limit: int = 20
    raw: bool = False
    """Whether the words are a query in the language of FTS5: AND, OR, NOT, NEAR, parentheses."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found, newest first. `more` says that there is more than the limit."""

    rows: tuple[dict[str, Json], ...]
    more: bool


def search(index: ReadModel, text: ReadModel, wanted: Search) -> Hits:
    """Look for words. Rows are `{time, session, seq, agent, call, kind, snippet}`. Blocks; call it in a worker thread.

    Raises UsageError for a raw query that FTS5 does not understand, and for no words at all.
    """
    match = expression(wanted)
    with index.reader() as ours, text.reader() as theirs:
        try:
            found = list(_places(ours, theirs, match, wanted))
            rows = [_row(theirs, match, place, agent) for place, agent in found[: wanted.limit]]
        except sqlite3.OperationalError as error:
            if wanted.raw:
                raise UsageError(
                    f"the query is not understood: {error}", mend="leave out --raw, or put quotes around words"
                ) from error
            raise
    return Hits(tuple(rows), more=len(found) > wanted.limit)


def expression(wanted: Search) -> str:
    """The query in the language of FTS5, in which no word of a user's is more than a word. Raises UsageError."""
    words = [word for word in (word.replace("\0", " ").strip() for word in wanted.words) if word]
    if not words or len(words) > MAX_WORDS or sum(map(len, words)) > 2000:
        raise UsageError(f"say 1 to {MAX_WORDS} words to look for, 2,000 characters at most")
    return " ".join(words) if wanted.raw else " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    begins = len(word) > 1 and word.endswith("*")
    bare = word[:-1] if begins else word
    return '"' + bare.replace('"', '""') + '"' + ("*" if begins else "")


def _places(index: sqlite3.Connection, text: sqlite3.Connection, match: str, wanted: Search) -> Iterator[tuple[int, str]]:
    """The rows that fit and the agents of their sessions, newest first, one more than the limit."""
    least, most = 0 if wanted.since_ms is None else first_id(wanted.since_ms), 1 << 62
    if wanted.session is not None:
        ends = text.execute("SELECT min(id), max(id) FROM texts WHERE session = ?", (wanted.session,)).fetchone()
        if ends[0] is None:
            return
        least, most = max(least, ends[0]), min(most, ends[1])
    statement = "SELECT rowid FROM found WHERE found MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC"
    agents: dict[str, str] = {}
    count = 0
    for (place,) in text.execute(statement, (match, least, most)):
        name = text.execute("SELECT session FROM texts WHERE id = ?", (place,)).fetchone()[0]
        if wanted.session not in {None, name}:
            continue
        if name not in agents:
            row = index.execute("SELECT agent FROM sessions WHERE id = ?", (name,)).fetchone()
            agents[name] = "" if row is None else row[0]
        if wanted.agent in {None, agents[name]}:
            yield place, agents[name]
            count += 1
            if count > wanted.limit:
                return


def _row(text: sqlite3.Connection, match: str, place: int, agent: str) -> dict[str, Json]:
    cut = f"snippet(found, 0, '{_START}', '{_END}', '…', {AROUND})"
    found = text.execute(
        f"SELECT session, seq, call, kind, {cut} AS cut FROM found JOIN texts ON texts.id = found.rowid"  # noqa: S608 - constants
        " WHERE found MATCH ? AND found.rowid = ?",
        (match, place),
    ).fetchone()
    snippet = found["cut"].replace(_START, MARKS[0]).replace(_END, MARKS[1])
    row = {"time": rfc3339(time_of(place)), "session": found["session"], "seq": found["seq"], "agent": agent}
    return row | {"call": found["call"], "kind": found["kind"], "snippet": snippet}
