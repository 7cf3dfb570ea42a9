"""Which `opa` program: the one beside our Python, else the first on PATH, if it is the very version of the library."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

from agentos.abi.errors import EngineUnavailable

VERSION: Final = "1.20.2"
"""The OPA inside the in-process library; a program of another version might decide otherwise and is not used."""

_MEND: Final = f"run `make opa`, or put OPA {VERSION} on PATH"


def find_opa(program: Path | None = None) -> Path:
    """The program to run: `program` if given. Raises EngineUnavailable where there is none or it is of another version."""
    beside = Path(sys.executable).with_name("opa")
    found = str(program or (beside if beside.is_file() else shutil.which("opa") or ""))
    if not found:
        raise EngineUnavailable("no opa program beside Python nor on PATH", mend=_MEND)
    path = Path(found).absolute()
    try:
        changed = path.stat().st_ctime_ns
    except OSError as error:
        raise EngineUnavailable(f"no opa program: {error}", where=str(path), mend=_MEND) from error
    said = re.search(r"^Version: (\S+)$", _says(path, changed), re.MULTILINE)
    if said is None or said[1] != VERSION:
        is_not = f"OPA {said[1]}, not {VERSION}" if said else "no OPA"
        raise EngineUnavailable(f"this program is {is_not}", where=str(path), mend=_MEND)
    return path


@lru_cache(maxsize=8)
def _says(path: Path, changed: int) -> str:
    """What `path version` prints; `changed` (its time stamp) makes a replaced file a new question."""
    try:
        return subprocess.run([path, "version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(f"opa does not run: {error}", where=str(path), mend=_MEND) from error
