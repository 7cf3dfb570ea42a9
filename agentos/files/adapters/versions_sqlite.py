"""`Versions` in SQLite: one file per place, `<root>/<tenant>/sessions/<name>.db` and `<root>/<tenant>/spaces/<name>.db`.

There are thousands of sessions and few that work at one time, so few files are open: those used last. Whoever acts on a place has
it alone, in the order in which they came; a place that nobody touches costs nothing but its file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from agentos.abi.canonical import digest as digest_of
from agentos.abi.errors import ChangedMeanwhile, DriverError, NotFound
from agentos.abi.ids import Clock, is_name
from agentos.files import confine, undo
from agentos.files.adapters.place_file import PlaceFile
from agentos.files.capture import Capture, state_at
from agentos.files.guard import Guard
from agentos.files.measure import weigh_versions
from agentos.files.quota import Amount, Quotas
from agentos.files.told import blamed, difference
from agentos.files.versions import (
    ANY,
    FILE,
    FOUND,
    MAX_KEPT,
    QUOTA,
    Author,
    Blame,
    Change,
    Difference,
    Look,
    Mask,
    NotKept,
    Op,
    Place,
    State,
    VersionsUnavailable,
)
from agentos.files.walk import printable

MAX_OPEN: Final = 32
"""Files that are open at one time, beside those that are in use."""

_BEGAN: Final = Author("system/begin")
_MOST_NOTES: Final = 20
_TURN_S: Final = 0.05
"""Seconds between two looks at the guard while somebody else has the place."""

_FOLDERS: Final = {"session": "sessions", "space": "spaces"}
_T = TypeVar("_T")

Masks = Callable[[Place], Mask | None]
"""The mask of a place now; None: nothing is to be masked there."""


class _Turn:
    """Whose turn it is with a place."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()


class SqliteVersions:
    """See the module."""

    def __init__(
        self, root: Path, clock: Clock, quota: int = QUOTA, masks: Masks | None = None, quotas: Quotas | None = None
    ) -> None:
        """`quota`: most bytes of contents kept of one place; `masks` gives the mask of a place, for captures that bring none;
        `quotas` is told what the places take up, and asked before that grows."""
        self._quotas = quotas
        self._masks = masks
        self._root = root
        self._clock = clock
        self._quota = quota
        self._lock = threading.Lock()
        self._turns: WeakValueDictionary[Place, _Turn] = WeakValueDictionary()
        self._open: OrderedDict[Place, PlaceFile] = OrderedDict()
        self._used: dict[Place, int] = {}

    @contextmanager
    def turn(self, place: Place, guard: Guard) -> Iterator[None]:
        """See `Versions.turn`."""
        with self._lock:
            turn = self._turns.get(place)
            if turn is None:
                turn = self._turns[place] = _Turn()
        while not turn.lock.acquire(timeout=_TURN_S):
            guard.check()
        try:
            yield
        finally:
            turn.lock.release()

    @contextmanager
    def room(self, place: Place, more: Amount) -> Iterator[None]:
        """See `Versions.room`."""
        with nullcontext() if self._quotas is None else self._quotas.room(place.tenant, more):
            yield

    def require(self, place: Place) -> None:
        """See `Versions.require`."""
        if self._quotas is not None:
            self._quotas.require(place.tenant, _quota_name(place))

    def begin(self, place: Place, root: Path, guard: Guard) -> Change:
        """See `Versions.begin`."""
        with self._at(place, guard) as file:
            self._begin(file, root, guard)
            return file.head(0) if file.last() else _there(file, 0)

    def capture(
        self,
        place: Place,
        root: Path,
        author: Author,
        guard: Guard,
        *,
        op: Op = "write",
        paths: Collection[str] | None = None,
        mask: Mask | None = None,
    ) -> Change | None:
        """See `Versions.capture`."""
        with self._at(place, guard) as file:
            if self._begin(file, root, guard, mask):
                return None
            return self._capture(file, root, author, guard, op, paths, mask)

    def look(self, place: Place, root: Path, path: str, guard: Guard) -> Look:
        """See `Versions.look`."""
        names = confine.split(path)
        name = "/".join(names)
        with self._at(place, guard) as file:
            self._begin(file, root, guard)
            row = file.known(name).get(name)
            last = file.last_of(name)
            change = file.head(last) if last else None
            return Look(state_at(root, names, row, guard), None if row is None else row.state, change, file.seen(name))

    def saw(self, place: Place, path: str, digest: str, session: str) -> None:
        """See `Versions.saw`."""
        name = "/".join(confine.split(path))
        self._read(place, lambda file: file.note(name, digest, session), None)

    def log(self, place: Place, path: str | None = None, before: int | None = None, limit: int = 50) -> tuple[Change, ...]:
        """See `Versions.log`."""
        name = "/".join(confine.split(path)) or None if path is not None else None
        return self._read(place, lambda file: file.changes(name, before, limit), ())

    def change(self, place: Place, number: int) -> Change:
        """See `Versions.change`."""
        found = self._read(place, lambda file: file.change(number), None)
        if found is None:
            raise NotFound(f"there is no change {number}", where=str(place))
        return found

    def tree(self, place: Place, at: int | None = None) -> Mapping[str, State]:
        """See `Versions.tree`."""
        return self._read(place, lambda file: file.tree(file.number(at)), {})

    def content(self, place: Place, digest: str) -> bytes:
        """See `Versions.content`."""
        data = self._read(place, lambda file: file.content(digest), None)
        if data is None:
            raise NotKept("that content was not kept", where=str(place))
        return data

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        """See `Versions.keep`."""
        place, digest = Place(tenant, "session", session), digest_of(data)
        if len(data) > MAX_KEPT:
            raise NotKept(f"{len(data)} bytes are not kept: {MAX_KEPT} are the most", where=str(place))
        with self.room(place, Amount(len(data))), self._at(place, Guard()) as file, file.transaction():
            if not file.hold(digest, data):
                raise NotKept("it is not kept, as the place is full", where=str(place))
        return digest

    def diff(self, place: Place, start: int, end: int | None = None, path: str | None = None) -> tuple[Difference, ...]:
        """See `Versions.diff`."""
        name = "/".join(confine.split(path)) or None if path is not None else None

        def between(file: PlaceFile) -> tuple[Difference, ...]:
            old, new = (file.tree(file.number(at), name) for at in (start, end))
            changed = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
            return tuple(difference(file.content, path, old.get(path), new.get(path)) for path in changed)

        return self._read(place, between, ())

    def blame(self, place: Place, path: str) -> Blame:
        """See `Versions.blame`."""
        name = "/".join(confine.split(path))
        found: Blame | None = self._read(place, lambda file: blamed(name, file.history(name), file.content, file.head), None)
        if found is None:
            raise NotFound("no such file", where=printable(name)[:200])
        return found

    def restore(
        self,
        place: Place,
        root: Path,
        path: str,
        at: int,
        author: Author,
        guard: Guard,
        expected: str = ANY,
        *,
        lose: bool = False,
    ) -> Change | None:
        """See `Versions.restore`."""
        name = "/".join(confine.split(path))
        with self._at(place, guard) as file:
            self._settle(file, root, guard)
            then = file.tree(file.number(at), name or None)
            now = file.tree(file.number(None))
            here = {one: state for one, state in now.items() if not name or one == name or one.startswith(f"{name}/")}
            if name and not then and not here:
                raise NotFound(f"there is nothing at this path, and was nothing after change {at}", where=printable(name)[:200])
            there = now.get(name)
            if expected not in (ANY, there.digest if there is not None and there.kind == FILE else ""):
                raise ChangedMeanwhile("it is not what is expected any more", paths=(name,), where=printable(name)[:200])
            wanted: dict[str, State | None] = {one: then.get(one) for one in then.keys() | here.keys()}
            return self._put(file, root, wanted, now, author, "restore", (), guard, file.tree(at), lose)

    def undo(
        self, place: Place, root: Path, numbers: Collection[int] | None, author: Author, guard: Guard, *, lose: bool = False
    ) -> Change | None:
        """See `Versions.undo`."""
        with self._at(place, guard) as file:
            self._settle(file, root, guard)
            last = file.number(None)
            now = file.tree(last)
            if numbers is None:
                first = file.tree(0)
                wanted: dict[str, State | None] = {path: first.get(path) for path in first.keys() | now.keys()}
                return self._put(file, root, wanted, now, author, "undo", tuple(range(1, last + 1)), guard, first, lose)
            chosen = tuple(sorted(set(numbers)))
            if 0 in chosen:
                raise ChangedMeanwhile("change 0 is what was there at first, and cannot be taken back", where=str(place))
            paths: dict[str, list[tuple[int, State | None]]] = {}
            for number in chosen:
                change = file.change(number)
                if change is None:
                    raise NotFound(f"there is no change {number}", where=str(place))
                paths |= {entry.path: file.history(entry.path) for entry in change.entries if entry.path not in paths}
            wanted, refused = undo.targets(paths, chosen)
            if refused:
                raise undo.refusal(refused)
            then = file.tree(chosen[0] - 1) if chosen else {}
            return self._put(file, root, wanted, now, author, "undo", chosen, guard, then, lose)

    def destroy(self, place: Place) -> None:
        """See `Versions.destroy`."""
        with self.turn(place, Guard()):
            self.release(place)
            path = self._path(place)
            try:
                for suffix in ("", "-wal", "-shm", "-journal"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
            except OSError as error:
                raise VersionsUnavailable(f"the versions of {place} cannot be destroyed: {error.strerror}") from error
            self._weigh(place)

    def release(self, place: Place) -> None:
        """See `Versions.release`. Waits for nobody: a file that is in use stays open."""
        with self._lock:
            file = None if self._used.get(place) else self._open.pop(place, None)
        if file is not None:
            file.close()
            self._weigh(place)

    def close(self) -> None:
        """See `Versions.close`."""
        with self._lock:
            files, self._open = list(self._open.values()), OrderedDict()
        for file in files:
            file.close()

    # --- within a turn

    def _begin(self, file: PlaceFile, root: Path, guard: Guard, mask: Mask | None = None) -> bool:
        """Record change 0 if there is none yet; whether that was so."""
        if file.last() is not None:
            return False
        with file.transaction():
            captured = Capture(file, guard, mask or self._mask(file))
            captured.run(root, None)
            file.add(self._clock.now_ms(), _BEGAN, "begin", captured.entries, (), tuple(captured.notes))
        self._tell(file.place, captured)
        return True

    def _tell(self, place: Place, captured: Capture) -> None:
        """Have it known what the place takes up now."""
        if self._quotas is None:
            return
        name = _quota_name(place)
        if captured.amount is not None:
            self._quotas.holds(place.tenant, name, captured.amount, hidden=captured.hidden)
        elif captured.grew != Amount():
            self._quotas.grew(place.tenant, name, captured.grew)

    def _weigh(self, place: Place) -> None:
        """Have it known what is kept of the place."""
        if self._quotas is not None:
            self._quotas.holds(place.tenant, f"versions/{_quota_name(place)}", weigh_versions(self._path(place)))

    def _mask(self, file: PlaceFile) -> Mask | None:
        return None if self._masks is None else self._masks(file.place)

    def _settle(self, file: PlaceFile, root: Path, guard: Guard) -> None:
        """Record what is there now as it is, so that whatever is done next can be taken back."""
        if not self._begin(file, root, guard):
            self._capture(file, root, FOUND, guard, "found", None, None, bounded=False)

    def _capture(
        self,
        file: PlaceFile,
        root: Path,
        author: Author,
        guard: Guard,
        op: Op,
        paths: Collection[str] | None,
        mask: Mask | None,
        undoes: tuple[int, ...] = (),
        notes: tuple[str, ...] = (),
        *,
        bounded: bool = True,
    ) -> Change | None:
        """`bounded` False: what takes something back is recorded also where there is no room for more."""
        with file.transaction():
            captured = Capture(file, guard, mask or self._mask(file))
            captured.run(root, paths)
            # Before it is known whether it can be recorded: it is there.
            self._tell(file.place, captured)
            if not captured.entries:
                return None
            if op == "write" and all(entry.after is None for entry in captured.entries.values()):
                op = "remove"
            all_notes = (*notes, *captured.notes)
            return file.add(self._clock.now_ms(), author, op, captured.entries, undoes, all_notes, bounded=bounded)

    def _put(
        self,
        file: PlaceFile,
        root: Path,
        wanted: dict[str, State | None],
        now: Mapping[str, State],
        author: Author,
        op: Op,
        undoes: tuple[int, ...],
        guard: Guard,
        then: Mapping[str, State],
        lose: bool,
    ) -> Change | None:
        """Make the tree so, and record it. `then` is the tree that folders which are missing on the way are taken from."""
        wanted = {path: state for path, state in wanted.items() if now.get(path) != state}
        if not wanted:
            return None
        undo.with_folders(wanted, now, then)
        undo.refuse_unkept(wanted, now, file.holds, lose=lose)
        with self.room(file.place, undo.more(wanted, now)):
            guard.commit()
            notes = undo.put(root, wanted, now, file.content)
            told = tuple(notes[:_MOST_NOTES])
            return self._capture(file, root, author, Guard(), op, tuple(wanted), None, undoes, told, bounded=False)

    # --- files

    @contextmanager
    def _at(self, place: Place, guard: Guard) -> Iterator[PlaceFile]:
        """The file of a place, made if it is missing, for whoever has it alone. Raises VersionsUnavailable, Stopped."""
        with self.turn(place, guard):
            if self._quotas is not None:
                # What the tenant takes up is measured before anything is changed, if it never was.
                self._quotas.used(place.tenant)
            try:
                file = self._file(place)
                try:
                    yield file
                finally:
                    self._done(place)
                    self._weigh(place)
            except sqlite3.Error as error:
                raise _unavailable(place, error) from error

    def _read(self, place: Place, work: Callable[[PlaceFile], _T], none: _T) -> _T:
        """Do `work` on the file of a place; `none` where nothing was ever recorded."""
        with self.turn(place, Guard()):
            if place not in self._open and not self._path(place).exists():
                return none
            with self._at(place, Guard()) as file:
                return work(file)

    def _file(self, place: Place) -> PlaceFile:
        with self._lock:
            file = self._open.get(place)
            if file is not None:
                self._open.move_to_end(place)
                self._used[place] = self._used.get(place, 0) + 1
                return file
        try:
            file = PlaceFile(self._path(place), place, self._quota)
        except OSError as error:
            raise _unavailable(place, error) from error
        with self._lock:
            self._open[place] = file
            self._used[place] = 1
            idle = [one for one in self._open if one not in self._used][: max(0, len(self._open) - MAX_OPEN)]
            closing = [self._open.pop(one) for one in idle]
        for one in closing:
            one.close()
            self._weigh(one.place)
        return file

    def _done(self, place: Place) -> None:
        with self._lock:
            self._used[place] -= 1
            if not self._used[place]:
                del self._used[place]

    def _path(self, place: Place) -> Path:
        if not (is_name(place.tenant) and is_name(place.name)):
            raise DriverError(f"{place.name!r} names no place")
        return self._root / place.tenant / _FOLDERS[place.kind] / f"{place.name}.db"


def _unavailable(place: Place, error: Exception) -> VersionsUnavailable:
    return VersionsUnavailable(
        f"what was kept of {place} cannot be read or added to: {error}",
        where=str(place),
        mend="see whether the disk is full or broken; nothing is changed in the place until this is mended",
    )


def _quota_name(place: Place) -> str:
    return f"{place.kind}/{place.name}"


def _there(file: PlaceFile, number: int) -> Change:
    change = file.change(number)
    assert change is not None  # noqa: S101 - it was just added
    return change
