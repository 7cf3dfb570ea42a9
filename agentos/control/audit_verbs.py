"""The verbs about the record: audit.query, audit.rebuild, evidence.export, evidence.key; and those of `control.proof_verbs`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.ids import FLEET, Clock, Random
from agentos.audit.covered import Covered
from agentos.audit.evidence import Gathered, Scope, build_pack, gather
from agentos.audit.query import AuditQuery, ask, parse_moment
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.control.proof_verbs import Notaries, ProofVerbs
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import REGISTRY_STREAM
from agentos.projections.projector import Projector
from agentos.projections.read import faults

PATIENCE_S: Final = 5.0
"""How long a query waits for the read model to reach the end of the log, in seconds; then it answers and says how far it is."""

MAX_SESSIONS: Final = 10_000
"""Most sessions that one export may name."""


class AuditVerbs:
    """`projectors` and `logs` give a tenant's; `registry` is the registry's log, `notaries` keep all under checkpoints."""

    def __init__(
        self,
        projectors: Callable[[str], Awaitable[Projector]],
        logs: Callable[[str], EventLog],
        registry: EventLog,
        notaries: Notaries,
        clock: Clock,
    ) -> None:
        self._projectors = projectors
        self._logs = logs
        self._registry = registry
        self._notaries = notaries
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
        # Behind a log that was changed there is nothing to sign, whatever is left in it.
        self._notaries.get(caller.tenant).prover.check()
        found = await gather(self._logs(caller.tenant), self._registry, tenant=caller.tenant, scope=scope)
        if not found.sessions:
            raise NotFound("there is no session to export", mend="list them: agentos ps --all")
        covered = await self._cover(caller.tenant, found)
        ring = self._notaries.ring
        pack = await asyncio.to_thread(
            build_pack,
            tenant=caller.tenant,
            sessions=found.sessions,
            registry=found.registry,
            key=ring.current,
            clock=self._clock,
            exporter=caller.actor,
            scope=scope,
            covered=covered,
            not_before_ms=ring.since_ms,
        )
        return {
            "pack": base64.b64encode(pack).decode("ascii"),
            "sessions": len(found.sessions),
            "events": sum(len(events) for events in found.sessions.values()),
            "bytes": len(pack),
            "key": ring.current.id,
        }

    async def public_key(self, _caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {key (id), pem}: the public key that packs of this runtime are verified with."""
        Params(params).end()
        key = self._notaries.ring.current
        return {"key": key.id, "pem": key.public_pem.decode("ascii")}

    async def _cover(self, tenant: str, found: Gathered) -> Covered:
        """Both checkpoints, of this moment, and what shows that they cover what is exported. Raises ChainBroken, Unavailable."""
        notary, registrar = self._notaries.get(tenant), self._notaries.get(FLEET)
        ours, theirs = await notary.now(), await registrar.now()
        proofs = [await notary.prover.cover(stream, leaves, ours) for stream, leaves in sorted(found.leaves.items())]
        if found.registry_leaves:
            proofs.append(await registrar.prover.cover(REGISTRY_STREAM, found.registry_leaves, theirs))
        return Covered(ours.note, theirs.note, self._notaries.ring.rotations, proofs)


def handlers(
    *,
    projectors: Callable[[str], Awaitable[Projector]],
    logs: Callable[[str], EventLog],
    registry: EventLog,
    notaries: Notaries,
    clock: Clock,
    random: Random,
) -> Handlers:
    """The verbs of this module and of `proof_verbs` by name; see `AuditVerbs`, `ProofVerbs`."""
    proofs = ProofVerbs(notaries, clock, random).handlers()
    return {**AuditVerbs(projectors, logs, registry, notaries, clock).handlers(), **proofs}
