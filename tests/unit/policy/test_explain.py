"""An explanation agrees with the decision: what fired is what decided, and what did not names a line that is its own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agentos.policy.bundle import axioms
from agentos.policy.explain import Outcome, explain, rules_of
from agentos.policy.port import Module

WATCHED = Module(
    "mine/mine.rego",
    """# METADATA
# title: mine
# description: a rule of a test
package agentos.syscall.rules.mine

# METADATA
# title: late
# description: nothing happens late
results contains {"rule": "mine.late", "effect": "deny", "reason": "late"} if {
	input.syscall.effect == "external"
	input.now > 5
}
""",
)
FACTS = {
    "agentos": {
        "tenant": {"name": "default", "limits": {"sessions": 1}},
        "agents": {"triage": {"model": "m", "tools": ["send"], "budget": {"calls": 5, "tokens": 5}}},
        "tools": {"send": {"effect": "external", "labels": [], "driver": "mcp", "workspace_args": ["path"]}},
        "grants": {"triage": {"send": [{"name": "g", "args": {"to": {"equals": "a"}}, "approval": False, "by": "principal/al"}]}},
        "policies": {"mine": {"mode": "dryrun", "name": "mine"}},
        "roles": {},
    }
}


def question(agent: str, tool: str, args: dict[str, Any], calls: int) -> dict[str, Any]:
    return {
        "abi": "agentos/v1",
        "syscall": {"tool": tool, "effect": "external", "args": args, "args_digest": "sha256:00"},
        "agent": {"name": agent, "labels": {}},
        "session": {"id": "s-1", "tenant": "default", "actor": "principal/al", "labels": [], "delegation": []},
        "budget": {"calls": calls, "tokens": 0},
        "approvals": [],
        "config_revision": 1,
        "policy_digest": "",
        "now": 9,
    }


CASES = [
    question(*case)
    for case in itertools.product(("triage", "other"), ("send", "read"), ({"to": "a"}, {"to": "b", "path": "../x"}), (0, 9))
]


@pytest.mark.parametrize(
    "asked", CASES, ids=lambda one: f"{one['agent']['name']}-{one['syscall']['tool']}-{one['budget']['calls']}"
)
def test_what_fired_is_what_decided(asked: dict[str, Any]) -> None:
    """Each rule is told once; all that decided or was observed fired; a condition that failed stands where it is said to."""
    modules = [*axioms("syscall"), WATCHED]
    found = explain(modules, FACTS, asked)
    assert sorted(one.rule for one in found.rules) == sorted(rule.rule for one in modules for rule in rules_of([one], "syscall"))
    fired = {one.rule for one in found.rules if one.outcome is Outcome.FIRED}
    assert set(found.decision.rules) | {one["rule"] for one in found.decision.observed} <= fired | {"syscall.default"}
    assert "mine.late" in fired
    sources = {module.path: module.source.split("\n") for module in modules}
    for one in found.rules:
        if one.outcome is Outcome.FAILED:
            assert sources[one.path][one.condition_line - 1].strip() == one.condition
            assert one.condition_line > one.line


def test_the_first_condition_that_fails_is_named() -> None:
    """Of a rule whose first condition holds, it is the second."""
    asked = {**CASES[0], "now": 3}
    (report,) = [one for one in explain([*axioms("syscall"), WATCHED], FACTS, asked).rules if one.rule == "mine.late"]
    assert (report.outcome, report.condition, report.condition_line) == (Outcome.FAILED, "input.now > 5", 11)
