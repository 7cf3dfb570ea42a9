"""The verbs about triggers: trigger.list, get, fire, pause, resume, reset.

Who switches one off or on is recorded in the tenant's audit chain, and that is where the runtime reads it. Who fires one by hand
is the actor of the run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.ids import Clock, Random, is_name, new_id
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, switched_entry
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.kernel.firing import (
    MANUAL,
    Arrival,
    Cron,
    Fired,
    Firing,
    RunEnd,
    Source,
    Subject,
    TriggerSpec,
    Webhook,
)
from agentos.supervisor.launch import PastRun
from agentos.supervisor.triggers import Standing

MAX_REASON: Final = 2000
MAX_GIVEN: Final = 512 * 1024
"""Bytes of a payload that is given by hand."""

MOST_NEXT: Final = 100
LAST_RUNS: Final = 10


class Engine(Protocol):
    """The triggers (`supervisor.triggers.Triggers`)."""

    async def fire(self, tenant: str, firing: Firing) -> Fired:
        """Start the run of a firing."""

    async def standing(self, tenant: str, *, upcoming: int = 1) -> list[Standing]:
        """Each trigger as it stands, by name."""

    def known(self, tenant: str, name: str) -> TriggerSpec:
        """A trigger that is declared or built in. Raises NotFound."""

    async def reset(self, tenant: str, name: str) -> None:
        """Begin its record anew."""

    def changed(self) -> None:
        """Something was switched."""


class TriggerVerbs:
    """The verbs; see `handlers`.

    `runs` gives the newest runs of a trigger, `chains` a tenant's audit chain, `revision` the one in force for it.
    """

    def __init__(
        self,
        engine: Engine,
        runs: Callable[[str, str, int], Awaitable[Sequence[PastRun]]],
        chains: Callable[[str], AuditChain],
        revision: Callable[[str], int],
        clock: Clock,
        random: Random,
    ) -> None:
        self._engine = engine
        self._runs = runs
        self._chains = chains
        self._revision = revision
        self._clock = clock
        self._random = random

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "trigger.list": self.list,
            "trigger.get": self.get,
            "trigger.fire": self.fire,
            "trigger.pause": self.pause,
            "trigger.resume": self.resume,
            "trigger.reset": self.reset,
        }

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{next?} → {triggers: [row]}, by name; each row with the times of its schedule that come next, `next` at most.

        A row: {name, agent, daemon?, kind, on, overlap, paused, built_in, next: [time], started, skipped, failed, missed, open,
        running, at_work?, last?: {id, at, outcome, session, why}}, or `unreadable` in place of the counts.
        """
        take = Params(params)
        upcoming = take.number("next", default=1, highest=MOST_NEXT)
        take.end()
        found = await self._engine.standing(caller.tenant, upcoming=upcoming)
        return {"triggers": [_row(one) for one in found]}

    async def get(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{name, next?} → its row, with {goal, labels, runs: [{session, firing, state, created}]}, the newest first."""
        take = Params(params)
        name, upcoming = _name(take), take.number("next", default=5, highest=MOST_NEXT)
        take.end()
        spec = self._engine.known(caller.tenant, name)
        found = await self._engine.standing(caller.tenant, upcoming=upcoming)
        row = next((_row(one) for one in found if one.spec.name == name), {"name": name})
        runs = [] if spec.daemon else await self._runs(caller.tenant, name, LAST_RUNS)
        told: list[Json] = [
            {"session": run.session, "firing": run.firing, "state": run.state, "created": rfc3339(run.created_ms)} for run in runs
        ]
        return {**row, "goal": spec.goal, "labels": list(spec.labels), "runs": told}

    async def fire(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Fire one by hand, also if it is switched off: {name, id?, payload? (base64), content_type?} →
        {trigger, id, outcome, session?, why, again}. The same `id` again starts nothing.
        """
        take = Params(params)
        name, which, payload = _name(take), take.text_or_none("id", longest=200), _payload(take)
        kind = take.text_or_none("content_type", longest=200) or "application/octet-stream"
        take.end()
        # One that a person has chosen may be words: the blank has it kept as a digest.
        which = f"by hand {which}" if which else new_id("m", self._clock, self._random)
        firing = Firing(name, which, self._clock.now_ms(), MANUAL, payload, kind, actor=caller.actor)
        fired = await self._engine.fire(caller.tenant, firing)
        return {
            "trigger": name,
            "id": firing.name,
            "outcome": str(fired.outcome),
            "session": fired.session,
            "why": fired.why,
            "again": fired.again,
        }

    async def pause(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Have one fire no more until it is resumed: {name, reason} → {name, paused}. Conflict if it is paused already."""
        return await self._switch(caller, params, on=False)

    async def resume(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Have one fire again; what it would have had meanwhile is not made up for: {name, reason} → {name, paused}."""
        return await self._switch(caller, params, on=True)

    async def reset(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Begin the record of one anew, for instance one that cannot be read: {name} → {name}. The log keeps what it started."""
        take = Params(params)
        name = _name(take)
        take.end()
        await self._engine.reset(caller.tenant, name)
        return {"name": name}

    async def _switch(self, caller: Caller, params: dict[str, Json], *, on: bool) -> Json:
        take = Params(params)
        name, reason = _name(take), take.text("reason", longest=MAX_REASON)
        take.end()
        self._engine.known(caller.tenant, name)

        async def entry(record: AuditRecord) -> tuple[Entry, ...]:
            before = record.switched.get(("trigger", name))
            if (before is None or before.on) is on:
                raise Conflict(f"trigger {name} is {'not paused' if on else 'paused already'}")
            return (switched_entry("trigger", name, reason, on=on),)

        await self._chains(caller.tenant).append(entry, actor=caller.actor, revision=self._revision(caller.tenant))
        self._engine.changed()
        return {"name": name, "paused": not on}


def _name(take: Params) -> str:
    name = take.text("name", longest=63)
    if not is_name(name):
        raise UsageError("parameter name: expected the name of a trigger")
    return name


def _payload(take: Params) -> bytes | None:
    text = take.text_or_none("payload", longest=MAX_GIVEN * 4 // 3 + 4)
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise UsageError("parameter payload: expected base64") from error


def _row(one: Standing) -> dict[str, Json]:
    spec, progress = one.spec, one.progress
    row: dict[str, Json] = {
        "name": spec.name,
        "agent": spec.agent or None,
        "daemon": spec.daemon or None,
        "kind": spec.kind,
        "on": _on(spec.on),
        "overlap": str(spec.overlap),
        "paused": not one.on,
        "built_in": one.built_in,
        "at_work": one.at_work,
        "next": [rfc3339(time) for time in one.upcoming],
    }
    if progress is None:
        return {**row, "unreadable": True}
    last = progress.last
    return {
        **row,
        "started": progress.started,
        "skipped": progress.skipped,
        "failed": progress.failed,
        "missed": progress.missed,
        "open": len(progress.open),
        "running": len(progress.live),
        "last": None
        if last is None
        else {
            "id": last["id"],
            "at": rfc3339(last["at_ms"]),
            "outcome": last["outcome"],
            "session": last["session"],
            "why": last["why"],
        },
    }


def _on(source: Source) -> dict[str, Json]:
    match source:
        case Cron(schedule, missed):
            return {"schedule": schedule.expression, "timeZone": schedule.zone, "missed": str(missed)}
        case Subject(name):
            return {"name": name}
        case Webhook(path, secret_env, scheme):
            return {"path": path, "secretEnv": secret_env, "scheme": scheme}
        case Arrival(space, glob):
            return {"space": space, "glob": glob}
        case RunEnd(agents, outcomes):
            return {"agents": list(agents), "outcomes": list(outcomes)}
        case _:
            return {"name": source.name}
