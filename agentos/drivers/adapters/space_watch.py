"""Watching a shared space: what is in it now, and a word when something may have changed.

The word comes from the operating system (by the library watchfiles) and is only ever a hint: events may be lost, or stand for
nothing. What counts is the look at the folder, which follows no link.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from watchfiles import awatch

from agentos.abi.canonical import digest
from agentos.abi.errors import DriverError
from agentos.drivers.spaces import digest_of_file
from agentos.files import confine
from agentos.files.guard import Guard
from agentos.files.walk import MAX_WALK, Walk

log = logging.getLogger(__name__)

MAX_CARRIED: Final = 1024 * 1024
"""Bytes of a file that are handed on with the news of it, at most; of a larger one there is only the digest."""

_AGAIN_S: Final = 5.0
"""Seconds until watching is tried again where it cannot be done now; looks go on meanwhile."""

Status = tuple[int, int, int, int]
"""Size, mtime and ctime in nanoseconds, inode."""


def look(folder: Path) -> Mapping[str, Status]:
    """Every regular file below `folder`, by its path there; blocks. Raises DriverError, also where there are too many."""
    found: dict[str, Status] = {}
    walk = Walk(Guard())
    for path, parent, name, _ in walk.files(folder, ""):
        try:
            status = os.lstat(name, dir_fd=parent)
        except OSError:
            continue
        found[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    if walk.full:
        raise DriverError(f"more than {MAX_WALK} names are in it", mend="move files away that are done with")
    return found


def read(folder: Path, path: str) -> tuple[str, bytes | None]:
    """The digest of a file, and its content where it is small enough to be handed on; blocks. Raises DriverError."""
    names = confine.split(path)
    with confine.open_folder(folder, names[:-1]) as parent:
        with os.fdopen(confine.open_file(parent, names[-1], path), "rb") as file:
            try:
                head = file.read(MAX_CARRIED + 1)
            except OSError as error:
                raise DriverError(f"cannot be read: {error.strerror}", where=path) from error
        if len(head) <= MAX_CARRIED:
            return digest(head), head
        return digest_of_file(parent, names[-1], path, lambda: None), None


async def hints(folder: Path, tell: Callable[[], None]) -> None:
    """Call `tell` whenever something below `folder` may have changed, until cancelled."""
    told = False
    while True:
        try:
            async for _ in awatch(folder, watch_filter=None, debounce=200, step=50, rust_timeout=1000, yield_on_timeout=False):
                tell()
        except (OSError, RuntimeError) as error:
            if not told:
                log.warning("%s cannot be watched, so it is only looked at now and then: %s", folder, error)
                told = True
        await asyncio.sleep(_AGAIN_S)
