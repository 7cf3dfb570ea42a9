"""Decided again: every decision once, a flip wherever policy says otherwise, counts over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.audit.backtest import Admission, Report, admit_again, try_again
from agentos.audit.history import Undecidable
from agentos.projections.question import Recorded

EFFECTS = ("halt", "deny", "ask", "allow")


def item(seq: int, effect: str, *, tool: str = "send", **more: Any) -> Recorded:
    decision = {"effect": effect, "rules": [f"old.{effect}"], "reasons": [f"old {effect}"], **more}
    question = {"agent": {"name": "triage"}, "syscall": {"tool": tool}, "number": seq}
    return Recorded("s-1", f"c{seq}", seq, seq * 1000, None, question, decision, decision)


def answer(effect: str, *obligations: Mapping[str, Any]) -> Decision:
    body = {"effect": effect, "rules": [f"new.{effect}"], "reasons": [f"new {effect}"]}
    return parse_decision({**body, "obligations": list(obligations)})


@given(st.lists(st.tuples(st.sampled_from(EFFECTS), st.sampled_from(EFFECTS)), max_size=60), st.integers(0, 5))
async def test_a_flip_is_a_changed_effect(pairs: list[tuple[str, str]], keep: int) -> None:
    """Each decision is asked once; the counts cover every flip, the list holds the earliest in order of time."""
    asked: list[int] = []

    async def decide(question: Mapping[str, Any]) -> Decision:
        asked.append(question["number"])
        return answer(pairs[question["number"]][1])

    report = Report(keep)
    await try_again([item(seq, old) for seq, (old, _) in enumerate(pairs)], decide, report)
    flipped = [seq for seq, (old, new) in enumerate(pairs) if old != new]
    assert sorted(asked) == list(range(len(pairs)))
    assert (report.decided, report.flipped) == (len(pairs), len(flipped))
    assert sum(row[-1] for row in report.counts()) == len(flipped)
    assert [flip.decision for flip in report.flips] == [f"s-1#{seq}" for seq in flipped[:keep]]


async def test_a_flip_names_the_side_that_says_no() -> None:
    """A new denial is told by the new rule, one that falls away by the rule that no longer fires."""
    report = Report()

    async def decide(question: Mapping[str, Any]) -> Decision:
        return answer("deny" if question["number"] == 1 else "allow")

    await try_again([item(1, "allow"), item(2, "deny")], decide, report)
    assert [(flip.before, flip.after, flip.rules) for flip in report.flips] == [
        ("allow", "deny", ("new.deny",)),
        ("deny", "allow", ("old.deny",)),
    ]


async def test_obligations_are_compared() -> None:
    """The same effect with other obligations is a flip that says which; with the same ones it is none."""
    cap = {"kind": "cap", "rule": "r.cap", "path": "/n", "maximum": 5}
    mask = {"kind": "mask", "rule": "r.mask", "in": "args", "path": "/a", "keep": 2}
    again = {1: (), 2: (cap, mask), 3: ({**cap, "maximum": 6},), 4: (mask, cap)}

    async def decide(question: Mapping[str, Any]) -> Decision:
        return answer("allow", *again[question["number"]])

    report = Report()
    olds = [item(1, "allow", obligations=[cap]), item(2, "allow", obligations=[cap]), item(3, "allow", obligations=[cap])]
    await try_again([*olds, item(4, "allow", obligations=[cap, mask])], decide, report)
    assert [(flip.before, flip.after) for flip in report.flips] == [
        ("allow with cap", "allow"),
        ("allow", "allow with mask"),
        ("allow with cap", "allow another cap"),
    ]


async def test_the_grants_it_rests_on_are_no_difference() -> None:
    """A record from before they were named, and one that names others, came out the same."""

    async def decide(_: Mapping[str, Any]) -> Decision:
        return parse_decision({"effect": "allow", "rules": ["new.allow"], "reasons": [], "grants": ["mails"]})

    report = Report()
    await try_again([item(1, "allow"), item(2, "allow", grants=["mails"]), item(3, "allow", grants=["all"])], decide, report)
    assert (report.decided, report.flipped) == (3, 0)


async def test_a_change_of_the_registry_flips_too() -> None:
    """It stands under its revision, with the kinds that it changed."""
    changes = [{"resource": {"kind": kind}} for kind in ("ToolGrant", "Agent", "Agent")]
    change = Admission(3, "default", 5, "principal/al", {"changes": changes}, {"effect": "allow", "rules": [], "reasons": []})
    report = Report()

    async def admit(_: Mapping[str, Any]) -> Decision:
        return Decision(Verdict.DENY, ("owner.missing",), ("no owner",))

    await admit_again(change, admit, report)
    assert (report.admitted, report.decided) == (1, 0)
    assert report.counts() == [("allow → deny", "owner.missing", "(registry)", "Agent, ToolGrant", 1)]
    assert report.flips[0].decision == "revision/3"


def test_undecidables_are_counted_by_reason() -> None:
    """All are counted, the earliest are listed."""
    report = Report(keep=1)
    for seq, reason in ((3, "erased: args"), (1, "erased: args"), (2, "gone")):
        report.leave(Undecidable(f"s-1#{seq}", "s-1", f"c{seq}", seq, reason))
    assert report.undecidable == 3
    assert report.reasons() == [("erased: args", 2), ("gone", 1)]
    assert [one["id"] for one in report.to_dict()["left"]] == ["s-1#1"]
