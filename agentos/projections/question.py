"""The question that policy is asked about one syscall, and the same question rebuilt from the log.

`question` makes the document (`schemas/v1/policy-input.json`) from the folded session; the gate asks it, and `recorded` makes it
again from the events, byte for byte, so that a decision can be explained and tried under other policies long afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.event import Event
from agentos.projections.session import SessionState, fold


def question(
    state: SessionState,
    *,
    agent: Mapping[str, Json],
    call: Mapping[str, Json],
    revision: int,
    policy_digest: str | None,
    now_ms: int,
    spent: Sequence[str] = (),
) -> dict[str, Json]:
    """The policy input for a call of the session as it stands before the decision.

    `spent` are the digests of grants that have no use left.

    `agent` is `{name, labels}`; `call` is `{call, tool, effect, args, args_digest}`. The approvals that the call has, and those
    of the session that are for its tool, are part of it; whether they cover it is for policy to say.
    """
    return {
        "abi": "agentos/v1",
        "syscall": {key: call[key] for key in ("tool", "effect", "args", "args_digest")},
        "agent": dict(agent),
        "session": {
            "id": state.id,
            "tenant": state.tenant,
            "actor": state.actor,
            "labels": sorted(state.labels),
            **_delegation(state, call["call"]),
            "unknown": sorted({state.calls[one].tool for one in state.lost}),
        },
        "budget": {"calls": state.tool_calls, "tokens": state.input_tokens + state.output_tokens},
        "approvals": [_approval(one) for one in approvals(state, call["call"], call["tool"])],
        "config_revision": revision,
        "policy_digest": policy_digest or "",
        "spent": list(spent),
        "now": now_ms,
    }


def _delegation(state: SessionState, call: str) -> dict[str, Json]:
    """For whom the session acts, and how many others it has set to work; of what there is not, only the empty `delegation`.

    The children of this very call are not among those: one that is decided again, or after a crash, asks for no more of them.
    """
    begun = sum(len(children) for other, children in state.delegations.items() if other != call)
    told: dict[str, Json] = {"delegation": []}
    if state.delegated is not None:
        told = {"delegation": list(state.delegated["lineage"]), "delegators": list(state.delegated["delegators"])}
        if state.delegated["tools"] is not None:
            told["tools"] = list(state.delegated["tools"])
    return told | ({"children": begun} if begun else {})


def approvals(state: SessionState, call: str, tool: str) -> Iterator[Mapping[str, Json]]:
    """The yeses that policy hears of for a call: those given to it, then those given for the session to its tool."""
    known = state.calls.get(call)
    own = known.approvals if known is not None else ()
    yield from own
    yield from (one for one in state.approvals if one["tool"] == tool and one["call"] != call)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision as the log has it: where, what was asked, what was answered, under which policy.

    `policy_decision` is what policy answered; `decision` is what came of it, a denial where an obligation could not be met.
    """

    session: str
    call: str
    seq: int
    time_ms: int
    policy_digest: str | None
    question: Mapping[str, Json] = field(hash=False)
    decision: Mapping[str, Json] = field(hash=False)
    policy_decision: Mapping[str, Json] = field(hash=False)


def recorded(events: Iterable[Event]) -> Iterator[Recorded]:
    """Every decision of one session, from its events in order."""
    state = SessionState()
    for event in events:
        if event.type == ev.SYSCALL_DECIDED:
            data = event.data
            asked = question(
                state,
                agent=data["agent"],
                call=data,
                revision=event.config_revision,
                policy_digest=event.policy_digest,
                now_ms=data["now"],
                spent=data.get("spent") or (),
            )
            yield Recorded(
                session=event.subject,
                call=data["call"],
                seq=event.seq,
                time_ms=event.time_ms,
                policy_digest=event.policy_digest,
                question=asked,
                decision=data["decision"],
                policy_decision=data["overruled"] if "overruled" in data else data["decision"],
            )
        state = fold(state, event)


_TOLD = ("tool", "args_digest", "by", "reason", "at", "expires", "policy_digest", "scope", "rules")


def _approval(approval: Mapping[str, Json]) -> dict[str, Json]:
    return {**{key: approval[key] for key in _TOLD}, "uses_left": max(0, approval["max_uses"] - approval["used"])}
