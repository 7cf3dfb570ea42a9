"""Folds of the log into read models: deletable, rebuilt from the log, never the truth.

`Store` is one SQLite file per tenant, `Projector` follows the tenant's streams and keeps it up to date, `read` asks it.

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
from agentos.projections.read import approvals, faults, session, sessions, syscalls
from agentos.projections.store import Store

__all__ = ["Projector", "Status", "Store", "approvals", "faults", "session", "sessions", "syscalls"]
