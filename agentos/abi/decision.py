"""A decision: what policy said about one syscall, and nothing else (`schemas/v1/policy-decision.json`).

Reading is strict: whatever is not exactly a decision is `deny`, never a guess. Records of decisions that were made before they
named their grants have no `grants`, which says nothing about what they rested on (`agrees`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeGuard

from agentos.abi.canonical import Json
from agentos.abi.ids import is_name
from agentos.abi.obligation import MOST, Obligation, parse_obligation

FAILED: Final = "policy.failed"
"""The rule of a denial that stands for no decision at all: policy gave none, or none that can be read."""

MOST_GRANTS: Final = 100
"""Grants that one decision may name."""


class Verdict(StrEnum):
    """The `effect` of a decision, strictest first: `halt` also stops the session."""

    HALT = "halt"
    DENY = "deny"
    ASK = "ask"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. `rules` are ids of the rules that fired; `observed` fired in `warn` or `dryrun` and bind nothing.

    `obligations` bind the runtime: a call that they cannot be met for is not made. `grants` are the names of the ToolGrants that
    an `allow` or an `ask` rests on, sorted, each once; of more than `MOST_GRANTS` the first.
    """

    effect: Verdict
    rules: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    observed: tuple[Mapping[str, str], ...] = ()
    obligations: tuple[Obligation, ...] = ()
    grants: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether this is a denial because policy gave no decision."""
        return self.rules == (FAILED,)

    def obliged(self, *kinds: str) -> tuple[Obligation, ...]:
        """The obligations of these kinds, in order."""
        return tuple(one for one in self.obligations if one.kind in kinds)

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape of the decision, as stored in the log."""
        body: dict[str, Json] = {
            "effect": str(self.effect),
            "rules": list(self.rules),
            "reasons": list(self.reasons),
        }
        if self.observed:
            body["observed"] = [dict(item) for item in self.observed]
        if self.obligations:
            body["obligations"] = [one.to_dict() for one in self.obligations]
        if self.grants:
            body["grants"] = list(self.grants)
        return body

    def agrees(self, recorded: Mapping[str, Json]) -> bool:
        """Whether `recorded`, the JSON shape of a decision as the log has it, is this decision."""
        again = self.to_dict()
        if "grants" not in recorded:
            again.pop("grants", None)
        return again == dict(recorded)


def deny(rule: str, reason: str) -> Decision:
    """A denial made by the runtime itself, where policy could not decide."""
    return Decision(Verdict.DENY, (rule,), (reason,))


_KEYS = frozenset({"effect", "rules", "reasons", "observed", "obligations", "grants"})

_LETS: Final = frozenset({Verdict.ALLOW, Verdict.ASK})
"""What a call can go through by."""


def parse_decision(value: Json) -> Decision:
    """Read what the policy engine answered. Anything but a whole decision is a denial that says so."""
    if not isinstance(value, dict):
        return _malformed("policy answered with something that is not a decision")
    unknown = sorted(set(value) - _KEYS)
    if unknown:
        return _malformed(f"policy answered with unknown fields: {', '.join(unknown)}")
    effect, rules, reasons = value.get("effect"), value.get("rules"), value.get("reasons")
    observed, bound, grants = value.get("observed", []), value.get("obligations", []), value.get("grants", [])
    if not _effect(effect) or not _texts(rules) or not _texts(reasons) or not _observations(observed):
        return _malformed("policy answered with a malformed decision")
    if effect != Verdict.ALLOW and not rules:
        return _malformed(f"policy answered {effect} without naming a rule")
    if not isinstance(bound, list) or len(bound) > MOST:
        return _malformed(f"policy answered with obligations that are no list of at most {MOST}")
    if not _names(grants):
        return _malformed(f"policy answered with grants that are no sorted list of at most {MOST_GRANTS} names")
    if grants and effect not in _LETS:
        return _malformed(f"policy answered {effect} and names grants that it rests on")
    obligations = []
    for one in bound:
        obligation = parse_obligation(one)
        if obligation is None:
            return _malformed(f"policy answered with an obligation that this runtime does not know: {str(one)[:200]}")
        obligations.append(obligation)
    return Decision(Verdict(effect), tuple(rules), tuple(reasons), tuple(observed), tuple(obligations), tuple(grants))


def _malformed(reason: str) -> Decision:
    return deny(FAILED, reason)


def _effect(value: Json) -> TypeGuard[str]:
    return isinstance(value, str) and value in set(Verdict)


def _texts(value: Json) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _names(value: Json) -> TypeGuard[list[str]]:
    """Sorted, each once."""
    return (
        isinstance(value, list)
        and len(value) <= MOST_GRANTS
        and all(isinstance(item, str) and is_name(item) for item in value)
        and value == sorted(set(value))
    )


def _observations(value: Json) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict) and all(isinstance(text, str) for text in item.values()) for item in value
    )
