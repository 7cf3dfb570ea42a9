"""The question that policy is asked about one syscall, and the same question rebuilt from the log.

`question` makes the document (`schemas/v1/policy-input.json`) from the folded session; the gate asks it, and `recorded` makes it
again from the events, byte for byte, so that a decision can be explained and tried under other policies long afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.event import Event
from agentos.projections.session import Call, SessionState, fold


def question(
    state: SessionState,
    *,
    agent: Mapping[str, Json],
    call: Mapping[str, Json],
    revision: int,
    now_ms: int,
) -> dict[str, Json]:
    """The policy input for a call of the session as it stands before the decision.

    `agent` is `{name, labels}`; `call` is `{call, tool, effect, args, args_digest}`. An approval that the call has is part of it.
    """
    known = state.calls.get(call["call"])
    return {
        "abi": "agentos/v1",
        "syscall": {key: call[key] for key in ("tool", "effect", "args", "args_digest")},
        "agent": dict(agent),
        "session": {
            "id": state.id,
            "tenant": state.tenant,
            "actor": state.actor,
            "labels": sorted(state.labels),
            "delegation": [],
        },
        "budget": {"calls": state.tool_calls, "tokens": state.input_tokens + state.output_tokens},
        "approvals": [_approval(known)] if known is not None and known.approval is not None else [],
        "config_revision": revision,
        "now": now_ms,
    }


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision as the log has it: where, what was asked, what was answered, under which policy."""

    session: str
    call: str
    seq: int
    time_ms: int
    policy_digest: str | None
    question: Mapping[str, Json] = field(hash=False)
    decision: Mapping[str, Json] = field(hash=False)


def recorded(events: Iterable[Event]) -> Iterator[Recorded]:
    """Every decision of one session, from its events in order."""
    state = SessionState()
    for event in events:
        if event.type == ev.SYSCALL_DECIDED:
            data = event.data
            asked = question(state, agent=data["agent"], call=data, revision=event.config_revision, now_ms=data["now"])
            yield Recorded(event.subject, data["call"], event.seq, event.time_ms, event.policy_digest, asked, data["decision"])
        state = fold(state, event)


def _approval(call: Call) -> dict[str, Json]:
    approval = call.approval or {}
    return {
        "tool": call.tool,
        "args_digest": call.args_digest,
        "by": approval["by"],
        "reason": approval["reason"],
    }
