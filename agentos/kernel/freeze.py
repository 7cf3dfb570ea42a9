"""The kill switch: what is frozen decides nothing and acts on nothing, from one moment on, until somebody takes it back.

    freezes.impose(freeze)          # from here on every gate refuses what is in its scope; nothing is awaited for that
    await freezes.quiet(freeze)     # decisions that were on their way to the log by then are stored, and none of them has acted

Every gate asks three times: before it decides, as it records the decision, and directly before it acts. So a decision that was
under way is either not recorded, or recorded and not acted on. After `quiet` no `syscall.decided` of the scope comes any more.
What had gone out to a tool or a model before is not called back: its outcome is recorded as it comes.

A frozen session is not denied anything, and its model hears nothing of it. Its harness goes, it waits in `park`, and goes on by
itself. A call that was decided and held back just before it acted is known as such (`SessionState.held`): it is decided again
afterwards, also after a restart in between, and its outcome is never "unknown".

This is what every gate of the runtime looks at, in memory; what makes it last is the audit chain (`boot.freezing`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.errors import Frozen
from agentos.abi.freeze import Freeze, ScopeKind
from agentos.abi.ids import FLEET
from agentos.kernel.journal import Journal
from agentos.kernel.port import AgentSpec, Configuration, ConfigurationSource
from agentos.projections.session import SessionState, Step

NOT_BEGUN: Final = "it was frozen before it had begun"

_SYSTEM: Final = "system/kernel"

_Chain = tuple[tuple[str, str], ...]
"""For whom work is done: agents, each with its program."""


class _Intent:
    """A decision on its way to the log."""

    __slots__ = ("agents", "stored", "tenant")

    def __init__(self, tenant: str, agents: _Chain) -> None:
        self.tenant = tenant
        self.agents = agents
        self.stored: asyncio.Future[None] | None = None
        """Set by who waits for it."""


class Freezes:
    """Every freeze in force, as the gates see it. One per runtime."""

    def __init__(self) -> None:
        self._in_force: dict[str, Freeze] = {}
        self._tenants: frozenset[str] = frozenset()
        """Those of which something is frozen; `FLEET` stands for all."""
        self._unrecorded: set[str] = set()
        """Freezes that hold, and are not in the log yet."""
        self._intents: set[_Intent] = set()
        self._moved = asyncio.Event()
        self._not_begun: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        """By tenant and session: calls that were decided, and held back before they acted."""

    def all(self) -> tuple[Freeze, ...]:
        """Those in force, in the order in which they came."""
        return tuple(self._in_force.values())

    def get(self, freeze: str) -> Freeze | None:
        """The freeze of that id, if it is in force."""
        return self._in_force.get(freeze)

    def impose(self, freeze: Freeze, *, recorded: bool = True) -> None:
        """Put a freeze in force. May be told more than once. `recorded`: whether the log has it already."""
        self._in_force.setdefault(freeze.id, freeze)
        if not recorded:
            self._unrecorded.add(freeze.id)
        self._changed()

    def recorded(self, freeze: str) -> None:
        """The log has a freeze now: from here on the sessions that it holds say so."""
        if freeze in self._unrecorded:
            self._unrecorded.discard(freeze)
            self.stir()

    def lift(self, freeze: str) -> None:
        """Take one back; what nothing else holds goes on. May be told more than once."""
        self._unrecorded.discard(freeze)
        if self._in_force.pop(freeze, None) is not None:
            self._changed()

    def stir(self) -> None:
        """Have whoever is parked look again: agents may be in other programs now."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def quiet(self, freeze: Freeze) -> None:
        """Return once every decision of the scope that was on its way to the log is there, or is known not to be."""
        under_way = [intent for intent in self._intents if freeze.covers(intent.tenant, intent.agents)]
        for intent in under_way:
            intent.stored = intent.stored or asyncio.get_running_loop().create_future()
        if waits := [intent.stored for intent in under_way if intent.stored is not None]:
            await asyncio.wait(waits)

    def of(self, state: SessionState, configuration: Configuration) -> Freeze | None:
        """What holds a session, the oldest if several do; None: nothing."""
        if not self._concerns(state.tenant):
            return None
        agents = _chain(state, configuration)
        return next((one for one in self._in_force.values() if one.covers(state.tenant, agents)), None)

    def of_chain(self, tenant: str, names: Sequence[str] | None, configuration: Configuration) -> Freeze | None:
        """What holds work that is done for agents, of which only the names are known; None: nothing.

        Without names: anything that holds something of the tenant.
        """
        if not self._concerns(tenant):
            return None
        if names is None:
            return next(one for one in self._in_force.values() if one.tenant in {tenant, FLEET})
        agents = _with_programs(names, configuration)
        return next((one for one in self._in_force.values() if one.covers(tenant, agents)), None)

    def of_agent(self, tenant: str, agent: AgentSpec) -> Freeze | None:
        """What holds an agent, the oldest if several do; None: nothing."""
        if not self._concerns(tenant):
            return None
        agents = ((agent.name, agent.program),)
        return next((one for one in self._in_force.values() if one.covers(tenant, agents)), None)

    def check(self, state: SessionState, configuration: Configuration) -> None:
        """Raises Frozen if something holds the session."""
        if (freeze := self.of(state, configuration)) is not None:
            raise refusal(freeze)

    def check_run(self, tenant: str, agent: AgentSpec) -> None:
        """Whether a session of `agent` may begin. Raises Frozen."""
        if (freeze := self.of_agent(tenant, agent)) is not None:
            raise refusal(freeze)

    @contextmanager
    def intent(self, state: SessionState, configuration: Configuration) -> Iterator[None]:
        """Around the record of a decision: `quiet` waits for its end. Raises Frozen at once if something holds the session."""
        self.check(state, configuration)
        intent = _Intent(state.tenant, _chain(state, configuration))
        self._intents.add(intent)
        try:
            yield
        finally:
            self._intents.discard(intent)
            if intent.stored is not None:
                intent.stored.set_result(None)

    def hold_back(self, journal: Journal, call: str) -> None:
        """A call of the session was decided, and was surely not begun: `park` has the log say so."""
        self._not_begun[journal.tenant, journal.session].add(call)

    async def park(self, journal: Journal, source: ConfigurationSource) -> None:
        """Return once nothing holds the session; it says once of each freeze that it came to it.

        What a thousand sessions have to say does not keep the freeze itself from the disk: they wait until the log has it.
        Nothing else acts for the session meanwhile. Raises LogUnavailable, SequenceConflict, NotFound.
        """
        not_begun = self._not_begun.pop((journal.tenant, journal.session), set())
        while not journal.state.over and (freeze := self.of(journal.state, source.current(journal.tenant))) is not None:
            # The event before anything is awaited: who takes a freeze back meanwhile is not missed.
            moved, state = self._moved, journal.state
            if freeze.id not in state.frozen and freeze.id not in self._unrecorded:
                held = sorted(name for name in not_begun if name in state.calls and state.calls[name].step is Step.ALLOWED)
                data: dict[str, Json] = {"freeze": freeze.id, **({"held": held} if held else {})}
                await journal.record_under(source.current(journal.tenant), ev.SESSION_FROZEN, data, _SYSTEM)
            await moved.wait()

    def _concerns(self, tenant: str) -> bool:
        return bool(self._tenants) and (tenant in self._tenants or FLEET in self._tenants)

    def _changed(self) -> None:
        every = (one.tenant if one.scope.kind is not ScopeKind.FLEET else FLEET for one in self._in_force.values())
        self._tenants = frozenset(every)
        self.stir()


def refusal(freeze: Freeze) -> Frozen:
    """What is said to whoever wants something of a frozen scope."""
    return Frozen(f"{freeze.scope} is frozen by {freeze.actor}: {freeze.reason}", where=freeze.id, mend="agentos freeze list")


def not_begun(call: str, tool: str) -> dict[str, Json]:
    """The payload of `syscall.failed` for a call that was decided, and held back before it acted."""
    error = {"code": Frozen.code, "message": NOT_BEGUN, "retryable": True}
    return {"call": call, "tool": tool, "duration_us": 0, "error": error}


def _chain(state: SessionState, configuration: Configuration) -> _Chain:
    """For whom a session acts: its own agent, and those whose sessions have delegated to it."""
    names = [state.agent]
    if state.delegated is not None:
        names += [str(one["agent"]) for one in state.delegated.get("delegators", ())]
    return _with_programs(names, configuration)


def _with_programs(names: Sequence[str], configuration: Configuration) -> _Chain:
    agents = configuration.agents
    return tuple((name, agents[name].program if name in agents else "") for name in dict.fromkeys(names))
