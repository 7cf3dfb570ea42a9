"""Traps: what looks like the homes of people, where a process that has nothing to look for there finds it.

A program that a model drives, and that is to have its pipe and nothing else, has no reason to open a home folder. What stands in
its place at the paths of homes is a folder of the host made for this, with files as thieves look for them and nothing of worth in
them, mounted read-only and watched from outside (`opened`). Whoever opens anything of it is told of at once.

    traps = Traps(places(home, trees, user_home()))
    trap = traps.lay(caught)              # `caught("/home/agent/.ssh/id_rsa")` as soon as that is opened
    ... mount trap.mounts ...
    traps.take_up(trap)                   # what was opened until now has been told; the trap is laid again for the next one

A process cannot change what it finds, so a trap serves one process after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentos.sandbox.adapters.opened import Opened
from agentos.sandbox.inside import RUN, SECRETS, WORKSPACE, Tree

HOME: Final = "/home/agent"
"""The home folder of a process among traps."""

SHADOW: Final = "/etc/shadow"

Caught = Callable[[str], None]
"""Told of the path that was opened, as the process sees it."""

_PEOPLES: Final = (".ssh/id_rsa", ".ssh/id_ed25519", ".aws/credentials", ".config/tokens.json", ".netrc", ".bash_history")
_RUNTIMES: Final = ("identities/operator.json", "keys/evidence.key", "keys/payload/default.json", "read/index.db")
_WORTHLESS: Final = "nothing of worth\n"
_NEVER: Final = ("/", "/usr", "/etc", "/run", "/tmp", "/var", "/proc", "/dev", "/sys")  # noqa: S108 - places in the sandbox
_TAKEN: Final = (RUN, SECRETS, WORKSPACE, "/proc", "/dev", "/sys", "/var/tmp")  # noqa: S108 - the sandbox's own, all that is below


@dataclass(frozen=True, slots=True)
class Place:
    """A path at which a trap is laid."""

    at: str
    files: tuple[str, ...] = ()
    """The files in it, relative; none: it is a file itself."""
    points: tuple[tuple[str, bool], ...] = ()
    """What else is mounted in it, by relative paths, and whether each is a folder."""


def places(home: Path | None, trees: Sequence[Tree], user: str) -> tuple[Place, ...]:
    """Where homes are on this host: of people, of the runtime's user (`user`), and the runtime's own, `home`."""
    found: dict[str, tuple[str, ...]] = {HOME: _PEOPLES, "/root": _PEOPLES, os.path.normpath(user): _PEOPLES}
    if home is not None:
        found[os.path.realpath(home)] = _RUNTIMES
    # What is below the host's programs is there for all, or hidden already.
    taken = (*_TAKEN, *(tree.at for tree in trees))
    homes = {at: files for at, files in found.items() if at not in _NEVER and not any(below(at, one) for one in taken)}
    tops = {"/home"} | {at for at in homes if not any(below(at, other) for other in {"/home", *homes} - {at})}
    laid = [
        Place(
            top,
            tuple(os.path.relpath(f"{at}/{name}", top) for at, files in homes.items() if below(at, top) for name in files),
            tuple((os.path.relpath(tree.at, top), Path(tree.source).is_dir()) for tree in trees if below(tree.at, top)),
        )
        for top in sorted(tops)
    ]
    return (*laid, Place(SHADOW))


def user_home() -> str:
    """The home folder of the runtime's user."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/root"


@dataclass(eq=False, slots=True)
class Trap:
    """One trap of all places. `mounts`: what stands where, for the process."""

    mounts: tuple[Tree, ...]
    paths: dict[int, str] = field(default_factory=dict)
    """What is watched, as the process sees it."""
    caught: Caught | None = None

    def point(self, at: str, *, folder: bool) -> None:
        """Make a place to mount something at, if `at` is in the trap. Raises OSError."""
        for mount in self.mounts:
            if at != mount.at and below(at, mount.at):
                path = Path(mount.source + at[len(mount.at) :])
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    # Made without being opened, which would be told.
                    path.mkdir(mode=0o755) if folder else os.mknod(path, 0o444 | stat.S_IFREG)


class Traps:
    """The traps of a runtime."""

    def __init__(self, laid_at: Iterable[Place]) -> None:
        """Raises OSError where nothing can be watched."""
        self.places = tuple(laid_at)
        above = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
        within = above if os.access(above, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix=f"agentos-root-{os.getpid()}-traps-", dir=within))
        self._folder.chmod(0o755)
        self._opened = Opened()
        self._free: list[Trap] = []
        self._watched: dict[int, Trap] = {}
        self._laid = self._made = 0
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        weakref.finalize(self, self._opened.close)

    def lay(self, caught: Caught) -> Trap:
        """A trap for one process. Raises OSError."""
        trap = self._free.pop() if self._free else self._make()
        trap.caught = caught
        if self._laid == 0:
            asyncio.get_running_loop().add_reader(self._opened.events, self.look)
        self._laid += 1
        return trap

    def take_up(self, trap: Trap) -> None:
        """Lay it no more; what was opened in it until now is told."""
        self.look()
        trap.caught = None
        self._free.append(trap)
        self._laid -= 1
        if self._laid == 0:
            asyncio.get_running_loop().remove_reader(self._opened.events)

    def look(self) -> None:
        """Tell what was opened until now."""
        for number, name in self._opened.told():
            trap = self._watched.get(number)
            if trap is not None and trap.caught is not None:
                trap.caught(f"{trap.paths[number]}/{name}" if name else trap.paths[number])

    def _make(self) -> Trap:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir(mode=0o755)
        trap = Trap(tuple(Tree(os.fspath(folder / str(number)), place.at) for number, place in enumerate(self.places)))
        for mount, place in zip(trap.mounts, self.places, strict=True):
            top = Path(mount.source)
            for name in place.files or (".",):
                _write(top / name)
            for relative, is_folder in place.points:
                trap.point(f"{place.at}/{relative}", folder=is_folder)
            for path in (top, *(path for path in top.rglob("*") if path.is_dir())):
                number = self._opened.watch(path)
                self._watched[number] = trap
                trap.paths[number] = place.at + os.fspath(path)[len(mount.source) :]
        return trap


def _write(path: Path) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_text(_WORTHLESS)
    path.chmod(0o444)


def below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
