"""A read model: a SQLite file, a fold of the log, written in batches, each in one transaction with the positions it reaches.

The file is a cache. One of another version, of another tenant, or one that is broken is deleted and built anew; so is one that
has read further than the log goes. That it is broken is found when it is opened (a small file is read whole then), when a row
that is to be changed is not what was written, when a reader stumbles over it, and by `check`, which reads all of it. Writing is
for one thread at a time (a lock sees to it); every reader has a connection of its own and sees whole batches only.
"""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final, Self

from agentos.eventlog.port import Stored
from agentos.projections import sqlite_file
from agentos.projections.sqlite_file import Layout
from agentos.projections.table import INTEGER, TEXT, Table

READ_WHOLE: Final = 16 * 1024 * 1024
"""Bytes up to which a file is read whole when it is opened, which takes less than half a second; larger ones are read later."""

POSITIONS: Final = Table("positions", {"stream": TEXT, "position": INTEGER}, ["stream"])
"""How far each stream has been read."""

FAULTS: Final = Table(
    "faults",
    {"stream": TEXT, "position": INTEGER, "session": TEXT, "kind": TEXT, "error": TEXT},
    ["stream", "position", "kind"],
)
"""What could not be folded."""

New = Sequence[tuple[str, Stored]]
"""(stream, stored), each stream's in its order."""


class ReadModel(ABC):
    """The read model of `tenant` in the file `path`. Made by `open`."""

    layout: ClassVar[Layout]
    tables: ClassVar[tuple[Table, ...]]

    def __init__(self, path: Path, tenant: str, connection: sqlite3.Connection, *, broken: str | None = None) -> None:
        self.path = path
        self.tenant = tenant
        self.rebuilds = int(broken is not None)
        """How often a broken file was thrown away since the start."""
        self.broken = broken
        """What was wrong with the last of them."""
        self.doubted = False
        """Whether a reader found the file broken: `check` is due."""
        self._writer = connection
        self._lock = threading.Lock()
        self._checking: sqlite3.Connection | None = None

    @classmethod
    def open(cls, path: Path, *, tenant: str) -> Self:
        """Open the file, or make it (mode 0600, and its folder) when it is missing, foreign, old or broken.

        Raises OSError or sqlite3.OperationalError when the place cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        broken = None
        if path.exists():
            try:
                kept = sqlite_file.of_this_kind(path, cls.layout, tenant)
                if kept:
                    cls._judge(path)
            except sqlite3.DatabaseError as error:
                kept, broken = False, str(error)
            if not kept:
                sqlite_file.unlink(path)
        else:
            # What is left beside a file that was deleted belongs to no file.
            sqlite_file.unlink(path)
        return cls(path, tenant, sqlite_file.connect(path, cls.layout, tenant), broken=broken)

    def apply(self, batch: New) -> dict[str, int]:
        """Fold `(stream, stored)` pairs, each stream's in its order, in one transaction; return all positions after it.

        Safe to repeat: what lies at or before its stream's position is passed over. Blocks; call it in a worker thread.
        Raises sqlite3.Error; nothing of the batch is stored then.
        """
        with self._lock:
            connection = self._writer
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                positions = _positions(connection)
                new, reached = [], {}
                for stream, stored in batch:
                    if stored.position > positions.get(stream, 0):
                        new.append((stream, stored))
                        reached[stream] = positions[stream] = stored.position
                self._fold(connection, new)
                POSITIONS.put(connection, [{"stream": stream, "position": at} for stream, at in reached.items()])
            self._stored(connection)
            return positions

    def positions(self) -> dict[str, int]:
        """The position that each stream has been read to; a stream that has not been read is absent."""
        with self._lock:
            return _positions(self._writer)

    def clear(self) -> None:
        """Forget everything, in one transaction: readers see the old rows until it is done, then none."""
        with self._lock, self._writer as connection:
            connection.execute("BEGIN IMMEDIATE")
            sqlite_file.drop(connection, self.layout)
            sqlite_file.create(connection, self.layout, self.tenant)

    def replace(self, why: str = "SQLite cannot read it") -> None:
        """Throw the file away and start an empty one: for a file that is broken, as `why` says."""
        with self._lock:
            self._writer.close()
            sqlite_file.unlink(self.path)
            self._writer = sqlite_file.connect(self.path, self.layout, self.tenant)
            self.rebuilds, self.broken, self.doubted = self.rebuilds + 1, why, False

    def close(self) -> None:
        """Close the writing connection; a batch under way ends first, a check under way is given up."""
        checking = self._checking
        if checking is not None:
            checking.interrupt()
        with self._lock:
            self._writer.close()

    def check(self) -> None:
        """Read the whole file: its structure, its indexes, every row. Takes seconds for a large one, and holds up nobody.

        Raises sqlite3.DatabaseError when it is broken, sqlite3.OperationalError when it was given up because of `close`.
        """
        connection = self._checking = sqlite_file.reader(self.path)
        try:
            connection.execute("BEGIN")
            _examine(connection, self.tables)
            self.doubted = False
        finally:
            self._checking = None
            connection.close()

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection whose rows are `sqlite3.Row`. Blocks; use it in a worker thread."""
        connection = sqlite_file.reader(self.path)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA temp_store = MEMORY")
            yield connection
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self.doubted = True
            raise
        finally:
            connection.close()

    @contextmanager
    def writer(self) -> Iterator[sqlite3.Connection]:
        """The writing connection, while nobody else writes. Blocks; use it in a worker thread."""
        with self._lock:
            yield self._writer

    @abstractmethod
    def _fold(self, connection: sqlite3.Connection, new: New) -> None:
        """Write what the new events say."""

    def _stored(self, connection: sqlite3.Connection) -> None:  # noqa: B027 - most have nothing to do then
        """Called once a batch is stored."""

    @classmethod
    def _judge(cls, path: Path) -> None:
        """Raise sqlite3.DatabaseError if the file is broken, as far as can be told at once."""
        connection = sqlite3.connect(path, timeout=sqlite_file.BUSY_MS / 1000)
        try:
            # What lies in the WAL is moved into the file, so that its length can be judged, and nothing that was erased stays.
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
            if not busy and path.stat().st_size < pages * size:
                raise sqlite3.DatabaseError("the file is shorter than it says")
            if path.stat().st_size <= READ_WHOLE:
                _examine(connection, cls.tables)
        finally:
            connection.close()


def _examine(connection: sqlite3.Connection, tables: Sequence[Table]) -> None:
    said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if said != "ok":
        raise sqlite3.DatabaseError(said)
    for table in tables:
        table.check(connection)


def _positions(connection: sqlite3.Connection) -> dict[str, int]:
    return {str(stream): int(position) for stream, position in POSITIONS.rows(connection)}
