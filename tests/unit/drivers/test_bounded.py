"""Values are held against schemas in bounded time, and judged as JSON Schema says."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentos.drivers.bounded import bounded_validator, first_error, matcher, patterned
from agentos.drivers.result_schema import misfit
from agentos.kernel.arguments import compile_check
from agentos.manifests.inputschema import check_input_schema

HOSTILE = (r"^(\w+\s?)*$", r"^(a|aa)+$", r"^([a-zA-Z0-9_.-]+)+@x$", r"(.*)*y", r"\s+$", r"^(a+)+\Bz$")
"""Expressions that Python's engine never comes to the end of with the text below."""

TEXT = "a" * 200_000 + "!"


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_text_of_a_model_keeps_the_kernel_busy(pattern: str) -> None:
    """Arguments and results that an ordinary expression would be held against for years are judged, as values and as names."""
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}}
    assert check_input_schema(schema, ("spec", "inputSchema")) == []
    assert compile_check(schema)({"x": TEXT}) is not None
    assert misfit(schema, {"x": TEXT}) is not None
    for named in (
        {"type": "object", "propertyNames": {"pattern": pattern}},
        {"type": "object", "patternProperties": {pattern: {"type": "string"}}, "additionalProperties": False},
    ):
        assert compile_check(named)({TEXT: "v"}) is not None


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"type": "string", "pattern": "^[a-c]+$"}, "free": {}},
    "patternProperties": {"^x-": {"type": "integer"}, "z$": {"pattern": "b"}},
    "additionalProperties": {"type": "boolean"},
}
NAMES = st.sampled_from(["id", "free", "x-a", "x-z", "az", "other"])
VALUES = st.one_of(st.text("abc\n", max_size=4), st.integers(-2, 2), st.booleans(), st.none())


@given(st.dictionaries(NAMES, VALUES), st.sampled_from([False, True, {"type": "boolean"}]))
def test_it_judges_as_the_ordinary_validator_does(args: dict[str, Any], others: Any) -> None:
    """Names and texts of every kind, with each kind of `additionalProperties`; but for `$`, which is the very end here."""
    schema = {**SCHEMA, "additionalProperties": others}
    if isinstance(args.get("id"), str) and args["id"].endswith("\n"):
        del args["id"]
    assert bounded_validator()(schema).is_valid(args) == Draft202012Validator(schema).is_valid(args)
    assert (compile_check(schema)(args) is None) == Draft202012Validator(schema).is_valid(args)


@given(st.text("ab1_ .\n", max_size=8), st.sampled_from([r"^[ab]+", r"\d", r"a.b", r"^\w{2,3}\b", r"(?:a|b)1", r"(?i)A"]))
def test_a_text_is_found_where_python_finds_it(text: str, pattern: str) -> None:
    """Expressions that both engines know."""
    assert matcher(pattern)(text) == (re.search(pattern, text) is not None)


def test_what_cannot_be_matched_so_is_refused_where_it_is_declared() -> None:
    """Look-around, references back, what grows beyond bounds and what is broken; in force already, nothing meets it."""
    for pattern in (r"^(?!a)b", r"(?<=a)b", r"(a)\1", r"(\w{1000}){1000}", "[", "(?P<"):
        schema = {"type": "object", "properties": {"x": {"pattern": pattern}}}
        (problem,) = check_input_schema(schema, ("spec", "inputSchema"))
        assert problem.path[-1] == "pattern"
        assert compile_check(schema)({"x": "b"}) is not None
        (named,) = check_input_schema({"patternProperties": {pattern: {}}}, ("spec",))
        assert named.path[-1] == pattern
    both = {"patternProperties": {"^x": {}}, "unevaluatedProperties": False}
    assert [problem.path[-1] for problem in check_input_schema(both, ("spec",))] == ["unevaluatedProperties"]


def test_only_expressions_take_the_careful_way() -> None:
    """An argument that is called `pattern` is none."""
    assert not patterned({"properties": {"pattern": {"type": "string"}}})
    assert patterned({"items": [{"anyOf": [{"pattern": "a"}]}]})
    assert patterned({"patternProperties": {}})


def test_lists_of_every_kind_are_looked_through_once() -> None:
    """Fifty thousand items that cannot be sorted, of which two are the same, or none."""
    schema = {"properties": {"x": {"uniqueItems": True}}}
    items: list[Any] = [number if number % 2 else {"a": number} for number in range(50_000)]
    assert compile_check(schema)({"x": items}) is None
    assert str(compile_check(schema)({"x": [*items, {"a": 4}]})).startswith("argument x: ")


ITEMS = st.recursive(
    st.one_of(st.integers(-1, 1), st.sampled_from([1.0, 0.0, 1.5]), st.booleans(), st.none(), st.sampled_from(["", "1"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=4,
)


@given(st.lists(ITEMS, max_size=6))
def test_items_are_equal_where_json_schema_holds_them_equal(items: list[Any]) -> None:
    """Whole and other numbers, truth values, and what is made of them."""
    # Item by item: `uniqueItems` of the library passes over equal items that do not come to stand beside each other when sorted.
    twice = any(Draft202012Validator({"const": one}).is_valid(other) for one, other in itertools.combinations(items, 2))
    assert (first_error(bounded_validator()({"uniqueItems": True}), items) is None) is not twice


def test_alternatives_within_alternatives_have_an_end() -> None:
    """A part that refers to itself from two of its alternatives: twice the work with each level, and a hundred levels."""
    part = {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}}
    both = [{**part, "required": ["a"]}, {**part, "required": ["b"]}]
    schema = {"$defs": {"n": {"anyOf": both}}, "properties": {"x": {"$ref": "#/$defs/n"}}}
    value: dict[str, Any] = {}
    for _ in range(100):
        value = {"c": value}
    assert "to be checked" in str(compile_check(schema)({"x": value}))
    assert "to be checked" in str(misfit(schema, {"x": value}))
    assert compile_check(schema)({"x": {"a": 1, "c": {"b": 1}}}) is None


def test_no_more_errors_are_made_than_are_looked_at() -> None:
    """A hundred thousand wrong items are refused by one of the first hundred."""
    schema = {"properties": {"x": {"items": {"type": "string"}}}}
    assert str(compile_check(schema)({"x": list(range(100_000))})) in {
        f"argument x.{number}: {number} is not of type 'string'" for number in range(100)
    }
