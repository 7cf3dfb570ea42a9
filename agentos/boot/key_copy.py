"""The keys of an old home, copied into a new one: the same folders and files, readable by the owner only.

Taken are regular files of our own; a link, a device or somebody else's file is refused. Stores of payload keys are copied as
SQLite copies a database, so that a runtime may be using them meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from agentos.abi.errors import IdentityError

MAX_KEY: Final = 4 * 1024 * 1024
"""Largest key file that is no store, in bytes."""

PAYLOAD: Final = "payload"
"""The folder of the stores of payload keys."""

_SIDES: Final = ("-wal", "-shm", "-journal")


def copy_keys(source: Path, target: Path) -> None:
    """Copy the folder `source` into the folder `target`. Raises IdentityError for what is no folder of keys, OSError."""
    if not source.is_dir() or not (source / "nats").is_dir():
        raise IdentityError("this is no folder of keys", where=str(source), mend="name the folder keys of the old home")
    for path in sorted(source.rglob("*")):
        if path.name.endswith(_SIDES):
            # What SQLite keeps beside a store: it comes along with the store, and may vanish while we look.
            continue
        made = target / path.relative_to(source)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            made.mkdir(mode=0o700, exist_ok=True)
        elif not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise IdentityError("a key is not a file of your own", where=str(path))
        elif path.parent.name == PAYLOAD and path.name.endswith(".db"):
            _copy_store(path, made)
        else:
            _copy_file(path, made)


def _copy_store(path: Path, made: Path) -> None:
    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        source, target = sqlite3.connect(path), sqlite3.connect(made)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
    except sqlite3.Error as error:
        raise IdentityError(f"the payload keys cannot be read: {error}", where=str(path)) from error


def _copy_file(path: Path, made: Path) -> None:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        data = file.read(MAX_KEY + 1)
    if len(data) > MAX_KEY:
        raise IdentityError(f"a key file has more than {MAX_KEY} bytes", where=str(path))
    mode = 0o644 if path.suffix == ".pub" else 0o600
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
