"""Triggers that fire when a run ends: told at once by the runtime, and looked for in the log, so that no end is lost.

What is told is gone with a crash. So somebody also looks: at start, when the configuration changes, and every few minutes, for
ends since the last look. The firing's id is the session that ended, so who is told twice starts one run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, NotFound, PayloadErased, Relieved, Unavailable
from agentos.kernel.firing import Fired, Firing, RunEnd, TriggerSpec, hops_from
from agentos.kernel.port import Timer
from agentos.projections.session import SessionState
from agentos.supervisor.launch import Launcher
from agentos.supervisor.timetable import Switches, aligned

log = logging.getLogger(__name__)

LOOK_S: Final = 300.0
"""Seconds between two looks into the log."""

AGAIN_S: Final = 5.0
"""Seconds until a look that failed is tried again; twice as many after each that follows it, up to `LOOK_S`."""

SLACK_MS: Final = 3_600_000
"""How far before the last look ends are looked for again: the clock may have been set back meanwhile."""

REMEMBERED: Final = 50_000
"""Ends that are kept in mind as told, so that the next look does not ask for each of them again."""


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that is over, and when."""

    session: str
    agent: str
    outcome: str
    at_ms: int


class Ends(Protocol):
    """What the log says of sessions that are over. Every method raises LogUnavailable or Unavailable."""

    async def ended(self, tenant: str, since_ms: int) -> Sequence[Ended]:
        """Those that ended at `since_ms` or later, the oldest first."""

    async def state(self, tenant: str, session: str) -> SessionState:
        """A session as it stands. Raises NotFound, PayloadErased."""


class RunEnds:
    """Tells triggers of ends. `declared` gives those of a tenant, `fire` is `Triggers.fire`."""

    def __init__(
        self,
        launcher: Launcher,
        declared: Callable[[], Mapping[str, Sequence[TriggerSpec]]],
        fire: Callable[[str, Firing], Awaitable[Fired]],
        ends: Ends,
        switches: Switches,
        timer: Timer,
    ) -> None:
        self._launcher = launcher
        self._declared = declared
        self._fire = fire
        self._ends = ends
        self._switches = switches
        self._timer = timer
        self._told: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._fresh: dict[tuple[str, str], None] = {}
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Sessions that were told of, whether or not a trigger wanted to know."""
        self._look = True
        self._failed = 0
        """How many times in a row not all could be told."""
        self._stirred = asyncio.Event()

    def ended(self, tenant: str, session: str) -> None:
        """A session is over. May be told more than once: whoever looks at one that is over has it told again."""
        if (tenant, session) not in self._seen and self._declared().get(tenant):
            self._fresh[tenant, session] = None
            self._stirred.set()

    def stir(self) -> None:
        """Look into the log: something has changed."""
        self._look, self._failed = True, 0
        self._stirred.set()

    async def run(self) -> None:
        """Tell and look until cancelled."""
        while True:
            self._stirred.clear()
            fine = await self.tell()
            if self._look:
                self._look = not await self.look()
                fine = fine and not self._look
            self._failed = 0 if fine else min(self._failed + 1, 16)
            seconds = LOOK_S if fine else min(AGAIN_S * 2 ** (self._failed - 1), LOOK_S)
            waits = [asyncio.ensure_future(self._timer.sleep(seconds)), asyncio.ensure_future(self._stirred.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()
                await asyncio.wait(waits)
            self._look = self._look or not self._stirred.is_set()

    async def tell(self) -> bool:
        """Fire for what has been told; return whether all of it was. What was not is found in the log by the next look."""
        fresh, self._fresh = list(self._fresh), {}
        fine = True
        for tenant, session in fresh:
            _keep(self._seen, (tenant, session))
            fine = await self._attempt(tenant, self._tell_of(tenant, session)) and fine
        return fine

    async def look(self) -> bool:
        """Look into the log for ends that nobody has told of; return whether every tenant could be looked at."""
        fine = True
        for tenant, specs in self._declared().items():
            fine = await self._attempt(tenant, self._look_at(tenant, specs)) and fine
        return fine

    async def _attempt(self, tenant: str, work: Coroutine[Any, Any, None]) -> bool:
        try:
            await work
        except Relieved as error:
            log.warning("the triggers of tenant %s are left to another runtime: %s", tenant, error)
        except AgentOSError as error:
            log.warning("ends of runs of tenant %s cannot fire triggers now, trying again: %s", tenant, error)
            return False
        return True

    async def _tell_of(self, tenant: str, session: str) -> None:
        for error in (await self._end(tenant, self._declared().get(tenant, ()), session)).values():
            raise error

    async def _look_at(self, tenant: str, specs: Sequence[TriggerSpec]) -> None:
        """Look for the triggers of a tenant. What keeps one from firing keeps no other one, and is raised in the end."""
        now, switched = self._timer.now_ms(), await self._switches.read(tenant)
        since: dict[str, int] = {}
        failed: dict[str, AgentOSError] = {}
        for spec in specs:
            try:
                progress = await self._launcher.change(tenant, spec, partial(aligned, source=_source(spec), now_ms=now))
            except (Relieved, Unavailable):
                raise
            except AgentOSError as error:
                failed[spec.name] = error
                continue
            on_since = switched.get(spec.name, (True, 0))[1]
            since[spec.name] = max(progress.cursor_ms - SLACK_MS, progress.since_ms, on_since)
        for end in await self._ends.ended(tenant, min(since.values())) if since else ():
            concerned = [
                spec
                for spec in specs
                if end.at_ms >= since.get(spec.name, end.at_ms + 1)
                and _wants(spec, end.agent, end.outcome)
                and not self._was_told(tenant, spec, end.session)
            ]
            if concerned:
                failed |= await self._end(tenant, concerned, end.session)
        for spec in specs:
            if spec.name not in failed:
                await self._launcher.change(tenant, spec, lambda one: replace(one, cursor_ms=max(one.cursor_ms, now)))
        for why in failed.values():
            raise why

    def _was_told(self, tenant: str, spec: TriggerSpec, session: str) -> bool:
        return (tenant, spec.name, session) in self._told

    async def _end(self, tenant: str, specs: Sequence[TriggerSpec], session: str) -> dict[str, AgentOSError]:
        """Fire those of `specs` that want this end; by name, what kept one from firing. Raises Relieved, Unavailable."""
        failed: dict[str, AgentOSError] = {}
        if all(self._was_told(tenant, spec, session) for spec in specs):
            return failed
        try:
            state = await self._ends.state(tenant, session)
        except (NotFound, PayloadErased) as error:
            log.warning("session %s has ended, and cannot fire a trigger: %s", session, error)
            return failed
        outcome = str(state.state)
        wanting = [spec for spec in specs if _wants(spec, state.agent, outcome) and not self._was_told(tenant, spec, session)]
        if not state.over or not wanting:
            return failed
        hops = await hops_from(state, partial(self._ends.state, tenant))
        for spec in wanting:
            try:
                await self._fire(tenant, _firing(spec, state, outcome, self._timer.now_ms(), hops))
            except (Relieved, Unavailable):
                raise
            except AgentOSError as error:
                failed[spec.name] = error
                continue
            _keep(self._told, (tenant, spec.name, session))
        return failed


def _keep(known: OrderedDict[_T, None], one: _T) -> None:
    known[one] = None
    if len(known) > REMEMBERED:
        known.popitem(last=False)


def _wants(spec: TriggerSpec, agent: str, outcome: str) -> bool:
    return isinstance(spec.on, RunEnd) and agent in spec.on.agents and outcome in spec.on.outcomes


def _source(spec: TriggerSpec) -> str:
    return f"run {','.join(spec.on.agents)} {','.join(spec.on.outcomes)}" if isinstance(spec.on, RunEnd) else spec.kind


def _firing(spec: TriggerSpec, state: SessionState, outcome: str, now_ms: int, hops: int) -> Firing:
    """What the next run is told of the one before: its last words, with the labels that it had by then."""
    facts: dict[str, Json] = {"session": state.id, "agent": state.agent, "outcome": outcome}
    payload = None if state.result is None else state.result.encode("utf-8", "surrogatepass")
    return Firing(
        spec.name, state.id, now_ms, "run", payload, "text/plain; charset=utf-8", tuple(sorted(state.labels)), facts, hops
    )
