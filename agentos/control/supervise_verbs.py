"""The verbs about standing agents: standing.list, get, start, stop, restart, enable, disable.

What a person switches is recorded in the tenant's audit chain before it is done. It is there after a restart, and a crash between
the two is made up for by the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict, NotFound
from agentos.abi.event import rfc3339
from agentos.abi.ids import is_name
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, switched_entry
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.supervisor.supervise import Kept, Run

MAX_REASON: Final = 2000

MAX_EVENTS: Final = 100
"""Most events that a page ends with."""

LAST: Final = 5
"""Sessions that are over which a page names at most."""


class Supervisor(Protocol):
    """Who keeps standing agents alive."""

    async def look(self, tenant: str) -> Mapping[str, Kept]:
        """Do what is to be done now; return the standing agents of a tenant by name."""

    async def tail(self, tenant: str, session: str, events: int) -> int:
        """The position behind which the last `events` events of a session stand."""

    async def number(self, tenant: str, session: str) -> int:
        """Which of its agent's sessions it is, from 1 on; 0 where nobody can tell any more."""


class SuperviseVerbs:
    """The verbs; see `handlers`. `chains` gives a tenant's audit chain, `revision` the one in force for it."""

    def __init__(self, supervisor: Supervisor, chains: Callable[[str], AuditChain], revision: Callable[[str], int]) -> None:
        self._supervisor = supervisor
        self._chains = chains
        self._revision = revision

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "standing.list": self.list,
            "standing.get": self.get,
            "standing.start": self.start,
            "standing.stop": self.stop,
            "standing.restart": self.restart,
            "standing.enable": self.enable,
            "standing.disable": self.disable,
        }

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → [{agent, phase, why, session?, …}], by name."""
        Params(params).end()
        kept = await self._supervisor.look(caller.tenant)
        return [_row(kept[name]) for name in sorted(kept)]

    async def get(self, caller: Caller, params: dict[str, Json]) -> Json:
        """One standing agent: {agent, events?} → its row, what it names with their phases, its last sessions; and `position`, the
        one behind which the last `events` events of its session (or of its last one) stand, for session.events.
        """
        take = Params(params)
        agent, events = _take_agent(take), take.number("events", default=10, highest=MAX_EVENTS)
        take.end()
        return await self._page(caller.tenant, agent, events)

    async def start(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Begin one that was stopped, has failed or has finished: {agent, reason} → its page. Conflict where it is disabled."""
        agent, reason = _who_and_why(params)
        await self._require_enabled(caller.tenant, agent)
        await self._switch(caller, agent, reason, standing_on=True)
        return await self._page(caller.tenant, agent)

    async def stop(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Cancel its session, and begin none until it is started again: {agent, reason} → its page."""
        agent, reason = _who_and_why(params)
        await self._find(caller.tenant, agent)
        await self._switch(caller, agent, reason, standing_on=False)
        return await self._page(caller.tenant, agent)

    async def restart(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Stop it and start it: {agent, reason} → its page. Conflict where it is disabled."""
        agent, reason = _who_and_why(params)
        await self._require_enabled(caller.tenant, agent)
        await self._switch(caller, agent, reason, standing_on=False)
        stopped = await self._find(caller.tenant, agent)
        if stopped.judged.run is not None:
            raise Conflict(
                f"session {stopped.judged.run.session} of agent {agent} has not ended yet, so no other one is begun",
                mend=f"agentos start {agent}, once it has",
            )
        await self._switch(caller, agent, reason, standing_on=True)
        return await self._page(caller.tenant, agent)

    async def enable(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Have it kept alive again, also if it was stopped: {agent, reason} → its page."""
        agent, reason = _who_and_why(params)
        await self._find(caller.tenant, agent)
        await self._switch(caller, agent, reason, agent_on=True, standing_on=True)
        return await self._page(caller.tenant, agent)

    async def disable(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Begin it no more; a session that runs goes on to its end, unless `now`: {agent, reason, now?} → its page."""
        take = Params(params)
        agent, reason, now = _take_agent(take), take.text("reason", longest=MAX_REASON), take.flag("now")
        take.end()
        await self._find(caller.tenant, agent)
        await self._switch(caller, agent, reason, agent_on=False, standing_on=False if now else None)
        return await self._page(caller.tenant, agent)

    async def _switch(
        self, caller: Caller, agent: str, reason: str, *, agent_on: bool | None = None, standing_on: bool | None = None
    ) -> None:
        """Record it: `agent_on` enables or disables, `standing_on` starts or stops; both or neither."""
        switched = [(what, on) for what, on in (("agent", agent_on), ("standing", standing_on)) if on is not None]

        async def entries(_: AuditRecord) -> tuple[Entry, ...]:
            return tuple(switched_entry(what, agent, reason, on=on) for what, on in switched)

        await self._chains(caller.tenant).append(entries, actor=caller.actor, revision=self._revision(caller.tenant))

    async def _find(self, tenant: str, agent: str) -> Kept:
        kept = await self._supervisor.look(tenant)
        if agent not in kept:
            known = ", ".join(sorted(kept)) or "none"
            raise NotFound(
                f"no standing agent {agent} in tenant {tenant}", mend=f"standing agents: {known}; others run by: agentos run"
            )
        return kept[agent]

    async def _require_enabled(self, tenant: str, agent: str) -> None:
        found = await self._find(tenant, agent)
        if not found.unit.switches.enabled:
            raise Conflict(f"agent {agent} is {found.unit.switches.why}", mend=f"agentos enable {agent}")

    async def _page(self, tenant: str, agent: str, events: int = 0) -> Json:
        kept = await self._supervisor.look(tenant)
        if agent not in kept:
            await self._find(tenant, agent)
        one = kept[agent]
        spec, runs = one.unit.spec, one.unit.runs
        shown = one.judged.run or (runs[0] if runs else None)
        page = _row(one) | {
            "restart": str(spec.restart),
            "backoff_ms": spec.backoff_ms,
            "max_backoff_ms": spec.max_backoff_ms,
            "watchdog_ms": spec.watchdog_ms,
            "ready_after": str(spec.ready_after),
            "revision": self._revision(tenant),
            "after": [_phase(name, kept) for name in spec.after],
            "requires": [_phase(name, kept) for name in spec.requires],
            "last": [_run(run) for run in runs if not run.live][:LAST],
        }
        if shown is not None:
            page |= {"shown": shown.session, "number": await self._supervisor.number(tenant, shown.session)}
            if events:
                page["position"] = await self._supervisor.tail(tenant, shown.session, events)
        return page


def _row(one: Kept) -> dict[str, Json]:
    unit, judged = one.unit, one.judged
    row: dict[str, Json] = {
        "agent": unit.agent,
        "phase": str(judged.phase),
        "why": judged.why,
        "enabled": unit.switches.enabled,
        "ready": judged.ready,
        "starts": judged.starts,
        "limit": {"starts": unit.spec.limit_starts, "within_ms": unit.spec.limit_within_ms},
        "failures": judged.failures,
    }
    if judged.run is not None:
        row |= {"session": judged.run.session, "state": judged.run.state, "since": rfc3339(judged.run.created_ms)}
        row["updated"] = rfc3339(judged.run.updated_ms)
    elif unit.runs:
        row["since"] = rfc3339(unit.runs[0].updated_ms)
    if judged.run is None and judged.next_ms is not None:
        row["next"] = rfc3339(judged.next_ms)
    return row


def _run(run: Run) -> dict[str, Json]:
    told: dict[str, Json] = {
        "session": run.session,
        "state": run.state,
        "created": rfc3339(run.created_ms),
        "ended": rfc3339(run.updated_ms),
    }
    return told | ({"by": run.by} if run.by else {}) | ({"code": run.code} if run.code else {})


def _phase(name: str, kept: Mapping[str, Kept]) -> dict[str, Json]:
    return {"agent": name, "phase": str(kept[name].judged.phase) if name in kept else "unknown"}


def _take_agent(take: Params) -> str:
    agent = take.text("agent", longest=63)
    if not is_name(agent):
        raise NotFound(f"{agent!r} cannot be the name of an agent", mend="agentos get agents")
    return agent


def _who_and_why(params: dict[str, Json]) -> tuple[str, str]:
    take = Params(params)
    agent, reason = _take_agent(take), take.text("reason", longest=MAX_REASON)
    take.end()
    return agent, reason
