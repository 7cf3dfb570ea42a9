"""Places to run in: a bounded number of sessions hold a harness process at one time; the others wait, by class and share.

A session that waits for an endpoint with its harness beside it does nothing with its place. As soon as another session needs
one, it gives it up: its harness is told to go, its request stays where it is in the queue, and once that is let in it gets a
place and a harness. So however many sessions wait for one endpoint, they keep nobody from another one. Nor do those whose calls
are under way, where the harness can be used again: the calls go on without it (`kernel.adrift`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from agentos.abi.errors import LogUnavailable, Unavailable
from agentos.kernel.admission import PLACES, Admissions
from agentos.kernel.adrift import Adrift
from agentos.kernel.asking import asking_as
from agentos.kernel.journal import Journal
from agentos.kernel.port import ConfigurationSource, Timer
from agentos.kernel.runner import Pause, Runner
from agentos.kernel.seat import Seat
from agentos.projections.session import State

log = logging.getLogger(__name__)

MAX_RUNNING: Final = 64
"""Sessions that hold a harness process at one time."""

LONGEST_PAUSE_S: Final = 5.0
"""Most seconds until a session that could not be run is tried again."""

UNUSED_S: Final = 30.0
"""Seconds after which what was let in is given back, if a harness that was started for it does not come for it."""


class Places:
    """Runs sessions, each in a place of its own."""

    def __init__(self, runner: Runner, source: ConfigurationSource, admissions: Admissions, timer: Timer) -> None:
        self._runner = runner
        self._source = source
        self._admissions = admissions
        self._timer = timer
        self._seats: set[Seat] = set()
        self._adrift: set[Seat] = set()
        """Of sessions whose calls go on without a place."""
        admissions.bound(PLACES, MAX_RUNNING)

    async def run(self, journal: Journal) -> None:
        """Run a session; while no harness can be started for it, leave its place to others and try again.

        Raises what `Runner.run` raises: LogUnavailable, SequenceConflict, CancelledError.
        """
        seat = Seat(journal.session, self._admissions, self.make_room)
        delay = 0.2
        try:
            while True:
                seen = journal.head.seq
                try:
                    pause = await self._in_place(journal, seat)
                    if seat.adrift is not None:
                        await self._ashore(seat, seat.adrift)
                        if journal.state.state is not State.RUNNING and seat.carried is None:
                            return
                except LogUnavailable:
                    raise
                except Unavailable as error:
                    # Others may use what it was let in for meanwhile.
                    seat.forget()
                    delay = 0.2 if journal.head.seq > seen else delay
                    log.warning("session %s cannot run now, trying again in %.1f s: %s", journal.session, delay, error)
                    await self._timer.sleep(delay)
                    delay = min(delay * 2, LONGEST_PAUSE_S)
                    continue
                if seat.carried is not None:
                    await seat.carried.ashore()
                if pause is not Pause.DISPLACED:
                    return
                if seat.pending is not None:
                    await seat.pending.ticket()
                elsewhere, seat.elsewhere = seat.elsewhere, None
                if elsewhere is not None:
                    await asyncio.wait((elsewhere,))
        finally:
            seat.forget()
            try:
                if seat.adrift is not None:
                    await seat.adrift.drop()
            finally:
                if seat.carried is not None:
                    await seat.carried.drop()

    async def _ashore(self, seat: Seat, adrift: Adrift) -> None:
        """Wait until what its harness has left behind is over."""
        self._adrift.add(seat)
        try:
            await adrift.ended()
        finally:
            self._adrift.discard(seat)
        seat.adrift = None
        adrift.check()

    async def idle(self, session: str, done: asyncio.Future[Any], grace_s: float | None = None) -> None:
        """Let a session that runs wait for `done`. Raises Displaced when its place is needed meanwhile; after `grace_s` seconds
        also when nobody needs it, so that a long wait keeps no harness."""
        seat = self._seat(session)
        if seat is None:
            await asyncio.wait((done,))
            return
        leaves = None if grace_s is None else asyncio.create_task(self._leave(seat, grace_s), name=f"grace of {session}")
        try:
            await seat.idle_until(done)
        finally:
            if leaves is not None:
                leaves.cancel()

    async def _leave(self, seat: Seat, grace_s: float) -> None:
        await self._timer.sleep(grace_s)
        if seat in self._seats:
            seat.evict()  # one that is adrift has no place to give up

    def rests(self, session: str) -> bool:
        """Whether a session waits for something that others bring, with a place or without one."""
        seat = self._seat(session)
        return seat is None or seat.waits or seat.leaving

    def _seat(self, session: str) -> Seat | None:
        """That of a session which has a place, or is adrift."""
        return next((one for one in (*self._seats, *self._adrift) if one.session == session), None)

    def make_room(self) -> None:
        """Have as many of those that wait with a place give it up as others need one: the lowest class first, then the latest."""
        needed = self._admissions.depth(PLACES) - sum(seat.leaving for seat in self._seats)
        if needed > 0:
            for seat in sorted((one for one in self._seats if one.idle), key=self._rank)[:needed]:
                seat.evict()

    def _rank(self, seat: Seat) -> tuple[tuple[bool, int], int]:
        if seat.place is None:
            raise AssertionError("only who holds a place is asked for it")
        own = self._admissions.effective(seat.session, seat.place.request.priority)
        return self._admissions.height(own), -seat.place.admission.turn.at_ms

    async def _in_place(self, journal: Journal, seat: Seat) -> Pause:
        """Run it once it has a place, until it leaves that."""
        configuration = self._source.current(journal.tenant)
        self._admissions.declare(journal.tenant, configuration.arbitration)
        waiting = self._admissions.ask(asking_as(journal.state, configuration, "place", (PLACES,), self._timer.now_ms()))
        self.make_room()
        with await waiting.ticket() as place:
            seat.place, since = place, self._timer.now_ms()
            self._seats.add(seat)
            watch = self._watch(seat)
            try:
                return await self._runner.run(journal, seat)
            finally:
                self._seats.discard(seat)
                seat.place, seat.leaving = None, False
                if watch is not None:
                    watch.cancel()
                # Shares of places are of the time that they are held.
                place.release(max(1, (self._timer.now_ms() - since) // 1000))

    def _watch(self, seat: Seat) -> asyncio.Task[None] | None:
        """Give back what a fresh harness was started for, if it does not come for it."""
        pending = seat.pending
        if pending is None:
            return None

        async def unused() -> None:
            await self._timer.sleep(UNUSED_S)
            if seat.pending is pending:
                seat.forget()

        return asyncio.create_task(unused(), name=f"what session {seat.session} was let in for")
