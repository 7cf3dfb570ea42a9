"""The `/etc` of sandboxes: a folder of copies that is made once and mounted as it is.

One mount is several times faster than twenty. In it stands what programs need to find their libraries, certificates, names of
services and time zones; nothing that only some users of the host may read, and nothing about them: `passwd` and `group`, which
differ from sandbox to sandbox, are links to what each is given itself. It is as the host was when the runtime began.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from agentos.sandbox.inside import RUN

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

FILES: Final = {
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "resolv.conf": "# There is no name server here: the proxy looks names up.\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "hostname": "sandbox\n",
    "shells": "/bin/sh\n/bin/bash\n",
}
OWN: Final = ("passwd", "group")
"""Links to the files of these names below `/run/agentos`."""


def build(folder: Path, source: Path = Path("/etc")) -> None:
    """Fill `folder`, which is there and empty, from `source`. Raises OSError."""
    for entry in sorted(source.iterdir()):
        if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in _TAKEN):
            _copy(entry, folder / entry.name)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name in OWN:
        (folder / name).symlink_to(f"{RUN}/{name}")
    for place, _, names in os.walk(folder):
        Path(place).chmod(0o755)
        for name in names:
            if not (path := Path(place, name)).is_symlink():
                path.chmod(0o644)


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
