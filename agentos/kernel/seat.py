"""A session's hold on a place to run in, and what it waits for while it has none.

Whatever a session has to wait for in a queue it waits for here, so that its place can be given to another one meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agentos.kernel.admission import Admissions, Request, Ticket, Waiting
from agentos.kernel.adrift import Adrift
from agentos.kernel.batched import Carried


class Displaced(Exception):
    """The session waits, and its place is needed: its harness has to go, and what it waits for stays in its queue."""


class Seat:
    """A session's hold on a place, and what it waits for while it has none. Made by `Places` for each run."""

    def __init__(self, session: str, admissions: Admissions, make_room: Callable[[], None]) -> None:
        """`make_room` sees to it that those who need a place get one of a session that waits."""
        self.admissions = admissions
        self._make_room = make_room
        self.session = session
        self.place: Ticket | None = None
        self.leaving = False
        """Whether it is about to give its place up, and still has it."""
        self._evicted: asyncio.Future[None] | None = None
        self._acting = 0
        self.pending: Waiting | None = None
        """What it waited for when it gave its place up."""
        self.elsewhere: asyncio.Future[Any] | None = None
        """The same, where it is in no queue here."""
        self.carried: Carried | None = None
        """A call that goes on while it has no place, or did until now."""
        self.adrift: Adrift | None = None
        """What its harness has asked for, and goes on without harness and place."""
        self._resting: asyncio.Future[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether it has a place that it could do without."""
        return not self.leaving and (self.waits or self._resting is not None)

    @property
    def waits(self) -> bool:
        """Whether it waits for something that others bring, and does nothing beside."""
        return self._evicted is not None and not self._acting and not self.leaving

    def acts(self, calls: int) -> None:
        """So many calls act beside what it waits for: it keeps its place as long as there are any."""
        self._acting = calls
        if self.idle:
            self._make_room()

    def evict(self) -> None:
        """Have an idle one give its place up."""
        told = self._resting if self._evicted is None or self._acting else self._evicted
        if told is not None and not told.done():
            self.leaving = True
            told.set_result(None)

    def rest(self) -> asyncio.Future[None]:
        """All that its harness has asked for goes on by itself: done once its place is needed. Ended by `rise`."""
        self._resting = asyncio.get_running_loop().create_future()
        self._make_room()
        return self._resting

    def rise(self, *, gone: bool) -> None:
        """Its harness has something to do again, or is `gone`."""
        told, self._resting = self._resting, None
        if gone:
            self.leaving = True
        elif told is not None and told.done():
            # What it waited for came at the same moment, so it stays; others may need another one's place.
            self.leaving = False
            self._make_room()

    async def admit(self, request: Request) -> Ticket:
        """Wait to be let in. Raises Displaced when the place is needed meanwhile; the request stays in its queue then.

        Cancelling takes the request back.
        """
        pending, self.pending = self.pending, None
        if pending is not None and (pending.request.call, pending.request.candidates) != (request.call, request.candidates):
            pending.withdraw()
            pending = None
        waiting = pending or self.admissions.ask(request)
        if not waiting.ready.done():
            self._evicted = asyncio.get_running_loop().create_future()
            self._make_room()
            try:
                await asyncio.wait((waiting.ready, self._evicted), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                waiting.withdraw()
                raise
            finally:
                self._evicted = None
            if not waiting.ready.done():
                self.pending = waiting
                raise Displaced
            if self.leaving:
                # What it waited for came at the same moment, so it stays; others may need another one's place.
                self.leaving = False
                self._make_room()
        return waiting.ready.result()

    async def idle_until(self, done: asyncio.Future[Any]) -> None:
        """Wait for `done`, which no queue here brings. Raises Displaced when the place is needed meanwhile; see `elsewhere`."""
        if done.done():
            return
        self._evicted = asyncio.get_running_loop().create_future()
        self._make_room()
        try:
            await asyncio.wait((done, self._evicted), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._evicted = None
        if not done.done():
            self.elsewhere = done
            raise Displaced
        if self.leaving:
            self.leaving = False
            self._make_room()

    def forget(self) -> None:
        """Take back what it waited for and nobody came for."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.withdraw()
