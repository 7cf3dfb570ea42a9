"""A plan as people read it."""

from __future__ import annotations

from typing import Any

from syrupy.assertion import SnapshotAssertion

from agentos.abi.canonical import Json
from agentos.abi.resource import Key, Resource
from agentos.cli.render.plan_text import render_plan, render_summary
from agentos.registry.plan import Plan, plan
from agentos.registry.state import Entry, State


def make(kind: str, name: str, spec: dict[str, Json], **labels: str) -> Resource:
    return Resource(Key(kind, "default", name), labels, {}, spec)


def agent(**spec: Any) -> Resource:
    return make(
        "Agent",
        "triage",
        {
            "instructions": "Sort the inbox.\nNever send anything.\nWrite what you found.\n",
            "model": "fast",
            "tools": ["read"],
            "budget": {"calls": 50, "tokens": 1000},
            **spec,
        },
        team="support",
    )


def grant(**spec: Any) -> Resource:
    return make("ToolGrant", "triage-read", {"agents": ["triage"], "tools": ["read"], "approval": "none", "args": {}, **spec})


def state_of(*resources: Resource) -> State:
    return State.of(7, {one.key: Entry(one, one.digest(), "principal/alice", 1) for one in resources})


def everything() -> Plan:
    """A creation, an update of many shapes, a widening and a deletion."""
    source = "package agentos.syscall.rules.egress\n\n" + "\n".join(f"# line {number}" for number in range(30))
    current = state_of(
        agent(),
        grant(approval="required", until="2026-12-01T00:00:00Z"),
        make("Model", "old", {"provider": "scripted", "scripted": {"play": {}}}),
    )
    desired = [
        agent(
            instructions="Sort the inbox.\nNever send anything out.\nWrite what you found.\n",
            budget={"calls": 80, "tokens": 1000},
            tools=["read", "list"],
            description="sorts",
        ),
        grant(),
        make("Policy", "egress", {"target": "syscall", "mode": "enforce", "modules": [{"path": "e.rego", "source": source}]}),
        make("Agent", "writer", {"instructions": "Write.\nMore.\n" + "And more.\n" * 30, "model": "fast"}, team="support"),
    ]
    return plan(current, desired, delete=[Key("Model", "default", "old")])


def test_everything(snapshot: SnapshotAssertion) -> None:
    """Only changed fields are shown, old and new; what is dangerous says so; positions stand beside the resource."""
    assert render_plan(everything(), colour=False, positions={"agent/default/triage": "agents.yaml:14:1"}) == snapshot


def test_colour(snapshot: SnapshotAssertion) -> None:
    """With colour the text is the same, painted."""
    painted = render_plan(everything(), colour=True)
    assert painted == snapshot
    import re

    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == render_plan(everything(), colour=False)


def test_no_change(snapshot: SnapshotAssertion) -> None:
    """No change is one sentence that names the revision."""
    assert render_plan(plan(state_of(agent()), [agent()]), colour=False) == snapshot


def test_summary() -> None:
    """The summary counts, and names danger only where there is some."""
    assert (
        render_summary(plan(State.empty(), [agent()]), colour=False)
        == "Plan: 1 to create, 0 to change, 0 to delete (from revision 0)"
    )
    assert render_summary(everything(), colour=False).endswith("1 to delete; widens permission: 2 (from revision 7)")


def test_control_characters_are_escaped() -> None:
    """What a declaration contains cannot drive the terminal."""
    evil = "\x1b]0;owned\x07\u202e"
    text = render_plan(
        plan(state_of(agent()), [agent(model=evil, instructions=f"a\n{evil}\n", **{evil: 1}), grant(reason=evil, tools=[evil])]),
        colour=False,
    )
    assert all(char.isprintable() or char == "\n" for char in text)
