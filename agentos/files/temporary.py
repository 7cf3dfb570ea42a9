"""Half-written files: made beside what they are to replace, under names that no caller may use, and gone again unless renamed."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

from agentos.files import confine

_numbers = itertools.count()


@contextlib.contextmanager
def new_file(folder: int, mode: int | None) -> Iterator[tuple[str, int]]:
    """A new file in the folder open as `folder`: its name and its descriptor for writing. Raises OSError.

    `mode` are its permissions; None: those of any new file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = _name()
        try:
            descriptor = os.open(name, flags, 0o644 if mode is None else 0o600, dir_fd=folder)
            break
        except FileExistsError:
            # Left by an earlier process of the same number that was killed.
            continue
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        yield name, descriptor
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def new_link(folder: int, target: str) -> Iterator[str]:
    """A new symbolic link in the folder open as `folder`: its name. Raises OSError."""
    while True:
        name = _name()
        try:
            os.symlink(target, name, dir_fd=folder)
            break
        except FileExistsError:
            continue
    try:
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _name() -> str:
    return f"{confine.TEMPORARY}{os.getpid()}-{next(_numbers)}"
