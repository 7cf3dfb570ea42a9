"""One SQLite file per place: its changes, what was at every path after each of them, what is known now, and the contents.

Contents are stored once, by their digest, compressed. What is at a path after a change is the row of that path with the largest
number up to it, so a change costs what it changed, and the tree of any moment is one query. Transactions are on disk when they
are over: what the log says of a change must be there after a power cut too.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agentos.abi.canonical import digest as digest_of
from agentos.abi.errors import NotFound
from agentos.files.capture import Row
from agentos.files.versions import MAX_SHOWN, Author, Change, Entry, NotKept, Op, Place, State, VersionsUnavailable

APPLICATION_ID: Final = 0x41474656
"""`AGFV`: what `file` and SQLite tools know the file by."""

SCHEMA_VERSION: Final = 1

_ROW: Final = 256
"""Bytes that a path takes up in a change beside itself, about."""

_TOLD: Final = 512 * 1024 * 1024
"""Most bytes of such rows of a place."""

_BUSY_S: Final = 5.0
_MOST_IN_MEMORY: Final = 5000
_SCHEMA: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE changes (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, op TEXT NOT NULL, actor TEXT NOT NULL,
    session TEXT NOT NULL, call TEXT NOT NULL, decision_seq INTEGER, decision_hash TEXT, approvals TEXT NOT NULL,
    note TEXT NOT NULL, undoes TEXT NOT NULL, notes TEXT NOT NULL, total INTEGER NOT NULL)""",
    # A row without a kind: nothing is there any more.
    """CREATE TABLE entries (path TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT, mode INTEGER, size INTEGER, digest TEXT,
    target TEXT, PRIMARY KEY (path, number)) WITHOUT ROWID""",
    "CREATE INDEX entries_number ON entries (number)",
    """CREATE TABLE known (path TEXT PRIMARY KEY, mode INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    ctime INTEGER NOT NULL, inode INTEGER NOT NULL, digest TEXT NOT NULL, target TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE contents (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE TABLE seen (path TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_BELOW: Final = "(path = :path OR (path > :path || '/' AND path < :path || '0'))"
"""At and below a path: `0` is the character after `/`."""

_STATE: Final = "kind, mode, size, digest, target"
# All that is put together here are the two constants above.
_KNOWN: Final = "SELECT path, mode, size, mtime, ctime, inode, digest, target FROM known"
_KNOWN_BELOW: Final = f"{_KNOWN} WHERE {_BELOW}"
_NUMBERS_OF: Final = f"SELECT DISTINCT number FROM entries WHERE {_BELOW} AND number < :before ORDER BY number DESC LIMIT :limit"  # noqa: S608
_TREE: Final = f"""SELECT path, {_STATE} FROM entries AS one WHERE number <= :at AND (:path IS NULL OR {_BELOW})
    AND kind IS NOT NULL AND number = (SELECT max(number) FROM entries WHERE path = one.path AND number <= :at)
    ORDER BY path"""  # noqa: S608
_HISTORY: Final = f"SELECT number, {_STATE} FROM entries WHERE path = ? ORDER BY number DESC"  # noqa: S608
_BEFORE: Final = f"SELECT {_STATE} FROM entries WHERE path = ? AND number < ? ORDER BY number DESC LIMIT 1"  # noqa: S608
_ENTRIES: Final = f"""SELECT path, {_STATE}, EXISTS (SELECT 1 FROM contents WHERE digest = one.digest) FROM entries AS one
    WHERE number = :number AND (:path IS NULL OR {_BELOW}) ORDER BY path LIMIT :most"""  # noqa: S608


class PlaceFile:
    """An open file. Not for several threads at once."""

    def __init__(self, path: Path, place: Place, quota: int) -> None:
        """Open the file, or make it (mode 0600). Raises VersionsUnavailable."""
        self.place = place
        self._quota = quota
        self._all: dict[str, Row] | None = None
        """All that is known, where it is little enough to be kept in memory too."""
        fresh = not path.exists()
        if fresh:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._stamp()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written in the block is there, or nothing of it. A block that writes nothing costs nothing."""
        try:
            yield
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        except BaseException:
            self._all = None
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # --- what is known now: the `Book` of a capture

    def known(self, path: str | None) -> dict[str, Row]:
        """See `Book.known`."""
        if path is None:
            if self._all is not None:
                return self._all
            everything = {row[0]: Row._make(row[1:]) for row in self._connection.execute(_KNOWN)}
            if len(everything) <= _MOST_IN_MEMORY:
                self._all = everything
            return everything
        above = path.split("/")
        found = {}
        for depth in range(1, len(above)):
            for row in self._connection.execute(f"{_KNOWN} WHERE path = ?", ("/".join(above[:depth]),)):
                found[row[0]] = Row(*row[1:])
        for row in self._connection.execute(_KNOWN_BELOW, {"path": path}):
            found[row[0]] = Row(*row[1:])
        return found

    def learn(self, path: str, row: Row | None) -> None:
        """See `Book.learn`."""
        if row is None:
            self._write("DELETE FROM known WHERE path = ?", (path,))
            if self._all is not None:
                self._all.pop(path, None)
        else:
            if self._all is not None:
                self._all[path] = row
            self._write("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (path, *row))

    def hold(self, digest: str, content: bytes) -> bool:
        """See `Book.hold`."""
        if self.holds(digest):
            return True
        data = zlib.compress(content, 1)
        stored = self._meta("stored") + len(data)
        if stored > self._quota:
            return False
        self._write("INSERT INTO contents VALUES (?, ?, ?)", (digest, len(content), data))
        self._write("INSERT OR REPLACE INTO meta VALUES ('stored', ?)", (stored,))
        return True

    # --- changes

    def add(
        self,
        at_ms: int,
        author: Author,
        op: Op,
        entries: Mapping[str, Entry],
        undoes: tuple[int, ...],
        notes: tuple[str, ...],
        *,
        bounded: bool = True,
    ) -> Change:
        """Add a change; within a transaction. Raises VersionsUnavailable if `bounded` and changes take up all room."""
        self._take(sum(_ROW + 2 * len(path) for path in entries), bounded=bounded)
        last = self.last()
        number = 0 if last is None else last + 1
        seq, hashed = author.decision or (None, None)
        self._write(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(number, at_ms, op, author.actor, author.session, author.call, seq, hashed, json.dumps(author.approvals)),
                *(author.note, json.dumps(undoes), json.dumps(notes), len(entries)),
            ),
        )
        listed = tuple(entries[path] for path in sorted(entries))
        for entry in listed:
            one = entry.after
            state = (None,) * 5 if one is None else (one.kind, one.mode, one.size, one.digest, one.target)
            self._write("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", (entry.path, number, *state))
            # A note of what somebody had read is of use until the file changes again.
            self._write("DELETE FROM seen WHERE path = ?", (entry.path,))
        return Change(number, at_ms, author, op, listed, undoes, notes, len(listed))

    def _take(self, size: int, *, bounded: bool) -> None:
        """Count what is told of changes: a process that makes and removes files without end must not fill the disk by that."""
        told = self._meta("told") + size
        if bounded and told > _TOLD:
            raise VersionsUnavailable(
                "there is no room to tell of more changes",
                where=str(self.place),
                mend="begin another session: this one has changed more files than can be told of",
            )
        self._write("INSERT OR REPLACE INTO meta VALUES ('told', ?)", (told,))

    def last(self) -> int | None:
        """The number of the last change; None if the place is not begun."""
        found = self._connection.execute("SELECT max(number) FROM changes").fetchone()[0]
        return None if found is None else int(found)

    def changes(self, path: str | None, before: int | None, limit: int) -> tuple[Change, ...]:
        """Changes, the newest first; see `Versions.log`."""
        bound = {"before": 2**62 if before is None else before, "limit": limit, "path": path}
        if path is None:
            numbers = self._connection.execute(
                "SELECT number FROM changes WHERE number < :before ORDER BY number DESC LIMIT :limit", bound
            )
        else:
            numbers = self._connection.execute(_NUMBERS_OF, bound)
        return tuple(self._change(row[0], path, MAX_SHOWN) for row in numbers.fetchall())

    def change(self, number: int) -> Change | None:
        """One change whole; None if there is none."""
        known = self._connection.execute("SELECT 1 FROM changes WHERE number = ?", (number,)).fetchone()
        return None if known is None else self._change(number, None, None)

    def head(self, number: int) -> Change:
        """One change that is there, without its entries."""
        return self._change(number, None, 0)

    def last_of(self, path: str) -> int | None:
        """The number of the last change of exactly this path; None if it has none."""
        found = self._connection.execute("SELECT max(number) FROM entries WHERE path = ?", (path,)).fetchone()[0]
        return None if found is None else int(found)

    def tree(self, at: int, path: str | None = None) -> dict[str, State]:
        """What was there after change `at`, at and below `path`, sorted by path."""
        rows = self._connection.execute(_TREE, {"at": at, "path": path})
        return {row[0]: State(*row[1:]) for row in rows}

    def history(self, path: str) -> list[tuple[int, State | None]]:
        """What was at exactly this path after each change of it, the newest first."""
        rows = self._connection.execute(_HISTORY, (path,)).fetchall()
        return [(row[0], _state(row[1:])) for row in rows]

    # --- contents, and what was read

    def holds(self, digest: str) -> bool:
        """Whether a content is kept."""
        return self._connection.execute("SELECT 1 FROM contents WHERE digest = ?", (digest,)).fetchone() is not None

    def content(self, digest: str) -> bytes:
        """A content. Raises NotKept, VersionsUnavailable for one that is broken."""
        row = self._connection.execute("SELECT size, data FROM contents WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise NotKept("that content was not kept", where=str(self.place), mend="it was too large, or the place was full")
        try:
            data = zlib.decompressobj().decompress(row[1], row[0] + 1)
        except zlib.error as error:
            raise VersionsUnavailable(f"a kept content cannot be read: {error}", where=str(self.place)) from error
        if digest_of(data) != digest:
            raise VersionsUnavailable("a kept content is not what it was", where=str(self.place))
        return data

    def seen(self, path: str) -> str | None:
        """The digest that was noted of a path."""
        row = self._connection.execute("SELECT digest FROM seen WHERE path = ?", (path,)).fetchone()
        return None if row is None else str(row[0])

    def saw(self, path: str, digest: str) -> None:
        """Note a digest of a path; within a transaction."""
        self._write("INSERT OR REPLACE INTO seen VALUES (?, ?)", (path, digest))

    def note(self, path: str, digest: str, session: str) -> None:
        """Note what `session` has read, unless it is what is known, of the session's own making: that needs no note."""
        row, last = self.known(path).get(path), self.last_of(path)
        known = "" if row is None else row.digest
        if (known == digest and (not last or self.head(last).author.session == session)) or self.seen(path) == digest:
            return
        with self.transaction():
            self.saw(path, digest)

    def number(self, at: int | None) -> int:
        """The number of a change that is there; None: of the last one. Raises NotFound."""
        last = self.last()
        if last is None or (at is not None and not 0 <= at <= last):
            raise NotFound(f"there is no change {at or 0}", where=str(self.place))
        return last if at is None else at

    def _change(self, number: int, path: str | None, most: int | None) -> Change:
        row = self._connection.execute("SELECT * FROM changes WHERE number = ?", (number,)).fetchone()
        _, at, op, actor, session, call, seq, hashed, approvals, note, undoes, notes, total = row
        bound = {"number": number, "path": path, "most": -1 if most is None else most}
        entries = self._connection.execute(_ENTRIES, bound).fetchall() if most != 0 else []
        listed = []
        for entry in entries:
            after = _state(entry[1:6])
            listed.append(
                Entry(entry[0], self._before(entry[0], number), after, after is None or after.kind != "file" or entry[6] == 1)
            )
        decision = None if seq is None else (int(seq), str(hashed))
        author = Author(actor, session, call, decision, tuple(json.loads(approvals)), note)
        return Change(number, at, author, op, tuple(listed), tuple(json.loads(undoes)), tuple(json.loads(notes)), total)

    def _before(self, path: str, number: int) -> State | None:
        row = self._connection.execute(_BEFORE, (path, number)).fetchone()
        return None if row is None else _state(row)

    def _meta(self, key: str) -> int:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return 0 if row is None else int(row[0])

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(statement, values)

    def _stamp(self) -> None:
        """Make the tables of a file that is new, or see that one which is there is this place's. Raises VersionsUnavailable."""
        whose = json.dumps([self.place.tenant, self.place.kind, self.place.name])
        stamp = [self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if stamp == [0, 0]:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self._connection.execute(statement)
            self._connection.execute("INSERT INTO meta VALUES ('place', ?)", (whose,))
            self._connection.execute("COMMIT")
        elif stamp != [APPLICATION_ID, SCHEMA_VERSION]:
            raise VersionsUnavailable(f"the file of versions is none of ours, or of another kind: {stamp}", where=str(self.place))
        elif self._connection.execute("SELECT value FROM meta WHERE key = 'place'").fetchone() != (whose,):
            raise VersionsUnavailable("the file of versions is of another place", where=str(self.place))


def _state(row: tuple[Any, ...]) -> State | None:
    return None if row[0] is None else State(*row)
