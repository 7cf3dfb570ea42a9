"""A Trigger as it is declared, and as the kernel has it."""

from __future__ import annotations

from collections.abc import Mapping

from agentos.abi.canonical import Json
from agentos.abi.resource import Resource
from agentos.kernel.firing import Arrival, Cron, Missed, Overlap, RunEnd, Signal, Source, Subject, TriggerSpec, Webhook
from agentos.scheduler.cron import schedule


def trigger_spec(resource: Resource) -> TriggerSpec:
    """What a Trigger declares."""
    spec = resource.spec
    seconds = spec.get("deadlineSeconds")
    return TriggerSpec(
        name=resource.key.name,
        agent=spec.get("agent", ""),
        goal=spec.get("goal", ""),
        on=_source(spec["on"]),
        overlap=Overlap(spec.get("overlap", Overlap.SKIP)),
        labels=tuple(spec.get("labels", ())),
        priority=spec.get("priorityClass"),
        deadline_ms=None if seconds is None else seconds * 1000,
        daemon=spec.get("daemon", ""),
        digest=resource.digest(),
    )


def _source(on: Mapping[str, Json]) -> Source:
    kind, told = next(iter(on.items()))
    match kind:
        case "cron":
            return Cron(schedule(told["schedule"], told.get("timeZone", "UTC")), Missed(told.get("missed", Missed.LAST)))
        case "subject":
            return Subject(told["name"])
        case "webhook":
            return Webhook(told["path"], told["secretEnv"], told.get("scheme", "standard"))
        case "workspace":
            return Arrival(told["space"], told["glob"])
        case "run":
            return RunEnd(tuple(told["agents"]), tuple(told.get("outcomes", ("finished",))))
        case _:
            return Signal(told["name"])
