"""A ruling: what holds for one call once policy has been asked often enough.

A decision may oblige the runtime to rewrite the arguments. The call is then another call, so it is checked and decided again,
until a decision leaves its arguments as they are. What the runtime cannot do as it is obliged to becomes a denial.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agentos.abi.canonical import Json, digest_of
from agentos.abi.decision import Decision, Verdict
from agentos.abi.obligation import REWRITES, Obligation
from agentos.kernel.rewrite import Change, rewrite

MOST_AGAIN: Final = 4
"""How often a call is decided again because its arguments were rewritten."""

_TOLD: Final = ("label", "notify")
"""What still binds when a call is not made."""

_LASTING: Final = (*_TOLD, "sandbox", "redact", "mask")
"""What a decision that led to a rewrite still asks of the rewritten call (of redact and mask: in its result). The others count or
ask about the call as it is made, which the next decision is about."""

Decide = Callable[[dict[str, Json], str], Awaitable[Decision]]
"""Asks policy about the call with these arguments and their digest."""

Check = Callable[[dict[str, Json]], str | None]
"""None if arguments may be acted on, else what does not fit."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The arguments to act on, and what was decided about them.

    `policy` is the decision as policy gave it; `decision` is what came of it, another one only where the runtime had to deny.
    `carried` are obligations of earlier decisions, about the arguments before they were rewritten, that still bind.
    """

    args: dict[str, Json] = field(hash=False)
    args_digest: str
    policy: Decision
    decision: Decision
    rewritten: tuple[Change, ...] = ()
    carried: tuple[Obligation, ...] = ()

    def obliged(self, *kinds: str) -> tuple[Obligation, ...]:
        """All obligations of these kinds that bind."""
        if not self.decision.obligations and not self.carried:
            return ()
        return (*self.decision.obliged(*kinds), *(one for one in self.carried if one.kind in kinds))

    @property
    def in_result(self) -> tuple[Obligation, ...]:
        """Those that rewrite the result."""
        return _in("result", self.obliged("redact", "mask"))

    def denied(self, kind: str, reason: str) -> Ruling:
        """The same call, denied because an obligation of this kind could not be met."""
        decision = replace(
            self.policy,
            effect=Verdict.DENY,
            rules=(f"obligation.{kind}",),
            reasons=(reason,),
            obligations=self.policy.obliged(*_TOLD),
            grants=(),
        )
        return replace(self, decision=decision, carried=tuple(one for one in self.carried if one.kind in _TOLD))


async def rule(decide: Decide, args: dict[str, Json], args_digest: str, check: Check) -> Ruling:
    """Ask policy about a call until its arguments settle."""
    problem: tuple[str, str] | None = None
    rewritten: list[Change] = []
    carried: list[Obligation] = []
    for _ in range(1 + MOST_AGAIN):
        decision = await decide(args, args_digest)
        if not decision.obligations or decision.effect in {Verdict.HALT, Verdict.DENY}:
            break
        new = rewrite(args, [*decision.obliged("cap"), *_in("args", decision.obliged("redact", "mask"))])
        if new.unmet and problem is None:
            obligation, why = new.unmet[0]
            problem = obligation.kind, f"rule {obligation.rule} obliges to what cannot be done: {why}"
        if not new.changes:
            break
        rewritten += new.changes
        carried += [one for one in decision.obliged(*_LASTING) if one.fields.get("in") != "args"]
        args, args_digest = new.value, digest_of(new.value)
        misfit = check(args)
        if misfit is not None and problem is None:
            problem = "rewrite", f"the arguments, rewritten for {_rules(new.changes)}, do not fit the tool any more: {misfit}"
    else:
        problem = (
            "rewrite",
            f"the arguments were rewritten {1 + MOST_AGAIN} times (by {_rules(new.changes)}) and still do not settle",
        )
    if not rewritten and problem is None:
        return Ruling(args, args_digest, decision, decision)
    still = tuple(one for one in _each_once(carried) if one not in decision.obligations)
    ruling = Ruling(args, args_digest, decision, decision, tuple(rewritten), still)
    if decision.effect in {Verdict.HALT, Verdict.DENY}:
        return replace(ruling, carried=tuple(one for one in still if one.kind in _TOLD))
    return ruling if problem is None else ruling.denied(*problem)


def _in(side: str, obligations: Sequence[Obligation]) -> tuple[Obligation, ...]:
    return tuple(one for one in obligations if one.kind in REWRITES and one.fields["in"] == side)


def _each_once(obligations: Sequence[Obligation]) -> list[Obligation]:
    return [one for number, one in enumerate(obligations) if one not in obligations[:number]]


def _rules(changes: Sequence[Change]) -> str:
    return ", ".join(sorted({change.rule for change in changes}))
