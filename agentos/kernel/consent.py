"""Consent: which yeses of people a decision rests on, and how many a question still needs.

Whether a call is approved is for policy to say. Here is told which approvals it can have meant, for the log and for those who
wait; the conditions are those of `policies/agentos/syscall/main.rego`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision
from agentos.projections.question import approvals
from agentos.projections.session import SessionState

APPROVED: Final = "syscall.approved"
"""The rule that says that people let a call through."""

_KEPT: Final = ("call", "by", "reason", "scope")


def needed(decision: Decision) -> int:
    """How many different people have to approve."""
    return max([1, *(int(one.fields["count"]) for one in decision.obliged("approvers"))])


def counting(
    state: SessionState, call: str, tool: str, args_digest: str, policy_digest: str, now_ms: int
) -> Iterator[Mapping[str, Json]]:
    """The approvals that may count for a call: this call's own with these arguments, or the session's with a use left."""
    for one in approvals(state, call, tool):
        if one["tool"] != tool or one["policy_digest"] != policy_digest or one["expires"] <= now_ms:
            continue
        if one["args_digest"] == args_digest if one["scope"] == "once" else one["used"] < one["max_uses"]:
            yield one


def relied_on(given: Iterator[Mapping[str, Json]], decision: Decision) -> list[dict[str, Json]]:
    """The approvals under which policy allowed a call, as few as it needed: `[{call, by, reason, scope}]`."""
    if APPROVED not in decision.rules:
        return []
    people: dict[str, dict[str, Json]] = {}
    for one in given:
        # One for the session is for the rules that asked then: without any of them now, it is not what was meant.
        if len(people) < needed(decision) and (one["scope"] == "once" or not set(one["rules"]).isdisjoint(decision.rules)):
            people.setdefault(one["by"], {key: one[key] for key in _KEPT})
    return list(people.values())
