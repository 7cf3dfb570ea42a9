"""Files that nobody else may read: written whole with mode 0600, refused on reading when others can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agentos.abi.errors import IdentityError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(path: Path) -> None:
    """Make `path` a folder of mode 0700, whether it was there or not. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, mode 0600, on disk when this returns. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_private(path: Path) -> str:
    """The text of `path`. Raises IdentityError if it is missing, unreadable, or readable by others than its owner."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError as error:
        raise IdentityError("no credentials here", where=str(path), mend="name the right file with --creds") from error
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError(f"credentials cannot be read: {error}", where=str(path)) from error
    if mode & _OTHERS:
        raise IdentityError(
            f"credentials can be read by others (mode {stat.S_IMODE(mode):04o})", where=str(path), mend=f"chmod 600 {path}"
        )
    return text
