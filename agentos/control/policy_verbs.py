"""The verbs about policy: what is in force, why a recorded decision is what it is, and the history to try others on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

import orjson

from agentos.abi.attributes import names_of
from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken, NotFound, UsageError
from agentos.abi.event import Event, parse_rfc3339, rfc3339
from agentos.abi.ids import DEFAULT_TENANT, FLEET, is_name
from agentos.abi.record import header_of, split
from agentos.audit.admissions import admissions
from agentos.audit.history import Undecidable, decision_id, pack, recall
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import is_session_stream, session_subject
from agentos.policy.decide import CacheStats
from agentos.policy.explain import explain, roles_that_may
from agentos.policy.tenant import TenantPolicy, tenant_policy
from agentos.policy.why_text import why_lines
from agentos.projections.question import Recorded
from agentos.registry.principal import ROLES, Principals
from agentos.registry.store import Registry

MAX_SESSIONS: Final = 200
"""Most sessions that may be named at one time."""

PAGE: Final = 1000
"""Most events of one page of a stream: what the log gives in one request."""

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of stored events after which a page ends."""

MOST_REVISIONS: Final = 10
"""Revisions per page of changes: each question holds every manifest of the tenant."""

EARLY_MS: Final = 600_000
"""How much before a moment its events are looked for, in ms: clocks of several writers differ, and an append can wait."""


class PolicyVerbs:
    """policy.status|facts|recorded|why. `in_force` gives revision, digest and cache counters of a tenant."""

    def __init__(
        self,
        registry: Registry,
        logs: Callable[[str], EventLog],
        engine: Callable[[], str],
        in_force: Callable[[str], tuple[int, str, CacheStats]],
        principals: Principals,
    ) -> None:
        self._registry = registry
        self._logs = logs
        self._engine = engine
        self._in_force = in_force
        self._principals = principals

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
        """The recorded decisions, each with its question as it was asked or with what makes it again.

        `{sessions: [id…]}` → `{decisions, undecidable}`: those of whole sessions.
        `{streams: true}` → `{tenant, streams}`: the names of the streams that hold sessions.
        `{stream, after?, since?}` → a page of events: see `_page`.
        `{changes: true, after?, since?}` → a page of changes of the registry: see `_changes`.
        """
        take = Params(params)
        if "streams" in params:
            take.flag("streams")
            take.end()
            return {"tenant": caller.tenant, "streams": list(await _streams(self._logs(caller.tenant)))}
        if "stream" in params:
            return await self._page(caller, take)
        if "changes" in params:
            return await self._changes(caller, take)
        names = take.texts("sessions")
        take.end()
        if len(names) > MAX_SESSIONS or not all(is_name(name) for name in names):
            raise UsageError(f"parameter sessions: at most {MAX_SESSIONS} ids of sessions")
        found = [item for name in names for item in recall(await self._events(caller.tenant, name))]
        return {
            "decisions": [describe(item) for item in found if isinstance(item, Recorded)],
            "undecidable": [item.to_dict() for item in found if isinstance(item, Undecidable)],
        }

    async def _page(self, caller: Caller, take: Params) -> Json:
        """One page of the stream of that name: `{events, after, end}`, events as rows that `audit.history.pack` makes.

        `after` is where the next page begins and `end` where the stream ended at that time. Without `after` the page begins at
        `since` (ms since the epoch), or a little before.
        """
        stream = take.text("stream")
        after = take.number("after", default=-1, lowest=-1, highest=2**53)
        since = take.number("since", default=0, highest=2**53)
        take.end()
        log = self._logs(caller.tenant)
        if stream not in await _streams(log):
            raise NotFound(f"there is no stream {stream} of sessions", mend="a month that was retired is in its packs")
        end = await log.end(stream)
        if after < 0:
            after = await _begin(log, stream, end, since - EARLY_MS) if since else 0
        events: list[Json] = []
        size = 0
        async with aclosing(log.scan(stream, after=after)) as messages:
            async for stored in messages:
                events.append(pack(_body(stored.data)))
                after, size = stored.position, size + len(stored.data)
                if len(events) >= PAGE or size >= PAGE_BYTES:
                    break
            else:
                after = max(after, end)
        return {"events": events, "after": after, "end": end}

    async def _changes(self, caller: Caller, take: Params) -> Json:
        """Changes of the registry behind revision `after`, as admission policy was asked: `{admissions, after, end}`.

        `since` (ms since the epoch) leaves out earlier ones. A principal of the fleet that acts on the default tenant also gets
        the changes of Tenants.
        """
        take.flag("changes")
        after = take.number("after", default=0, highest=2**53)
        since = take.number("since", default=0, highest=2**53)
        take.end()
        revisions = await self._registry.history()
        found: list[Json] = []
        tenants = _own_tenants(caller)
        asked = 0
        for revision in revisions[after:]:
            after = revision.number
            if revision.time_ms < since or not set(tenants) & set(revision.tenants):
                continue
            found += await admissions(self._registry, self._principals, revision, tenants)
            asked += 1
            if asked >= MOST_REVISIONS:
                break
        return {"admissions": found, "after": after, "end": len(revisions)}

    async def why(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{session, call?}` or `{revision}` → a decision and a report on every rule; `text` tells the same in lines.

        Without `call` (an id, or `#SEQ` of the event) it is the last call that was not simply allowed. Of a revision it
        is what admission policy decided about it.
        """
        take = Params(params)
        if params.get("revision") is not None:
            number = take.number("revision", default=0, lowest=1, highest=2**53)
            take.end()
            return await self._why_admitted(caller, number)
        session, call = take.text("session"), take.text_or_none("call")
        take.end()
        if not is_name(session):
            raise UsageError(f"{session!r} is no session id")
        events = await self._events(caller.tenant, session)
        item = _chosen(list(recall(events)), session, call)
        answer = await self._explained(caller, item) if isinstance(item, Recorded) else _erased(item, events)
        return {**answer, "text": why_lines(answer)}

    async def _explained(self, caller: Caller, item: Recorded) -> dict[str, Json]:
        policy = await self._policy(caller.tenant, int(item.question["config_revision"]))
        explanation = await asyncio.to_thread(explain, policy.modules, policy.data, item.question)
        return {
            **describe(item),
            "replayed": explanation.decision.to_dict(),
            "same": explanation.decision.agrees(item.policy_decision),
            "same_policy": policy.digest == item.policy_digest,
            "rules": [report.to_dict() for report in explanation.rules],
            "grants": _grants(policy, item),
            "granters": await self._granters(caller),
        }

    async def _why_admitted(self, caller: Caller, number: int) -> dict[str, Json]:
        revisions = (await self._registry.history())[number - 1 : number]
        rows = [row for one in revisions for row in await admissions(self._registry, self._principals, one, _own_tenants(caller))]
        if not rows:
            # The same for one that changed another tenant and for one that never was.
            raise NotFound(f"no revision {number} changed tenant {caller.tenant}", mend="agentos history lists them")
        told = [await self._admitted(caller, row) for row in rows]
        text = [line for place, row in enumerate(told) for line in ([""] if place else []) + why_lines(row)]
        return {"id": f"revision/{number}", "admissions": told, "text": text}

    async def _admitted(self, caller: Caller, row: dict[str, Json]) -> dict[str, Json]:
        body = {"id": f"revision/{row['revision']}", **row}
        if "undecidable" in row:
            return body
        policy = await self._policy(caller.tenant, row["decided_by"])
        found = await asyncio.to_thread(explain, policy.modules, policy.data, row["question"], target="admission")
        again = found.decision.to_dict()
        return {
            **body,
            "replayed": again,
            "same": again == row["decision"],
            "rules": [report.to_dict() for report in found.rules],
        }

    async def _granters(self, caller: Caller) -> dict[str, Json]:
        """Who may add a ToolGrant to the caller's tenant: the roles that may apply, and the principals that have one of them."""
        roles = await asyncio.to_thread(roles_that_may, "registry.apply", ROLES)
        able = [
            one.name
            for one in await self._principals.list()
            if one.valid and (one.fleet or one.tenant == caller.tenant) and set(one.roles) & set(roles)
        ]
        return {"roles": list(roles), "principals": able}

    async def _policy(self, tenant: str, revision: int) -> TenantPolicy:
        state = await self._registry.state(revision)
        granted_by = {key: entry.by for key, entry in state.entries.items()}
        return tenant_policy(state.resources(), tenant, granted_by)

    async def _events(self, tenant: str, session: str) -> list[Event]:
        events = [_event(stored) async for stored in self._logs(tenant).read(session_subject(session))]
        if not events:
            raise NotFound(f"no session {session} in tenant {tenant}", mend="list them: agentos ps --all")
        return events


def describe(item: Recorded) -> dict[str, Json]:
    """A recorded decision for people and programs (`schemas/v1/recorded-decision.json`)."""
    body: dict[str, Json] = {
        "id": decision_id(item.session, item.seq),
        "session": item.session,
        "call": item.call,
        "seq": item.seq,
        "time": rfc3339(item.time_ms),
        "policy_digest": item.policy_digest,
        "question": dict(item.question),
        "decision": dict(item.decision),
    }
    if item.policy_decision != item.decision:
        body["overruled"] = dict(item.policy_decision)
    return body


def _own_tenants(caller: Caller) -> tuple[str, ...]:
    both = caller.fleet and caller.tenant == DEFAULT_TENANT
    return (caller.tenant, FLEET) if both else (caller.tenant,)


async def _streams(log: EventLog) -> tuple[str, ...]:
    return tuple(filter(is_session_stream, await log.streams()))


def _event(stored: Stored) -> Event:
    try:
        return Event.from_bytes(stored.data)
    except (ValueError, KeyError) as error:
        where = f"{stored.subject} {stored.position}"
        raise ChainBroken(f"an event cannot be read: {error}", where=where, mend="agentos audit verify") from error


def _body(record: bytes) -> dict[str, Json]:
    """A stored event, its payload in `data`: not checked again, for a question that was recorded is only asked anew."""
    header, opening = split(record)
    body: dict[str, Json] = orjson.loads(header)
    try:
        return body if opening is None else body | {"data": orjson.loads(opening)["data"]}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        where = f"{body.get('subject')}#{body.get('seq')}"
        raise ChainBroken("the payload of an event is not its own", where=where, mend="agentos audit verify") from error


async def _begin(log: EventLog, stream: str, end: int, moment: int) -> int:
    """The position behind which the events of `moment` (ms) begin: halving, as a stream grows with time."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        first = await _first(log, stream, middle)
        if first is None or parse_rfc3339(orjson.loads(header_of(first.data))["time"]) >= moment:
            high = middle
        else:
            low = max(middle + 1, first.position)
    return low


async def _first(log: EventLog, stream: str, after: int) -> Stored | None:
    async with aclosing(log.scan(stream, after=after)) as messages:
        async for stored in messages:
            return stored
    return None


def _chosen(items: Sequence[Recorded | Undecidable], session: str, call: str | None) -> Recorded | Undecidable:
    if call is not None:
        named = [item for item in items if call in {item.call, f"#{_id(item).rpartition('#')[2]}"}]
        if not named:
            raise NotFound(f"session {session} has no decision about call {call}", mend=f"agentos logs {session}")
        return named[-1]
    if not items:
        raise NotFound(f"session {session} has made no call yet", mend=f"agentos logs {session}")
    stopped = [item for item in items if isinstance(item, Undecidable) or item.decision["effect"] != "allow"]
    return (stopped or items)[-1]


def _id(item: Recorded | Undecidable) -> str:
    return item.decision if isinstance(item, Undecidable) else decision_id(item.session, item.seq)


def _erased(item: Undecidable, events: Sequence[Event]) -> dict[str, Json]:
    """What is left of a decision that cannot be made again: the event says what was decided, the reason why no more is told."""
    seq = int(item.decision.rpartition("#")[2])
    event = events[seq - 1]
    return {
        "id": item.decision,
        "session": item.session,
        "call": item.call,
        "seq": seq,
        "time": rfc3339(item.time_ms),
        "revision": event.config_revision,
        **_left(event),
        "undecidable": item.reason,
    }


def _left(event: Event) -> dict[str, Json]:
    if not event.withheld:
        data = event.data
        return {"tool": data.get("tool"), "agent": data.get("agent", {}).get("name"), "decision": data.get("decision")}
    header = event.attributes
    decision = {"effect": header["decision"], "rules": names_of(header, "rules"), "reasons": []} if "decision" in header else None
    return {"tool": header.get("tool"), "agent": header.get("agent"), "decision": decision}


def _grants(policy: TenantPolicy, item: Recorded) -> list[Json]:
    """The grants that give this agent this tool at all, whatever their conditions."""
    agents: dict[str, Json] = policy.data["agentos"]["grants"]
    found: list[Json] = agents.get(item.question["agent"]["name"], {}).get(item.question["syscall"]["tool"], [])
    return found
