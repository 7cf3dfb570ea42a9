"""A walk: all regular files below a folder of the workspace, in order, without ever following a link."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentos.abi.errors import DriverError
from agentos.files import confine
from agentos.files.guard import Guard

MAX_WALK: Final = 20_000
"""Most names that one call looks at, files and folders together."""


class Walk:
    """Goes through the regular files below a path, in order, and remembers what it left out."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._seen = 0
        self._left_out = 0
        self._full = False

    def files(self, workspace: Path, path: str) -> Iterator[tuple[str, int, str, int]]:
        """Yields (path, descriptor of its folder, name, size in bytes)."""
        names = confine.split(path)
        if not names:
            with confine.open_folder(workspace, ()) as folder:
                yield from self._below(folder, "", 0)
            return
        with confine.open_folder(workspace, names[:-1]) as parent:
            shown = "/".join(names)
            if _is_folder(parent, names[-1]):
                folder = confine.enter(parent, names[-1], shown)
                try:
                    yield from self._below(folder, shown + "/", len(names))
                finally:
                    os.close(folder)
            else:
                descriptor = confine.open_file(parent, names[-1], shown)
                size = os.fstat(descriptor).st_size
                os.close(descriptor)
                yield shown, parent, names[-1], size

    @property
    def full(self) -> bool:
        """Whether there were more names than it looks at."""
        return self._full

    def notes(self, cut: str) -> list[str]:
        """What the reader must know beside the entries."""
        found = [f"[{cut}]"] if cut else []
        if self._left_out:
            found.append(f"[left out: {self._left_out} entries that are links, devices, unreadable or not named in UTF-8]")
        if self._full:
            found.append(f"[the walk stopped after {MAX_WALK} names]")
        return found

    def _below(self, folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int, str, int]]:
        for name in self._names(folder):
            try:
                status = os.lstat(name, dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError:
                self._left_out += 1
                continue
            shown = prefix + name
            if stat.S_ISREG(status.st_mode):
                yield shown, folder, name, status.st_size
            elif stat.S_ISDIR(status.st_mode) and depth < confine.MAX_DEPTH:
                try:
                    below = confine.enter(folder, name, shown)
                except DriverError:
                    self._left_out += 1
                    continue
                try:
                    yield from self._below(below, shown + "/", depth + 1)
                finally:
                    os.close(below)
            else:
                self._left_out += 1

    def _names(self, folder: int) -> list[str]:
        names: list[str] = []
        with contextlib.ExitStack() as stack:
            try:
                entries = stack.enter_context(os.scandir(folder))
            except OSError:
                self._left_out += 1
                return names
            for entry in entries:
                self._guard.check()
                if self._seen == MAX_WALK:
                    self._full = True
                    break
                self._seen += 1
                if entry.name.startswith(confine.TEMPORARY):
                    continue
                if any("\ud800" <= char <= "\udfff" for char in entry.name):
                    self._left_out += 1
                    continue
                names.append(entry.name)
        return sorted(names)


def printable(path: str) -> str:
    """`path` on one line: a name with a line break or a control character in it is shown escaped."""
    return path if path.isprintable() else ascii(path)


def _is_folder(parent: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode)
    return False
