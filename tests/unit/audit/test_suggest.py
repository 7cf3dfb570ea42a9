"""Drafted grants, weighed by the rule that decides about grants: they let through what was denied, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from agentos.abi.canonical import digest_of
from agentos.abi.resource import Resource
from agentos.audit.suggest import suggest
from agentos.manifests import validate_resource
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms
from agentos.policy.data import build_data

NOW_MS = 1_795_000_000_000
AGENTS, TOOLS = ("clerk", "triage"), ("save", "send")
VALUES: tuple[Any, ...] = ("a", "b", 1, True)
CALLS = [(agent, tool, {"to": to, "as": as_}) for agent, tool, to, as_ in itertools.product(AGENTS, TOOLS, VALUES, ("x", "y", 0))]


def denied(agent: str, tool: str, args: dict[str, Any], rules: tuple[str, ...] = ("grants.none",)) -> dict[str, Any]:
    question = {"agent": {"name": agent}, "syscall": {"tool": tool, "args": args}}
    return {"session": "s-1", "question": question, "decision": {"effect": "deny", "rules": list(rules), "reasons": []}}


def effects(grants: Iterable[Mapping[str, Any]], calls: Iterable[tuple[str, str, dict[str, Any]]]) -> list[str]:
    """What the axioms say to each call under `grants`."""
    spec = {
        "instructions": "-",
        "model": "m",
        "tools": list(TOOLS),
        "governance": {"owner": "o", "purpose": "p", "risk": "minimal"},
    }
    declared = [{"kind": "Agent", "metadata": {"name": name}, "spec": spec} for name in AGENTS]
    tool = {"description": "-", "effect": "external", "driver": {"mcp": {"server": {"command": ["x"]}, "tool": "x"}}}
    declared += [{"kind": "Tool", "metadata": {"name": name}, "spec": tool} for name in TOOLS]
    resources = [Resource.from_dict(body) for body in [*declared, *map(dict, grants)]]
    engine = opa.build(axioms("syscall"), build_data(resources, "default", granted_by={}))
    try:
        return [str(engine.eval_document("agentos.syscall.decision", question(*call))["effect"]) for call in calls]
    finally:
        engine.close()


def question(agent: str, tool: str, args: dict[str, Any]) -> dict[str, Any]:
    return {
        "abi": "agentos/v1",
        "syscall": {"tool": tool, "effect": "external", "args": args, "args_digest": digest_of(args)},
        "agent": {"name": agent, "labels": {}},
        "session": {"id": "s-2", "tenant": "default", "actor": "principal/al", "labels": [], "delegation": []},
        "budget": {"calls": 0, "tokens": 0},
        "approvals": [],
        "config_revision": 1,
        "policy_digest": "",
        "now": NOW_MS,
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(CALLS), min_size=1, max_size=8))
def test_a_draft_grants_what_was_denied_and_nothing_else(calls: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Of all calls with these agents, tools, arguments and values, exactly the denied ones would ask a person."""
    grants = suggest([denied(*call) for call in calls], name="draft", now_ms=NOW_MS)
    # In Python, though not in Rego, 1 == True.
    wanted = {repr(call) for call in calls}
    assert effects(grants, CALLS) == ["ask" if repr(call) in wanted else "deny" for call in CALLS]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(CALLS), min_size=1, max_size=30))
def test_a_draft_is_a_manifest_with_an_end(calls: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Every draft is a valid ToolGrant of one agent and one tool, with a name of its own, an approval and an end."""
    grants = suggest([denied(*call) for call in calls], name="draft", now_ms=NOW_MS)
    assert len({grant["metadata"]["name"] for grant in grants}) == len(grants)
    for grant in grants:
        found, faults = validate_resource(grant)
        assert (found is not None, list(faults)) == (True, [])
        assert (len(grant["spec"]["agents"]), len(grant["spec"]["tools"])) == (1, 1)
        assert grant["spec"]["approval"] == "required"
        assert grant["spec"]["until"] == "2026-11-26T00:00:00Z"


def test_an_ended_draft_grants_nothing() -> None:
    """After a week the call is denied again."""
    grants = suggest([denied(*CALLS[0])], name="draft", now_ms=NOW_MS - 9 * 86_400_000)
    assert effects(grants, [CALLS[0]]) == ["deny"]


def test_only_what_grants_alone_denied_is_drafted() -> None:
    """A call that another rule denied as well, or that was allowed, is not drafted."""
    both = denied("triage", "send", {"to": "a"}, ("egress.secrets", "grants.none"))
    allowed = {
        **denied("triage", "send", {"to": "a"}),
        "decision": {"effect": "allow", "rules": ["grants.allowed"], "reasons": []},
    }
    assert suggest([both, allowed], name="draft", now_ms=NOW_MS) == []


def test_what_no_condition_can_name_is_said(snapshot: SnapshotAssertion) -> None:
    """Long texts and lists stay open, and the reason says so; many calls are not counted."""
    long = [denied("triage", "save", {"path": "out/a.md", "content": "x" * 300, "tags": ["a"]})]
    many = [denied("triage", "send", {"to": f"p{number}@acme.example"}) for number in range(21)]
    assert suggest([*long, *many], name="draft-s-1", now_ms=NOW_MS) == snapshot
