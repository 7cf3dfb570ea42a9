"""The tables of a read model: their columns and keys, the SQL for them, and a checksum with every row.

SQLite notices when a page's structure is broken, not when a byte of a text has changed. So each row carries the CRC-32 of its
values in its last column, `crc`: it is checked whenever a row is loaded to be changed, and for all rows by `ReadModel.check`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final
from zlib import crc32

import orjson

from agentos.abi.canonical import Json

Row = dict[str, Json]
"""One row, by column name."""

INTEGER: Final = "INTEGER"
TEXT: Final = "TEXT"


class Table:
    """One table: `columns` in order, each with its type; `key` is its primary key."""

    def __init__(
        self, name: str, columns: dict[str, str], key: Sequence[str], *, rowid: bool = False, known_by: Sequence[str] = ()
    ) -> None:
        """`rowid` makes it an ordinary table with a rowid of its own; without it the rows lie in the order of the key.

        `known_by` are the columns that tell a row from others where the key only says its place in the file.
        """
        self.name = name
        self.known_by = tuple(known_by or key)
        self.columns = tuple(columns)
        self.key = tuple(key)
        names = ", ".join(f'"{column}"' for column in self.columns)
        marks = ", ".join("?" * (len(self.columns) + 1))
        keys = ", ".join(f'"{column}"' for column in self.key)
        typed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
        changed = [f'"{column}" = excluded."{column}"' for column in (*self.columns, "crc") if column not in self.key]
        where = " AND ".join(f'"{column}" = ?' for column in self.key)
        # What is put together here are constants of the modules that declare tables.
        self.create = (
            f"CREATE TABLE {name} ({typed}, crc INTEGER NOT NULL, PRIMARY KEY ({keys})){'' if rowid else ' WITHOUT ROWID'}"
        )
        self._insert = f"INSERT OR IGNORE INTO {name} ({names}, crc) VALUES ({marks})"  # noqa: S608
        self._upsert = (
            f"INSERT INTO {name} ({names}, crc) VALUES ({marks}) ON CONFLICT ({keys}) DO UPDATE SET {', '.join(changed)}"  # noqa: S608
        )
        self._select = f"SELECT {names}, crc FROM {name} WHERE {where}"  # noqa: S608
        ordered = ", ".join(f'"{column}"' for column in self.known_by)
        self._all = f"SELECT {names}, crc FROM {name} ORDER BY {ordered}"  # noqa: S608
        self._anyhow = f"SELECT {names}, crc FROM {name}"  # noqa: S608
        self._values: Callable[[Row], tuple[Json, ...]] = itemgetter(*self.columns)

    def add(self, connection: sqlite3.Connection, rows: Iterable[tuple[Json, ...]]) -> None:
        """Store rows whose key is new; one whose key is there already is passed over."""
        connection.executemany(self._insert, map(_summed, rows))

    def put(self, connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
        """Store rows, in place of those with the same key."""
        connection.executemany(self._upsert, map(_summed, map(self._values, rows)))

    def one(self, connection: sqlite3.Connection, key: Sequence[Json]) -> Row | None:
        """The row with that key. Raises sqlite3.DatabaseError when it is not what was written."""
        found = connection.execute(self._select, key).fetchone()
        return None if found is None else dict(zip(self.columns, self._sound(found), strict=True))

    def rows(self, connection: sqlite3.Connection) -> Iterator[tuple[Json, ...]]:
        """All rows in the order of what they are known by. Raises sqlite3.DatabaseError when one is not what was written."""
        for row in connection.execute(self._all):
            yield self._sound(row)

    def check(self, connection: sqlite3.Connection) -> None:
        """Read all rows. Raises sqlite3.DatabaseError when one is not what was written."""
        for row in connection.execute(self._anyhow):
            self._sound(row)

    def _sound(self, row: tuple[Json, ...]) -> tuple[Json, ...]:
        values = row[:-1]
        try:
            sound = checksum(values) == row[-1]
        except TypeError:
            sound = False
        if not sound:
            raise sqlite3.DatabaseError(f"a row of {self.name} is not what was written")
        return values


def checksum(values: Sequence[Json]) -> int:
    """The CRC-32 of a row's values."""
    return crc32(orjson.dumps(values))


def _summed(values: tuple[Json, ...]) -> tuple[Json, ...]:
    return (*values, crc32(orjson.dumps(values)))
