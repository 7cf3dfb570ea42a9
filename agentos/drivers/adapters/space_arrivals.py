"""What triggers have been told of the files of shared spaces: which content of which path, beside the labels of the files.

A trigger that is new is told of nothing that was there before it: whatever its pattern means by then counts as known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from agentos.drivers.adapters.space_labels import SqliteSpaceLabels

Watched = tuple[str, str]
"""The space and the pattern of a trigger."""


class SqliteArrivals:
    """Kept in the files of `records`. Every method blocks, and raises SpaceUnlabelled where they cannot be used."""

    def __init__(self, records: SqliteSpaceLabels) -> None:
        self._records = records

    def renewed(self, tenant: str, triggers: Mapping[str, Watched]) -> frozenset[str]:
        """Forget what triggers that are not declared so any more were told; those of `triggers` that are new."""

        def work(connection: sqlite3.Connection) -> frozenset[str]:
            known = {name: (space, glob) for name, space, glob in connection.execute("SELECT * FROM watched").fetchall()}
            gone = [name for name, place in known.items() if triggers.get(name) != place]
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for name in gone:
                    connection.execute("DELETE FROM watched WHERE trigger = ?", (name,))
                    connection.execute("DELETE FROM arrived WHERE trigger = ?", (name,))
            return frozenset(name for name, place in triggers.items() if known.get(name) != place)

        return self._records.on(tenant, work)

    def watch(self, tenant: str, trigger: str, watched: Watched, known: Mapping[str, str]) -> None:
        """Begin to watch for a new trigger: `known` are the digests of what was there before, by path."""

        def work(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                rows = [(trigger, watched[0], path, digest) for path, digest in known.items()]
                connection.executemany("INSERT OR REPLACE INTO arrived VALUES (?, ?, ?, ?)", rows)
                connection.execute("INSERT OR REPLACE INTO watched VALUES (?, ?, ?)", (trigger, *watched))

        self._records.on(tenant, work)

    def told(self, tenant: str, trigger: str, space: str, path: str) -> str | None:
        """The digest of the content of `path` that `trigger` was told of last."""
        query = "SELECT digest FROM arrived WHERE trigger = ? AND space = ? AND path = ?"
        row = self._records.on(tenant, lambda connection: connection.execute(query, (trigger, space, path)).fetchone())
        return None if row is None else str(row[0])

    def writer(self, tenant: str, space: str, path: str, digest: str) -> str | None:
        """The session that wrote this content there last; None where no session did."""
        query = "SELECT session FROM written WHERE space = ? AND path = ? AND digest = ?"
        row = self._records.on(tenant, lambda connection: connection.execute(query, (space, path, digest)).fetchone())
        return None if row is None else str(row[0])

    def tell(self, tenant: str, trigger: str, space: str, path: str, digest: str) -> None:
        """Keep that `trigger` was told of this content."""
        row = (trigger, space, path, digest)
        self._records.on(tenant, lambda connection: connection.execute("INSERT OR REPLACE INTO arrived VALUES (?, ?, ?, ?)", row))
