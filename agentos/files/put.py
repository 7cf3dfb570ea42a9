"""Putting a file: made, or replaced as a whole, so that others see what was there or what is there now and nothing in between."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.files import confine, ownership
from agentos.files.guard import Guard
from agentos.files.temporary import new_file
from agentos.files.walk import printable

_CHUNK: Final = 64 * 1024


def put(root: Path, path: str, data: bytes, guard: Guard) -> str:
    """Put `data` at `path` below `root`; return the path as it is shown. Missing folders are made, a file keeps its permissions.

    Raises DriverError when nothing was changed (a path that leads out, what is no regular file), OutcomeUnknown when it was and
    may not last, Stopped.
    """
    names = confine.split(path)
    shown = "/".join(names)
    if not names or path.endswith("/"):
        raise DriverError("the path names a folder, not a file", where=printable(path)[:200])
    with confine.open_folder(root, names[:-1], make=True) as folder:
        mode = _mode(folder, names[-1], shown)
        try:
            with new_file(folder, mode) as (temporary, descriptor):
                view = memoryview(data)
                while view:
                    guard.check()
                    view = view[os.write(descriptor, view[:_CHUNK]) :]
                ownership.give(descriptor, folder)
                os.fsync(descriptor)
                guard.commit()
                os.rename(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise DriverError(f"cannot be written: {error.strerror}", where=printable(shown)) from error
        try:
            os.fsync(folder)
        except OSError as error:
            raise OutcomeUnknown(f"written, but perhaps not to last: {error.strerror}", where=shown) from error
    return shown


def _mode(folder: int, name: str, shown: str) -> int | None:
    """The permissions of the file that is replaced; None: there is none. Raises DriverError for what is no regular file."""
    try:
        found = os.lstat(name, dir_fd=folder).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DriverError(f"cannot be written: {error.strerror}", where=printable(shown)) from error
    if not stat.S_ISREG(found):
        raise DriverError("stands there already and is not a regular file", where=printable(shown))
    return stat.S_IMODE(found) & 0o777
