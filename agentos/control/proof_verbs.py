"""The verbs of tamper evidence: audit.checkpoint, audit.prove, audit.verify, audit.keys, audit.rotate.

The log is read again by a run of its own, which may take minutes: `audit.verify` starts it, or waits a moment for one that runs,
and says how far it is; whoever asks goes on asking until it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, ChainBroken, Conflict, Denied, NotFound, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.ids import FLEET, Clock, Random, new_id
from agentos.audit.checkpoint import Checkpoint, open_checkpoint
from agentos.audit.keyring import KeyRing
from agentos.audit.note import Verifier
from agentos.audit.proof import is_withheld, with_payload
from agentos.audit.prover import MEND, Prover, Signed
from agentos.audit.query import parse_moment
from agentos.audit.recheck import Progress, Recheck, Rechecked
from agentos.audit.rotation import Rotation
from agentos.audit.tiles import Place
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import is_session_stream

WAIT_S: Final = 1.0
"""How long one request waits for a run to end, in seconds."""

KEPT: Final = 8
"""Runs of one tenant whose outcome is kept to be asked for."""

AT_ONCE: Final = 4
"""Logs that are read at one time; whoever comes beyond waits, and is told the same as whoever is read slowly."""

MAX_NOTE: Final = 100_000
"""Longest note taken, in characters."""


class Notary(Protocol):
    """Keeps one log under checkpoints."""

    @property
    def prover(self) -> Prover:
        """Its trees and its last checkpoint."""

    async def now(self) -> Signed:
        """A checkpoint over all that is in the log now. Raises ChainBroken, Unavailable."""


class Notaries(Protocol):
    """The notaries of the runtime."""

    @property
    def ring(self) -> KeyRing:
        """The signing keys."""

    def get(self, tenant: str) -> Notary:
        """The notary of `tenant` (`*`: the registry's). Raises NotFound."""

    async def rotate(self) -> Rotation:
        """Replace the signing key."""


@dataclass(slots=True)
class _Run:
    tenant: str
    progress: Progress
    task: asyncio.Task[Rechecked] = field(init=False)


class ProofVerbs:
    """The verbs; see `handlers`. `logs` give a tenant's log with its payloads opened; the notaries' own may hold them sealed."""

    def __init__(self, notaries: Notaries, logs: Callable[[str], EventLog], clock: Clock, random: Random) -> None:
        self._notaries = notaries
        self._logs = logs
        self._clock = clock
        self._random = random
        self._runs: dict[str, _Run] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "audit.checkpoint": self.checkpoint,
            "audit.keys": self.keys,
            "audit.prove": self.prove,
            "audit.rotate": self.rotate,
            "audit.verify": self.verify,
        }

    async def checkpoint(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{now?} → {note, origin, number, time, streams: {stream: events}}: the last checkpoint, or one of this moment."""
        take = Params(params)
        now = take.flag("now")
        take.end()
        notary = self._notaries.get(caller.tenant)
        signed = await notary.now() if now else notary.prover.last
        if signed is None:
            raise NotFound("there is no checkpoint yet", mend="agentos audit checkpoint --now")
        point = signed.checkpoint
        return {
            "note": signed.note,
            "origin": point.origin,
            "number": point.number,
            "time": rfc3339(point.time_ms),
            "streams": {name: tree.size for name, tree in sorted(point.streams.items())},
        }

    async def prove(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{event: its id, or SESSION#NUMBER, withhold?} → {proof, withheld}, as `schemas/v1/event-proof.json` has it.

        `withheld` says whether the proof holds the header alone: as `withhold` asked, or as the payload was erased.
        """
        take = Params(params)
        event, withhold = take.text("event", longest=256), take.flag("withhold")
        take.end()
        notary = self._notaries.get(caller.tenant)
        prover = notary.prover
        prover.check()
        if "#" not in event:
            # An event of this very moment has no leaf before it was read.
            await notary.now()
        place = await prover.place_of(event)
        last = prover.last
        if last is None or last.checkpoint.tree(place.stream).size <= place.leaf:
            await notary.now()
        proof = await prover.prove(place)
        record = None if withhold or not is_session_stream(place.stream) else await self._record(caller.tenant, place)
        if record is not None:
            try:
                proof = with_payload(proof, record)
            except ValueError as error:
                where = f"{place.stream} position {place.leaf + 1}"
                raise ChainBroken(f"the payload is not the header's: {error}", where=where, mend=MEND) from error
        return {"proof": proof, "withheld": is_withheld(proof)}

    async def _record(self, tenant: str, place: Place) -> bytes | None:
        async with aclosing(self._logs(tenant).scan(place.stream, after=place.leaf)) as events:
            async for stored in events:
                return stored.data if stored.position == place.leaf + 1 else None
        return None

    async def verify(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{since?: number, time or note} or {run} → {run, done, read, total, report?}: ask with `run` until it is `done`.

        `report` is what `schemas/v1/audit-verification.json` describes.
        """
        take = Params(params)
        name, since = take.text_or_none("run"), take.text_or_none("since", longest=MAX_NOTE)
        take.end()
        if name is not None and since is not None:
            raise UsageError("run and since exclude each other")
        if name is None:
            name = await self._start(caller.tenant, since)
        run = self._runs.get(name)
        if run is None or run.tenant != caller.tenant:
            raise NotFound(f"there is no verification {name}", mend="start one: agentos audit verify")
        await asyncio.wait([run.task], timeout=WAIT_S)
        answer: dict[str, Json] = {"run": name, "done": run.task.done(), "read": run.progress.read, "total": run.progress.total}
        if run.task.done():
            answer["report"] = (await self._outcome(run)).to_dict()
        return answer

    async def keys(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {origin, keys: [{key, verifier, from, until}], rotations: [note]}: all signing keys, oldest first. Public."""
        Params(params).end()
        origin, ring = self._notaries.get(caller.tenant).prover.origin, self._notaries.ring
        keys = [
            {
                "key": key.id,
                "verifier": Verifier(origin, key.public).text,
                "from": None if key.from_ms is None else rfc3339(key.from_ms),
                "until": None if key.until_ms is None else rfc3339(key.until_ms),
            }
            for key in ring.trusted
        ]
        return {"origin": origin, "keys": keys, "rotations": list(ring.rotations)}

    async def rotate(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {old, new, time, note}: a new signing key, from now on, vouched for by the old one."""
        Params(params).end()
        if not caller.fleet:
            raise Denied(
                f"{caller.name} may not audit.rotate",
                rules=("tenant.fleet",),
                reasons=("the signing key is that of the whole fleet; only a principal of the fleet can replace it",),
            )
        old = self._notaries.ring.current.id
        try:
            rotation = await self._notaries.rotate()
        except OSError as error:
            raise AgentOSError(f"the new key cannot be written: {error.strerror}", where=error.filename) from error
        return {"old": old, "new": self._notaries.ring.current.id, "time": rfc3339(rotation.time_ms), "note": rotation.note}

    async def _start(self, tenant: str, since: str | None) -> str:
        prover = self._notaries.get(tenant).prover
        number, witness = await self._since(prover, since)
        if any(run.tenant == tenant and not run.task.done() for run in self._runs.values()):
            raise Conflict("the log of this tenant is being verified already", mend="wait until that is done")
        # Each tenant has its own: what is kept of others, and how many of them are at it, nobody is told.
        mine = [name for name, run in self._runs.items() if run.tenant == tenant]
        for old in mine[: max(0, len(mine) - KEPT + 1)]:
            del self._runs[old]
        name = new_id("v", self._clock, self._random)
        run = self._runs[name] = _Run(tenant, Progress())
        recheck = Recheck(prover, run.progress, records=self._records(tenant))
        run.task = asyncio.create_task(self._in_turn(recheck, number, witness), name=f"verify {tenant}")
        return name

    async def _in_turn(self, recheck: Recheck, number: int, witness: Checkpoint | None) -> Rechecked:
        async with self._places:
            return await recheck.run(number, witness)

    def _records(self, tenant: str) -> EventLog | None:
        """The log with its payloads opened; the registry's has none apart."""
        return None if tenant == FLEET else self._logs(tenant)

    async def _since(self, prover: Prover, since: str | None) -> tuple[int, Checkpoint | None]:
        """The checkpoint at which to begin (0: at the beginning), and the one that was brought along from outside."""
        if since is None:
            return 0, None
        if "\n" in since:
            witness = open_checkpoint(since, prover.ring.trusted)
            if witness.origin != prover.origin:
                raise UsageError(f"that is a checkpoint of {witness.origin}, this log is {prover.origin}")
            last = 0 if prover.last is None else prover.last.checkpoint.number
            return min(witness.number, last), witness
        if since.isdecimal() and since.isascii():
            return int(since[:18]), None
        return await asyncio.to_thread(prover.tiles.checkpoint_before, parse_moment(since, now_ms=self._clock.now_ms())), None

    async def _outcome(self, run: _Run) -> Rechecked:
        outcome = run.task.result()
        prover = self._notaries.get(run.tenant).prover
        if outcome.findings:
            prover.raise_alarm(outcome.findings[0])
        elif outcome.trees_broken and prover.alarm is None:
            await prover.rebuild()
        return outcome
