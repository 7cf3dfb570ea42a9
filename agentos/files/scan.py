"""A scan: all that is below a folder, folders and links among it, each with what the operating system says of it.

Nothing is followed and nothing is believed: folders are entered by descriptor, one below the other, and what cannot be told is
left out and counted. A tool may have taken its owner's right to look into a folder; then it is lent for the moment of looking.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from agentos.abi.errors import DriverError
from agentos.files import confine
from agentos.files.guard import Guard
from agentos.files.quota import Amount
from agentos.files.walk import printable

MAX_NAMES: Final = 200_000
"""Most names that one scan looks at."""

MAX_READ: Final = 4 * 1024**3
"""Files above this many bytes are not read through: that they changed is told by their times alone."""

_SHOWN: Final = 3
_KIND: Final = 0o170000
_PLAIN: Final = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Found = tuple[str, int, str, os.stat_result]
"""Path, descriptor of its folder (open as long as it is the newest one found), name, status."""

Rename = Callable[[int, str, str], str | None]
"""Given a folder, a path and its name: the name that it has from now on; None to leave it out."""


class Scan:
    """Goes through what is below a folder, in no order but that a folder comes before what is in it."""

    def __init__(self, guard: Guard, rename: Rename | None = None) -> None:
        self._guard = guard
        self._rename = rename
        self._seen = 0
        self._odd: list[str] = []
        self._odds = 0
        self.amount = Amount()
        """What all that was found, and was left out, takes up."""
        self.hidden = False
        """Whether there are folders that were not looked into, so that `amount` is not all."""
        self.full = False
        """Whether there were more names than it looks at."""
        self.unsure: list[str] = []
        """Paths at and below which there may be what was not found."""
        self.gone: list[str] = []
        """Paths at which something on the way to what was asked for is not there, or is no folder: all below is gone."""

    def of(self, root: Path, names: Sequence[str]) -> Generator[Found, None, None]:
        """What is at `names` and below it, with the folders on the way there. Raises DriverError when `root` is no folder."""
        with contextlib.ExitStack() as opened, open_root(root) as top:
            current, shown = top, ""
            for depth, name in enumerate(names):
                shown = "/".join(names[: depth + 1])
                status = self._status(current, name, shown)
                if status is None:
                    self.gone.append(shown)
                    return
                yield shown, current, name, status
                if not stat.S_ISDIR(status.st_mode):
                    self.gone.append(shown)
                    return
                below = opened.enter_context(self._entered(current, name, shown))
                if below is None:
                    return
                current = below
            yield from self._below(current, f"{shown}/" if names else "", len(names))

    def leave(self, path: str) -> None:
        """Leave out `path`, which was found and could not be read."""
        self._leave(path)
        self.unsure.append(path)

    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside what was found."""
        found = []
        if self._odds:
            named = [printable(path)[:200] for path in self._odd]
            more = [f"{self._odds - len(named)} more"] if self._odds > len(named) else []
            told = ", ".join([*named, *more])
            found.append(f"left out, as no file, folder or link that can be read and is named in UTF-8: {told}")
        if self.full:
            found.append(f"looked at {MAX_NAMES} names only: there are more")
        return tuple(found)

    def _below(self, folder: int, prefix: str, depth: int) -> Iterator[Found]:
        for listed, status in self._entries(folder, prefix):
            name = listed if self._rename is None else self._rename(folder, prefix + listed, listed)
            if name is None:
                self._odds += 1
                self.hidden |= status.st_mode & _KIND == stat.S_IFDIR
                continue
            shown = prefix + name
            yield shown, folder, name, status
            if status.st_mode & _KIND != stat.S_IFDIR:
                continue
            if depth >= confine.MAX_DEPTH:
                self.hidden = True
                self.leave(shown)
                continue
            with self._entered(folder, name, shown) as below:
                if below is not None:
                    yield from self._below(below, f"{shown}/", depth + 1)

    def _entries(self, folder: int, prefix: str) -> list[tuple[str, os.stat_result]]:
        found: list[tuple[str, os.stat_result]] = []
        size = count = 0
        try:
            entries = os.scandir(folder)
        except OSError:
            self.hidden = True
            self.leave(prefix.rstrip("/"))
            return found
        with entries:
            for entry in entries:
                if self._seen == MAX_NAMES:
                    self.full = self.hidden = True
                    break
                self._seen += 1
                if not self._seen & 255:
                    self._guard.check()
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError:
                    self.leave(prefix + entry.name)
                    continue
                size += 0 if status.st_mode & _KIND == stat.S_IFDIR else status.st_size
                count += 1
                if self._plain(entry.name, status, prefix):
                    found.append((entry.name, status))
                elif status.st_mode & _KIND == stat.S_IFDIR:
                    self._weigh(folder, entry.name, prefix.count("/") + 1)
        self.amount = self.amount + Amount(size, count)
        return found

    def _status(self, folder: int, name: str, shown: str) -> os.stat_result | None:
        """What is at a name; None for nothing, or nothing that can be told."""
        try:
            status = os.lstat(name, dir_fd=folder)
        except OSError:
            return None
        prefix = shown[: len(shown) - len(name)]
        return status if self._plain(name, status, prefix) else None

    def _plain(self, name: str, status: os.stat_result, prefix: str) -> bool:
        if status.st_mode & _KIND in _PLAIN and (name.isascii() or _in_utf8(name)) and not name.startswith(confine.TEMPORARY):
            return True
        self._leave(prefix + name)
        return False

    def _weigh(self, folder: int, name: str, depth: int) -> None:
        """Count what is in a folder that is left out."""
        amount, hidden = weigh(folder, name, depth)
        self.amount = self.amount + amount
        self.hidden |= hidden

    def _leave(self, path: str) -> None:
        self._odds += 1
        if len(self._odd) < _SHOWN:
            self._odd.append(path)

    @contextlib.contextmanager
    def _entered(self, parent: int, name: str, shown: str) -> Iterator[int | None]:
        """The folder, open; None where that cannot be: it is left out then."""
        try:
            stack = contextlib.ExitStack()
            descriptor = stack.enter_context(lent_folder(parent, name))
        except OSError:
            self.hidden = True
            self.leave(shown)
            yield None
            return
        with stack:
            yield descriptor


@contextlib.contextmanager
def open_root(root: Path) -> Iterator[int]:
    """The folder of a place, open, also where a tool has taken the right to it. Raises DriverError."""
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            if root.stat().st_mode & 0o700 != 0o700:
                root.chmod(0o700)
    with confine.open_folder(root, ()) as folder:
        yield folder


def weigh(parent: int, name: str, depth: int = 0, *, most: int = MAX_NAMES) -> tuple[Amount, bool]:
    """What is below the folder `name` takes up, whatever it is called, and whether there is more than could be looked at."""
    size = count = 0
    hidden = False
    try:
        with lent_folder(parent, name) as folder, os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                if count > most:
                    return Amount(size, count), True
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    hidden |= not isinstance(error, FileNotFoundError)
                    continue
                if status.st_mode & _KIND != stat.S_IFDIR:
                    size += status.st_size
                elif depth >= confine.MAX_DEPTH:
                    hidden = True
                else:
                    below, more = weigh(folder, entry.name, depth + 1, most=most - count)
                    size, count, hidden = size + below.bytes, count + below.files, hidden or more
    except FileNotFoundError:
        return Amount(), False
    except OSError:
        hidden = True
    return Amount(size, count), hidden


@contextlib.contextmanager
def lent_folder(parent: int, name: str) -> Iterator[int]:
    """The folder `name`, open, and its owner may look into it until the block ends. Raises OSError."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=parent)
            closed = not (os.geteuid() == 0 or os.fstat(descriptor).st_mode & 0o100)
        except PermissionError:
            descriptor, closed = -1, True
        if closed:
            if descriptor >= 0:
                os.close(descriptor)
            descriptor = os.open(stack.enter_context(_lent(parent, name, 0o700)), _FOLDER & ~os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        yield descriptor


def open_to_read(parent: int, name: str, shown: str) -> int:
    """The regular file `name`, open for reading, also where its owner took himself the right. Raises DriverError."""
    try:
        return confine.open_file(parent, name, shown)
    except DriverError as refusal:
        if not isinstance(refusal.__cause__, PermissionError):
            raise
        try:
            with _lent(parent, name, 0o400) as way:
                return os.open(way, _FILE & ~os.O_NOFOLLOW)
        except OSError:
            raise refusal from None


@contextlib.contextmanager
def _lent(parent: int, name: str, right: int) -> Iterator[Path]:
    """A way to what is at `name`, a file or a folder of ours, which has the right until the block ends. Raises OSError."""
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        mode = os.fstat(pinned).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise PermissionError("neither a file nor a folder")
        # A descriptor that only names cannot be chmodded; the link that the kernel shows for it leads to the very same inode.
        way = Path(f"/proc/self/fd/{pinned}")
        way.chmod(stat.S_IMODE(mode) | right)
        try:
            yield way
        finally:
            way.chmod(stat.S_IMODE(mode))
    finally:
        os.close(pinned)


def _in_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
