"""Undoing: what has to be where once changes are taken back, and how a tree is made to be so.

`targets` is pure: from the history of every path that is concerned. `put` acts: it removes what stands in the way from the
deepest down, makes folders, puts contents in place by renaming (whoever reads sees the old file or the new one), and sets
permissions of folders last, because they may forbid to write in them. All by descriptor, never through a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from agentos.abi.errors import ChangedMeanwhile, DriverError
from agentos.files import confine, ownership
from agentos.files.capture import MODE
from agentos.files.quota import Amount
from agentos.files.scan import open_root
from agentos.files.temporary import new_file, new_link
from agentos.files.versions import FILE, FOLDER, LINK, NotKept, State
from agentos.files.walk import printable

History = Sequence[tuple[int, State | None]]
"""What was at a path after each change of it, the newest first, by number."""


def targets(histories: Mapping[str, History], numbers: Collection[int]) -> tuple[dict[str, State | None], dict[str, int]]:
    """What has to be at each path; and the paths that cannot be taken back, with the number of the later change in the way.

    A change is taken back from a path if what is there is what the change made of it (or is already what was there before).
    """
    wanted: dict[str, State | None] = {}
    refused: dict[str, int] = {}
    for path, history in histories.items():
        now = history[0][1] if history else None
        for place, (number, after) in enumerate(history):
            if number not in numbers:
                continue
            before = history[place + 1][1] if place + 1 < len(history) else None
            if now == after:
                now = before
            elif now != before:
                refused[path] = next((later for later, _ in reversed(history[:place]) if later not in numbers), number)
                break
        wanted[path] = now
    return {path: state for path, state in wanted.items() if path not in refused}, refused


def refuse_unkept(
    wanted: Mapping[str, State | None], now: Mapping[str, State], holds: Callable[[str], bool], *, lose: bool
) -> None:
    """Refuse (NotKept) what needs a content that was not kept, and, unless `lose`, what would destroy one that is not kept."""
    states = {path: (now.get(path), state) for path, state in wanted.items()}
    fresh = {path: after for path, (before, after) in states.items() if not _same_content(before, after)}
    if missing := [path for path, state in fresh.items() if state is not None and state.kind == FILE and not holds(state.digest)]:
        raise NotKept(f"the content of {_some(missing)} was not kept", mend="restore other paths, or take back less")
    going = [path for path in fresh if (there := now.get(path)) is not None and there.kind == FILE and not holds(there.digest)]
    if going and not lose:
        message = f"the content of {_some(going)} would be lost, as it was not kept"
        raise NotKept(message, mend="put it by first: agentos session files; or say --lose")


def _same_content(before: State | None, after: State | None) -> bool:
    if before is None or after is None or not before.kind == after.kind == FILE:
        return False
    return bool(after.digest) and before.digest == after.digest


def _some(paths: Collection[str]) -> str:
    shown = ", ".join(printable(path)[:200] for path in sorted(paths)[:3])
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''} ({shown}{', …' if len(paths) > 3 else ''})"


def with_folders(wanted: dict[str, State | None], now: Mapping[str, State], then: Mapping[str, State]) -> None:
    """Add missing folders that something is to stand in. Raises ChangedMeanwhile where something else stands."""
    for path in [path for path, state in wanted.items() if state is not None]:
        names = path.split("/")
        for depth in range(1, len(names)):
            above = "/".join(names[:depth])
            state = wanted[above] if above in wanted else now.get(above)
            if state is None:
                known = then.get(above)
                wanted[above] = known if known is not None and known.kind == FOLDER else State(FOLDER, 0o755)
            elif state.kind != FOLDER:
                where = printable(above)[:200]
                raise ChangedMeanwhile("stands where a folder has to be", paths=(above,), where=where)


def refusal(refused: Mapping[str, int]) -> ChangedMeanwhile:
    shown = ", ".join(f"{printable(path)[:200]} (change {number})" for path, number in sorted(refused.items())[:5])
    more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
    return ChangedMeanwhile(
        f"changed again since by others: {shown}{more}",
        paths=sorted(refused),
        mend="take those changes back too, or restore single paths",
    )


def more(wanted: Mapping[str, State | None], now: Mapping[str, State]) -> Amount:
    """How much more there is once `wanted` is there; what is removed makes room for what is put."""
    size = sum((0 if state is None else state.size) - (now[path].size if path in now else 0) for path, state in wanted.items())
    count = sum((state is not None) - (path in now) for path, state in wanted.items())
    return Amount(max(0, size), max(0, count))


def put(root: Path, wanted: Mapping[str, State | None], now: Mapping[str, State], content: Callable[[str], bytes]) -> list[str]:
    """Make the tree below `root`, of which `now` is known, so that `wanted` is at each of its paths; None: nothing.

    `content` is asked by digest, for files whose content differs from what is there. A folder that still holds something else is
    not removed, and what cannot be put in place is left as it is: both are told in what is returned.
    """
    putting = _Putting(root, now, content)
    deepest = sorted(wanted, key=lambda path: (-path.count("/"), path))
    for path in deepest:
        putting.clear(path, wanted[path])
    for path in reversed(deepest):
        putting.make(path, wanted[path])
    for path in deepest:
        putting.close(path, wanted[path])
    putting.done()
    return putting.notes


class _Putting:
    def __init__(self, root: Path, now: Mapping[str, State], content: Callable[[str], bytes]) -> None:
        self.notes: list[str] = []
        self._root = root
        self._now = now
        self._content = content
        self._opened: dict[str, int] = {}
        """Folders whose owner was given the right to work in them, with the permissions that they had."""

    def clear(self, path: str, state: State | None) -> None:
        """Remove what is at `path`, unless it is of the kind that is wanted there, or can be replaced by renaming."""
        with self._trying(path, gone=True), self._above(path) as (folder, name):
            there = os.lstat(name, dir_fd=folder).st_mode
            if stat.S_ISDIR(there):
                if state is None or state.kind != FOLDER:
                    self._opened.pop(path, None)
                    os.rmdir(name, dir_fd=folder)
            elif state is None or state.kind == FOLDER:
                os.unlink(name, dir_fd=folder)

    def make(self, path: str, state: State | None) -> None:
        """Put what is wanted at `path`."""
        if state is None:
            return
        with self._trying(path), self._above(path) as (folder, name):
            if state.kind == FOLDER:
                os.close(confine.enter(folder, name, path, make=True))
            elif state.kind == LINK:
                if not _is_link(folder, name, state.target):
                    with new_link(folder, state.target) as temporary:
                        ownership.give_name(temporary, folder)
                        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                self._file(folder, name, state, self._now.get(path))

    def close(self, path: str, state: State | None) -> None:
        """Set the permissions of a folder."""
        if state is None or state.kind != FOLDER:
            return
        with self._trying(path), self._above(path) as (folder, name):
            self._opened.pop(path, None)
            _set_mode(folder, name, state.mode)

    def done(self) -> None:
        """Give folders that were only worked in the permissions back that they had."""
        for path in sorted(self._opened, key=lambda one: -one.count("/")):
            mode = self._opened.pop(path)
            with contextlib.suppress(OSError, DriverError), self._above(path) as (folder, name):
                _set_mode(folder, name, mode)

    def _file(self, folder: int, name: str, state: State, now: State | None) -> None:
        if now is not None and now.kind == state.kind and now.digest == state.digest:
            _set_mode(folder, name, state.mode, kind=0)
            return
        data = self._content(state.digest)
        with new_file(folder, state.mode & MODE) as (temporary, descriptor):
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            ownership.give(descriptor, folder)
            os.fchmod(descriptor, state.mode & MODE)
            os.fsync(descriptor)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    @contextlib.contextmanager
    def _trying(self, path: str, *, gone: bool = False) -> Iterator[None]:
        """What fails is told; `gone`: where there is nothing on the way to `path`, nothing has failed."""
        try:
            yield
        except OSError as error:
            if gone and isinstance(error, FileNotFoundError):
                return
            self.notes.append(f"{printable(path)[:200]} stays as it is: {_why(error)}")
        except DriverError as error:
            if gone and isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return
            self.notes.append(f"{printable(path)[:200]} stays as it is: {error.message}")

    @contextlib.contextmanager
    def _above(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder that `path` is in, open and to be worked in, and its last name. Raises DriverError, OSError."""
        names = confine.split(path)
        with contextlib.ExitStack() as stack:
            current = stack.enter_context(open_root(self._root))
            for depth, name in enumerate(names[:-1]):
                self._open(current, name, "/".join(names[: depth + 1]))
                below = confine.enter(current, name, "/".join(names[: depth + 1]))
                stack.callback(os.close, below)
                current = below
            yield current, names[-1]

    def _open(self, folder: int, name: str, path: str) -> None:
        """Let the owner of a folder work in it, as its tools may have taken that right."""
        status = os.lstat(name, dir_fd=folder)
        if os.geteuid() != 0 and stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
            mode = stat.S_IMODE(status.st_mode)
            _set_mode(folder, name, mode | 0o700)
            self._opened.setdefault(path, mode)


def _set_mode(folder: int, name: str, mode: int, kind: int = os.O_DIRECTORY) -> None:
    """Set the permissions of the folder (or whatever it is, with `kind` 0) `name`, never through a link. Raises OSError."""
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | kind | os.O_CLOEXEC, dir_fd=folder)
    try:
        if stat.S_ISLNK(os.fstat(pinned).st_mode):
            raise OSError(errno.ELOOP, "is a link")
        if stat.S_IMODE(os.fstat(pinned).st_mode) & MODE != mode & MODE:
            Path(f"/proc/self/fd/{pinned}").chmod(mode & MODE)
    finally:
        os.close(pinned)


def _is_link(folder: int, name: str, target: str) -> bool:
    try:
        return os.readlink(name, dir_fd=folder) == target
    except OSError:
        return False


def _why(error: OSError) -> str:
    return "it holds something else" if error.errno in (errno.ENOTEMPTY, errno.EEXIST) else f"{error.strerror}"
