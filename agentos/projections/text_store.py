"""The text model of one tenant, `<tenant>.text.db`: the words of its events, to be shown beside the index and to be searched.

It is folded from payloads, so it is never replicated and in no backup. What cannot be opened any more says nothing here. When the
audit chain says that a session was erased, its rows and its words in the full-text index go in the same transaction. SQLite
overwrites them (`secure_delete`), but not the copies that it left where it moved rows between pages. So the file is then written
anew from the rows that it has (`VACUUM INTO`), and takes the place of the one before; what a crash prevented is done when it is
opened. A session that was erased stays so, whatever comes of it later.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Final

from agentos.abi.erased import erased_by
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import AUDIT_CHAIN, is_session_subject, session_of
from agentos.projections import sqlite_file
from agentos.projections.cells import clip, dump
from agentos.projections.decoded import PayloadBroken, decode_header, read_kind
from agentos.projections.read_model import FAULTS, POSITIONS, New, ReadModel
from agentos.projections.sqlite_file import Layout
from agentos.projections.table import INTEGER, TEXT, Table
from agentos.projections.texts import WITH_TEXT, Text, text_of

SCHEMA_VERSION: Final = 1

APPLICATION_ID: Final = 0x41474F57
"""`AGOW`: words."""

TEXTS: Final = Table(
    "texts",
    {
        "session": TEXT,
        "seq": INTEGER,
        "id": INTEGER,
        "call": TEXT,
        "tool": TEXT,
        "kind": TEXT,
        "body": TEXT,
        "words": TEXT,
    },
    ["id"],
    rowid=True,
    known_by=["session", "seq"],
)
"""One row per event with words. `id` grows with the event's time, so that the newest hits of a search are read first."""

ERASED: Final = Table("erased", {"session": TEXT}, ["session"])
"""Sessions of which nothing is kept."""

ID_BITS: Final = 20
"""Bits of an id below the event's milliseconds."""

LAST_MS: Final = (1 << 43) - 1
"""The last moment, in milliseconds since the epoch, that an id can tell: in 2248."""

_UNSWEPT: Final = "unswept"
"""Stands in `meta` from an erasure on until the file has been written anew."""

_SECURE: Final = sqlite3.sqlite_version_info >= (3, 42)
"""Whether FTS5 can overwrite what is deleted; an older one has its index written anew after an erasure."""


class TextStore(ReadModel):
    """The words of `tenant` in the file `path`. Made by `open`."""

    layout = Layout(
        APPLICATION_ID,
        SCHEMA_VERSION,
        ("texts", "found", ERASED.name, POSITIONS.name, FAULTS.name),
        (
            TEXTS.create,
            "CREATE UNIQUE INDEX texts_event ON texts (session, seq)",
            "CREATE INDEX texts_tool ON texts (tool, id) WHERE tool IS NOT NULL",
            "CREATE VIRTUAL TABLE found USING fts5 (words, content='texts', content_rowid='id', tokenize='unicode61')",
            *(("INSERT INTO found (found, rank) VALUES ('secure-delete', 1)",) if _SECURE else ()),
            ERASED.create,
            POSITIONS.create,
            FAULTS.create,
        ),
        ("secure_delete = ON", "temp_store = MEMORY", "cache_size = -32768"),
    )
    tables = (TEXTS, ERASED, POSITIONS, FAULTS)

    def __init__(self, path: Path, tenant: str, connection: sqlite3.Connection, *, broken: str | None = None) -> None:
        super().__init__(path, tenant, connection, broken=broken)
        # A runtime that stopped right after an erasure may have left pages of before in the WAL: `open` has emptied it.
        self._empty_wal = False
        self._fresh = path.with_name(f"{path.name}.fresh")
        sqlite_file.unlink(self._fresh)
        self._sweep()

    def clear(self) -> None:
        """See `ReadModel.clear`. What a stream that is gone takes along is overwritten in the file with the next batch."""
        super().clear()
        self._empty_wal = True

    def _fold(self, connection: sqlite3.Connection, new: New) -> None:
        texts: dict[tuple[str, int], Text] = {}
        faults: list[tuple[str, int, str, str, str]] = []
        gone: set[str] = set()
        for stream, stored in new:
            try:
                if stored.subject == AUDIT_CHAIN:
                    gone.update(self._gone(stored))
                elif is_session_subject(stored.subject) and (text := self._text(stored)) is not None:
                    texts.setdefault((text.session, text.seq), text)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                # Of which class is told, not what: the words of an exception may be words of the payload.
                said = clip(f"the payload cannot be read: {type(error).__name__}")
                faults.append((stream, stored.position, session_of(stored.subject), "payload", said))
        self._erase(connection, gone)
        touched = {session for session, _ in texts} | {fault[2] for fault in faults}
        kept = {name for name in touched if ERASED.one(connection, (name,)) is None}
        _add(connection, (text for text in texts.values() if text.session in kept))
        FAULTS.add(connection, (fault for fault in faults if fault[2] in kept))

    def _stored(self, connection: sqlite3.Connection) -> None:
        if self._sweep():
            return
        if self._empty_wal:
            # A reader that is at it keeps it from being emptied; then the next batch does.
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._empty_wal = bool(busy)

    def _sweep(self) -> bool:
        """Put a file that holds the rows and nothing else in the place of this one, if something was erased from it.

        Who reads the old one meanwhile reads it to the end of its question.
        """
        if self._writer.execute("SELECT 1 FROM meta WHERE key = ?", (_UNSWEPT,)).fetchone() is None:
            return False
        sqlite_file.unlink(self._fresh)
        self._fresh.touch(mode=0o600)
        self._writer.execute("VACUUM INTO ?", (str(self._fresh),))
        sqlite_file.reopened(self._fresh, self.layout).close()
        self._writer.close()
        sqlite_file.put(self._fresh, self.path)
        self._writer = sqlite_file.reopened(self.path, self.layout)
        self._writer.execute("DELETE FROM meta WHERE key = ?", (_UNSWEPT,))
        self._empty_wal = False
        return True

    def _gone(self, stored: Stored) -> tuple[str, ...]:
        event = decode_header(stored.data)
        return erased_by(event) if event.tenant == self.tenant else ()

    def _text(self, stored: Stored) -> Text | None:
        """The words of a session's event. What is wrong with its header is the index's to tell."""
        try:
            event, data = read_kind(stored.data, WITH_TEXT)
        except PayloadBroken:
            raise
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        if event.subject != session_of(stored.subject) or event.tenant != self.tenant:
            return None
        return None if data is None else text_of(event, data)

    def _erase(self, connection: sqlite3.Connection, sessions: set[str]) -> None:
        """Take out everything of those sessions."""
        removed = 0
        for name in sorted(sessions):
            for row in connection.execute("SELECT id, words FROM texts WHERE session = ?", (name,)).fetchall():
                connection.execute("INSERT INTO found (found, rowid, words) VALUES ('delete', ?, ?)", row)
                removed += 1
            connection.execute("DELETE FROM texts WHERE session = ?", (name,))
            connection.execute("DELETE FROM faults WHERE session = ?", (name,))
        ERASED.add(connection, ((name,) for name in sorted(sessions)))
        if removed and not _SECURE:
            # Deleted words stay in the segments of an older FTS5 until those are merged: merge them all, now.
            connection.execute("INSERT INTO found (found) VALUES ('optimize')")
        if removed:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '')", (_UNSWEPT,))
        self._empty_wal = self._empty_wal or bool(sessions)


def first_id(time_ms: int) -> int:
    """The lowest id that a row of an event at `time_ms`, or later, can have."""
    return max(0, min(time_ms, LAST_MS)) << ID_BITS


def time_of(place: int) -> int:
    """The time of the event whose row has the id `place`, in milliseconds since the epoch."""
    return place >> ID_BITS


def _add(connection: sqlite3.Connection, texts: Iterable[Text]) -> None:
    """Store new rows and index their words. Sorted: FTS5 starts a new segment whenever ids go down."""
    by_session: dict[str, dict[int, Text]] = {}
    for text in texts:
        by_session.setdefault(text.session, {})[text.seq] = text
    for session, seqs in by_session.items():
        known = "SELECT seq FROM texts WHERE session = ? AND seq BETWEEN ? AND ?"
        for (seq,) in connection.execute(known, (session, min(seqs), max(seqs))).fetchall():
            seqs.pop(seq, None)
    new = sorted(((_place(text), text) for seqs in by_session.values() for text in seqs.values()), key=itemgetter(0))
    placed = list(zip(_free(connection, [place for place, _ in new]), (text for _, text in new), strict=True))
    TEXTS.add(
        connection, ((row.session, row.seq, at, row.call, row.tool, row.kind, dump(row.body), row.words) for at, row in placed)
    )
    connection.executemany("INSERT INTO found (rowid, words) VALUES (?, ?)", ((place, row.words) for place, row in placed))


def _free(connection: sqlite3.Connection, wanted: list[int]) -> Iterator[int]:
    """The places where rows go that would be at `wanted`, in that order: the next free one where somebody is."""
    there = "SELECT id FROM texts WHERE id IN (SELECT value FROM json_each(?))"
    taken = {place for (place,) in connection.execute(there, (dump(wanted),))}
    for start in wanted:
        place = start
        while place in taken or (
            place != start and connection.execute("SELECT 1 FROM texts WHERE id = ?", (place,)).fetchone() is not None
        ):
            place += 1
        taken.add(place)
        yield place


def _place(text: Text) -> int:
    mark = sha256(f"{text.session} {text.seq}".encode()).digest()
    return first_id(text.time_ms) + (int.from_bytes(mark[:4], "big") >> 32 - ID_BITS)
