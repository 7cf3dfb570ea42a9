"""What widens permission, and what does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.event import parse_rfc3339
from agentos.abi.resource import Key, Resource
from agentos.registry.widening import widens

TIMES = ["2026-01-01T00:00:00Z", "2026-06-01T00:00:00+02:00", "2027-01-01T00:00:00Z"]
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "equals": st.sampled_from(["a", "bb", 1, True]),
        "oneOf": st.lists(st.sampled_from(["a", "bb", 1, 2, True]), min_size=1, max_size=3, unique_by=repr),
        "glob": st.sampled_from(["a", "b*"]),
        "maximum": st.integers(0, 3),
        "minimum": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
    },
).filter(bool)
GRANTS = st.builds(
    lambda agents, tools, args, approval, until: Resource(
        Key("ToolGrant", "default", "g"),
        {},
        {},
        {"agents": agents, "tools": tools, "args": args, "approval": approval, **({"until": until} if until else {})},
    ),
    st.lists(st.sampled_from(["x", "y"]), min_size=1, unique=True),
    st.lists(st.sampled_from(["read", "write"]), min_size=1, unique=True),
    st.dictionaries(st.sampled_from(["p", "q"]), PARTS, max_size=2),
    st.sampled_from(["none", "required"]),
    st.sampled_from([None, *TIMES]),
)
CALLS = st.tuples(
    st.sampled_from(["x", "y"]),
    st.sampled_from(["read", "write"]),
    st.dictionaries(st.sampled_from(["p", "q"]), st.sampled_from(["a", "bb", "bbbb", 0, 1, 2, 3, True, False]), max_size=2),
    st.booleans(),
    st.sampled_from([parse_rfc3339(text) + shift for text in TIMES for shift in (-1, 1)]),
)


def holds(constraint: dict[str, Any], value: Any) -> bool:
    """The meaning of a constraint, as the grants policy has it."""
    text, number = isinstance(value, str), type(value) is int
    checks = {
        "equals": lambda want: type(want) is type(value) and want == value,
        "oneOf": lambda want: any(type(one) is type(value) and one == value for one in want),
        "glob": lambda want: text and (value == want if "*" not in want else value.startswith(want[:-1])),
        "maximum": lambda want: number and value <= want,
        "minimum": lambda want: number and value >= want,
        "maxLength": lambda want: text and len(value) <= want,
    }
    return all(checks[part](want) for part, want in constraint.items())


def permits(grant: Resource, call: tuple[Any, ...]) -> bool:
    """Whether `grant` lets a call happen without more ado."""
    agent, tool, args, approved, now = call
    spec = grant.spec
    return (
        agent in spec["agents"]
        and tool in spec["tools"]
        and all(name in args and holds(held, args[name]) for name, held in spec["args"].items())
        and (approved or spec["approval"] == "none")
        and ("until" not in spec or now < parse_rfc3339(spec["until"]))
    )


@given(GRANTS, GRANTS, CALLS)
def test_no_widening_goes_unsaid(before: Resource, after: Resource, call: tuple[Any, ...]) -> None:
    """Where a changed grant permits a call that it did not permit, the change says that it widens."""
    if permits(after, call) and not permits(before, call):
        assert widens(before, after)


@given(GRANTS, GRANTS, st.sampled_from(["agents", "tools"]))
def test_monotone(before: Resource, after: Resource, where: str) -> None:
    """Adding an agent or a tool to what is applied never makes a widening narrower."""
    more = Resource(after.key, {}, {}, {**after.spec, where: [*after.spec[where], "z"]})
    assert len(widens(before, more)) >= len(widens(before, after))
    assert any("z" in sentence for sentence in widens(before, more))


@given(GRANTS)
def test_the_same_grant_is_not_wider(one: Resource) -> None:
    """A grant is not wider than itself; a new one always widens, one that is gone never does."""
    assert widens(one, one) == ()
    assert len(widens(None, one)) == 1
    assert widens(one, None) == ()


G = {"agents": ["a"], "tools": ["t"], "args": {}, "approval": "none"}
A = {
    "model": "m",
    "tools": ["t"],
    "instructions": "i",
    "budget": {"calls": 5, "tokens": 5},
    "governance": {"owner": "o", "purpose": "p", "risk": "high"},
}
MCP = {"mcp": {"server": {"command": ["srv"], "env": {}}, "tool": "go", "workspaceArgs": ["path"]}}
T = {
    "description": "d",
    "effect": "write",
    "idempotent": False,
    "labels": ["pii"],
    "driver": MCP,
    "inputSchema": {"type": "object"},
}
P = {"target": "syscall", "mode": "enforce", "modules": [{"path": "a.rego", "source": "package agentos.syscall.rules.a\nx := 1"}]}
MORE = {"path": "b.rego", "source": "package agentos.syscall.rules.b"}
SAME_PACKAGE = {"path": "b.rego", "source": "# c\npackage agentos.syscall.rules.a\nexempt := true"}
M = {"provider": "anthropic", "anthropic": {"model": "m", "maxTokens": 1, "apiKeyEnv": "K"}}
S = {"provider": "scripted", "scripted": {"play": {"rules": []}}}
LIMITED = {
    **S,
    "limits": {"concurrency": 2, "tokensPerMinute": 9},
    "price": {"inputPerMillion": "3.00", "outputPerMillion": "15"},
}
C = {"routes": [{"models": ["a"], "when": {"maxTokens": 5}}, {"models": ["b"]}]}
N = {"rank": 0, "background": False, "preemptible": True, "patienceSeconds": 9, "concurrency": 1, "headroomPercent": 20}
D = {"perDay": {"dollars": "20.00"}, "total": {"tokens": 9}}


@pytest.mark.parametrize(
    ("kind", "before", "after", "said"),
    [
        ("ToolGrant", {**G, "approval": "required"}, G, "no longer asks a person"),
        ("ToolGrant", G, {**G, "approval": "required"}, None),
        ("ToolGrant", {**G, "args": {"p": {"glob": "a/*"}}}, {**G, "args": {"p": {"glob": "**"}}}, "instead of glob 'a/*'"),
        ("ToolGrant", {**G, "args": {"p": {"glob": "a/*"}}}, G, "no longer constrains the argument 'p'"),
        ("ToolGrant", {**G, "args": {"p": {"oneOf": ["a", "b"]}}}, {**G, "args": {"p": {"equals": "a"}}}, None),
        ("ToolGrant", {**G, "args": {"p": {"equals": 1}}}, {**G, "args": {"p": {"equals": True}}}, "may also be true"),
        ("ToolGrant", {**G, "args": {"p": {"maximum": 1}}}, {**G, "args": {"p": {"maximum": 2}}}, "maximum 2 (was 1)"),
        ("ToolGrant", {**G, "args": {"p": {"minimum": 1}}}, {**G, "args": {"p": {"minimum": 2}}}, None),
        ("ToolGrant", {**G, "until": TIMES[0]}, {**G, "until": TIMES[2]}, "lasts longer"),
        ("ToolGrant", {**G, "until": TIMES[2]}, {**G, "until": TIMES[0]}, None),
        ("ToolGrant", {**G, "until": TIMES[0]}, G, "no longer ends"),
        ("ToolGrant", {**G, "reason": "x"}, {**G, "reason": "y"}, None),
        ("Agent", A, {**A, "budget": {"calls": 6, "tokens": 5}}, "may spend 6 calls (was 5)"),
        ("Agent", A, {**A, "budget": {"calls": 4, "tokens": 4}}, None),
        ("Agent", {**A, "budget": {}}, {**A, "budget": {"calls": 10_000}}, "may spend 10000 calls (was 200)"),
        ("Agent", {**A, "budget": {}}, {**A, "budget": {"calls": 200, "tokens": 9}}, None),
        ("Agent", A, {**A, "budget": {"calls": 5}}, "may spend 1000000 tokens (was 5)"),
        ("Agent", A, {**A, "tools": ["t", "u"]}, "asks for u too"),
        ("Agent", A, {**A, "model": "big"}, "may call model big"),
        ("Agent", A, {**A, "governance": {**A["governance"], "risk": "minimal"}}, "declared as risk minimal"),
        ("Agent", A, {**A, "instructions": "other"}, None),
        ("Agent", None, A, None),
        ("Agent", None, {**A, "harness": {"command": ["sh", "x"]}}, 'is driven by the program ["sh", "x"]'),
        ("Agent", A, None, None),
        ("Tool", T, {**T, "effect": "read"}, "declared as effect read (was write)"),
        ("Tool", T, {**T, "effect": "external"}, None),
        ("Tool", T, {**T, "labels": []}, "no longer carries the labels pii"),
        ("Tool", T, {**T, "idempotent": True}, "repeated after a crash"),
        ("Tool", T, {**T, "driver": {"mcp": {**MCP["mcp"], "workspaceArgs": []}}}, "does something else"),
        ("Tool", T, {**T, "driver": {"builtin": {"primitive": "write"}}}, "its driver is builtin write"),
        ("Tool", T, {**T, "inputSchema": {"type": "object", "description": "x"}}, None),
        ("Tool", T, {**T, "inputSchema": {"type": "object", "properties": {"description": {}}}}, "takes other arguments"),
        ("Tool", T, {**T, "timeoutSeconds": 90}, None),
        ("Tool", None, T, None),
        ("Policy", P, None, "no longer forbidden"),
        ("Policy", {**P, "mode": "warn"}, None, None),
        ("Policy", P, {**P, "mode": "dryrun"}, "no longer enforced, only observed"),
        ("Policy", P, {**P, "mode": "warn"}, "only warned about"),
        ("Policy", {**P, "mode": "warn"}, P, None),
        ("Policy", P, {**P, "target": "admission"}, "no longer decides syscall"),
        ("Policy", P, {**P, "modules": []}, "changes what policy decides: a.rego"),
        ("Policy", P, {**P, "modules": [*P["modules"], MORE]}, None),
        ("Policy", P, {**P, "modules": [*P["modules"], SAME_PACKAGE]}, "changes what policy decides: b.rego"),
        ("Policy", None, P, None),
        ("Model", S, M, "sends conversations to anthropic"),
        ("Model", M, S, None),
        (
            "Model",
            M,
            {**M, "anthropic": {**M["anthropic"], "baseUrl": "https://x"}},
            "another address: https://x (was the default)",
        ),
        ("Model", M, {**M, "anthropic": {**M["anthropic"], "maxTokens": 9}}, None),
        ("Tenant", {"limits": {"sessions": 5}}, {"limits": {"sessions": 6}}, "may run 6 sessions"),
        ("Tenant", {"limits": {"sessions": 5}}, {"limits": {"sessions": 4}}, None),
        ("Tenant", None, {"limits": {"sessions": 500}}, None),
        ("Agent", A, {**A, "budget": {**A["budget"], "dollars": "1.5"}}, None),
        (
            "Agent",
            {**A, "budget": {"dollars": "9.00"}},
            {**A, "budget": {"dollars": "10.0"}},
            "may spend 10.0 dollars (was 9.00)",
        ),
        ("Agent", {**A, "budget": {"dollars": "1.5"}}, {**A, "budget": {"dollars": "1.50"}}, None),
        ("Agent", {**A, "budget": {"seconds": 5}}, {**A, "budget": {}}, "no budget of seconds any more (was 5)"),
        ("Agent", {**A, "budget": {"perDay": {"calls": 5}}}, {**A, "budget": {"perDay": {"calls": 6}}}, "6 calls a day (was 5)"),
        ("Agent", {**A, "budget": {"perDay": {"calls": 5}}}, {**A, "budget": {}}, "no budget of calls a day any more"),
        ("Agent", A, {**A, "weight": 2}, "share of weight 2 (was 1)"),
        ("Agent", {**A, "weight": 2}, A, None),
        ("Agent", A, {**A, "priorityClass": "interactive"}, "priority class interactive (was standard)"),
        ("Agent", A, {**A, "priorityClass": "standard", "program": "default"}, None),
        ("Agent", A, {**A, "program": "vip"}, "belongs to program vip (was default)"),
        ("Agent", A, {**A, "deadlineSeconds": 1}, None),
        ("Tenant", None, {"models": ["fast"], "weight": 9}, "may use fast of tenant default"),
        ("Tenant", {"models": ["fast"]}, {"models": ["slow", "fast"]}, "may use slow of tenant default"),
        ("Tenant", {"models": ["fast"]}, {}, None),
        ("Tenant", {}, {"weight": 7}, "share of weight 7 (was 1)"),
        ("Tenant", {}, {"budget": D}, None),
        ("Tenant", {"budget": D}, {"budget": {**D, "total": {"tokens": 10}}}, "may spend 10 tokens in all (was 9)"),
        ("Tenant", {"budget": D}, {"budget": {"total": {"tokens": 9}}}, "no budget of dollars a day any more"),
        ("Tenant", {"budget": {"perDay": {"bytes": 1}}}, None, "no budget of bytes a day any more"),
        ("Tenant", {"programs": {"p": {}}}, {"programs": {"p": {"weight": 2}}}, "program p has a share of weight 2"),
        (
            "Tenant",
            {"programs": {"p": {"budget": {"total": {"calls": 1}}}}},
            {},
            "program p has no budget of calls in all any more",
        ),
        ("Tenant", {"priorityClasses": ["batch"]}, {"priorityClasses": ["batch", "x"]}, "may have the priority classes x too"),
        ("Tenant", {"priorityClasses": ["batch"]}, {}, "may have any priority class (was batch)"),
        ("Tenant", {}, {"priorityClasses": ["batch"]}, None),
        ("Model", LIMITED, {**LIMITED, "limits": {"concurrency": 3, "tokensPerMinute": 9}}, "takes 3 calls at one time (was 2)"),
        ("Model", LIMITED, {**LIMITED, "limits": {"concurrency": 1}}, "takes any number of tokens a minute (was 9)"),
        ("Model", LIMITED, {**LIMITED, "price": {"inputPerMillion": "2.99", "outputPerMillion": "15.0"}}, "input count as 2.99"),
        ("Model", {**LIMITED, "limits": {}}, LIMITED, None),
        ("ModelClass", C, {"routes": [*C["routes"], {"models": ["c"]}]}, "may stand for c too"),
        ("ModelClass", C, {"routes": C["routes"][1:]}, "chooses among its models by other rules"),
        ("ModelClass", C, {**C, "description": "x"}, None),
        ("ModelClass", None, C, None),
        ("ModelClass", C, None, None),
        ("Tool", {**T, "limits": {"callsPerMinute": 5}}, T, "takes any number of calls a minute (was 5)"),
        ("Tool", T, {**T, "commutes": True}, "may run at once"),
        ("PriorityClass", N, {**N, "rank": 1}, "goes before others with rank 1 (was 0)"),
        ("PriorityClass", N, {**N, "rank": -1}, None),
        ("PriorityClass", {**N, "background": True}, N, "no longer takes only what others leave"),
        ("PriorityClass", N, {**N, "agingSeconds": 30}, "for each 30 s (was 60 s)"),
        ("PriorityClass", N, {**N, "background": True}, None),
        ("PriorityClass", N, {**N, "preemptible": False}, "no longer cut off"),
        ("PriorityClass", N, {**N, "patienceSeconds": 0}, "after 0 s (was 9 s)"),
        ("PriorityClass", {**N, "patienceSeconds": None}, N, "after 9 s (was never)"),
        ("PriorityClass", N, {**N, "concurrency": None}, "any number of calls of an endpoint at one time (was 1)"),
        ("PriorityClass", N, {**N, "headroomPercent": 0}, "leaves 0 percent"),
        ("PriorityClass", None, {**N, "rank": 999}, None),
        ("PriorityClass", N, None, None),
    ],
)
def test_each_kind(new: SimpleNamespace, kind: str, before: Any, after: Any, said: str | None) -> None:
    """Each way of widening is said in a sentence; narrowing and what needs a grant anyway is not."""
    sides = [new.resource(kind, "r", spec) if spec is not None else None for spec in (before, after)]
    sentences = widens(*sides)
    if said is None:
        assert sentences == ()
    else:
        assert len(sentences) == 1
        assert said in sentences[0]
        assert sentences[0].startswith(f"{kind.lower()}/")


def test_a_class_in_the_place_of_a_built_in_one(new: SimpleNamespace) -> None:
    """Declaring `batch` changes what was there before, and so does deleting it again."""
    ahead = new.resource("PriorityClass", "batch", {"rank": 0, "background": True, "preemptible": True})
    assert widens(None, ahead) == ("priorityclass/*/batch: goes before others with rank 0 (was -100)",)
    behind = new.resource("PriorityClass", "batch", {"rank": -200, "background": True, "preemptible": True})
    assert widens(None, behind) == ()
    assert widens(behind, None) == ("priorityclass/*/batch: goes before others with rank -100 (was -200)",)
