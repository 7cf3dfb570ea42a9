"""Masking files: a value that nobody may see is taken out of a file, a name or the target of a link before that is kept.

What is masked is the file itself: a copy without the value takes its place, so no later reader finds it either.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

from agentos.abi.errors import DriverError
from agentos.files import ownership
from agentos.files.scan import open_to_read
from agentos.files.temporary import new_file, new_link
from agentos.files.versions import Mask

MAX_MASKED: Final = 64 * 1024 * 1024
"""A larger file that holds such a value is emptied: it is not looked for value by value in memory."""

_WINDOW: Final = 16 * 1024 * 1024
_OVERLAP: Final = 1024 * 1024
"""Bytes that two windows of a file have in common, so that no value falls between them."""


def mask_file(folder: int, name: str, shown: str, mask: Mask) -> bool:
    """Take out of the file what `mask` takes out of its content; whether there was anything. Raises DriverError, OSError."""
    with os.fdopen(open_to_read(folder, name, shown), "rb") as file:
        status = os.fstat(file.fileno())
        if not _holds(file.fileno(), status.st_size, mask):
            return False
        if status.st_size > MAX_MASKED:
            clean = b"[taken away: it held a value that nobody may see]\n"
        else:
            file.seek(0)
            clean = mask(file.read(MAX_MASKED + 1))
    with new_file(folder, stat.S_IMODE(status.st_mode) & 0o1777) as (temporary, descriptor):
        with open(descriptor, "wb", closefd=False) as fresh:
            fresh.write(clean)
        ownership.give(descriptor, folder)
        os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    return True


def mask_link(folder: int, name: str, mask: Mask) -> bool:
    """The same for the target of a link. Raises OSError."""
    target = os.fsencode(os.readlink(name, dir_fd=folder))
    clean = mask(target)
    if clean == target:
        return False
    with new_link(folder, os.fsdecode(clean.replace(b"\0", b""))) as temporary:
        ownership.give_name(temporary, folder)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    return True


def mask_name(folder: int, name: str, mask: Mask) -> str:
    """Rename what is at `name` if that holds such a value; the name from now on. Raises DriverError where it cannot be."""
    clean = mask(name.encode("utf-8")).replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "replace")
    if clean == name:
        return name
    clean = clean.encode("utf-8")[:200].decode("utf-8", "ignore").strip(".") or "masked"
    number, free = 1, clean
    while _taken(folder, free):
        number += 1
        free = f"{clean}-{number}"
    try:
        os.rename(name, free, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise DriverError(f"a name that holds a value nobody may see cannot be changed: {error.strerror}") from error
    return free


def _taken(folder: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.lstat(name, dir_fd=folder)
        return True
    return False


def _holds(descriptor: int, size: int, mask: Mask) -> bool:
    """Whether `mask` takes anything out of a file, looked through a window at a time."""
    start = 0
    while True:
        window = os.pread(descriptor, _WINDOW + _OVERLAP, start)
        if mask(window) != window:
            return True
        start += _WINDOW
        if start >= size:
            return False
