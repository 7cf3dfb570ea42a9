"""SQLite files that may be deleted at any time, because the log can make them again: opened, judged, thrown away in one way.

A file is stamped with what it is, in which version, and for which tenant. One with another stamp, or one that SQLite cannot read,
is of no use, and is made anew.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUSY_MS: Final = 5000
"""How long a connection waits for another one's lock, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of file holds."""

    application_id: int
    """Four letters that `file` and SQLite tools know it by."""
    version: int
    """Raised with any change of tables, of columns or of what they mean (`user_version`)."""
    tables: tuple[str, ...]
    """All of them but `meta`."""
    statements: tuple[str, ...]
    """What makes the tables and their indexes."""
    pragmas: tuple[str, ...] = ()
    """Set whenever a writing connection is opened."""


def connect(path: Path, layout: Layout, tenant: str) -> sqlite3.Connection:
    """The writing connection; a file that is missing is made (mode 0600). Raises OSError or sqlite3.Error.

    Transactions are begun by hand: the module's own rules for when to begin one differ between Python versions.
    """
    fresh = not path.exists()
    if fresh:
        path.touch(mode=0o600)
    connection = reopened(path, layout)
    try:
        if fresh:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                create(connection, layout, tenant)
    except BaseException:
        connection.close()
        raise
    return connection


def reopened(path: Path, layout: Layout) -> sqlite3.Connection:
    """The writing connection to a file that is there and has this layout. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last batches, never half of one: the log has them.
        connection.execute("PRAGMA synchronous = NORMAL")
        for pragma in layout.pragmas:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """A read-only connection; whoever asked for it closes it."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_MS / 1000, check_same_thread=False, isolation_level=None
    )


def create(connection: sqlite3.Connection, layout: Layout, tenant: str) -> None:
    """Make the empty tables and stamp the file; for a transaction of the caller's."""
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    for statement in layout.statements:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('tenant', ?)", (tenant,))
    connection.execute(f"PRAGMA application_id = {layout.application_id}")
    connection.execute(f"PRAGMA user_version = {layout.version}")


def drop(connection: sqlite3.Connection, layout: Layout) -> None:
    """Take all tables out; for a transaction of the caller's."""
    for table in (*layout.tables, "meta"):
        connection.execute(f"DROP TABLE {table}")


def of_this_kind(path: Path, layout: Layout, tenant: str) -> bool:
    """Whether the file has this layout, in this version, for `tenant`. Raises sqlite3.DatabaseError for one that is broken."""
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000)
    try:
        stamps = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if stamps != [layout.application_id, layout.version]:
            return False
        if connection.execute("SELECT value FROM meta WHERE key = 'tenant'").fetchall() != [(tenant,)]:
            return False
        for table in layout.tables:
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()  # noqa: S608 - names are constants of the layout
    finally:
        connection.close()
    return True


def put(fresh: Path, path: Path) -> None:
    """Put the file `fresh`, which nobody has open, in the place of `path`, which no writer has open. Raises OSError."""
    # What SQLite keeps beside the old file is not of the new one; readers of the old one hold theirs by descriptor.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    fresh.replace(path)


def unlink(path: Path) -> None:
    """Delete the file with all that SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
