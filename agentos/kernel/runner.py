"""Running a session: one harness after the other, until it is over or has to wait."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Final

from agentos.abi.errors import DriverError
from agentos.kernel.admission import Admissions
from agentos.kernel.adrift import Adrift
from agentos.kernel.gate import Gate
from agentos.kernel.journal import Journal
from agentos.kernel.port import Brief, ConfigurationSource, HarnessProcess, HarnessSilent, Spawner, Timer
from agentos.kernel.seat import Seat
from agentos.kernel.served import Windows
from agentos.kernel.serving import Served, serve
from agentos.kernel.turn import Turns
from agentos.projections.session import State
from agentos.sandbox.profile import DEFAULT

log = logging.getLogger(__name__)

HARNESS_TRIES: Final = 3
"""How many harness processes a session may lose before it fails."""


class Pause(StrEnum):
    """Why a session stopped running. A paused one waits as well."""

    ENDED = "ended"
    WAITING = "waiting"
    FROZEN = "frozen"
    DISPLACED = "displaced"
    """It waits for an endpoint, and its place went to another session."""


class Runner:
    """Runs one session at a time from its journal; keeps nothing between calls of `run`."""

    def __init__(
        self, gate: Gate, source: ConfigurationSource, spawner: Spawner, timer: Timer, admissions: Admissions | None = None
    ) -> None:
        self.admissions = admissions or Admissions(timer)
        """Who may ask which endpoint when; places to run in are among what is arbitrated."""
        self.windows = Windows()
        """Where clients outside propose for the sessions that they drive."""
        self._gate = gate
        self._source = source
        self._spawner = spawner
        self._timer = timer

    async def run(self, journal: Journal, seat: Seat) -> Pause:
        """Run until the session is over, waits for a person, or waits for an endpoint and has to give its place up.

        Raises LogUnavailable (the session can be loaded and run again when the log is back) and CancelledError.
        """
        if journal.state.lost and self._pause(journal) is None:
            await self._gate.reconcile(journal, self._source.current(journal.tenant))
        lost = 0
        while (pause := self._pause(journal)) is None:
            before = journal.head.seq
            turns = Turns(self._gate, self._source, self._timer, journal, seat)
            try:
                process = await self._harness(journal)
            except DriverError as error:
                await turns.fail("harness", f"the harness could not be started: {error.message}")
                continue
            served, problem = Served(""), ""
            try:
                served = await serve(process, turns)
                problem = served.why
                seat.adrift = Adrift(served.adrift) if served.adrift else None
            except HarnessSilent as silent:
                problem = str(silent)
            finally:
                reuse = turns.seen | journal.state.labels if served.reuse else None
                left = await process.stop(reuse=reuse, finished=served.finished)
            if left.misdeed is not None:
                if seat.adrift is not None:
                    # Its session ends: nothing that it has asked for may come behind that.
                    await seat.adrift.drop()
                    seat.adrift = None
                await turns.stopped(left)
            if seat.adrift is not None:
                return Pause.DISPLACED
            if self._pause(journal) is None and (turns.displaced or self.windows.gave_way(journal.state, seat)):
                return Pause.DISPLACED
            if self._pause(journal) is None and turns.frozen:
                return Pause.FROZEN
            if self._pause(journal) is None and journal.state.served is None:
                log.warning("session %s: harness left early (%s, exit %s)", journal.session, problem, left.code)
                lost = 1 if journal.head.seq > before else lost + 1
                if lost == HARNESS_TRIES:
                    await turns.fail("harness", f"the harness ended without finishing the session: {problem}")
        return pause

    async def _harness(self, journal: Journal) -> HarnessProcess:
        """What drives the session now. Raises Unavailable, DriverError."""
        if journal.state.served is not None:
            return self.windows.harness(journal.state)
        return await self._spawner.spawn(self._brief(journal))

    def _brief(self, journal: Journal) -> Brief:
        """What harness the session needs, as the agent declares it now. Raises DriverError."""
        configuration = self._source.current(journal.tenant)
        agent = configuration.agents.get(journal.state.agent)
        harness = None if agent is None else agent.harness
        wanted = None if harness is None else harness.sandbox
        profile = None if wanted is None else configuration.sandboxes.get(wanted)
        if wanted not in {None, DEFAULT} and profile is None:
            raise DriverError(f"its sandbox {wanted} is not declared")
        return Brief(journal.tenant, journal.session, frozenset(journal.state.labels), harness, profile)

    def _pause(self, journal: Journal) -> Pause | None:
        if journal.state.over:
            return Pause.ENDED
        if journal.state.state is not State.RUNNING:
            return Pause.WAITING
        if not self.windows.has_work(journal.state):
            return Pause.WAITING
        held = self._gate.freezes.of(journal.state, self._source.current(journal.tenant))
        return None if held is None else Pause.FROZEN
