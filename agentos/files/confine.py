"""Confinement: from the words of a model to a file that is surely inside the session's workspace.

A path comes in as text and is taken apart into plain names. Folders are then opened one below the other, each relative to
the descriptor of the one before and never through a symbolic link, so that nothing can be swapped between the check and
the use: what was opened is what was checked. Only regular files are handed out; a FIFO or a device is refused without waiting.

    with open_folder(workspace, split("out/notes.md")[:-1]) as folder: ...
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from agentos.abi.errors import DriverError
from agentos.files import ownership

MAX_NAME: Final = 255
"""Longest name of one file or folder, in bytes of UTF-8 (NAME_MAX of Linux)."""

MAX_PATH: Final = 4096
"""Longest path, in bytes of UTF-8 (PATH_MAX of Linux)."""

MAX_DEPTH: Final = 64
"""Most folders below each other: each is an open descriptor while it is walked."""

TEMPORARY: Final = ".agentos-tmp-"
"""How the names of half-written files begin; no caller may name such a file."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_RELATIVE: Final = "name a file by its path inside the workspace, such as `out/notes.md`"


def split(path: str) -> tuple[str, ...]:
    """The names along `path`, from the workspace down; `()` is the workspace itself (`""`, `.`, `./`).

    Raises DriverError for what could lead out (absolute, `..`) or has no meaning as a file name.
    """
    where = _show(path)
    try:
        raw = path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DriverError("the path is not valid Unicode", where=where, mend=_RELATIVE) from error
    if "\0" in path:
        raise DriverError("the path holds a NUL character", where=where, mend=_RELATIVE)
    if len(raw) > MAX_PATH:
        raise DriverError(f"the path is longer than {MAX_PATH} bytes", where=where, mend=_RELATIVE)
    if path.startswith("/"):
        raise DriverError("the path is absolute: tools see the session's workspace only", where=where, mend=_RELATIVE)
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names:
        raise DriverError("the path climbs with `..`", where=where, mend=_RELATIVE)
    if any(len(name.encode("utf-8")) > MAX_NAME for name in names):
        raise DriverError(f"a name in the path is longer than {MAX_NAME} bytes", where=where, mend=_RELATIVE)
    if len(names) > MAX_DEPTH:
        raise DriverError(f"the path has more than {MAX_DEPTH} levels", where=where, mend=_RELATIVE)
    if any(name.startswith(TEMPORARY) for name in names):
        raise DriverError(f"names that begin with `{TEMPORARY}` are kept for half-written files", where=where)
    return names


@contextlib.contextmanager
def open_folder(root: Path, names: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder at `names` below `root`; missing folders are made if `make`.

    Raises DriverError when a part is missing, is not a folder, or is a symbolic link.
    """
    try:
        current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DriverError(f"the workspace cannot be opened: {error.strerror}") from error
    try:
        for depth, name in enumerate(names):
            below = enter(current, name, "/".join(names[: depth + 1]), make=make)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def enter(parent: int, name: str, shown: str, *, make: bool = False) -> int:
    """Open the folder `name` inside the descriptor `parent`; the caller closes it. `shown` is its path for messages.

    One that is made belongs to the owner of `parent`.
    """
    made = False
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
                made = True
        descriptor = os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        raise _refusal(error, parent, name, shown, "folder") from error
    if made:
        try:
            ownership.give(descriptor, parent)
        except OSError as error:
            os.close(descriptor)
            raise DriverError(f"cannot be given to its owner: {error.strerror}", where=_show(shown)) from error
    return descriptor


def open_file(parent: int, name: str, shown: str) -> int:
    """Open the regular file `name` inside the descriptor `parent` for reading; the caller closes it. Raises DriverError."""
    try:
        descriptor = os.open(name, _FILE, dir_fd=parent)
    except OSError as error:
        raise _refusal(error, parent, name, shown, "file") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise DriverError(f"is {_kind(mode)}, not a regular file", where=_show(shown))


def absolute(root: Path, path: str) -> Path:
    """`path` as an absolute path inside `root`, for a program that opens files by name; what is not there yet is allowed.

    No part of it is a symbolic link at the time of asking. A program that shares the workspace could put one there later:
    against that only a sandbox around the reader helps.
    """
    names = split(path)
    try:
        with open_folder(root, names[:-1]) as parent:
            mode = os.lstat(names[-1], dir_fd=parent).st_mode if names else stat.S_IFDIR
    except FileNotFoundError:
        return root.joinpath(*names)
    except OSError as error:
        raise DriverError(f"cannot be looked at: {error.strerror}", where=_show(path)) from error
    except DriverError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return root.joinpath(*names)
        raise
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DriverError(f"is {_kind(mode)}, not a regular file or folder", where=_show(path))
    return root.joinpath(*names)


def _refusal(error: OSError, parent: int, name: str, shown: str, wanted: str) -> DriverError:
    """Say what stands at `name` instead of a `wanted`. The look is for the words only; nothing is decided by it."""
    where = _show(shown)
    try:
        mode = os.lstat(name, dir_fd=parent).st_mode
    except OSError:
        mode = 0
    if stat.S_ISLNK(mode):
        return DriverError("is a symbolic link, and those are not followed", where=where)
    if error.errno == errno.ENOENT:
        return DriverError(f"no such {wanted}", where=where, mend="list the workspace to see what is there")
    if mode and error.errno in (errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
        return DriverError(f"is {_kind(mode)}, not a {'regular file' if wanted == 'file' else wanted}", where=where)
    return DriverError(f"cannot be opened: {error.strerror}", where=where)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something unusual")


def _show(path: str) -> str:
    """`path` for a message: printable, bounded."""
    text = path if path.isprintable() else ascii(path)
    return text if len(text) <= 200 else text[:200] + "…"
