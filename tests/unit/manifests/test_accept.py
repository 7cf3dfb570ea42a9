"""The quick predicates and `jsonschema` say the same about every document."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentos.abi.canonical import Json
from agentos.manifests.accept import compile_schema
from agentos.manifests.explanation import problems
from agentos.manifests.schema import FILES, check, fill, flat_schema

NAMES = [*FILES.values(), "play"]


def example(name: str) -> dict[str, Json]:
    """The longest example of a schema, with an example for every field of its spec that may stand beside the others."""
    schema = flat_schema(name)
    whole: dict[str, Json] = copy.deepcopy(schema["examples"][0])
    if "spec" in whole:
        for key, part in schema["properties"]["spec"]["properties"].items():
            exclusive = {key for branch in schema["properties"]["spec"].get("oneOf", ()) for key in branch["required"]}
            if key not in whole["spec"] and key not in exclusive:
                whole["spec"][key] = copy.deepcopy(part["examples"][0])
    return whole


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([1.0, 1.5, 2**53, ""]),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.just(["a", "a"]),
    st.just({"x": 1}),
    st.just([1, True]),
)


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def holder(value: Json, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        value = value[step]
    return value


@settings(max_examples=300)
@given(st.data())
def test_both_say_the_same(data: st.DataObject) -> None:
    """A document that was changed at any place is accepted by the predicates only if `jsonschema` accepts it, and said to be
    at fault if and only if `jsonschema` refuses it."""
    name = data.draw(st.sampled_from(NAMES))
    body = example(name)
    path = data.draw(st.sampled_from(places(body)))
    change = data.draw(st.sampled_from(["set", "add", "drop"]))
    if path and change == "set":
        holder(body, path)[path[-1]] = data.draw(values)
    elif path and change == "drop":
        del holder(body, path)[path[-1]]
    elif isinstance(inner := holder(body, (*path, None)), dict):
        inner[data.draw(st.text(max_size=4))] = data.draw(values)
    schema = flat_schema(name)
    valid = Draft202012Validator(schema).is_valid(body)
    if compile_schema(schema)(body):
        assert valid
    assert bool(problems(schema, body)) == (not valid)
    assert bool(check(name, body)) == (not valid)


@pytest.mark.parametrize("name", NAMES)
def test_sound_documents_take_the_quick_way(name: str) -> None:
    """The predicate of each kind accepts its examples; otherwise each validation would be slow."""
    assert compile_schema(flat_schema(name))(example(name))


@pytest.mark.parametrize("name", NAMES)
def test_filling_twice_changes_nothing(name: str) -> None:
    """Defaults are filled in once and stay sound."""
    once = fill(name, example(name))
    assert fill(name, once) == once
    assert not check(name, once)


@given(st.data())
def test_a_misspelt_key_is_always_told(data: st.DataObject) -> None:
    """Any field, misspelt by one letter, is reported at its place."""
    name = data.draw(st.sampled_from(list(FILES.values())))
    body = example(name)
    free = {
        "labels",
        "annotations",
        "args",
        "env",
        "inputSchema",
        "outputSchema",
        "document",
        "let",
        "fileLabels",
        "agentLabels",
        "parameters",
    }
    paths = [
        path
        for path in places(body)
        if path and isinstance(path[-1], str) and not free & set(path[:-1]) and path[-2:-1] != ("programs",)
    ]
    path = data.draw(st.sampled_from(paths))
    inside = holder(body, path)
    wrong = path[-1] + data.draw(st.sampled_from("xqz"))
    inside[wrong] = inside.pop(path[-1])
    told = check(name, body)
    assert any(problem.path == (*path[:-1], wrong) for problem in told)


def test_a_line_end_is_not_the_end_of_a_name() -> None:
    """`$` in a pattern is the end of the text: a name with a line end behind it is no name."""
    body = example("agent")
    body["metadata"]["name"] = "triage\n"
    assert check("agent", body)[0].path == ("metadata", "name")
