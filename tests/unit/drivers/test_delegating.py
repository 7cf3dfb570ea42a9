"""What a delegate tool declares, the tasks of a call, and what its children's ends add up to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentos.abi.canonical import canonical
from agentos.drivers.delegating import MAX_TEXT, DelegationFailed, Ended, Look, Mode, Terms, cut, input_schema, is_cut

OUTCOMES = st.sampled_from(["finished", "failed", "cancelled", "halted", "refused"])


def terms(**declared: Any) -> Terms:
    return Terms.read({"agents": ["writer"], **declared})


def ended(index: int, outcome: str, text: str = "words", labels: tuple[str, ...] = ()) -> Ended:
    return Ended(index, f"s-{index}", "writer", outcome, text, labels)


@given(st.lists(OUTCOMES, min_size=1, max_size=8), st.permutations(range(8)), st.sampled_from(list(Mode)), st.integers(1, 8))
def test_what_is_settled_stays_settled(outcomes: list[str], order: list[int], mode: Mode, quorum: int) -> None:
    """However the ends come in: once it is enough, or never can be, no later end changes that; and in the end it is decided."""
    total = len(outcomes)
    found = terms(mode=mode, quorum=min(quorum, total))
    heard: dict[int, Ended] = {}
    seen = [found.look(total, heard)]
    for index in [one for one in order if one < total]:
        heard[index] = ended(index, outcomes[index])
        seen.append(found.look(total, heard))
    finished = outcomes.count("finished")
    wanted = {Mode.ALL: total, Mode.FIRST: 1, Mode.QUORUM: min(quorum, total)}[mode]
    assert seen[-1] is (Look.MET if finished >= wanted else Look.MISSED)
    settled = [one for one in seen if one is not Look.OPEN]
    assert seen == [Look.OPEN] * (len(seen) - len(settled)) + settled
    assert len(set(settled)) == 1


@given(
    st.none() | st.dictionaries(st.sampled_from(["tokens", "calls", "seconds"]), st.integers(1, 99), min_size=1),
    st.none() | st.dictionaries(st.sampled_from(["tokens", "calls", "seconds"]), st.integers(1, 99), min_size=1),
    st.none() | st.lists(st.sampled_from("abc"), unique=True),
    st.none() | st.lists(st.sampled_from("abc"), unique=True),
)
def test_a_call_can_only_narrow(mine: Any, asked: Any, tools: Any, wanted: Any) -> None:
    """No argument gives a child more than the Tool says, and what either of them says holds."""
    found = terms(**({"budget": mine} if mine else {}), **({"tools": tools} if tools is not None else {}))
    args = {**({"budget": asked} if asked else {}), **({"tools": wanted} if wanted is not None else {})}
    narrowed = found.narrowed_tools(args)
    assert (narrowed is None) == (tools is None and wanted is None)
    for names in (tools, wanted):
        assert names is None or set(narrowed or ()) <= set(names)
    budget = found.narrowed_budget(args) or {}
    for declared in (mine or {}, asked or {}):
        for name, amount in declared.items():
            unit, scale = ("milliseconds", 1000) if name == "seconds" else (name, 1)
            assert budget[unit] <= amount * scale


def test_dollars_are_counted_exactly() -> None:
    """As text, to the millionth."""
    assert terms(budget={"dollars": "1.000001"}).narrowed_budget({"budget": {"dollars": "2"}}) == {"microdollars": 1_000_001}
    assert terms().narrowed_budget({"budget": {"dollars": "0.5"}}) == {"microdollars": 500_000}
    assert terms().narrowed_budget({}) is None


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"goal": "x", "tasks": [{"goal": "y"}]},
        {"tasks": [{"goal": "y", "agent": "stranger"}]},
        {"tasks": [{"goal": "y"}] * 3},
    ],
)
def test_arguments_that_make_no_tasks(args: dict[str, Any]) -> None:
    """Nothing begins: the call has no children, and its act says why."""
    found = terms(maxTasks=2)
    assert found.children(args) == 0
    with pytest.raises(DelegationFailed):
        found.tasks(args)


def test_the_reducing_task_comes_last() -> None:
    """It is one more child, with the operator's goal; inputs that all share come before a task's own."""
    found = terms(reduce={"agent": "editor", "goal": "merge"})
    one, two, last = found.tasks({"inputs": ["a"], "tasks": [{"goal": "x", "inputs": ["b", "a"]}, {"goal": "y"}]})
    assert (one.inputs, two.inputs) == (("a", "b"), ("a",))
    assert (last.agent, last.goal, last.reduces) == ("editor", "merge", True)


def test_labels_are_those_of_everybody_who_is_heard() -> None:
    """Of a child without a word too: how it ended tells something. One that was given up has said nothing, and carries none."""
    told = [ended(0, "finished", labels=("a",)), ended(1, "cancelled", ""), ended(2, "failed", "", ("b",))]
    result = terms(mode="first").result("c", told, met=True)
    assert (result.labels, result.is_error) == (("a", "b"), False)
    assert terms().result("c", [ended(0, "failed", "broke", ("a",))], met=False).labels == ("a",)


@given(st.text(max_size=200), st.integers(8, 400))
def test_a_text_is_cut_to_its_bytes(text: str, most: int) -> None:
    """As JSON; what fits is left as it is."""
    found = cut(text, most, "")
    kept = found.split("\n[cut here: ")[0]
    assert text.startswith(kept) or found == text
    assert len(canonical(kept)) <= max(most, len(canonical("")))
    if len(canonical(text)) <= most:
        assert found == text


def test_many_children_get_less_room_each() -> None:
    """So that all of them together fit an event."""
    long = "x" * (MAX_TEXT - 100)
    assert not is_cut(long, 2)
    assert is_cut(long, 128)


@pytest.mark.parametrize("agents", [["writer"], ["writer", "checker"]])
def test_the_schema_is_one_that_takes_what_makes_tasks(agents: list[str]) -> None:
    """It is a schema, has no `oneOf` at its top, and takes a goal or tasks."""
    schema = input_schema({"agents": agents, "maxTasks": 3})
    Draft202012Validator.check_schema(schema)
    assert not {"oneOf", "anyOf", "allOf"} & schema.keys()
    fits = Draft202012Validator(schema).is_valid
    who = {"agent": "writer"} if len(agents) > 1 else {}
    assert fits({"goal": "x", **who})
    assert fits({"tasks": [{"goal": "x", **who}], "inputs": ["a"], "tools": ["read"], "budget": {"dollars": "0.50"}})
    assert not fits({"goal": "x", "agent": "stranger"})
    assert not fits({"tasks": [{"goal": "x"}] * 4})
