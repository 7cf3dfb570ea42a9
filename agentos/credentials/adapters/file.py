"""Values in files of the runtime's host that their owner alone can read."""

from __future__ import annotations

import os
import stat
from typing import Final

from agentos.credentials.forms import LONGEST
from agentos.credentials.reference import SecretRef
from agentos.credentials.source import Apart, SourceFault

_OTHERS: Final = 0o077


class FileSource:
    """Reads `file: PATH`. Files of volumes that hang are read in threads that nobody waits for."""

    def __init__(self) -> None:
        self._apart = Apart()

    async def fetch(self, ref: SecretRef) -> str:
        """The content without one line end behind it. Raises SourceFault."""
        path = str(ref.settings)
        return await self._apart.run(lambda: read_private(path))

    async def close(self) -> None:
        """Nothing is kept."""


def read_private(path: str) -> str:
    """The text of a regular file that belongs to the user of this process or to root, and that nobody else may open.

    A link is not followed. One line end behind the value is no part of it. Raises SourceFault, without a word of the content.
    """
    try:
        # Without waiting for the other end of a FIFO; what is no regular file is refused below, before it is read.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        why = "it is a link" if os.path.islink(path) else error.strerror  # noqa: PTH114 - as the message has it, no Path is needed
        raise SourceFault(f"the file {path} cannot be opened: {why}") from None
    try:
        data = _checked(handle, path)
    except OSError as error:
        raise SourceFault(f"the file {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
    data = data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data
    if len(data) > LONGEST:
        raise SourceFault(f"the file {path} has more than {LONGEST} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SourceFault(f"the file {path} is not UTF-8 text") from None


def _checked(handle: int, path: str) -> bytes:
    """What there is of a file that may be used, a little more than the most there may be."""
    told = os.fstat(handle)
    if not stat.S_ISREG(told.st_mode):
        raise SourceFault(f"{path} is no file")
    if told.st_uid not in (os.geteuid(), 0):
        raise SourceFault(f"the file {path} belongs to another user")
    if told.st_mode & _OTHERS:
        raise SourceFault(f"the file {path} is open to others (mode {stat.S_IMODE(told.st_mode):04o}): run chmod 600 on it")
    data = b""
    while len(data) <= LONGEST + 2 and (piece := os.read(handle, LONGEST + 3 - len(data))):
        data += piece
    return data
