"""Giving back what a read model has no use for any more: pages that are free, a write-ahead log that has grown.

Only whoever writes the file does it, between two batches, and for a bounded time: what is not done by then is left as it was.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from time import monotonic
from typing import Final

from agentos.projections.read_model import ReadModel

FREE: Final = 0.25
"""The part of a file that is free from which on it is written anew."""

WORTH: Final = 4 * 1024 * 1024
"""Bytes that are free from which on that is worth it."""

LONGEST_S: Final = 5.0
"""Seconds that writing the file anew may take; batches wait for so long."""

_STEPS: Final = 500
"""Instructions of SQLite between two looks at the time."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """Bytes of the file before and after; `given_up`: whether there was no time to write it anew."""

    before: int
    after: int
    given_up: bool = False


def compact(model: ReadModel, *, longest_s: float = LONGEST_S) -> Compacted:
    """Compact a read model. Blocks; call it in a worker thread. Raises sqlite3.Error."""
    with model.writer() as connection:
        size, free = _sizes(connection)
        given_up = False
        if free >= WORTH and free >= FREE * size:
            given_up = not _vacuum(connection, monotonic() + longest_s)
        connection.execute("PRAGMA optimize")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return Compacted(size, _sizes(connection)[0], given_up)


def _sizes(connection: sqlite3.Connection) -> tuple[int, int]:
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return pages * size, free * size


def _vacuum(connection: sqlite3.Connection, until: float) -> bool:
    """Write the file anew; whether that was done by `until`."""
    connection.set_progress_handler(lambda: monotonic() > until, _STEPS)
    try:
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return False
        raise
    finally:
        connection.set_progress_handler(None, _STEPS)
    return True
