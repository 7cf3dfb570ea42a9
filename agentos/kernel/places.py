"""Places to run in: a bounded number of sessions hold a harness process at one time, the others wait in order of arrival."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agentos.abi.errors import LogUnavailable, Unavailable
from agentos.kernel.journal import Journal
from agentos.kernel.port import Timer
from agentos.kernel.turn import Runner

log = logging.getLogger(__name__)

MAX_RUNNING: Final = 64
"""Sessions that hold a harness process at one time; the others wait their turn in order of arrival."""

LONGEST_PAUSE_S: Final = 5.0
"""Most seconds until a session that could not be run is tried again."""


class Places:
    """Runs sessions, each in a place of its own."""

    def __init__(self, runner: Runner, timer: Timer) -> None:
        self._runner = runner
        self._timer = timer
        self._free = asyncio.Semaphore(MAX_RUNNING)

    async def run(self, journal: Journal) -> None:
        """Run a session; while no harness can be started for it, leave its place to others and try again.

        Raises what `Runner.run` raises: LogUnavailable, SequenceConflict, CancelledError.
        """
        delay = 0.2
        while True:
            seen = journal.head.seq
            try:
                async with self._free:
                    await self._runner.run(journal)
            except LogUnavailable:
                raise
            except Unavailable as error:
                delay = 0.2 if journal.head.seq > seen else delay
                log.warning("session %s cannot run now, trying again in %.1f s: %s", journal.session, delay, error)
                await self._timer.sleep(delay)
                delay = min(delay * 2, LONGEST_PAUSE_S)
            else:
                return
