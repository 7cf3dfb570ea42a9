"""Capture: what is different in a tree from what is known of it, with the contents of what is new.

What the operating system says of a file (permissions, size, times, inode) decides whether it is read at all, as reading a
thousand files that nobody touched would cost more than the call that is recorded. The time of the last change is among them:
unlike that of the last writing no program can set it. A file that has just been changed may change again within the same tick of
the clock, so it is read again the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from agentos.abi.errors import DriverError
from agentos.files import confine, masking
from agentos.files.guard import Guard
from agentos.files.quota import Amount
from agentos.files.scan import MAX_READ, Scan, open_to_read
from agentos.files.versions import FILE, FOLDER, LINK, MAX_KEPT, Entry, Mask, State
from agentos.files.walk import printable

MODE: Final = 0o1777
"""The bits of permissions that are recorded: a file that is put back must not act as its owner."""

_BLOCK: Final = 1024 * 1024
_TICK_NS: Final = 20_000_000
"""Nanoseconds within which two changes of a file may bear the same time."""

_SHOWN: Final = 3


class Row(NamedTuple):
    """What is known of a path. The first five are the status that it was last seen with; of folders the mode alone counts."""

    mode: int
    """Kind and permissions, as in `st_mode`."""
    size: int
    mtime_ns: int
    ctime_ns: int
    """0 where it may have changed since within the same tick."""
    inode: int
    digest: str = ""
    target: str = ""

    @property
    def state(self) -> State:
        """The same as it is recorded."""
        permissions = self.mode & MODE
        if stat.S_ISDIR(self.mode):
            return State(FOLDER, permissions)
        if stat.S_ISLNK(self.mode):
            return State(LINK, permissions, target=self.target)
        return State(FILE, permissions, self.size, self.digest)


class Book(Protocol):
    """Where it is written down what is known of a place."""

    def known(self, path: str | None) -> Mapping[str, Row]:
        """What is known: of all paths, or of `path`, the folders that it is in, and all below it."""

    def learn(self, path: str, row: Row | None) -> None:
        """From now on that is known of `path`; None: nothing is there."""

    def hold(self, digest: str, content: bytes) -> bool:
        """Keep a content; False if there is no room for it."""


def state_at(root: Path, names: Sequence[str], row: Row | None, guard: Guard) -> State | None:
    """What is at `names` now; its content is read anew unless nothing about it has changed since `row`. Raises DriverError."""
    scan, shown = Scan(guard), "/".join(names)
    with contextlib.closing(scan.of(root, names)) as found:
        for path, folder, name, status in found:
            if path != shown:
                continue
            if row is not None and _same(row, status):
                return row.state
            return Capture(_Nowhere(), guard).row(folder, name, shown, status, None).state
    return None


class _Nowhere:
    """A book that nothing is written down in."""

    def known(self, path: str | None) -> Mapping[str, Row]:
        """Nothing."""
        del path
        return {}

    def learn(self, path: str, row: Row | None) -> None:
        """Nothing is learnt."""

    def hold(self, digest: str, content: bytes) -> bool:
        """Nothing is kept, and nobody minds."""
        del digest, content
        return True


class Capture:
    """One look at a tree. `entries` and `notes` are what came of it."""

    def __init__(self, book: Book, guard: Guard, mask: Mask | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.notes: list[str] = []
        self.amount: Amount | None = None
        """What the whole place takes up; None where only a part of it was looked at."""
        self.grew = Amount()
        """How much more it takes up than was known, by what was looked at."""
        self.hidden = False
        """Whether there were folders that could not be looked into."""
        self._book = book
        self._guard = guard
        self._mask = mask
        self._lost: list[str] = []
        self._large: list[str] = []

    def run(self, root: Path, paths: Collection[str] | None) -> None:
        """Look at the tree below `root`, or at `paths` alone. Raises DriverError, Stopped, and what the book raises."""
        for path in (None,) if paths is None else sorted(paths):
            self._look(root, path)
        self._tell("too large to be kept", self._large)
        self._tell("not kept, as the place is full", self._lost)
        if self._mask is not None:
            self.notes = [self._mask(note.encode("utf-8", "replace")).decode("utf-8", "replace") for note in self.notes]

    def _look(self, root: Path, path: str | None) -> None:
        names = () if path is None else confine.split(path)
        known = self._book.known("/".join(names) or None)
        scan = Scan(self._guard, None if self._mask is None else lambda *found: self._renamed(known, *found))
        found: set[str] = set()
        # Closed also when a look fails: folders are lent to their owner while they are looked into.
        with contextlib.closing(scan.of(root, names)) as coming:
            for shown, folder, name, status in coming:
                row = known.get(shown)
                found.add(shown)
                if row is not None and _same(row, status):
                    continue
                try:
                    fresh = self.row(folder, name, shown, status, row)
                except (FileNotFoundError, DriverError, OSError) as error:
                    if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
                        found.discard(shown)
                    else:
                        scan.leave(shown)
                    continue
                self._differs(shown, row, fresh)
        for gone in scan.gone:
            if names:
                known = {**known, **self._book.known(gone)}
        if not scan.full:
            for missing in known.keys() - found:
                if not any(_covers(unsure, missing) for unsure in scan.unsure):
                    self._differs(missing, known[missing], None)
        self.notes += [note for note in scan.notes() if note not in self.notes]
        if path is None:
            self.amount, self.hidden = scan.amount, scan.hidden

    def _differs(self, path: str, row: Row | None, fresh: Row | None) -> None:
        if path in self.entries or row == fresh:
            return
        before, after = (None if one is None else one.state for one in (row, fresh))
        self.grew = self.grew + _amount(after) - _amount(before)
        # Of a file that is too large to be read, only its times tell that it changed.
        if before != after or (after is not None and after.kind == FILE and not after.digest):
            self.entries[path] = Entry(path, before, after, path not in self._lost and path not in self._large)
        self._book.learn(path, fresh)

    def _renamed(self, known: Mapping[str, Row], folder: int, path: str, name: str) -> str | None:
        if self._mask is None or path in known:
            return name
        try:
            return masking.mask_name(folder, name, self._mask)
        except DriverError as error:
            self.notes.append(error.message)
            return None

    def row(self, folder: int, name: str, shown: str, status: os.stat_result, row: Row | None) -> Row:
        """What there is to be known of a path now; its content is kept. Raises DriverError, OSError."""
        if stat.S_ISDIR(status.st_mode):
            return Row(status.st_mode, 0, 0, 0, 0)
        if stat.S_ISLNK(status.st_mode):
            if self._mask is not None and masking.mask_link(folder, name, self._mask):
                status = os.lstat(name, dir_fd=folder)
            target = _plain(os.readlink(name, dir_fd=folder))
            return Row(status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, target=target)
        if self._mask is not None and masking.mask_file(folder, name, shown, self._mask):
            self.notes.append(f"a value that nobody may see was taken out of {printable(shown)[:200]}")
        descriptor = open_to_read(folder, name, shown)
        try:
            before = os.fstat(descriptor)
            if before.st_size > MAX_READ:
                self._large.append(shown)
                digest, size = "", before.st_size
            else:
                digest, size = self._digest(descriptor, shown, row)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        changed = after.st_ctime_ns
        if (changed, size) != (before.st_ctime_ns, after.st_size) or time.time_ns() - changed < _TICK_NS:
            changed = 0
        return Row(after.st_mode, size, after.st_mtime_ns, changed, after.st_ino, digest)

    def _digest(self, descriptor: int, shown: str, row: Row | None) -> tuple[str, int]:
        """Digest and size of a file, whose content is kept on the way unless it is the one that is known."""
        sha, blocks, size = hashlib.sha256(), list[bytes](), 0
        while block := os.read(descriptor, _BLOCK):
            self._guard.check()
            sha.update(block)
            size += len(block)
            if size > MAX_READ:
                raise DriverError("grows while it is read", where=printable(shown)[:200])
            if size <= MAX_KEPT:
                blocks.append(block)
            else:
                blocks.clear()
        digest = f"sha256:{sha.hexdigest()}"
        if size > MAX_KEPT:
            self._large.append(shown)
        elif (row is None or row.digest != digest) and not self._book.hold(digest, b"".join(blocks)):
            self._lost.append(shown)
        return digest, size

    def _tell(self, what: str, paths: list[str]) -> None:
        if paths:
            named = ", ".join(printable(path)[:200] for path in paths[:_SHOWN])
            more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
            self.notes.append(f"{what}: {named}{more}")


def _same(row: Row, status: os.stat_result) -> bool:
    if row.mode != status.st_mode:
        return False
    # The first one of them to differ is mostly the time of the last change.
    return stat.S_ISDIR(row.mode) or (
        row.ctime_ns == status.st_ctime_ns
        and row.mtime_ns == status.st_mtime_ns
        and row.size == status.st_size
        and row.inode == status.st_ino
    )


def _amount(state: State | None) -> Amount:
    return Amount() if state is None else Amount(state.size, 1)


def _plain(target: str) -> str:
    try:
        target.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DriverError("leads to a name that is not UTF-8") from error
    return target


def _covers(above: str, path: str) -> bool:
    return path == above or path.startswith(f"{above}/") or not above
