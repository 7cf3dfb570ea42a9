"""Trying policies on history: every recorded decision decided again, and what would have been different.

Pure: the decisions come from the log (`audit.history`, `audit.admissions`), the answers from a decider that is handed in. What
is compared is what policy said, then and now: its effect, and the obligations that came with it.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision
from agentos.abi.event import rfc3339
from agentos.audit.history import Undecidable, decision_id
from agentos.projections.question import Recorded

IN_FLIGHT: Final = 16
"""Questions asked at one time: enough to keep an engine's threads busy, few enough that repeated ones find the first's answer."""

Decide = Callable[[Mapping[str, Json]], Awaitable[Decision]]


@dataclass(frozen=True, slots=True)
class Admission:
    """A recorded change of the registry in one tenant: what admission policy was asked, and what it said."""

    revision: int
    tenant: str
    time_ms: int
    actor: str
    question: Mapping[str, Json] = field(hash=False)
    decision: Mapping[str, Json] = field(hash=False)


@dataclass(frozen=True, slots=True, order=True)
class Flip:
    """One decision that would have been another. `before` and `after` are effects, with the kinds of obligations that differ."""

    time_ms: int
    decision: str
    session: str
    call: str
    agent: str
    tool: str
    before: str
    after: str
    rules: tuple[str, ...]
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "id": self.decision,
            "session": self.session,
            "call": self.call,
            "time": rfc3339(self.time_ms),
            "agent": self.agent,
            "tool": self.tool,
            "before": self.before,
            "after": self.after,
            "rules": list(self.rules),
            "reasons": list(self.reasons),
        }


class Report:
    """What a backtest found so far. Counts cover everything; `keep` bounds how many flips and undecidables are held one by one.

    Those that are kept are the earliest, in order of time.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._counts: Counter[tuple[str, str, str, str]] = Counter()
        self._reasons: Counter[str] = Counter()
        self.decided = 0
        """Syscalls that were decided again."""
        self.admitted = 0
        """Changes of the registry that were decided again."""
        self.flipped = 0
        self.undecidable = 0
        self.flips: list[Flip] = []
        self.left: list[tuple[int, Undecidable]] = []

    def flip(self, one: Flip) -> None:
        """Note a decision that would have been another."""
        self.flipped += 1
        for rule in one.rules or ("",):
            self._counts[f"{one.before} → {one.after}", rule, one.agent, one.tool] += 1
        insort(self.flips, one)
        if self._keep is not None:
            del self.flips[self._keep :]

    def leave(self, one: Undecidable) -> None:
        """Note a decision that could not be made again."""
        self.undecidable += 1
        self._reasons[one.reason] += 1
        insort(self.left, (one.time_ms, one), key=lambda pair: (pair[0], pair[1].decision))
        if self._keep is not None:
            del self.left[self._keep :]

    def counts(self) -> list[tuple[str, str, str, str, int]]:
        """`(before → after, rule, agent, tool, count)`, the most frequent first."""
        return [(*key, count) for key, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))]

    def reasons(self) -> list[tuple[str, int]]:
        """Why decisions were undecidable, and how many, the most frequent first."""
        return sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))

    def to_dict(self) -> dict[str, Json]:
        """`schemas/v1/backtest.json`."""
        by = ("flip", "rule", "agent", "tool", "count")
        return {
            "decided": self.decided,
            "admissions": self.admitted,
            "flipped": self.flipped,
            "undecidable": self.undecidable,
            "counts": [dict(zip(by, row, strict=True)) for row in self.counts()],
            "flips": [one.to_dict() for one in self.flips],
            "left": [one.to_dict() for _, one in self.left],
        }


async def try_again(items: Iterable[Recorded], decide: Decide, report: Report) -> None:
    """Decide each recorded decision again and add to `report` what comes out otherwise."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            _compare(item, await decide(item.question), report)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def _compare(item: Recorded, answer: Decision, report: Report) -> None:
    report.decided += 1
    before, after = _differ(item.policy_decision, answer)
    if before == after:
        return
    rules, reasons = _cause(item.policy_decision, answer)
    report.flip(
        Flip(
            time_ms=item.time_ms,
            decision=decision_id(item.session, item.seq),
            session=item.session,
            call=item.call,
            agent=item.question["agent"]["name"],
            tool=item.question["syscall"]["tool"],
            before=before,
            after=after,
            rules=rules,
            reasons=reasons,
        )
    )


async def admit_again(item: Admission, admit: Decide, report: Report) -> None:
    """Decide a recorded change of the registry again; a flip stands under the agent `(registry)`, with the kinds that change."""
    answer = await admit(item.question)
    report.admitted += 1
    before, after = _differ(item.decision, answer)
    if before == after:
        return
    rules, reasons = _cause(item.decision, answer)
    kinds = sorted({change["resource"]["kind"] for change in item.question["changes"]})
    name = f"revision/{item.revision}"
    report.flip(Flip(item.time_ms, name, name, item.tenant, "(registry)", ", ".join(kinds), before, after, rules, reasons))


def _differ(old: Mapping[str, Json], new: Decision) -> tuple[str, str]:
    """How two decisions are told apart: `allow` and `deny`, or `allow` and `allow with redact`. Equal texts: no difference."""
    duties = ([_duty(one) for one in old.get("obligations", ())], [_duty(one.to_dict()) for one in new.obligations])
    before, after = str(old["effect"]), str(new.effect)
    if before != after or sorted(duties[0]) == sorted(duties[1]):
        return before, after
    lost, gained = Counter(duties[0]) - Counter(duties[1]), Counter(duties[1]) - Counter(duties[0])
    left, came = _kinds(lost), _kinds(gained)
    word = "another" if left == came else "with"
    return f"{before} with {left}" if left else before, f"{after} {word} {came}" if came else after


def _kinds(duties: Counter[tuple[str, str]]) -> str:
    return ", ".join(sorted({kind for kind, _ in duties}))


def _duty(obligation: Mapping[str, Json]) -> tuple[str, str]:
    return str(obligation["kind"]), repr(sorted(obligation.items(), key=lambda item: item[0]))


def _cause(old: Mapping[str, Json], new: Decision) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What explains a flip is the side that says no: the new rules, or those that no longer fire."""
    if str(new.effect) != "allow" or old["effect"] == "allow":
        return new.rules, new.reasons
    return tuple(old["rules"]), tuple(old["reasons"])
