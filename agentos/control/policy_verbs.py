"""The verbs about policy: what is in force, why a recorded decision is what it is, and the decisions to try others on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.event import Event, rfc3339
from agentos.abi.ids import is_name
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject
from agentos.policy.decide import CacheStats
from agentos.policy.explain import explain
from agentos.policy.tenant import TenantPolicy, tenant_policy
from agentos.projections.question import Recorded, recorded
from agentos.registry.store import Registry

MAX_SESSIONS: Final = 200
"""Sessions per page of `policy.recorded`."""


class PolicyVerbs:
    """policy.status|facts|recorded|why. `status` gives the digest in force and the cache's counters for a tenant."""

    def __init__(
        self,
        registry: Registry,
        logs: Callable[[str], EventLog],
        engine: Callable[[], str],
        in_force: Callable[[str], tuple[int, str, CacheStats]],
    ) -> None:
        self._registry = registry
        self._logs = logs
        self._engine = engine
        self._in_force = in_force

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "policy.status": self.status,
            "policy.facts": self.facts,
            "policy.recorded": self.recorded,
            "policy.why": self.why,
        }

    async def status(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{}` → engine, revision, digest, modules and cache counters of the caller's tenant."""
        Params(params).end()
        revision, digest, cache = self._in_force(caller.tenant)
        state = await self._registry.state(revision)
        policies = state.resources(kind="Policy", tenant=caller.tenant)
        policy = await self._policy(caller.tenant, revision)
        return {
            "tenant": caller.tenant,
            "engine": self._engine(),
            "revision": revision,
            "digest": digest,
            "modules": [module.path for module in policy.modules],
            "policies": [{"name": one.key.name, "target": one.spec["target"], "mode": one.spec["mode"]} for one in policies],
            "cache": {"hits": cache.hits, "misses": cache.misses, "uncached": cache.uncached, "size": cache.size},
        }

    async def facts(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{revision?}` → `{revision, digest, modules: [{path, source}], data}`: all that decides for the tenant."""
        take = Params(params)
        revision = take.number("revision", default=self._in_force(caller.tenant)[0], highest=2**53)
        take.end()
        policy = await self._policy(caller.tenant, revision)
        modules: Json = [{"path": module.path, "source": module.source} for module in policy.modules]
        return {"revision": revision, "digest": policy.digest, "modules": modules, "data": dict(policy.data)}

    async def recorded(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{sessions: [id…]}` → `{decisions: […]}`: every decision of those sessions, with the question as it was asked."""
        take = Params(params)
        names = take.texts("sessions")
        take.end()
        if len(names) > MAX_SESSIONS or not all(is_name(name) for name in names):
            raise UsageError(f"parameter sessions: at most {MAX_SESSIONS} ids of sessions")
        found = [describe(item) for name in names for item in recorded(await self._events(caller.tenant, name))]
        return {"decisions": found}

    async def why(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{session, call?}` → the decision (of the last call that was not simply allowed) and a report on every rule."""
        take = Params(params)
        session, call = take.text("session"), take.text_or_none("call")
        take.end()
        if not is_name(session):
            raise UsageError(f"{session!r} is no session id")
        item = _chosen(list(recorded(await self._events(caller.tenant, session))), session, call)
        policy = await self._policy(caller.tenant, int(item.question["config_revision"]))
        explanation = await asyncio.to_thread(explain, policy.modules, policy.data, item.question)
        again = explanation.decision.to_dict()
        return {
            **describe(item),
            "replayed": again,
            "same": again == dict(item.decision),
            "same_policy": policy.digest == item.policy_digest,
            "rules": [report.to_dict() for report in explanation.rules],
            "grants": _grants(policy, item),
        }

    async def _policy(self, tenant: str, revision: int) -> TenantPolicy:
        state = await self._registry.state(revision)
        granted_by = {key: entry.by for key, entry in state.entries.items()}
        return tenant_policy(state.resources(), tenant, granted_by)

    async def _events(self, tenant: str, session: str) -> list[Event]:
        events = [Event.from_bytes(stored.data) async for stored in self._stored(tenant, session)]
        if not events:
            raise NotFound(f"no session {session} in tenant {tenant}", mend="list them: agentos ps --all")
        return events

    def _stored(self, tenant: str, session: str) -> AsyncIterator[Json]:
        return self._logs(tenant).read(session_subject(session))


def describe(item: Recorded) -> dict[str, Json]:
    """A recorded decision for people and programs (`schemas/v1/recorded-decision.json`)."""
    return {
        "session": item.session,
        "call": item.call,
        "seq": item.seq,
        "time": rfc3339(item.time_ms),
        "policy_digest": item.policy_digest,
        "question": dict(item.question),
        "decision": dict(item.decision),
    }


def _chosen(items: list[Recorded], session: str, call: str | None) -> Recorded:
    if call is not None:
        items = [item for item in items if item.call == call or f"#{item.seq}" == call]
        if not items:
            raise NotFound(f"session {session} has no decision about call {call}", mend=f"agentos logs {session}")
        return items[-1]
    stopped = [item for item in items if item.decision["effect"] != "allow"]
    if not stopped and not items:
        raise NotFound(f"session {session} has made no call yet", mend=f"agentos logs {session}")
    return (stopped or items)[-1]


def _grants(policy: TenantPolicy, item: Recorded) -> list[Json]:
    """The grants that give this agent this tool at all, whatever their conditions."""
    agents: dict[str, Json] = policy.data["agentos"]["grants"]
    found: list[Json] = agents.get(item.question["agent"]["name"], {}).get(item.question["syscall"]["tool"], [])
    return found
