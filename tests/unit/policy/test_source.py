"""Places in Rego source are found by its text: where rules stand, where a path is written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.errors import PolicyError
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms
from agentos.policy.port import Module
from agentos.policy.source import Place, Source

TRICKY = """package a

import data.b

# x is not here
x := "
"

y := `
x := 1
` if {
	x == 1
}

z := $"a {concat("{", ["x"])}
x := 1" if 1 == 1

default w := 1

w := 2 if {
	true
} else := 3 if {
	false
}

f(a) := [
a,
x,
]
"""


def source(text: str) -> Source:
    return Source(text, opa.parse(Module("a.rego", text)))


def test_rules_stand_where_they_are_written() -> None:
    """Strings over several lines, templates, comments and brackets hide no rule and make none."""
    text = TRICKY.replace('x := "\n"\n', 'x := "a"\n').replace('\nx := 1" if', '" if')
    spans = source(text).spans
    lines = text.split("\n")
    assert [lines[span.start.line - 1].split()[0] for span in spans] == ["x", "y", "z", "default", "w", "f(a)"]
    assert lines[spans[4].end - 1] == "}"
    assert lines[spans[5].end - 1] == "]"


def test_every_rule_of_the_axioms_is_found() -> None:
    """The line of each rule begins with its name."""
    for module in axioms():
        tree = opa.parse(module)
        found = Source(module.source, tree)
        for rule, span in zip(tree["rules"], found.spans, strict=True):
            line = found.lines[span.start.line - 1].removeprefix("default ")
            assert line.startswith(rule["head"]["ref"][0]["value"])


@pytest.mark.parametrize(
    ("written", "steps", "column"),
    [
        ("input.a.b", ("a", "b"), 14),
        ('input["a"].b', ("a", "b"), 17),
        ('input.a["b"]', ("a", "b"), 14),
        ("input.a[data.c[1]].b", ("a", None, "b"), 25),
        ("input.a[_]", ("a", None), 13),
        ("input", (), 6),
    ],
)
def test_a_path_is_found_at_its_last_step(written: str, steps: tuple[str | None, ...], column: int) -> None:
    """Dots, brackets and computed steps are read alike; the place is that of the step that is asked for."""
    assert source(f"package a\n\nx := {written}\n").path("input", steps) == [Place(3, column)]


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet='x:=1 y{}[]"`$\n#\t', max_size=60))
def test_any_module_that_parses_has_a_span_for_each_rule(text: str) -> None:
    """Whatever is written, no rule lacks a place and no place lies outside of the file."""
    text = f"package a\n{text}"
    try:
        tree = opa.parse(Module("a.rego", text))
    except PolicyError:
        return
    spans = Source(text, tree).spans
    assert len(spans) == len(tree.get("rules", []))
    assert all(1 <= span.start.line <= span.end <= len(text.split("\n")) for span in spans)
