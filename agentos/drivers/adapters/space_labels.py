"""What the files of shared spaces carry, in one SQLite file per tenant beside the folders of its spaces.

A row says: these bytes, at this path, were written by that session, which carried these labels. It is on disk before the bytes
are at their path, and stays when they are replaced: a reader who holds the old file, or a person who puts it back, still learns
what it carries. Without its row a file counts as one that somebody from outside put there.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from agentos.abi.ids import is_name
from agentos.drivers.spaces import UNTRUSTED, SpaceUnlabelled, Writing

log = logging.getLogger(__name__)

APPLICATION_ID: Final = 0x41474F53
"""`AGOS`: what `file` and SQLite tools know the file by."""

SCHEMA_VERSION: Final = 1

BUSY_MS: Final = 5000

_SCHEMA: Final = (
    """CREATE TABLE written (space TEXT NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL, labels TEXT NOT NULL,
    session TEXT NOT NULL, call TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (space, path, digest)) WITHOUT ROWID""",
    "CREATE INDEX written_digest ON written (digest)",
    # What triggers were told of arrivals (`space_arrivals`).
    "CREATE TABLE watched (trigger TEXT PRIMARY KEY, space TEXT NOT NULL, glob TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE arrived (trigger TEXT NOT NULL, space TEXT NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (trigger, space, path)) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_T = TypeVar("_T")


class SqliteSpaceLabels:
    """`SpaceLabels` in files `<root>/<tenant>.db`, opened when they are first needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, sqlite3.Connection] = {}
        self._lock = threading.Lock()

    def record(self, tenant: str, writing: Writing) -> None:
        """See `SpaceLabels.record`."""

        def write(connection: sqlite3.Connection) -> None:
            place = (writing.space, writing.path, writing.digest)
            connection.execute("BEGIN IMMEDIATE")
            try:
                known = connection.execute(
                    "SELECT labels FROM written WHERE space = ? AND path = ? AND digest = ?", place
                ).fetchone()
                labels = sorted({*writing.labels, *(json.loads(known[0]) if known is not None else ())})
                row = (*place, json.dumps(labels), writing.session, writing.call, writing.at_ms)
                connection.execute("INSERT OR REPLACE INTO written VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

        self.on(tenant, write)

    def of_bytes(self, tenant: str, space: str, path: str, digest: str) -> tuple[str, ...]:
        """See `SpaceLabels.of_bytes`."""
        rows = self.on(
            tenant,
            lambda connection: connection.execute(
                "SELECT space, path, labels FROM written WHERE digest = ?", (digest,)
            ).fetchall(),
        )
        for of, at, labels in rows:
            if (of, at) == (space, path):
                return tuple(json.loads(labels))
        return tuple(sorted({UNTRUSTED, *(label for row in rows for label in json.loads(row[2]))}))

    def of_path(self, tenant: str, space: str, path: str) -> tuple[str, ...]:
        """See `SpaceLabels.of_path`."""
        rows = self.on(
            tenant,
            lambda connection: connection.execute(
                "SELECT labels FROM written WHERE space = ? AND path = ?", (space, path)
            ).fetchall(),
        )
        return tuple(sorted({label for row in rows for label in json.loads(row[0])})) if rows else (UNTRUSTED,)

    def close(self) -> None:
        """See `SpaceLabels.close`."""
        with self._lock:
            for connection in self._open.values():
                connection.close()
            self._open = {}

    def on(self, tenant: str, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` on the file of a tenant, alone. Raises SpaceUnlabelled."""
        try:
            with self._lock:
                connection = self._open.get(tenant)
                if connection is None:
                    connection = self._open[tenant] = self._connect(tenant)
                return work(connection)
        except (OSError, sqlite3.Error, ValueError) as error:
            # A file whose labels cannot be told is not shown: without them, what is private would look as if it were not.
            raise SpaceUnlabelled(
                f"what the files of the spaces carry cannot be told: {error}",
                where=str(self._root / f"{tenant}.db"),
                mend="bring the file back from where it was kept; without it all that is there counts as untrusted",
            ) from error

    def _connect(self, tenant: str) -> sqlite3.Connection:
        if not is_name(tenant):
            raise ValueError(f"{tenant!r} is no tenant")
        path = self._root / f"{tenant}.db"
        fresh = not path.exists()
        if fresh:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # What is recorded here must be there when the file is, also after a power cut.
            connection.execute("PRAGMA synchronous = FULL")
            stamp = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
            if stamp == [0, 0]:
                folder = self._root / tenant
                if folder.is_dir() and any(any(one.iterdir()) for one in folder.iterdir() if one.is_dir()):
                    log.warning("tenant %s: nothing is known of the files in %s, so they count as untrusted", tenant, folder)
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("COMMIT")
            elif stamp != [APPLICATION_ID, SCHEMA_VERSION]:
                raise ValueError(f"the file is none of ours, or of another version: {stamp}")  # noqa: TRY301 - it is closed first
        except BaseException:
            connection.close()
            raise
        return connection
