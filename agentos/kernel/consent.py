"""Consent: which yeses of people a decision rests on, and how many a question still needs.

Whether a call is approved is for policy to say. Here is told which approvals it can have meant, for the log and for those who
wait; the conditions are those of `policies/agentos/syscall/main.rego`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision
from agentos.projections.question import approvals
from agentos.projections.session import SessionState

APPROVED: Final = "syscall.approved"
"""The rule that says that people let a call through."""

_GRANTS: Final = "grants."
_ASKING_GRANTS: Final = ("grants.approval", "grants.delegator-approval")
"""Of the rules about grants, which alone can allow a call, those that begin so ask about it."""

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


def relied_on(given: Iterable[Mapping[str, Json]], decision: Decision) -> list[dict[str, Json]]:
    """The approvals under which policy allowed a call, as few as it needed: `[{call, by, reason, scope}]`.

    Policy counts a yes when it was given to all rules that ask now. A decision names those that only oblige beside them, and they
    always bring an obligation: so a rule without one asks for sure, and a yes that was not given to it is none. For the others,
    whoever was asked by more of what is named now is relied on first.
    """
    if APPROVED not in decision.rules:
        return []
    named = {rule for rule in decision.rules if rule != APPROVED and not _allows(rule)}
    asking = named - {one.rule for one in decision.obligations}
    people: dict[str, dict[str, Json]] = {}
    for one in sorted((one for one in given if asking <= set(one["rules"])), key=lambda one: len(named - set(one["rules"]))):
        if len(people) < needed(decision):
            people.setdefault(one["by"], {key: one[key] for key in _KEPT})
    return list(people.values())


def _allows(rule: str) -> bool:
    return rule.startswith(_GRANTS) and not rule.startswith(_ASKING_GRANTS)
