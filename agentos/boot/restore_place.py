"""Where a home is made: a folder beside its place, a server in it while it is filled, and one step that gives it its name.

require_empty(home)
async with serving(staging / "nats", keys, tenants, random) as server: …
settle(staging, home)          # on disk, and only then there
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from agentos.abi.errors import Conflict, UsageError
from agentos.abi.ids import Random
from agentos.boot.backend import Embedded
from agentos.boot.home import Home

LEFTOVERS: Final = ("nats.conf", "nats.log", "nats.pid", "lock")
"""Files of the server that restored, which name a folder that is no more."""


@asynccontextmanager
async def serving(folder: Path, keys: Path, tenants: Sequence[str], random: Random) -> AsyncIterator[Embedded]:
    """An embedded server with an account per tenant, while the block runs.

    Nobody is told that anything is stored, so it does not sync each message, of which a log has millions: `settle` syncs all.
    """
    server = Embedded(folder, keys, random, 0, sync_always=False)
    try:
        await server.start(tenants)
        yield server
    finally:
        await server.stop()


def require_empty(home: Path) -> None:
    """A home is made where there is nothing. Raises Conflict, UsageError."""
    if not home.parent.is_dir():
        raise UsageError(f"there is no folder {home.parent}", mend="make it first")
    if not os.path.lexists(home):
        return
    owner = Home(home).owner() if home.is_dir() else None
    if owner is not None:
        raise Conflict(f"a runtime (pid {owner}) runs on {home}", mend="restore into a new home: --home DIR")
    if not home.is_dir() or any(home.iterdir()):
        raise Conflict(f"{home} is not empty", mend="a restore replaces nothing: name a new home with --home DIR")


def settle(staging: Path, home: Path) -> None:
    """Take away what names the folder, have everything on disk, and make the folder the home. Raises OSError, Conflict."""
    nats = staging / "nats"
    for name in LEFTOVERS:
        (nats / name).unlink(missing_ok=True)
    for path in (*nats.glob("*.ports"), staging / "run" / "endpoint.json"):
        path.unlink(missing_ok=True)
    for path in (*staging.rglob("*"), staging):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    require_empty(home)
    staging.rename(home)
