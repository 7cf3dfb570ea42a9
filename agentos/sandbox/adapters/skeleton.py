"""The root folder of sandboxes: made once, and mounted as it is, read-only, under all that is mounted into it.

One mount is several times faster than twenty, and folders that are there already need not be made for each start. Its `/etc`
holds copies of what programs need to find their libraries, certificates, names of services and time zones: nothing that only some
users of the host may read, and nothing about them. `passwd` and `group`, which differ from sandbox to sandbox, are links to what
each is given itself. The copies are as the host was when the runtime began.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agentos.sandbox.inside import RUN, Tree

_TAKEN: Final = (
    "alternatives",
    "ca-certificates*",
    "crypto-policies",
    "fonts",
    "gai.conf",
    "host.conf",
    "java*",
    "ld.so.cache",
    "ld.so.conf*",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic*",
    "mime.types",
    "openssl",
    "os-release",
    "perl",
    "pki",
    "profile",
    "protocols",
    "python*",
    "services",
    "ssl",
    "terminfo",
    "timezone",
)
_LARGEST: Final = 8 * 1024 * 1024
"""Bytes of one file; certificates of all authorities are a tenth of it."""

_FOLDERS: Final = ("dev", "etc", "proc", "run", "tmp", "var", "workspace")
_FILES: Final = {
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "resolv.conf": "# There is no name server here: the proxy looks names up.\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "hostname": "sandbox\n",
    "shells": "/bin/sh\n/bin/bash\n",
}
MADE_LATER: Final = ("/run/", "/tmp/", "/workspace/")  # noqa: S108 - the sandbox's own
"""What is mounted over by each sandbox, so that nothing below it can be made before."""

_OWN: Final = ("passwd", "group")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it, and nobody sweeps there as in /tmp
_PREFIX: Final = "agentos-root"


def build(trees: Iterable[Tree], etc: Path = Path("/etc")) -> Path:
    """A new root folder, with a place for each of `trees`, below a folder that `remove` takes away. Raises OSError."""
    above = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _remove_strays(above)
    root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=above))
    for name in _FOLDERS:
        (root / name).mkdir()
    (root / "var" / "tmp").symlink_to("/tmp")  # noqa: S108 - the sandbox's own
    for entry in sorted(etc.iterdir()):
        if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in _TAKEN):
            _copy(entry, root / "etc" / entry.name)
    for name, text in _FILES.items():
        (root / "etc" / name).write_text(text)
    for name in _OWN:
        (root / "etc" / name).symlink_to(f"{RUN}/{name}")
    for tree in trees:
        source = Path(tree.source)
        if source.is_symlink():
            (root / tree.at.lstrip("/")).symlink_to(source.readlink())
        elif not tree.at.startswith(MADE_LATER):
            point(root, tree.at, folder=source.is_dir())
    for place, _, names in os.walk(root):
        Path(place).chmod(0o755)
        for name in names:
            if not (path := Path(place, name)).is_symlink():
                path.chmod(0o644)
    return root


def twin(root: Path) -> Path:
    """Another root folder with the same in it, in which other places can be made. Raises OSError."""
    found = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=root.parent))
    shutil.copytree(root, found, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    return found


def point(root: Path, at: str, *, folder: bool) -> None:
    """Make a place to mount something at, below `root`. Raises OSError."""
    path = root / at.lstrip("/")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if folder:
        path.mkdir(mode=0o755, exist_ok=True)
    else:
        path.touch(mode=0o644)


def remove(root: Path) -> None:
    """Take a root folder away."""
    shutil.rmtree(root, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """Copy what everybody may read."""
    found = source.lstat()
    if stat.S_ISLNK(found.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(found.st_mode) and found.st_mode & 0o005 == 0o005:
        target.mkdir()
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    elif stat.S_ISREG(found.st_mode) and found.st_mode & 0o004 and found.st_size <= _LARGEST:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source, target, follow_symlinks=False)


def _remove_strays(above: Path) -> None:
    """Take away what runtimes of this user left that were killed."""
    for stray in above.glob(f"{_PREFIX}-*-*"):
        owner = stray.name.split("-")[2]
        if owner.isdecimal() and not Path("/proc", owner).exists() and stray.lstat().st_uid == os.geteuid():
            remove(stray)
