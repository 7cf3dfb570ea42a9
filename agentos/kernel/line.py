"""The calls of one harness: decided one after the other, in the order in which they came; what commutes acts at once.

A call that commutes lets the next one be decided as soon as it begins to act (`Place.begins`). Any other is a barrier: it is
decided once nothing acts, and the next one once it has its outcome. Two things keep policy's eyes open: what commutes reads, and
a call is not decided while one acts that will bring a label which the session does not carry yet.

    async with line.join() as place:
        await place.until(lambda: line.free(together=True, call="c1", carried=state.labels))
        ...                                                     # decide and record
        place.begins("c1", brings)                              # from here on the next one may be decided
        ...                                                     # act and record
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from agentos.abi.errors import Conflict, SequenceConflict


class Closed(Exception):
    """One that came before was the last: its harness has to go, and nothing more is decided for it."""


class Line:
    """See the module."""

    def __init__(self, busy: Callable[[int], None]) -> None:
        """`busy` is told how many act, whenever that changes."""
        self._busy = busy
        self._acting: dict[str, frozenset[str]] = {}
        """By call: the labels that its outcome will carry."""
        self._last: asyncio.Future[None] | None = None
        self._stirred: asyncio.Future[None] | None = None
        self.closed = False

    def join(self) -> Place:
        """A place behind all who have joined. It has to be entered, or nobody behind it is let on."""
        before, self._last = self._last, asyncio.get_running_loop().create_future()
        return Place(self, before, self._last)

    async def quiet(self) -> None:
        """Return once nothing acts."""
        while self._acting:
            await self.stir()

    def free(self, *, together: bool, call: str, carried: Collection[str]) -> bool:
        """Whether `call` may be decided now; `together` if it may act beside others. `carried`: the labels of the session."""
        if not together:
            return not self._acting
        return call not in self._acting and all(brought <= set(carried) for brought in self._acting.values())

    def acts(self, call: str, brings: Collection[str]) -> None:
        """One begins to act."""
        self._acting[call] = frozenset(brings)
        self._busy(len(self._acting))

    def ended(self, call: str) -> None:
        """One has its outcome, or none that anybody will tell."""
        del self._acting[call]
        self._busy(len(self._acting))
        if self._stirred is not None:
            self._stirred.set_result(None)
            self._stirred = None

    async def stir(self) -> None:
        """Return when one that acts has ended."""
        if self._stirred is None:
            self._stirred = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._stirred,))


class Place:
    """One call's place in the line."""

    def __init__(self, line: Line, before: asyncio.Future[None] | None, done: asyncio.Future[None]) -> None:
        self._line = line
        self._before = before
        self._done = done
        self._call: str | None = None

    async def __aenter__(self) -> Self:
        """Wait until those before have been decided. Raises Closed."""
        try:
            if self._before is not None:
                await asyncio.wait((self._before,))
        except asyncio.CancelledError:
            self._line.closed = True
            self._done.set_result(None)
            raise
        if self._line.closed:
            self._done.set_result(None)
            raise Closed
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        refused = isinstance(error, Conflict) and not isinstance(error, SequenceConflict)
        if error is not None and not refused:
            self._line.closed = True
        if not self._done.done():
            self._done.set_result(None)
        if self._call is not None:
            self._line.ended(self._call)

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait until others leave room: `met` is asked again whenever one of those that act has ended."""
        while not met():
            await self._line.stir()

    def begins(self, call: str, brings: Collection[str]) -> None:
        """It acts from now on: the next one may be decided. `brings`: the labels that its outcome will carry."""
        self._call = call
        self._line.acts(call, brings)
        self._done.set_result(None)

    async def others_ended(self) -> None:
        """Return once nothing else acts. Nothing begins meanwhile: those behind wait for this one."""
        await self._line.quiet()
