"""The index of one tenant, `<tenant>.db`: what the headers of its events come to.

It holds no payload and nothing that was read from one, so it stays as it is when payloads are erased, and may be replicated.
"""

from __future__ import annotations

import sqlite3

from agentos.projections.index_tables import (
    ANSWERS,
    APPROVALS,
    CHAINS,
    ERASED,
    LAYOUT,
    RULES,
    SESSIONS,
    SPEND,
    SYSCALLS,
    TABLES,
)
from agentos.projections.read_model import FAULTS, New, ReadModel
from agentos.projections.rows import Rows, take


class Store(ReadModel):
    """The index of `tenant` in the file `path`. Made by `open`."""

    layout = LAYOUT
    tables = TABLES

    def _fold(self, connection: sqlite3.Connection, new: New) -> None:
        rows = Rows(lambda table, key: table.one(connection, key))
        for stream, stored in new:
            take(rows, stream, stored, tenant=self.tenant)
        SESSIONS.put(connection, rows.sessions.values())
        SYSCALLS.put(connection, rows.syscalls.values())
        APPROVALS.put(connection, rows.approvals.values())
        CHAINS.put(connection, rows.chains.values())
        SPEND.put(connection, rows.spend.values())
        RULES.add(connection, sorted(rows.rules))
        ANSWERS.add(connection, sorted(rows.answers))
        ERASED.add(connection, sorted((name,) for name in rows.erased))
        FAULTS.add(connection, rows.faults)
