"""The verbs about the record: audit.query, .search and .rebuild, evidence.export and .key; and those of `control.proof_verbs`."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.ids import FLEET, Clock, Random
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry
from agentos.audit.covered import Covered
from agentos.audit.evidence import Gathered, Scope, build_pack, gather, gather_audit, kept_back, kept_out
from agentos.audit.exported import exported
from agentos.audit.query import AuditQuery, ask, parse_moment
from agentos.audit.withhold import NOTHING, Withhold
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.control.proof_verbs import Notaries, ProofVerbs
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import AUDIT_NAME, AUDIT_STREAM, REGISTRY_STREAM
from agentos.projections.dump import digest
from agentos.projections.projector import Projector
from agentos.projections.read import faults
from agentos.projections.search import Search, search

PATIENCE_S: Final = 5.0
"""How long a query waits for the read model to reach the end of the log, in seconds; then it answers and says how far it is."""

MAX_SESSIONS: Final = 10_000
"""Most sessions that one export may name."""

DEFAULT_HITS: Final = 20
MAX_HITS: Final = 1000
"""Most hits of one search."""

MODELS: Final = ("index", "text")
"""What can be rebuilt."""

Projectors = Callable[[str], Awaitable[Projector]]
"""Gives a tenant's."""


class AuditVerbs:
    """`projectors` (of the index), `wordsmiths` (of the text model) and `logs` give a tenant's.

    `registry` is the registry's log, `notaries` keep all under checkpoints, `chains` and `revision` give a tenant's audit chain
    and the revision in force, to record what was exported.
    """

    def __init__(
        self,
        projectors: Projectors,
        wordsmiths: Projectors,
        logs: Callable[[str], EventLog],
        registry: EventLog,
        notaries: Notaries,
        chains: Callable[[str], AuditChain],
        revision: Callable[[str], int],
        clock: Clock,
    ) -> None:
        self._projectors = projectors
        self._wordsmiths = wordsmiths
        self._logs = logs
        self._registry = registry
        self._notaries = notaries
        self._chains = chains
        self._revision = revision
        self._clock = clock

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "audit.query": self.query,
            "audit.rebuild": self.rebuild,
            "audit.search": self.search,
            "evidence.export": self.export,
            "evidence.key": self.public_key,
        }

    async def query(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{since?, until?, agent?, tool?, effect?, session?, actor?, rule?, limit?} → {rows, more, behind, faults}.

        `rows` oldest first, `more` whether older ones were left off; `behind` counts, per stream, the events that the answer does
        not include yet, `faults` the events that the read model could not take in.
        """
        question = AuditQuery.parse(params, now_ms=self._clock.now_ms())
        index, text, freshness = await self._current(caller.tenant)
        answer = await asyncio.to_thread(ask, index.store, question, text.store)
        return {"rows": list(answer.rows), "more": answer.more, **await freshness()}

    async def search(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{words: [text], session?, agent?, since?, limit?, raw?} → {rows, more, behind, faults}.

        `rows` newest first: {time, session, seq, agent, call, kind, snippet}; the rest is as in `query`.
        """
        take = Params({key: value for key, value in params.items() if value is not None})
        words = take.texts("words")
        session, agent, since = (take.text_or_none(name) for name in ("session", "agent", "since"))
        limit, raw = take.number("limit", default=DEFAULT_HITS, lowest=1, highest=MAX_HITS), take.flag("raw")
        take.end()
        since_ms = None if since is None else parse_moment(since, now_ms=self._clock.now_ms())
        wanted = Search(words, session=session, agent=agent, since_ms=since_ms, limit=limit, raw=raw)
        index, text, freshness = await self._current(caller.tenant)
        hits = await asyncio.to_thread(search, index.store, text.store, wanted)
        return {"rows": list(hits.rows), "more": hits.more, **await freshness()}

    async def rebuild(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{model?: index or text} → {positions, models: [{model, before, after, same}], faults: [...]}.

        The read models, or one of them, thrown away and read again. `before` and `after` are digests of all rows; `before` is
        null for a file that could not be read, `same` is null where the log grew between the two.
        """
        take = Params({key: value for key, value in params.items() if value is not None})
        named = take.text_or_none("model")
        take.end()
        if named not in {None, *MODELS}:
            raise UsageError(f"model: {named!r} is none", mend=f"there are {' and '.join(MODELS)}")
        projectors = {"index": await self._projectors(caller.tenant), "text": await self._wordsmiths(caller.tenant)}
        done: list[Json] = []
        positions: dict[str, int] = {}
        for model, projector in projectors.items():
            if named in {None, model}:
                made, positions = await _rebuilt(projector)
                done.append({"model": model, **made})
        found = await asyncio.to_thread(faults, *(projector.store for projector in projectors.values()))
        return {"positions": positions, "models": done, "faults": found}

    async def _current(self, tenant: str) -> tuple[Projector, Projector, Callable[[], Awaitable[dict[str, Json]]]]:
        """Both projectors, at the end of the log if they get there in time, and what tells how far the answer goes."""
        index, text = await self._projectors(tenant), await self._wordsmiths(tenant)
        behind: dict[str, int] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                await index.caught_up()
                await text.caught_up()
        except TimeoutError:
            ours, theirs = await index.behind(), await text.behind()
            behind = {stream: max(ours.get(stream, 0), theirs.get(stream, 0)) for stream in sorted({*ours, *theirs})}

        async def freshness() -> dict[str, Json]:
            states = [await index.status(), await text.status()]
            return {"behind": behind, "faults": sum(state.faults for state in states)}

        return index, text, freshness

    async def export(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{sessions?: [id] or since?: time, withhold?: [text]} → {pack (base64), sessions, events, withheld, bytes, key}.

        Reads the log itself. What `withhold` may say is in `audit.withhold`; `withheld` is how many payloads each keeps back. The
        audit chain records who took what before the pack is handed out.
        """
        take = Params({key: value for key, value in params.items() if value is not None})
        named = take.texts("sessions") if params.get("sessions") is not None else None
        since = take.text_or_none("since")
        withhold = Withhold.parse(take.texts("withhold")) if params.get("withhold") is not None else NOTHING
        take.end()
        if named is not None and since is not None:
            raise UsageError("sessions and since exclude each other", mend="name sessions, or a time, or neither")
        if named is not None and not 1 <= len(named) <= MAX_SESSIONS:
            raise UsageError(f"parameter sessions: expected 1 to {MAX_SESSIONS} ids")
        since_ms = None if since is None else parse_moment(since, now_ms=self._clock.now_ms())
        scope = Scope(None if named is None else tuple(dict.fromkeys(named)), since_ms, withhold)
        # Behind a log that was changed there is nothing to sign, whatever is left in it.
        self._notaries.get(caller.tenant).prover.check()
        found = await gather(self._logs(caller.tenant), self._registry, tenant=caller.tenant, scope=scope)
        if not found.sessions:
            raise NotFound("there is no session to export", mend="list them: agentos ps --all")
        covered, audit = await self._cover(caller.tenant, found)
        ring = self._notaries.ring
        pack = await asyncio.to_thread(
            build_pack,
            tenant=caller.tenant,
            sessions=found.sessions,
            registry=found.registry,
            audit=audit,
            key=ring.current,
            clock=self._clock,
            exporter=caller.actor,
            scope=scope,
            covered=covered,
            not_before_ms=ring.since_ms,
        )
        withheld = await asyncio.to_thread(kept_out, withhold, found.sessions)
        entry = (await asyncio.to_thread(exported, pack, found.sessions, withheld)).entry()

        async def decide(_record: AuditRecord) -> list[Entry]:
            return [entry]

        await self._chains(caller.tenant).append(decide, actor=caller.actor, revision=self._revision(caller.tenant))
        return {
            "pack": base64.b64encode(pack).decode("ascii"),
            "sessions": len(found.sessions),
            "events": sum(len(events) for events in found.sessions.values()),
            "withheld": await asyncio.to_thread(kept_back, withhold, found.sessions),
            "bytes": len(pack),
            "key": ring.current.id,
        }

    async def public_key(self, _caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {key (id), pem}: the public key that packs of this runtime are verified with."""
        Params(params).end()
        key = self._notaries.ring.current
        return {"key": key.id, "pem": key.public_pem.decode("ascii")}

    async def _cover(self, tenant: str, found: Gathered) -> tuple[Covered, list[bytes]]:
        """Both checkpoints, of this moment, what shows that they cover what is exported, and the audit chain that they cover.

        Raises ChainBroken, Unavailable.
        """
        notary, registrar = self._notaries.get(tenant), self._notaries.get(FLEET)
        ours, theirs = await notary.now(), await registrar.now()
        proofs = [await notary.prover.cover(stream, leaves, ours) for stream, leaves in sorted(found.leaves.items())]
        audit = await gather_audit(self._logs(tenant), ours.checkpoint.tree(AUDIT_STREAM).size)
        if audit:
            leaves = {AUDIT_NAME: [stored.position - 1 for stored in audit]}
            proofs.append(await notary.prover.cover(AUDIT_STREAM, leaves, ours))
        if found.registry_leaves:
            proofs.append(await registrar.prover.cover(REGISTRY_STREAM, found.registry_leaves, theirs))
        covered = Covered(ours.note, theirs.note, self._notaries.ring.rotations, proofs)
        return covered, [stored.data for stored in audit]


async def _rebuilt(projector: Projector) -> tuple[dict[str, Json], dict[str, int]]:
    """Rebuild one read model: the digests before and after, and the positions reached."""
    try:
        before, was = await asyncio.to_thread(digest, projector.store)
    except sqlite3.DatabaseError:
        before, was = None, {}
    positions = await projector.rebuild()
    after, now = await asyncio.to_thread(digest, projector.store)
    same = before == after if was == now else None
    return {"before": before, "after": after, "same": same}, positions


def handlers(
    *,
    projectors: Projectors,
    wordsmiths: Projectors,
    logs: Callable[[str], EventLog],
    registry: EventLog,
    notaries: Notaries,
    chains: Callable[[str], AuditChain],
    revision: Callable[[str], int],
    clock: Clock,
    random: Random,
) -> Handlers:
    """The verbs of this module and of `proof_verbs` by name; see `AuditVerbs`, `ProofVerbs`."""
    proofs = ProofVerbs(notaries, logs, clock, random).handlers()
    return {**AuditVerbs(projectors, wordsmiths, logs, registry, notaries, chains, revision, clock).handlers(), **proofs}
