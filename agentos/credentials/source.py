"""Sources: where values are kept. The port, and the one error in which a source says to operators why there is no value."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final, Protocol, TypeVar

from agentos.abi.errors import AgentOSError
from agentos.credentials.reference import SecretRef

T = TypeVar("T")

MOST_APART: Final = 16
"""Most threads of one source that may be stuck at a time."""


class SourceFault(AgentOSError):
    """A value cannot be had. The message is for operators and the runtime's log: it names the place, and never anything read."""

    code = "credential.source"


class Source(Protocol):
    """One kind of place, such as files."""

    async def fetch(self, ref: SecretRef) -> str:
        """The value as it is now; nothing of it is kept. Raises SourceFault. May be cancelled at any time."""

    async def close(self) -> None:
        """Let go of connections."""


Sources = Mapping[str, Source]
"""By the names of `reference.SOURCES`."""


class Apart:
    """Runs work that may block for ever, each piece in a thread of its own that nobody has to wait for, not even at the end."""

    def __init__(self, most: int = MOST_APART) -> None:
        self._places = threading.BoundedSemaphore(most)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives. Who is cancelled leaves the thread behind. Raises SourceFault when too many are left behind."""
        if not self._places.acquire(blocking=False):
            raise SourceFault("earlier requests to it hang")
        future: Future[T] = Future()
        threading.Thread(target=self._run, args=(work, future), name="credential", daemon=True).start()
        return await asyncio.wrap_future(future)

    def _run(self, work: Callable[[], T], future: Future[T]) -> None:
        if not future.set_running_or_notify_cancel():
            self._places.release()
            return
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - whoever awaits the future is told; a thread has nobody else to tell
            self._places.release()
            future.set_exception(error)
        else:
            self._places.release()
            future.set_result(result)
