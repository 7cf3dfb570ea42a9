"""The verbs about proof: audit.query, audit.rebuild, evidence.export, evidence.key."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.ids import Clock
from agentos.audit.evidence import Scope, build_pack, gather
from agentos.audit.keys import SigningKey
from agentos.audit.query import AuditQuery, ask, parse_moment
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import EventLog
from agentos.projections.projector import Projector
from agentos.projections.read import faults

PATIENCE_S: Final = 5.0
"""How long a query waits for the read model to reach the end of the log, in seconds; then it answers and says how far it is."""

MAX_SESSIONS: Final = 10_000
"""Most sessions that one export may name."""


class AuditVerbs:
    """`projectors` and `logs` give a tenant's; `registry` is the registry's log, `key` the runtime's signing key."""

    def __init__(
        self,
        projectors: Callable[[str], Awaitable[Projector]],
        logs: Callable[[str], EventLog],
        registry: EventLog,
        key: SigningKey,
        clock: Clock,
    ) -> None:
        self._projectors = projectors
        self._logs = logs
        self._registry = registry
        self._key = key
        self._clock = clock

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "audit.query": self.query,
            "audit.rebuild": self.rebuild,
            "evidence.export": self.export,
            "evidence.key": self.public_key,
        }

    async def query(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{since?, until?, agent?, tool?, effect?, session?, actor?, rule?, limit?} → {rows, more, behind, faults}.

        `rows` oldest first, `more` whether older ones were left off; `behind` counts, per stream, the events that the answer does
        not include yet, `faults` the events that the read model could not take in.
        """
        question = AuditQuery.parse(params, now_ms=self._clock.now_ms())
        projector = await self._projectors(caller.tenant)
        try:
            await asyncio.wait_for(projector.caught_up(), PATIENCE_S)
            behind: dict[str, int] = {}
        except TimeoutError:
            behind = await projector.behind()
        answer = await asyncio.to_thread(ask, projector.store, question)
        status = await projector.status()
        return {"rows": list(answer.rows), "more": answer.more, "behind": behind, "faults": status.faults}

    async def rebuild(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {positions, faults: [{stream, position, session, kind, error}]}: the read model thrown away and read again."""
        Params(params).end()
        projector = await self._projectors(caller.tenant)
        positions = await projector.rebuild()
        return {"positions": positions, "faults": await asyncio.to_thread(faults, projector.store)}

    async def export(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{sessions?: [id] or since?: time} → {pack (base64), sessions, events, bytes, key}. Reads the log itself."""
        take = Params({key: value for key, value in params.items() if value is not None})
        named = take.texts("sessions") if params.get("sessions") is not None else None
        since = take.text_or_none("since")
        take.end()
        if named is not None and since is not None:
            raise UsageError("sessions and since exclude each other", mend="name sessions, or a time, or neither")
        if named is not None and not 1 <= len(named) <= MAX_SESSIONS:
            raise UsageError(f"parameter sessions: expected 1 to {MAX_SESSIONS} ids")
        since_ms = None if since is None else parse_moment(since, now_ms=self._clock.now_ms())
        scope = Scope(None if named is None else tuple(dict.fromkeys(named)), since_ms)
        sessions, registry = await gather(self._logs(caller.tenant), self._registry, tenant=caller.tenant, scope=scope)
        if not sessions:
            raise NotFound("there is no session to export", mend="list them: agentos ps --all")
        pack = await asyncio.to_thread(
            build_pack,
            tenant=caller.tenant,
            sessions=sessions,
            registry=registry,
            key=self._key,
            clock=self._clock,
            exporter=caller.actor,
            scope=scope,
        )
        return {
            "pack": base64.b64encode(pack).decode("ascii"),
            "sessions": len(sessions),
            "events": sum(len(events) for events in sessions.values()),
            "bytes": len(pack),
            "key": self._key.id,
        }

    async def public_key(self, _caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {key (id), pem}: the public key that packs of this runtime are verified with."""
        Params(params).end()
        return {"key": self._key.id, "pem": self._key.public_pem.decode("ascii")}


def handlers(
    *,
    projectors: Callable[[str], Awaitable[Projector]],
    logs: Callable[[str], EventLog],
    registry: EventLog,
    key: SigningKey,
    clock: Clock,
) -> Handlers:
    """The verbs of this module by name; see `AuditVerbs`."""
    return AuditVerbs(projectors, logs, registry, key, clock).handlers()
