"""The guard of a blocking piece of work: how whoever waits stops it, and learns for sure whether that was in time."""

from __future__ import annotations

import threading


class Stopped(Exception):
    """The caller gave up; nothing was changed."""


class Guard:
    """Lets a caller stop a primitive in another thread, and know for sure whether it was in time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._committed = False

    def check(self) -> None:
        """Called by the primitive between steps. Raises Stopped."""
        if self._stopped:
            raise Stopped

    def commit(self) -> None:
        """Called by the primitive right before it changes anything. Raises Stopped; never stopped afterwards."""
        with self._lock:
            self.check()
            self._committed = True

    def stop(self) -> bool:
        """Called by the caller. True if nothing was or will be changed; False if the change was already under way."""
        with self._lock:
            self._stopped = True
            return not self._committed
