"""The first event of a session: who is to do what, with which input, and what is known of both from the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict, Denied, NotFound, UsageError
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.provenance import place_holds
from agentos.kernel.workspace import InputFile
from agentos.scheduler.precondition import Precondition

MAX_GOAL: Final = 64 * 1024
"""Characters of a goal at most."""


def admitted(configuration: Configuration, agent: str, *, live: int) -> AgentSpec:
    """The agent of a session that is to begin, beside so many live ones of the tenant.

    Raises NotFound for an agent that is not declared, Conflict when the tenant has as many live sessions as it may.
    """
    tenant = configuration.tenant
    if agent not in configuration.agents:
        known = ", ".join(sorted(configuration.agents)) or "none"
        raise NotFound(f"no agent {agent} in tenant {tenant}", mend=f"declared agents: {known}")
    if live >= configuration.max_sessions:
        raise Conflict(
            f"tenant {tenant} has {live} live sessions and may have {configuration.max_sessions}",
            mend="wait, cancel one, or raise spec.limits.sessions of the tenant",
        )
    return configuration.agents[agent]


def urgency(
    configuration: Configuration,
    agent: AgentSpec,
    priority: str | None,
    deadline_ms: int | None,
    begin: Precondition | None = None,
) -> dict[str, Json]:
    """What a run says of its own class, of when it is due and when it may begin, for the payload of `session.created`.

    Raises UsageError for a class that is not declared, Denied for one that the tenant may not use; its agent's own is always
    allowed.
    """
    arbitration, data = configuration.arbitration, dict[str, Json]()
    if priority is not None:
        if priority not in arbitration.priorities:
            known = ", ".join(sorted(arbitration.priorities))
            raise UsageError(f"no priority class is called {priority}", mend=f"one of: {known}")
        allowed = arbitration.allowed
        if allowed is not None and priority not in allowed and priority != agent.priority:
            raise Denied(
                f"tenant {configuration.tenant} may not use the priority class {priority}",
                mend=f"one of: {', '.join(sorted(allowed | {agent.priority}))}; spec.priorityClasses of the tenant says so",
            )
        data["priority"] = priority
    if deadline_ms is not None:
        data["deadline_ms"] = deadline_ms
    if begin is not None and (deferred := begin.to_dict()):
        data["deferred"] = deferred
    return data


def opening(
    agent: AgentSpec, goal: str, inputs: Sequence[InputFile], labels: Sequence[str], file_labels: Mapping[str, Sequence[str]]
) -> dict[str, Json]:
    """The payload of `session.created`.

    `labels` are on the session at once, `file_labels` on the input files below a place (`.`: all); what the Agent declares is
    added to both. Raises UsageError for labels of a place where no input file is.
    """
    for place in sorted(file_labels):
        if not any(place_holds(place, item.path) for item in inputs):
            raise UsageError(f"no input file at {place!r} could carry a label", mend="name a file or folder of the input, or .")
    data: dict[str, Json] = {"agent": agent.name, "goal": goal, "inputs": []}
    for item in inputs:
        places = [*agent.file_labels.items(), *file_labels.items()]
        found = sorted({label for place, named in places if place_holds(place, item.path) for label in named})
        data["inputs"].append({**item.to_dict(), "labels": found} if found else item.to_dict())
    carried = sorted({*agent.goal_labels, *labels})
    return {**data, "labels": carried} if carried else data
