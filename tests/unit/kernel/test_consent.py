"""Whose yes a call is charged to: the one that policy meant, which was given to everything that asks now."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_in_memory import Kernel, calls, settled, text

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, parse_decision
from agentos.kernel.approvals import Scope
from agentos.kernel.consent import relied_on

ALICE, BOB = "principal/alice", "principal/bob"


def yes(by: str, *rules: str, scope: str = "session") -> dict[str, Json]:
    return {"call": "c0", "by": by, "reason": "fine", "scope": scope, "rules": list(rules)}


def allowed(*rules: str, bound: tuple[dict[str, Json], ...] = ()) -> Decision:
    body = {"effect": "allow", "rules": [*rules, "syscall.approved"], "reasons": ["so"], "obligations": list(bound)}
    decision = parse_decision(body)
    assert decision.effect == "allow"
    return decision


def people(approvals: list[dict[str, Json]], decision: Decision) -> list[str]:
    return [one["by"] for one in relied_on(approvals, decision)]


@pytest.mark.parametrize("scope", ["once", "session"])
def test_a_yes_counts_only_for_all_rules_that_ask(scope: str) -> None:
    """Whatever its scope, a yes to some of them is none; the rules that allow ask nobody."""
    some, whole = yes(ALICE, "two.a", scope=scope), yes(BOB, "two.a", "two.b", scope=scope)
    assert people([some, whole], allowed("grants.allowed", "two.a", "two.b")) == [BOB]
    assert people([some, whole], allowed("grants.counted", "two.a")) == [ALICE]
    assert people([some, whole], allowed("grants.counted", "grants.delegated", "grants.delegator-counted", "two.a")) == [ALICE]
    assert people([some, whole], allowed("grants.allowed", "grants.delegator-approval", "two.a")) == []
    assert people([some], allowed("two.a", "two.b")) == []
    assert relied_on([some], Decision(allowed().effect, ("two.a",))) == []


def test_a_rule_that_only_obliges_needs_nobodys_yes() -> None:
    """One that came later hides no yes; of two yeses the one that was asked by more of what is named now is relied on."""
    label = {"kind": "label", "labels": ["pii"], "rule": "mark.it"}
    assert people([yes(ALICE, "two.a")], allowed("two.a", "mark.it", bound=(label,))) == [ALICE]
    two = {"kind": "approvers", "count": 1, "rule": "two.b"}
    both = [yes(ALICE, "two.a"), yes(BOB, "two.a", "two.b")]
    assert people(both, allowed("two.a", "two.b", bound=(two,))) == [BOB]
    assert people(both, allowed("two.a", "two.b", "mark.it", bound=(two, label))) == [BOB]


RULES = st.frozensets(st.sampled_from(["two.a", "two.b", "two.c", "two.d"]))


@given(
    asking=RULES.filter(bool), obliging=RULES, given_to=st.lists(st.tuples(st.sampled_from([ALICE, BOB]), RULES)), data=st.data()
)
def test_whoever_is_named_was_asked_by_all_of_it(asking: Any, obliging: Any, given_to: Any, data: Any) -> None:
    """Where one yes was given to everything that is named now, nobody is relied on whom some rule that asks had not asked."""
    bound = tuple({"kind": "notify", "to": ["ops"], "text": "so", "rule": rule} for rule in sorted(obliging))
    decision = allowed(*sorted(asking | obliging), bound=bound)
    yeses = data.draw(st.permutations([yes(by, *rules) for by, rules in given_to] + [yes("principal/c", *asking, *obliging)]))
    [by] = people(yeses, decision)
    assert any(one["by"] == by and asking <= set(one["rules"]) for one in yeses)


def both(document: Any) -> Decision:
    """As `main.rego` decides where rule a asks about every `send`, and rule b about those with a path."""
    if document["syscall"]["tool"] != "send":
        return parse_decision({"effect": "allow", "rules": ["grants.model"], "reasons": ["so"]})
    asking = {"two.a"} | ({"two.b"} if document["syscall"]["args"]["path"] != "x" else set())
    counts = [
        one
        for one in document["approvals"]
        if asking <= set(one["rules"])
        and (one["uses_left"] > 0 if one["scope"] == "session" else one["args_digest"] == document["syscall"]["args_digest"])
    ]
    rules = sorted(asking | ({"syscall.approved"} if counts else set()))
    return parse_decision({"effect": "allow" if counts else "ask", "rules": rules, "reasons": ["so"]})


async def test_uses_are_charged_to_the_yes_that_covered_the_call(kernel: Kernel) -> None:
    """Alice's yes covers a alone, Bob's a and b for two calls: calls that both ask about spend Bob's, and then ask again."""
    kernel.policy.decide = both
    proposals = [(f"c{number}", "send", {"path": path}) for number, path in enumerate("xyzw")]
    kernel.model.replies = [calls(*proposals), text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    for by, uses in ((ALICE, 9), (BOB, 2)):
        await sessions.answer(
            "default", session, granted=True, reason="fine", actor=by, roles=("approver",), scope=Scope.SESSION, max_uses=uses
        )
        await settled(sessions)
    state = await sessions.state("default", session)
    assert [args["path"] for _, args in kernel.driver.calls] == ["x", "y", "z"]
    assert state.waiting_for == "c3"
    assert {one["by"]: one["used"] for one in state.approvals} == {ALICE: 1, BOB: 2}
