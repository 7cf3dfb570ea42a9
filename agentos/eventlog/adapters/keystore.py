"""The keys of payloads in one SQLite file per tenant, made so that a destroyed key is not to be found in it any more.

SQLite overwrites what is deleted (`secure_delete`). But when it moves rows between pages it leaves copies of them in the room
between, and those it does not overwrite. So after each destruction the whole file is written anew (`VACUUM`), and the write-ahead
log, which may hold pages as they were, is emptied; what a crash prevented is done at the next start. What the disk itself keeps
(a copy on write, the spare blocks of a flash drive) is beyond a program: use a disk that is encrypted as a whole, or a file
system that discards. The file is in no backup and no replica; keep a copy of it as you would of any key.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from agentos.abi.errors import Conflict, LogUnavailable, PayloadErased
from agentos.abi.ids import Random
from agentos.eventlog.keys import ID_BYTES, KEY_BYTES, Key

SCHEMA_VERSION: Final = 1

APPLICATION_ID: Final = 0x41474F4B
"""`AGOK`: what `file` and SQLite tools know the file by."""

CACHED: Final = 20_000
"""Keys kept in memory, about 200 bytes each."""

BUSY_MS: Final = 5000

_SCHEMA: Final = (
    # `secret` and `subject` are NULL once the key is destroyed: that it was there stays known, so that none is made in its place.
    "CREATE TABLE keys (id BLOB PRIMARY KEY, secret BLOB, subject TEXT UNIQUE) WITHOUT ROWID",
    "CREATE TABLE sessions (session TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX sessions_key ON sessions (key)",
    # Has a row from a destruction on until the file has been written anew.
    "CREATE TABLE unswept (one INTEGER PRIMARY KEY)",
)

_T = TypeVar("_T")


class SqliteKeyStore:
    """`KeyStore` in the file `path`. Made by `open`; `close` it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, random: Random) -> None:
        self.path = path
        self._connection = connection
        self._random = random
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Key] = OrderedDict()
        self._keys: OrderedDict[bytes, Key] = OrderedDict()

    @classmethod
    def open(cls, path: Path, random: Random) -> SqliteKeyStore:
        """Open the file, or make it (mode 0600, and its folder). Unlike a read model it is never replaced by an empty one.

        Raises LogUnavailable for a file that is none of ours, or broken: without it payloads cannot be read.
        """
        connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = not path.exists()
            if fresh:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            _prepare(connection)
            _sweep(connection)
        except (OSError, sqlite3.Error) as error:
            if connection is not None:
                connection.close()
            raise _unusable(path, error) from error
        except LogUnavailable:
            if connection is not None:
                connection.close()
            raise
        return cls(path, connection, random)

    async def of_session(self, session: str) -> Key:
        """See `KeyStore.of_session`."""
        known = self._sessions.get(session)
        return known if known is not None else await self._apart(lambda: self._of_session(session))

    async def assign(self, session: str, subject: str) -> None:
        """See `KeyStore.assign`."""
        await self._apart(lambda: self._assign(session, subject))

    async def join(self, session: str, other: str) -> None:
        """See `KeyStore.join`."""
        await self._apart(lambda: self._join(session, other))

    async def find(self, key: bytes) -> Key | None:
        """See `KeyStore.find`."""
        known = self._keys.get(key)
        if known is None and self._lock.acquire(blocking=False):
            # One row by its key, and nobody at the file: that is done long before a thread has begun.
            try:
                return self._find(key)
            except sqlite3.Error as error:
                raise _unusable(self.path, error) from error
            finally:
                self._lock.release()
        return known if known is not None else await self._apart(lambda: self._find(key))

    async def destroy(self, keys: Sequence[bytes]) -> int:
        """See `KeyStore.destroy`."""
        return await self._apart(lambda: self._destroy(keys))

    async def sharing(self, session: str) -> tuple[bytes, tuple[str, ...]] | None:
        """See `KeyStore.sharing`."""
        return await self._apart(lambda: self._shared("SELECT key FROM sessions WHERE session = ?", session))

    async def of_subject(self, subject: str) -> tuple[bytes, tuple[str, ...]] | None:
        """See `KeyStore.of_subject`."""
        return await self._apart(lambda: self._shared("SELECT id FROM keys WHERE subject = ?", subject))

    async def sessions(self) -> dict[str, bytes]:
        """See `KeyStore.sessions`."""
        query = "SELECT session, key FROM sessions JOIN keys ON id = key WHERE secret IS NOT NULL"
        return await self._apart(lambda: dict(self._connection.execute(query)))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    async def _apart(self, work: Callable[[], _T]) -> _T:
        """Do `work` in a thread, one at a time."""

        def held() -> _T:
            with self._lock:
                try:
                    return work()
                except sqlite3.Error as error:
                    raise _unusable(self.path, error) from error

        # To its end, also for a caller that has given up: a key that was made is there for the next one.
        return await asyncio.shield(asyncio.to_thread(held))

    def _of_session(self, session: str) -> Key:
        # Another one may have made it while we waited for the lock.
        found = self._one("SELECT key, secret FROM sessions JOIN keys ON id = key WHERE session = ?", session)
        if found is None:
            made = Key(self._random.token(ID_BYTES), self._random.token(KEY_BYTES))
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("INSERT INTO keys VALUES (?, ?, NULL)", (made.id, made.secret))
                self._connection.execute("INSERT INTO sessions VALUES (?, ?)", (session, made.id))
            found = (made.id, made.secret)
        name, secret = found
        if secret is None:
            raise PayloadErased(f"the payload of session {session} was erased: nothing can be added to it", where=session)
        key = Key(name, secret)
        _keep(self._sessions, session, key)
        _keep(self._keys, name, key)
        return key

    def _assign(self, session: str, subject: str) -> None:
        has = self._one("SELECT key FROM sessions WHERE session = ?", session)
        found = self._one("SELECT id FROM keys WHERE subject = ?", subject)
        if has is not None and has != found:
            raise Conflict(f"session {session} has another key already")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            if found is None:
                found = (self._random.token(ID_BYTES),)
                secret = self._random.token(KEY_BYTES)
                self._connection.execute("INSERT INTO keys VALUES (?, ?, ?)", (found[0], secret, subject))
            self._connection.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?)", (session, found[0]))

    def _join(self, session: str, other: str) -> None:
        has = self._one("SELECT key FROM sessions WHERE session = ?", session)
        found = self._one("SELECT key, secret FROM sessions JOIN keys ON id = key WHERE session = ?", other)
        if found is None:
            return  # it has no payload of ours to repeat
        if found[1] is None:
            raise PayloadErased(f"the payload of session {other} was erased", where=other)
        if has is not None and has != found[:1]:
            raise Conflict(f"session {session} has another key already")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?)", (session, found[0]))

    def _find(self, name: bytes) -> Key | None:
        found = self._one("SELECT secret FROM keys WHERE id = ?", name)
        if found is None or found[0] is None:
            return None
        key = Key(name, found[0])
        _keep(self._keys, name, key)
        return key

    def _destroy(self, names: Sequence[bytes]) -> int:
        there = 0
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for name in names:
                there += self._one("SELECT 1 FROM keys WHERE id = ? AND secret IS NOT NULL", name) is not None
                # Also of one that never was here: should an older copy of this file come back, the log says that it is gone.
                self._connection.execute("DELETE FROM keys WHERE id = ?", (name,))
                self._connection.execute("INSERT INTO keys VALUES (?, NULL, NULL)", (name,))
            if there:
                self._connection.execute("INSERT OR IGNORE INTO unswept VALUES (1)")
        gone = set(names)
        for session in [session for session, key in self._sessions.items() if key.id in gone]:
            del self._sessions[session]
        for name in gone & self._keys.keys():
            del self._keys[name]
        _sweep(self._connection)
        return there

    def _shared(self, query: str, value: str) -> tuple[bytes, tuple[str, ...]] | None:
        found = self._one(query, value)
        if found is None:
            return None
        rows = self._connection.execute("SELECT session FROM sessions WHERE key = ? ORDER BY session", (found[0],))
        return found[0], tuple(session for (session,) in rows)

    def _one(self, query: str, value: str | bytes) -> tuple[bytes, ...] | None:
        found: tuple[bytes, ...] | None = self._connection.execute(query, (value,)).fetchone()
        return found


def _prepare(connection: sqlite3.Connection) -> None:
    stamps = tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if stamps == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif stamps != (APPLICATION_ID, SCHEMA_VERSION):
        raise LogUnavailable("the file of the payload keys is not one that this version can read", mend="put the right one back")


def _sweep(connection: sqlite3.Connection) -> None:
    """Overwrite what destroyed keys left in the file and beside it. Raises sqlite3.Error, LogUnavailable while it is read."""
    if connection.execute("SELECT 1 FROM unswept").fetchone() is None:
        return
    connection.execute("VACUUM")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise LogUnavailable(
            "somebody reads the file of the payload keys, so its old pages cannot be overwritten yet", mend="try again"
        )
    connection.execute("DELETE FROM unswept")


def _keep(cache: OrderedDict[_T, Key], name: _T, key: Key) -> None:
    cache[name] = key
    if len(cache) > CACHED:
        cache.popitem(last=False)


def _unusable(path: Path, error: OSError | sqlite3.Error) -> LogUnavailable:
    return LogUnavailable(
        f"the payload keys in {path} cannot be used: {error}", mend="see that the disk has room, or put the file back"
    )
