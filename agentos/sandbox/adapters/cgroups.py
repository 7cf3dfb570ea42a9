"""Limits of all processes of a place together: a control group with a bound of memory and of processes.

They are there where the runtime may make groups: below its own of cgroup v1 (`memory` and `pids`), or in its own of cgroup v2 if
that is delegated to it whole (`Delegate=yes` of systemd), and then the runtime itself moves into a group `agentos-runtime` in it.

To move a process takes the kernel some milliseconds, longer than many a call lasts. So a place is joined a moment after its
program has begun, beside the call; until then the limits of each process hold, among them how many there may be. Children of
a process that was moved are born in the group, so the tree is gone through until nobody in it is left outside; a tree that grows
faster than that is no program at work, and is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.sandbox.profile import Limits

ROOT: Final = Path("/sys/fs/cgroup")
RUNTIME: Final = "agentos-runtime"
ROUNDS: Final = 64
"""How often a tree is gone through before it counts as one that flees."""

_MIB: Final = 1024 * 1024
_NUMBERS: Final = itertools.count()
_OWN: Final = 3
"""Processes of bubblewrap itself, beside those of the command."""


@dataclass(frozen=True, slots=True)
class Group:
    """One group: its folders, one per hierarchy."""

    folders: tuple[Path, ...]

    def join(self, pid: int, alive: Callable[[], bool]) -> bool:
        """Move `pid` and all that descend from it, as long as it is `alive`; blocks for milliseconds.

        False: they could not all be caught. Raises OSError.
        """
        clean, moved = 0, set[int]()
        for _ in range(ROUNDS):
            if not alive():
                return True
            outside = _tree(pid) - self.members() - moved
            # Twice, since one that is orphaned while the tree is read is seen in neither place.
            clean = clean + 1 if not outside else 0
            if clean == 2:
                return True
            for one, folder in itertools.product(sorted(outside), self.folders):
                with contextlib.suppress(ProcessLookupError):
                    _write(folder / "cgroup.procs", str(one))
            # Those that are ending, or that nobody has reaped, belong to no group.
            moved |= outside
        return False

    def members(self) -> set[int]:
        """Those that are in it in every hierarchy."""
        found = [{int(line) for line in (folder / "cgroup.procs").read_text().split()} for folder in self.folders]
        return set.intersection(*found)

    def remove(self) -> bool:
        """Take it away; False: somebody is in it still, if only one that nobody has reaped."""
        gone = True
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


class Groups:
    """Where the runtime may make groups."""

    def __init__(self, version: int, above: tuple[Path, ...], names: Iterator[str]) -> None:
        """`above`: the folders to make them in; for version 1 those of `memory` and of `pids`."""
        self.version = version
        self._above = above
        self._names = names
        self._left: list[Group] = []

    def make(self, limits: Limits) -> Group:
        """A new group, empty. Raises OSError."""
        self.sweep()
        name = next(self._names)
        group = Group(tuple(folder / name for folder in self._above))
        memory, pids = str(limits.memory_mib * _MIB), str(limits.processes + _OWN)
        try:
            for folder in group.folders:
                folder.mkdir()
            if self.version == 1:
                in_memory, in_pids = group.folders
                _write(in_memory / "memory.limit_in_bytes", memory)
                _write_if_there(in_memory / "memory.memsw.limit_in_bytes", memory)
                _write(in_pids / "pids.max", pids)
            else:
                (folder,) = group.folders
                _write(folder / "memory.max", memory)
                _write_if_there(folder / "memory.swap.max", "0")
                _write_if_there(folder / "memory.oom.group", "1")
                _write(folder / "pids.max", pids)
        except OSError:
            group.remove()
            raise
        return group

    def remove(self, group: Group) -> None:
        """Take a group away, now or as soon as it is empty."""
        self._left.append(group)
        self.sweep()

    def sweep(self) -> None:
        """Take away what could not be taken away before."""
        self._left = [group for group in self._left if not group.remove()]


def groups(pid: int, root: Path = ROOT, proc: Path = Path("/proc")) -> Groups | None:
    """The groups that the runtime with the process number `pid` may make; None: none. `root` and `proc`: where the system is."""
    if not (proc / "self" / "task" / str(pid) / "children").exists():
        return None
    own = dict[str, str]()
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    try:
        found = _version_1(root, own) or _version_2(root, own, pid, proc)
    except OSError:
        return None
    if found is None:
        return None
    version, above = found
    _remove_strays(above, proc)
    return Groups(version, above, (f"agentos-{pid}-{number}" for number in _NUMBERS))


def _version_1(root: Path, own: dict[str, str]) -> tuple[int, tuple[Path, ...]] | None:
    if "memory" not in own or "pids" not in own:
        return None
    above = (root / "memory" / own["memory"], root / "pids" / own["pids"])
    if not all((folder / "cgroup.procs").exists() and os.access(folder, os.W_OK) for folder in above):
        return None
    return 1, above


def _version_2(root: Path, own: dict[str, str], pid: int, proc: Path) -> tuple[int, tuple[Path, ...]] | None:
    if "" not in own:
        return None
    here = root / own[""]
    if here.name == RUNTIME and _enabled(here.parent) and _writable(here.parent):
        return 2, (here.parent,)
    if not own[""] or not _writable(here) or not {"memory", "pids"} <= set((here / "cgroup.controllers").read_text().split()):
        return None
    if not _enabled(here):
        # A group with controllers for others has no processes of its own. Those of strangers are not ours to move.
        inside = {int(line) for line in (here / "cgroup.procs").read_text().split()}
        if not inside <= _tree(pid, proc):
            return None
        leaf = here / RUNTIME
        leaf.mkdir(exist_ok=True)
        for one in inside:
            with contextlib.suppress(ProcessLookupError):
                _write(leaf / "cgroup.procs", str(one))
        _write(here / "cgroup.subtree_control", "+memory +pids")
    return 2, (here,)


def _enabled(folder: Path) -> bool:
    return {"memory", "pids"} <= set((folder / "cgroup.subtree_control").read_text().split())


def _writable(folder: Path) -> bool:
    return all(os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control"))


def _remove_strays(above: tuple[Path, ...], proc: Path) -> None:
    """Take away the empty groups of runtimes that have ended without doing so."""
    for folder in above:
        for stray in folder.glob("agentos-*-*"):
            owner = stray.name.split("-")[1]
            if owner.isdecimal() and not (proc / owner).exists():
                with contextlib.suppress(OSError):
                    stray.rmdir()


def _tree(pid: int, proc: Path = Path("/proc")) -> set[int]:
    """`pid` and all that descend from it."""
    found, left = set[int](), [pid]
    while left:
        one = left.pop()
        found.add(one)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in (proc / str(one) / "task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    left += [child for child in map(int, (thread / "children").read_text().split()) if child not in found]
    return found


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _write(path, text)
