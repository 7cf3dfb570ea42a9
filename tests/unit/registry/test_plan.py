"""The plan: pure, complete, bound by its digest."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.assets import asset
from agentos.abi.canonical import digest_of
from agentos.abi.errors import AgentOSError, NotFound, UsageError
from agentos.abi.resource import Key, Resource
from agentos.registry.plan import Action, Plan, plan, replan, restore, result
from agentos.registry.selector import Selector
from agentos.registry.state import Entry, State


def state_of(*resources: Resource, revision: int = 3) -> State:
    entries = {one.key: Entry(one, one.digest(), "principal/alice", 1) for one in resources}
    return State.of(revision, entries) if entries else State.empty()


@st.composite
def resource_sets(draw: st.DrawFn) -> list[Resource]:
    """A few models of two tenants, labelled or not."""
    keys = draw(st.sets(st.tuples(st.sampled_from(["default", "acme"]), st.sampled_from(["a", "b", "c", "d"])), max_size=6))
    return [
        Resource(
            Key("Model", tenant, name),
            draw(st.sampled_from([{}, {"team": "x"}, {"team": "y"}])),
            {},
            {"provider": "scripted", "scripted": {"play": {"name": draw(st.sampled_from(["p", "q"])), "rules": []}}},
        )
        for tenant, name in sorted(keys)
    ]


@given(resource_sets())
def test_nothing_to_do(resources: list[Resource]) -> None:
    """A state planned against itself has no change."""
    assert plan(state_of(*resources), resources).changes == ()


@given(resource_sets(), resource_sets())
def test_applying_reaches_the_desired_state(have: list[Resource], want: list[Resource]) -> None:
    """The changes turn the current state into one that holds all that is desired, and leave the rest as it was."""
    current = state_of(*have)
    after = result(current, plan(current, want).changes)
    assert after == {**{one.key: one for one in have}, **{one.key: one for one in want}}
    assert plan(state_of(*after.values()), want).changes == ()


@given(resource_sets(), resource_sets())
def test_no_change_too_many(have: list[Resource], want: list[Resource]) -> None:
    """Every change really changes its resource, each resource at most once, and nothing is deleted unasked."""
    current = state_of(*have)
    changes = plan(current, want).changes
    assert all(change.resource is not None and current.get(change.key) != change.resource for change in changes)
    assert len({change.key for change in changes}) == len(changes)


@given(resource_sets(), resource_sets())
def test_restore_is_exact(have: list[Resource], want: list[Resource]) -> None:
    """Going back reaches exactly the old state, and a plan survives its JSON form."""
    current, goal = state_of(*have), state_of(*want, revision=1)
    planned = restore(current, goal)
    assert result(current, planned.changes) == {one.key: one for one in want}
    assert Plan.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned
    assert replan(current, planned) == planned


@given(resource_sets(), resource_sets())
def test_prune_stays_within_its_labels_and_tenants(have: list[Resource], want: list[Resource]) -> None:
    """Prune deletes what carries the labels, is of a tenant concerned and is not declared; nothing else."""
    current = state_of(*have)
    planned = plan(current, want, prune=Selector.parse("team=x"))
    tenants = {one.key.tenant for one in want}
    wanted = {one.key for one in want}
    expected = {one.key for one in have if one.labels.get("team") == "x" and one.key.tenant in tenants and one.key not in wanted}
    assert set(planned.destroys) == expected


def test_json_form_follows_the_schema(new: SimpleNamespace) -> None:
    """A plan with all three actions satisfies `schemas/v1/plan.json`."""
    current = state_of(new.agent(), new.agent("old"), new.grant())
    planned = plan(
        current, [new.agent(calls=20), new.grant("other")], delete=[Key("Agent", "default", "old")], prune=Selector.parse("a=b")
    )
    schema = json.loads((asset("schemas") / "v1" / "plan.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(planned.to_dict())
    assert [str(change.action) for change in planned.changes] == ["update", "create", "delete"]
    assert planned.counts() == {"create": 1, "update": 1, "delete": 1, "widen": 2}
    assert planned.tenants == ("default",)


def test_declared_twice(new: SimpleNamespace) -> None:
    """Two documents of one key are refused."""
    with pytest.raises(UsageError, match="declared twice"):
        plan(State.empty(), [new.agent(), new.agent()])


def test_delete_what_is_not_there(new: SimpleNamespace) -> None:
    """Deleting needs something to delete, and nothing is both declared and deleted."""
    with pytest.raises(NotFound):
        plan(State.empty(), [], delete=[new.agent().key])
    with pytest.raises(UsageError, match="both declared"):
        plan(state_of(new.agent()), [new.agent()], delete=[new.agent().key])


def _edits(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The plan altered in every way that matters, the digest left as it was."""
    edits = []
    for path, value in (
        (("base", "revision"), 4),
        (("changes", 0, "widens"), []),
        (("changes", 0, "fields"), []),
        (("changes", 0, "resource", "spec", "budget", "calls"), 10**6),
        (("changes", 0, "action"), "create"),
        (("changes", 0, "key"), "agent/default/other"),
        (("changes",), []),
        (("digest",), "sha256:" + "0" * 64),
        (("extra",), 1),
        (("kind",), "Agent"),
        (("changes", 0, "before"), 7),
        (("base",), None),
        (("changes",), {}),
    ):
        edited = copy.deepcopy(body)
        place: Any = edited
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        edits.append(edited)
    return edits


def test_altered_plans_are_refused(new: SimpleNamespace) -> None:
    """Whatever is edited in a saved plan, it is refused."""
    body = plan(state_of(new.agent()), [new.agent(calls=20)]).to_dict()
    assert Plan.from_dict(body).to_dict() == body
    for edited in _edits(body):
        with pytest.raises(UsageError):
            Plan.from_dict(edited)


def test_forged_plans_are_found_by_planning_again(new: SimpleNamespace) -> None:
    """A plan that hides a widening and binds that by a fresh digest is not what the state yields."""
    current = state_of(new.agent())
    body = plan(current, [new.agent(calls=20)]).to_dict()
    body["changes"][0]["widens"] = []
    del body["digest"]
    forged = Plan.from_dict({**body, "digest": digest_of(body)})
    assert replan(current, forged) != forged


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_anything_else_is_refused_politely(body: Any) -> None:
    """Reading a plan raises an AgentOSError for any JSON that is none."""
    with pytest.raises(AgentOSError):
        Plan.from_dict(body)


def test_a_thousand_unchanged(new: SimpleNamespace) -> None:
    """Of 1,000 resources that say the same in objects of their own nothing changes."""
    resources = [new.agent(f"a{number}") for number in range(1000)]
    current = state_of(*resources)
    assert plan(current, [Resource.from_dict(one.to_dict()) for one in resources]).changes == ()


def test_actions_are_ordered_by_need(new: SimpleNamespace) -> None:
    """What another kind needs is created first and deleted last."""
    model = new.resource("Model", "fast", {"provider": "scripted", "scripted": {"play": {}}})
    created = plan(State.empty(), [new.grant(), new.agent(), model])
    assert [change.key.kind for change in created.changes] == ["Model", "Agent", "ToolGrant"]
    gone = plan(state_of(new.grant(), new.agent(), model), [], delete=[model.key, new.agent().key, new.grant().key])
    assert [change.key.kind for change in gone.changes] == ["ToolGrant", "Agent", "Model"]
    assert {change.action for change in gone.changes} == {Action.DELETE}
