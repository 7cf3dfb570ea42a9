"""Whom the processes of a sandbox work as, which is never root.

A runtime of an ordinary user cannot become another one: bubblewrap makes a user namespace, in which that user has another number.
A runtime of root gives every owner (a session) a user of its own: root sets the namespaces up, without a user namespace, which
asks less of the host; the last thing before the command is to become that user, and all capabilities are gone with that.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.sandbox.port import SandboxUnavailable

FIRST: Final = 0x70000000
"""The first of the users of owners: far above those of people, of services and of containers (`/etc/subuid`)."""

SPAN: Final = 1 << 24
NOBODY: Final = 65534
INSIDE: Final = 1000
"""The number that the runtime's own user has in a user namespace."""

_SYS_ADMIN: Final = 21
_NEEDED: Final = (2, 6, 7, 12, 18, _SYS_ADMIN)
"""CAP_DAC_READ_SEARCH, SETGID, SETUID, NET_ADMIN, SYS_CHROOT, SYS_ADMIN."""


@dataclass(frozen=True, slots=True)
class Users:
    """How this runtime can set the user of a process."""

    root: bool
    """Whether it is root, and gives each owner a user."""
    many: bool = False
    """Whether it has the whole span of them; else there is one for all, `nobody`."""

    def of(self, owner: str) -> int:
        """The number of the user (and the group) as the process itself sees it; the host sees the same if `root`."""
        if not self.root:
            return INSIDE
        if not self.many:
            return NOBODY
        return _number(owner)


@functools.lru_cache(4096)
def _number(owner: str) -> int:
    return FIRST + int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4], "big") % SPAN


def users() -> Users:
    """What this process can do. Raises SandboxUnavailable for a root that cannot become another user."""
    if os.geteuid() != 0:
        return Users(root=False)
    mapped = _mapped(Path("/proc/self/uid_map")), _mapped(Path("/proc/self/gid_map"))
    held = _capabilities()
    one = all(_covers(ranges, NOBODY, NOBODY) for ranges in mapped)
    many = all(_covers(ranges, FIRST, FIRST + SPAN - 1) for ranges in mapped)
    if not all(held >> number & 1 for number in _NEEDED) or not (one or many):
        raise SandboxUnavailable(
            "the runtime is root without the right to start a process as another user, and tools never work as root",
            mend="run the runtime as an ordinary user, or give it CAP_SYS_ADMIN, SETUID, SETGID, SYS_CHROOT and NET_ADMIN",
        )
    return Users(root=True, many=many)


def give_tree(top: Path, uid: int) -> None:
    """Make the tree at `top` the user's own, `top` last: who finds it given finds all of it given. Follows no link.

    Raises OSError. A file that has several names may have one of them elsewhere, and stays whose it is.
    """
    folders: list[tuple[int, Iterator[os.DirEntry[str]]]] = []
    try:
        folders.append(_folder(os.fspath(top), None))
        while folders:
            folder, entries = folders[-1]
            entry = next(entries, None)
            if entry is None:
                os.fchown(folder, uid, uid)
                os.close(folders.pop()[0])
                continue
            # Whoever works there at the same time may have taken it away, or put something else in its place.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    folders.append(_folder(entry.name, folder))
                elif found.st_nlink == 1:
                    os.chown(entry.name, uid, uid, dir_fd=folder, follow_symlinks=False)
    finally:
        for folder, _ in folders:
            os.close(folder)


def _folder(name: str, above: int | None) -> tuple[int, Iterator[os.DirEntry[str]]]:
    """A folder that is open, and what is in it now."""
    found = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    with os.scandir(found) as entries:
        return found, iter(list(entries))


def _mapped(path: Path) -> list[tuple[int, int]]:
    """First and last number of each range of users that this process's namespace knows."""
    return [
        (int(first), int(first) + int(count) - 1) for first, _, count in (line.split() for line in path.read_text().splitlines())
    ]


def _covers(ranges: list[tuple[int, int]], first: int, last: int) -> bool:
    return any(low <= first and last <= high for low, high in ranges)


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
