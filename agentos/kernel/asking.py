"""What a session asks an endpoint for: as whom, where it may go, how much it will use, until when. Pure: a function of the log.

`plan` is asked before a model call is queued, and again once it was let in, as what is declared may have changed meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentos.abi.syscall import MODEL_CALL
from agentos.kernel.admission import PoolKey, Request, Ticket
from agentos.kernel.port import AgentSpec, Configuration
from agentos.projections.session import BARRED, Call, SessionState, Step
from agentos.scheduler.declared import STANDARD, Endpoint
from agentos.scheduler.estimate import Expected, expect, tokens_of
from agentos.scheduler.routing import Asked, models_for

PREEMPTED: Final = "preempted"
"""Error code of a model call that was stopped because somebody above had waited too long."""

_FAILED: Final = frozenset({Step.DENIED, Step.REFUSED, Step.REJECTED, Step.FAILED, Step.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the next model call of a session may go, and what it is expected to use. `models` is empty where no route holds."""

    models: tuple[str, ...]
    expected: Expected


def plan(state: SessionState, configuration: Configuration) -> Plan:
    """The plan of the session's next model call; its agent is declared."""
    agent, arbitration = configuration.agents[state.agent], configuration.arbitration
    if agent.model in arbitration.model_classes:
        named = {name for route in arbitration.model_classes[agent.model].routes for name in route.models}
        most = max((arbitration.endpoints[name].max_output for name in named if name in arbitration.endpoints), default=1)
    else:
        most = endpoint_of(agent.model, configuration).max_output
    expected = _expected(state, agent, configuration, most)
    asked = Asked(state.model_calls == 0, expected.input, expected.output, state.labels)
    found = models_for(agent.model, arbitration, asked)
    return Plan(tuple(name for name in found if name in configuration.models), expected)


def endpoint_of(model: str, configuration: Configuration) -> Endpoint:
    """What is declared of a model's endpoint; one without limits if nothing is."""
    declared = configuration.arbitration.endpoints.get(model)
    return declared if declared is not None else Endpoint((configuration.tenant, model))


def asking_as(
    state: SessionState,
    configuration: Configuration,
    call: str,
    candidates: tuple[PoolKey, ...],
    now_ms: int,
    tokens: int = 1,
) -> Request:
    """The request of a session for one of `candidates`, as of its class, its program and its deadline."""
    agent = configuration.agents.get(state.agent)
    priority = class_of(state, configuration)
    within = agent.deadline_ms if agent is not None else None
    if within is None and state.deadline_ms is None:
        within = configuration.arbitration.deadlines.get(priority)
    due = [one for one in (state.deadline_ms, None if within is None else now_ms + within) if one is not None]
    return Request(
        tenant=state.tenant,
        session=state.id,
        call=call,
        agent=state.agent,
        priority=priority,
        candidates=candidates,
        program=agent.program if agent is not None else "default",
        tokens=tokens,
        deadline_ms=min(due, default=None),
        risk=failures(state) if agent is not None and agent.fail_fast else 0,
    )


def class_of(state: SessionState, configuration: Configuration) -> str:
    """The priority class that a session has of its own: its run's while the tenant may have it, or its agent's."""
    agent, allowed = configuration.agents.get(state.agent), configuration.arbitration.allowed
    if state.priority and (allowed is None or state.priority in allowed):
        return state.priority
    return agent.priority if agent is not None else STANDARD


def failures(state: SessionState) -> int:
    """How many calls of a session have failed or were not let through; of an endpoint's failures it is not to blame."""
    return sum(
        call.step in _FAILED or (call.step is Step.FINISHED and call.result is not None and call.result["is_error"] is True)
        for call in state.calls.values()
        if call.tool != MODEL_CALL or call.step in BARRED
    )


def beginning(state: SessionState) -> str:
    """What the model had said when its last call was stopped, without white space at its end; empty: nothing to go on from."""
    for call in state.calls.newest_first():
        if call.tool != MODEL_CALL:
            return ""
        if call.step is Step.FINISHED:
            return ""
        if call.step is Step.FAILED and call.error is not None and call.error.get("code") == PREEMPTED:
            return str(call.error.get("partial", "")).rstrip()
    return ""


def used_by(call: Call, expected: Expected, ticket: Ticket) -> int:
    """The tokens that a model call has used, as far as it can be told: also one that failed, if the provider bills it."""
    if call.step is Step.FINISHED and call.result is not None:
        reply = call.result["data"]
        return int(reply["input_tokens"]) + int(reply["output_tokens"])
    if ticket.billed is not None:
        return sum(ticket.billed)
    if call.error is not None and call.error.get("code") == PREEMPTED:
        return expected.input + tokens_of(len(str(call.error.get("partial", "")).encode()))
    # Answered, and of no use: whoever breaks replies, or runs out of time, pays for them as for others.
    return expected.total if ticket.lost else 0


def _expected(state: SessionState, agent: AgentSpec, configuration: Configuration, most: int) -> Expected:
    known, fresh = 0, 0
    for call in state.calls.newest_first():
        if call.tool == MODEL_CALL and call.step is Step.FINISHED and call.result is not None:
            reply = call.result["data"]
            known = int(reply["input_tokens"]) + int(reply["output_tokens"])
            break
        if call.result is not None:
            fresh += len(str(call.result["content"]))
    if not known:
        tools = [configuration.tools[name] for name in agent.tools if name in configuration.tools]
        fresh += len(agent.instructions) + len(state.goal)
        fresh += sum(len(one.description) + len(str(one.input_schema)) for one in tools)
    return expect(known=known, fresh_bytes=fresh, answered=state.output_tokens, answers=state.model_calls, most=most)
