"""Who opens what is watched: files and folders of the host, told by the kernel (inotify), wherever a sandbox has them.

Told is each opening and each listing. Asking whether something is there, what it is called or how large it is opens nothing, and
a name that is not there cannot be opened; neither is told.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_IN_OPEN: Final = 0x20
_IN_Q_OVERFLOW: Final = 0x4000
_EVENT: Final = struct.Struct("iIII")
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Opened:
    """Openings of what is watched, in order. Raises OSError where nothing can be watched."""

    def __init__(self) -> None:
        self.events: Final = _sound(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        """A descriptor that can be read once there is something to tell."""

    def watch(self, path: Path) -> int:
        """Watch a file, or a folder and what is directly in it. Returns the number that its openings are told under."""
        return _sound(_libc.inotify_add_watch(self.events, os.fsencode(path), _IN_OPEN))

    def told(self) -> Iterator[tuple[int, str]]:
        """What was opened since the last time: number, and name in the folder (""; it itself)."""
        with contextlib.suppress(BlockingIOError):
            while told := os.read(self.events, 65_536):
                at = 0
                while at < len(told):
                    number, mask, _, length = _EVENT.unpack_from(told, at)
                    name = told[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
                    at += _EVENT.size + length
                    if not mask & _IN_Q_OVERFLOW:
                        yield number, os.fsdecode(name)

    def close(self) -> None:
        """Watch no more."""
        os.close(self.events)


def _sound(number: int) -> int:
    if number < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return number
