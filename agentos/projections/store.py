"""The read model of one tenant: one SQLite file, written in batches, each in one transaction with the positions it reaches.

The file is a cache of the log. One of another schema version, of another tenant, or one that SQLite cannot read is deleted
and built anew; so is one that has read further than the log goes. Writing is for one thread at a time (a lock sees to it);
every reader has a connection of its own and sees whole batches only.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agentos.eventlog.port import Stored
from agentos.projections.rows import APPROVAL_COLUMNS, SESSION_COLUMNS, SYSCALL_COLUMNS, Row, Rows, take

SCHEMA_VERSION: Final = 3
"""Stamped into the file (`user_version`). Raise it with any change of tables, of columns or of what they mean."""

APPLICATION_ID: Final = 0x41474F53
"""`AGOS`: what `file` and SQLite tools know the file by (`application_id`)."""

BUSY_MS: Final = 5000
"""How long a connection waits for another one's lock, in milliseconds."""

_COLUMNS: Final = {"sessions": SESSION_COLUMNS, "syscalls": SYSCALL_COLUMNS, "approvals": APPROVAL_COLUMNS}
_KEYS: Final = {"sessions": ("id",), "syscalls": ("session", "call"), "approvals": ("session", "call")}
_INTEGERS: Final = frozenset(
    {
        *("created_ms", "updated_ms", "calls", "denied", "model_calls", "input_tokens", "output_tokens", "config_revision"),
        *("seq", "paused", "asked", "started_ms", "duration_us", "turn", "asked_ms", "decided_ms"),
        *("decided", "expires_ms", "needed", "given"),
    }
)


def _table(name: str) -> str:
    columns = ", ".join(f'"{column}" {"INTEGER" if column in _INTEGERS else "TEXT"}' for column in _COLUMNS[name])
    return f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({', '.join(_KEYS[name])}))"


_RULE: Final = "rule TEXT, started_ms INTEGER, session TEXT, call TEXT"
_ANSWER: Final = '"by" TEXT, started_ms INTEGER, session TEXT, call TEXT'
_FAULT: Final = "stream TEXT, position INTEGER, session TEXT, kind TEXT, error TEXT"

_SCHEMA: Final = (
    *(_table(name) for name in _COLUMNS),
    f"CREATE TABLE rules ({_RULE}, PRIMARY KEY (rule, started_ms, session, call)) WITHOUT ROWID",
    f'CREATE TABLE answers ({_ANSWER}, PRIMARY KEY ("by", started_ms, session, call)) WITHOUT ROWID',
    "CREATE TABLE positions (stream TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE faults ({_FAULT}, PRIMARY KEY (stream, position, kind)) WITHOUT ROWID",
    "CREATE TABLE meta (tenant TEXT NOT NULL)",
    # Each filter of the audit query has an index that already lies in the order of the answer: newest first.
    "CREATE INDEX sessions_created ON sessions (created_ms)",
    "CREATE INDEX sessions_state ON sessions (state, created_ms)",
    "CREATE INDEX syscalls_started ON syscalls (started_ms)",
    "CREATE INDEX syscalls_agent ON syscalls (agent, started_ms)",
    "CREATE INDEX syscalls_tool ON syscalls (tool, started_ms)",
    "CREATE INDEX syscalls_decision ON syscalls (decision, started_ms)",
    "CREATE INDEX syscalls_actor ON syscalls (actor, started_ms)",
    "CREATE INDEX syscalls_asked ON syscalls (started_ms) WHERE asked = 1",
    "CREATE INDEX approvals_state ON approvals (state, asked_ms)",
    # What the runtime looks for every second: questions whose time is over.
    "CREATE INDEX approvals_expiry ON approvals (expires_ms) WHERE state = 'waiting'",
)
_TABLES: Final = (*_COLUMNS, "rules", "answers", "positions", "faults", "meta")


def _upsert(name: str) -> str:
    columns, keys = _COLUMNS[name], _KEYS[name]
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(f":{column}" for column in columns)
    changes = ", ".join(f'"{column}" = excluded."{column}"' for column in columns if column not in keys)
    return f"INSERT INTO {name} ({names}) VALUES ({values}) ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"  # noqa: S608 - names are constants of this module


def _select(name: str) -> str:
    names = ", ".join(f'"{column}"' for column in _COLUMNS[name])
    return f"SELECT {names} FROM {name} WHERE {' AND '.join(f'{key} = ?' for key in _KEYS[name])}"  # noqa: S608 - names are constants of this module


_UPSERT: Final = {name: _upsert(name) for name in _COLUMNS}
_SELECT: Final = {name: _select(name) for name in _COLUMNS}


class Store:
    """The read model of `tenant` in the file `path`. Made by `open`."""

    def __init__(self, path: Path, tenant: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.tenant = tenant
        self._writer = connection
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, tenant: str) -> Store:
        """Open the file, or make it (mode 0600, and its folder) when it is missing, foreign, old or broken.

        Raises OSError or sqlite3.OperationalError when the place cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and not _usable(path, tenant):
            _unlink(path)
        return cls(path, tenant, _connect(path, tenant))

    def apply(self, batch: Sequence[tuple[str, Stored]]) -> dict[str, int]:
        """Fold `(stream, stored)` pairs, each stream's in its order, in one transaction; return all positions after it.

        Safe to repeat: what lies at or before its stream's position is passed over. Blocks; call it in a worker thread.
        Raises sqlite3.Error; nothing of the batch is stored then.
        """
        with self._lock:
            connection = self._writer
            positions = _positions(connection)
            rows = Rows(lambda table, key: _one(connection, table, key))
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for stream, stored in batch:
                    if stored.position > positions.get(stream, 0):
                        take(rows, stream, stored, tenant=self.tenant)
                        positions[stream] = stored.position
                _write(connection, rows, positions)
            return positions

    def positions(self) -> dict[str, int]:
        """The position that each stream has been read to; a stream that has not been read is absent."""
        with self._lock:
            return _positions(self._writer)

    def clear(self) -> None:
        """Forget everything, in one transaction: readers see the old rows until it is done, then none."""
        with self._lock, self._writer as connection:
            connection.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                connection.execute(f"DROP TABLE {table}")
            _create(connection, self.tenant)

    def replace(self) -> None:
        """Throw the file away and start an empty one: for a file that SQLite calls broken."""
        with self._lock:
            self._writer.close()
            _unlink(self.path)
            self._writer = _connect(self.path, self.tenant)

    def close(self) -> None:
        """Close the writing connection; a batch under way ends first."""
        with self._lock:
            self._writer.close()

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection whose rows are `sqlite3.Row`. Blocks; use it in a worker thread."""
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
        try:
            connection.row_factory = sqlite3.Row
            yield connection
        finally:
            connection.close()


def _connect(path: Path, tenant: str) -> sqlite3.Connection:
    # Transactions are begun by hand: the module's own rules for when to begin one differ between Python versions.
    fresh = not path.exists()
    if fresh:
        path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last batches, never half of one: the log has them.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -32768")
        if fresh:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                _create(connection, tenant)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection, tenant: str) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO meta (tenant) VALUES (?)", (tenant,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _usable(path: Path, tenant: str) -> bool:
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000)
    try:
        stamps = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if stamps != [APPLICATION_ID, SCHEMA_VERSION]:
            return False
        if connection.execute("SELECT tenant FROM meta").fetchall() != [(tenant,)]:
            return False
        for table in _TABLES:
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()  # noqa: S608 - names are constants of this module
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()
    return True


def _unlink(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _positions(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT stream, position FROM positions"))


def _one(connection: sqlite3.Connection, table: str, key: tuple[str, ...]) -> Row | None:
    found = connection.execute(_SELECT[table], key).fetchone()
    return None if found is None else dict(zip(_COLUMNS[table], found, strict=True))


def _write(connection: sqlite3.Connection, rows: Rows, positions: Mapping[str, int]) -> None:
    connection.executemany(_UPSERT["sessions"], rows.sessions.values())
    connection.executemany(_UPSERT["syscalls"], rows.syscalls.values())
    connection.executemany(_UPSERT["approvals"], rows.approvals.values())
    connection.executemany("INSERT OR IGNORE INTO rules VALUES (?, ?, ?, ?)", sorted(rows.rules))
    connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", sorted(rows.answers))
    connection.executemany("INSERT OR REPLACE INTO faults VALUES (?, ?, ?, ?, ?)", rows.faults)
    connection.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions.items())
