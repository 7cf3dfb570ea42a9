"""Folds of the log into read models: deletable, rebuilt from the log, never the truth.

Two SQLite files per tenant, each of which can be deleted and rebuilt alone: `Store`, the index, is folded from headers,
`TextStore` from payloads. A `Projector` follows the tenant's streams and keeps one of them up to date; `read` asks both.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from agentos.projections import Store, sessions
>>> with TemporaryDirectory() as home:
...     store = Store.open(Path(home) / "read" / "default.db", tenant="default")
...     sessions(store)
...     store.close()
[]
"""

from agentos.projections.projector import Projector, Status
from agentos.projections.read import approvals, faults, session, sessions, spend, syscalls
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore

__all__ = ["Projector", "Status", "Store", "TextStore", "approvals", "faults", "session", "sessions", "spend", "syscalls"]
