"""The Merkle trees of one tenant on disk: tiles of 256 hashes in one SQLite file, so that a proof reads a few, not the log.

Laid out as https://c2sp.org/tlog-tiles has it: tile (level L, number N) holds the hashes of the complete subtrees of 256^L
leaves, those from 256*N on; the last tile of a level is partial until it is full. Level -1 is not of the tree: eight bytes for
the id of each leaf's event, to find an event by. Ids come in no order, and keeping an index over them costs ten times what the
trees cost, while reading through them, when one is asked for, takes milliseconds. Beside the trees: where each checkpoint is.

The file is a read model: it may be deleted at any time and is built anew from the log (but for the trees of streams that were
retired, without which no new proofs of their events can be made). Unlike the log it proves nothing: what is read from it is
checked against a signed root before anybody relies on it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from agentos.audit.merkle import HASH_SIZE, Frontier, Nodes
from agentos.projections.sqlite_file import Layout, connect, create, drop, of_this_kind, unlink

HEIGHT: Final = 8
"""Levels of the tree that one level of tiles spans."""

WIDTH: Final = 1 << HEIGHT
"""Hashes of a full tile."""

SCHEMA_VERSION: Final = 1
"""Stamped into the file. Raise it with any change of the tables or of what they mean."""

APPLICATION_ID: Final = 0x41474F54
"""`AGOT`: what `file` and SQLite tools know the file by."""

CACHED: Final = 512
"""Full tiles kept in memory, 8 KiB each."""

IDS: Final = -1
"""The level of the tiles of ids."""

ID_SIZE: Final = 8
"""Bytes kept of the hash of an event's id."""

_FULL: Final = WIDTH * HASH_SIZE
_FULL_IDS: Final = WIDTH * ID_SIZE
_SCHEMA: Final = (
    "CREATE TABLE logs (stream TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE tiles (stream TEXT, level INTEGER, number INTEGER, hashes BLOB NOT NULL, PRIMARY KEY (stream, level, number))",
    "CREATE TABLE checkpoints (number INTEGER PRIMARY KEY, position INTEGER NOT NULL, time_ms INTEGER NOT NULL)",
)
_TREES: Final = ("logs", "tiles")
_LAYOUT: Final = Layout(APPLICATION_ID, SCHEMA_VERSION, ("logs", "tiles", "checkpoints"), _SCHEMA)


class TilesBroken(Exception):
    """The file does not hold what it says it holds: throw it away and build it anew. Never seen outside of `agentos.audit`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event is, or may be: leaf number `leaf` (from 0) of `stream`."""

    stream: str
    leaf: int


@dataclass(slots=True)
class _Log:
    """The right edge of one tree."""

    frontier: Frontier = field(default_factory=Frontier)
    edges: list[bytearray] = field(default_factory=list)
    """The partial tile of each level, empty where the last one is full."""
    ids: bytearray = field(default_factory=bytearray)
    """The partial tile of level IDS."""


class TileStore:
    """The trees of `tenant` in the file `path`. Made by `open`. Blocks: call it in a worker thread."""

    def __init__(self, path: Path, tenant: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.tenant = tenant
        self._connection = connection
        self._lock = threading.RLock()
        self._logs: dict[str, _Log] = {}
        self._cache: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()

    @classmethod
    def open(cls, path: Path, *, tenant: str) -> TileStore:
        """Open the file, or make it (mode 0600, and its folder) when it is missing, foreign, old or broken."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and not _usable(path, tenant):
            unlink(path)
        return cls(path, tenant, connect(path, _LAYOUT, tenant))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all other threads out for a while."""
        with self._lock:
            yield

    def size(self, stream: str) -> int:
        """How many leaves of `stream` are stored. Raises TilesBroken."""
        with self._lock:
            return self._log(stream).frontier.size

    def frontier(self, stream: str) -> Frontier:
        """The right edge of the tree of `stream`: its size and root. Raises TilesBroken."""
        with self._lock:
            return self._log(stream).frontier.copy()

    def extend(self, leaves: Iterable[tuple[str, bytes, str | None]]) -> None:
        """Add leaves (stream, hash, id of the event or None), each stream's in its order, in one transaction.

        Raises sqlite3.Error; the trees then are as they were.
        """
        with self._lock:
            try:
                with self._connection as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    self._extend(connection, leaves)
            except BaseException:
                # What is in memory may be ahead of what is on disk: read it again.
                self._logs.clear()
                raise

    def add_checkpoint(self, stream: str, leaf: bytes, number: int, position: int, time_ms: int, note: str) -> None:
        """Add checkpoint `number`, the next leaf of `stream`, which stands at `position` there, and remember its note."""
        with self._lock:
            try:
                with self._connection as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    self._extend(connection, [(stream, leaf, None)])
                    connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?)", (number, position, time_ms))
                    connection.execute("INSERT OR REPLACE INTO meta VALUES ('last', ?)", (note,))
            except BaseException:
                self._logs.clear()
                raise

    def last_note(self) -> str | None:
        """The last checkpoint that was added, as it was signed."""
        with self._lock:
            found = self._connection.execute("SELECT value FROM meta WHERE key = 'last'").fetchone()
        return None if found is None else str(found[0])

    def checkpoint_position(self, number: int) -> int | None:
        """The position of checkpoint `number` in its stream."""
        with self._lock:
            found = self._connection.execute("SELECT position FROM checkpoints WHERE number = ?", (number,)).fetchone()
        return None if found is None else int(found[0])

    def checkpoint_before(self, time_ms: int) -> int:
        """The number of the last checkpoint made at or before `time_ms`, 0 for none."""
        query = "SELECT coalesce(max(number), 0) FROM checkpoints WHERE time_ms <= ?"
        with self._lock:
            return int(self._connection.execute(query, (time_ms,)).fetchone()[0])

    def places(self, event: str) -> list[Place]:
        """Where the event with that id may be: the caller looks whether it is."""
        key, found = _id_key(event), []
        query = "SELECT stream, number, hashes FROM tiles WHERE level = ?"
        with self._lock:
            for stream, number, hashes in self._connection.execute(query, (IDS,)):
                at = hashes.find(key)
                while at >= 0:
                    if at % ID_SIZE == 0:
                        found.append(Place(stream, (number << HEIGHT) + at // ID_SIZE))
                    at = hashes.find(key, at + 1)
        return found

    def nodes(self, stream: str) -> Nodes:
        """The hashes of the complete subtrees of `stream`. The function raises TilesBroken for one that is not there."""

        def node(level: int, index: int) -> bytes:
            inner = level % HEIGHT
            first = index << inner
            with self._lock:
                tile = self._tile(stream, level // HEIGHT, first >> HEIGHT)
            at = (first & (WIDTH - 1)) * HASH_SIZE
            part = tile[at : at + (HASH_SIZE << inner)]
            if len(part) < HASH_SIZE << inner:
                raise TilesBroken(f"{stream}: the tree has no node {index} of level {level}")
            return _fold(part)

        return node

    def leaves(self, stream: str, first: int, count: int) -> list[bytes]:
        """The hashes of `count` leaves from leaf `first` on, or as many as there are."""
        found: list[bytes] = []
        with self._lock:
            size = self._log(stream).frontier.size
            for number in range(first >> HEIGHT, (min(first + count, size) + WIDTH - 1) >> HEIGHT):
                tile = self._tile(stream, 0, number)
                found += (tile[at : at + HASH_SIZE] for at in range(0, len(tile), HASH_SIZE))
        skipped = first & (WIDTH - 1)
        return found[skipped : skipped + count]

    def clear(self, keep: Collection[str] = ()) -> None:
        """Forget everything but the trees of the streams `keep`, which cannot be built again; those too if the file is broken."""
        with self._lock:
            self._forget()
            kept = sorted(keep)
            try:
                with self._connection as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    marks = ", ".join("?" * len(kept))
                    trees = {
                        table: connection.execute(f"SELECT * FROM {table} WHERE stream IN ({marks})", kept).fetchall()  # noqa: S608 - names are constants of this module
                        for table in _TREES
                    }
                    drop(connection, _LAYOUT)
                    create(connection, _LAYOUT, self.tenant)
                    for table, rows in trees.items():
                        places = ", ".join("?" * (len(rows[0]) if rows else 1))
                        connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608 - see above
            except sqlite3.DatabaseError:
                self._connection.close()
                unlink(self.path)
                self._connection = connect(self.path, _LAYOUT, self.tenant)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _forget(self) -> None:
        self._logs.clear()
        self._cache.clear()

    def _extend(self, connection: sqlite3.Connection, leaves: Iterable[tuple[str, bytes, str | None]]) -> None:
        touched: dict[str, _Log] = {}
        tiles: list[tuple[str, int, int, bytes]] = []
        for stream, leaf, event in leaves:
            log = touched.get(stream)
            if log is None:
                log = touched[stream] = self._log(stream)
            log.frontier.append(leaf)
            log.ids += b"\0" * ID_SIZE if event is None else _id_key(event)
            if len(log.ids) == _FULL_IDS:
                tiles.append((stream, IDS, (log.frontier.size >> HEIGHT) - 1, bytes(log.ids)))
                log.ids.clear()
            edges, value, level = log.edges, leaf, 0
            while True:
                if level == len(edges):
                    edges.append(bytearray())
                edge = edges[level]
                edge += value
                if len(edge) < _FULL:
                    break
                full = bytes(edge)
                edge.clear()
                tiles.append((stream, level, (log.frontier.size >> HEIGHT * (level + 1)) - 1, full))
                value = _fold(full)
                level += 1
        for stream, log in touched.items():
            if log.ids:
                tiles.append((stream, IDS, log.frontier.size >> HEIGHT, bytes(log.ids)))
            for level, edge in enumerate(log.edges):
                if edge:
                    tiles.append((stream, level, log.frontier.size >> HEIGHT * (level + 1), bytes(edge)))
        for stream, level, number, _ in tiles:
            self._cache.pop((stream, level, number), None)
        connection.executemany("INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?)", tiles)
        sizes = [(stream, log.frontier.size) for stream, log in touched.items()]
        connection.executemany("INSERT OR REPLACE INTO logs VALUES (?, ?)", sizes)

    def _log(self, stream: str) -> _Log:
        log = self._logs.get(stream)
        if log is None:
            found = self._connection.execute("SELECT size FROM logs WHERE stream = ?", (stream,)).fetchone()
            log = self._logs[stream] = self._load(stream, 0 if found is None else int(found[0]))
        return log

    def _load(self, stream: str, size: int) -> _Log:
        edges = []
        for level in range((size.bit_length() + HEIGHT - 1) // HEIGHT):
            count = size >> HEIGHT * level
            partial = count & (WIDTH - 1)
            tile = self._tile(stream, level, count >> HEIGHT) if partial else b""
            if len(tile) != partial * HASH_SIZE:
                raise TilesBroken(f"{stream}: the last tile of level {level} has {len(tile)} bytes, not {partial * HASH_SIZE}")
            edges.append(bytearray(tile))
        partial = size & (WIDTH - 1)
        ids = self._tile(stream, IDS, size >> HEIGHT) if partial else b""
        if len(ids) != partial * ID_SIZE:
            raise TilesBroken(f"{stream}: the last tile of ids has {len(ids)} bytes, not {partial * ID_SIZE}")
        return _Log(Frontier.of(self.nodes(stream), size), edges, bytearray(ids))

    def _tile(self, stream: str, level: int, number: int) -> bytes:
        key = (stream, level, number)
        tile = self._cache.get(key)
        if tile is not None:
            self._cache.move_to_end(key)
            return tile
        query = "SELECT hashes FROM tiles WHERE stream = ? AND level = ? AND number = ?"
        found = self._connection.execute(query, key).fetchone()
        if found is None or type(found[0]) is not bytes:
            raise TilesBroken(f"{stream}: tile {number} of level {level} is missing")
        tile = bytes(found[0])
        if len(tile) == _FULL:
            self._cache[key] = tile
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return tile


def _id_key(event: str) -> bytes:
    return sha256(event.encode("utf-8", "replace")).digest()[:ID_SIZE]


def _fold(hashes: bytes) -> bytes:
    """The root over a power of two of hashes that stand one after another."""
    row: Sequence[bytes] = [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]
    while len(row) > 1:
        row = [sha256(b"\x01" + row[at] + row[at + 1]).digest() for at in range(0, len(row), 2)]
    return row[0]


def _usable(path: Path, tenant: str) -> bool:
    try:
        return of_this_kind(path, _LAYOUT, tenant)
    except sqlite3.DatabaseError:
        return False
