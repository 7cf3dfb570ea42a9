"""What modules read of their input is told from their syntax trees."""

from __future__ import annotations

import pytest

from agentos.policy.adapters.opa import parse
from agentos.policy.port import Module
from agentos.policy.syntax import as_tree, input_paths, project


def paths(body: str) -> frozenset[tuple[str, ...]] | None:
    return input_paths([parse(Module("a.rego", f"package a\n\n{body}\n"))])


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("x := 1", set()),
        ("x := input.a.b", {("a", "b")}),
        ('x := input["a"]["b-c"]', {("a", "b-c")}),
        ("x := input.a[input.k].c", {("a",), ("k",)}),
        ("x := input.a[0].c", {("a",)}),
        ("x contains y if some y in input.list", {("list",)}),
        ("x if every k, v in input.m { v == input.n[k] }", {("m",), ("n",)}),
        ("x := [y | y := input.c.d]", {("c", "d")}),
        ("x := {input.k: input.v}", {("k",), ("v",)}),
        ("f(n) := n + input.a\n\nx := f(input.b)", {("a",), ("b",)}),
        ("x if not input.a\n\nelse := input.b", {("a",), ("b",)}),
        ('x if data.y with input.z as "q"', {("z",)}),
        ("default x := false\n\nx if input.a == input.b", {("a",), ("b",)}),
    ],
)
def test_the_paths_that_are_read(body: str, read: set[tuple[str, ...]]) -> None:
    """A path reaches as far as it is known before it runs."""
    assert paths(body) == read


@pytest.mark.parametrize(
    "body",
    [
        "x := input",
        "x if walk(input, [_, 1])",
        "x := input[data.k]",
        "x := object.get(input, [data.k], 1)",
        'x if data.y with input as {"a": 1}',
        "x := time.now_ns()",
        "x := rand.intn(data.seed, 3)",
        "x := opa.runtime()",
    ],
)
def test_what_cannot_be_told_is_everything(body: str) -> None:
    """The whole input, a computed path and a builtin that is no function leave nothing to be reused."""
    assert paths(body) is None


def test_an_import_of_the_input_counts() -> None:
    """An alias does not hide what is read."""
    tree = parse(Module("a.rego", "package a\n\nimport input.foo as bar\n\nx := bar.baz\n"))
    assert input_paths([tree]) == {("foo",)}


def test_a_projection_keeps_what_is_read() -> None:
    """Absent stays absent, null stays null, and what is no object is kept whole."""
    tree = as_tree({("a", "b"), ("a", "c", "d"), ("a", "c"), ("e", "f"), ("g",)})
    assert tree == {"a": {"b": None, "c": None}, "e": {"f": None}, "g": None}
    document = {"a": {"b": None, "c": {"d": 1, "x": 2}, "y": 3}, "e": [1], "z": 0}
    assert project(document, tree) == {"a": {"b": None, "c": {"d": 1, "x": 2}}, "e": [1]}
