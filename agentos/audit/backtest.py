"""Trying policies on history: every recorded decision decided again, and what would have been different.

Pure: the decisions come from the log (`policy.recorded`), the answers from a decider that is handed in.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision

IN_FLIGHT: Final = 64
"""Decisions asked for at one time: enough to keep the engine's threads busy."""

Decide = Callable[[Mapping[str, Json]], Awaitable[Decision]]


@dataclass(frozen=True, slots=True)
class Flip:
    """One decision that would have been another."""

    session: str
    call: str
    time: str
    agent: str
    tool: str
    before: str
    after: str
    rules: tuple[str, ...]
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "session": self.session,
            "call": self.call,
            "time": self.time,
            "agent": self.agent,
            "tool": self.tool,
            "before": self.before,
            "after": self.after,
            "rules": list(self.rules),
            "reasons": list(self.reasons),
        }


@dataclass(slots=True)
class Report:
    """What a backtest found so far: how many were decided again, and each flip in the order of the log."""

    decided: int = 0
    flips: list[Flip] = field(default_factory=list)

    def counts(self) -> list[tuple[str, str, str, str, int]]:
        """`(before → after, rule, agent, tool, count)`, the most frequent first."""
        found: Counter[tuple[str, str, str, str]] = Counter()
        for flip in self.flips:
            for rule in flip.rules or ("",):
                found[f"{flip.before} → {flip.after}", rule, flip.agent, flip.tool] += 1
        return [(*key, count) for key, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))]


async def try_again(decisions: Sequence[Mapping[str, Json]], decide: Decide, report: Report) -> None:
    """Decide each recorded decision again and add to `report` what comes out otherwise."""
    for start in range(0, len(decisions), IN_FLIGHT):
        batch = decisions[start : start + IN_FLIGHT]
        answers = await asyncio.gather(*(decide(item["question"]) for item in batch))
        for item, answer in zip(batch, answers, strict=True):
            report.decided += 1
            before = str(item["decision"]["effect"])
            if before != str(answer.effect):
                report.flips.append(_flip(item, before, answer))


def _flip(item: Mapping[str, Json], before: str, answer: Decision) -> Flip:
    question = item["question"]
    # What explains a flip is the side that says no: the new rules, or those that no longer fire.
    rules, reasons = (answer.rules, answer.reasons) if answer.effect != "allow" else _old(item)
    return Flip(
        session=item["session"],
        call=item["call"],
        time=item["time"],
        agent=question["agent"]["name"],
        tool=question["syscall"]["tool"],
        before=before,
        after=str(answer.effect),
        rules=tuple(rules),
        reasons=tuple(reasons),
    )


def _old(item: Mapping[str, Json]) -> tuple[Sequence[str], Sequence[str]]:
    return item["decision"]["rules"], item["decision"]["reasons"]


def suggest(decisions: Sequence[Mapping[str, Json]], *, name: str) -> Json:
    """A ToolGrant that would have let through what grants alone denied, as narrowly as the calls allow; None if nothing was.

    One argument value becomes `equals`, a few become `oneOf`; every call would need a person's approval. It is a
    draft to be read: an injected call among the denials would be granted too.
    """
    denied = [item for item in decisions if _only_grants(item)]
    if not denied:
        return None
    agents = sorted({item["question"]["agent"]["name"] for item in denied})
    tools = sorted({item["question"]["syscall"]["tool"] for item in denied})
    values: dict[str, dict[str, Json]] = {}
    for item in denied:
        for key, value in item["question"]["syscall"]["args"].items():
            if isinstance(value, (str, int, bool)):
                values.setdefault(key, {})[repr(value)] = value
    everywhere = set.intersection(*(set(item["question"]["syscall"]["args"]) for item in denied))
    args = {key: _constraint(list(found.values())) for key, found in sorted(values.items()) if key in everywhere}
    sessions = sorted({item["session"] for item in denied})
    spec: dict[str, Json] = {
        "agents": agents,
        "tools": tools,
        "args": {key: constraint for key, constraint in args.items() if constraint is not None},
        "approval": "required",
        "reason": f"drafted from denied calls ({len(denied)}) of {', '.join(sessions)}; read every line before applying",
    }
    return {"apiVersion": "agentos/v1", "kind": "ToolGrant", "metadata": {"name": name}, "spec": spec}


def _only_grants(item: Mapping[str, Json]) -> bool:
    rules = item["decision"]["rules"]
    return item["decision"]["effect"] == "deny" and bool(rules) and all(rule.startswith("grants.") for rule in rules)


def _constraint(values: list[Json]) -> Json:
    """The narrowest condition for these values; None for long texts, which no condition can name sensibly."""
    if any(isinstance(value, str) and len(value) > 200 for value in values):
        return None
    return {"equals": values[0]} if len(values) == 1 else {"oneOf": values}
