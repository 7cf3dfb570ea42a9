"""A copy of a workspace: its regular files, read without ever following a link, each with the digest of what was copied.

The tools of the session made these files and may go on doing so meanwhile, so nothing is believed of them: folders are entered
one below the other by descriptor, links and devices are left out, the whole is bounded. Folders without a file are left out too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.abi.errors import AgentOSError, DriverError, UsageError
from agentos.files import confine
from agentos.files.guard import Guard
from agentos.files.quota import Amount
from agentos.kernel.workspace import MAX_FILES, InputFile, Take, unbounded

MAX_COPIED: Final = 4 * 1024**3
"""Most bytes of one copy."""

_BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds, sorted by path, and how many entries were left out: links, devices, unreadable or oddly named ones."""

    files: tuple[InputFile, ...]
    left: int


def copy_workspace(source: Path, target: Path, guard: Guard, take: Take = unbounded) -> Copied:
    """Copy the files below `source` into the folder `target`, which exists and is empty. A source that is gone has none.

    Raises UsageError for more than MAX_FILES or MAX_COPIED, AgentOSError when the disk does not take it, Stopped when the caller
    gave up, and what `take` raises, which is asked for room; `target` is gone then.
    """
    try:
        return _Copy(target, guard, take).take(source) if source.exists() else Copied((), 0)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise AgentOSError(f"the workspace cannot be copied: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


class _Copy:
    def __init__(self, target: Path, guard: Guard, room: Take) -> None:
        self._room = room
        self._target = target
        self._guard = guard
        self._files: list[InputFile] = []
        self._bytes = 0
        self._left = 0

    def take(self, source: Path) -> Copied:
        with confine.open_folder(source, ()) as folder:
            self._folder(folder, ())
        return Copied(tuple(sorted(self._files, key=lambda file: file.path)), self._left)

    def _folder(self, folder: int, names: tuple[str, ...]) -> None:
        for entry, is_folder in self._entries(folder):
            shown = "/".join((*names, entry))
            try:
                if is_folder:
                    if len(names) == confine.MAX_DEPTH:
                        self._left += 1
                        continue
                    below = confine.enter(folder, entry, shown)
                else:
                    below = confine.open_file(folder, entry, shown)
            except DriverError:  # a link, a device, or gone since it was listed
                self._left += 1
                continue
            try:
                if is_folder:
                    self._folder(below, (*names, entry))
                else:
                    self._file(below, (*names, entry))
            finally:
                os.close(below)

    def _entries(self, folder: int) -> Iterator[tuple[str, bool]]:
        with os.scandir(folder) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for name, is_folder in entries:
            self._guard.check()
            if any("\ud800" <= char <= "\udfff" for char in name):
                self._left += 1
            elif not name.startswith(confine.TEMPORARY):
                yield name, is_folder

    def _file(self, descriptor: int, names: tuple[str, ...]) -> None:
        if len(self._files) == MAX_FILES:
            raise UsageError(f"the workspace has more than {MAX_FILES} files, which is more than a fork takes over")
        place = self._target.joinpath(*names)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._room(Amount(0, 1))
        size, hashed = 0, hashlib.sha256()
        with place.open("xb") as copy:
            os.fchmod(copy.fileno(), os.fstat(descriptor).st_mode & 0o700 | 0o600)
            while block := os.read(descriptor, _BLOCK):
                self._guard.check()
                self._bytes += len(block)
                if self._bytes > MAX_COPIED:
                    raise UsageError(f"the workspace has more than {MAX_COPIED} bytes, which is more than a fork takes over")
                self._room(Amount(len(block)))
                copy.write(block)
                hashed.update(block)
                size += len(block)
        self._files.append(InputFile("/".join(names), size, "sha256:" + hashed.hexdigest()))
