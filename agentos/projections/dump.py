"""A read model as canonical bytes, so that two can be compared: the same log gives the same dump, however it was read.

It does not depend on the order in which streams were read, on the sizes of batches, nor on a crash between two of them. Left out
is what says nothing about the log: places of rows in the file, checksums, how far each stream has been read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import sha256

from agentos.abi.canonical import canonical
from agentos.projections.read_model import POSITIONS, ReadModel


def dump(model: ReadModel) -> Iterator[bytes]:
    """One line per row: the table's name and the row's values by column, in canonical JSON; by table, then by key.

    Raises sqlite3.DatabaseError when the file is broken.
    """
    with model.reader() as connection:
        connection.row_factory = None
        connection.execute("BEGIN")
        yield from _lines(model, connection)


def digest(model: ReadModel) -> tuple[str, dict[str, int]]:
    """`sha256:<hex>` of the dump's lines, each with its line feed, and the positions that it stands for. Raises as `dump`."""
    hashed = sha256()
    with model.reader() as connection:
        connection.row_factory = None
        connection.execute("BEGIN")
        positions = {str(stream): int(position) for stream, position in POSITIONS.rows(connection)}
        for line in _lines(model, connection):
            hashed.update(line + b"\n")
    return f"sha256:{hashed.hexdigest()}", positions


def _lines(model: ReadModel, connection: sqlite3.Connection) -> Iterator[bytes]:
    for table in sorted(model.tables, key=lambda table: table.name):
        if table is POSITIONS:
            continue
        hidden = set(table.key) - set(table.known_by)
        for row in table.rows(connection):
            values = {column: value for column, value in zip(table.columns, row, strict=True) if column not in hidden}
            yield canonical([table.name, values])
