"""The field-level diff."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import canonical
from agentos.registry.diff import ABSENT, FieldChange, diff, leaves

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b", "a\nb"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["path", "name", "a", "b.c", "d"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values, values)
def test_empty_iff_equal(one: Any, other: Any) -> None:
    """Two values have an empty diff if and only if their canonical forms are the same."""
    assert (diff(one, other) == ()) == (canonical(one) == canonical(other))


@given(values, values)
def test_only_what_changed(one: Any, other: Any) -> None:
    """Every field of a diff really differs, and no field stands in it twice."""
    changes = diff(one, other)
    assert all(change.before is ABSENT or change.after is ABSENT or diff(change.before, change.after) for change in changes)
    paths = [change.path for change in changes]
    assert len(set(paths)) == len(paths)


@given(values, values)
def test_symmetric(one: Any, other: Any) -> None:
    """The way back changes the same fields."""
    assert {change.path for change in diff(one, other)} == {change.path for change in diff(other, one)}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [FieldChange("a.c", 2, 3)]),
        ({"a": [1, 2]}, {"a": [1, 3]}, [FieldChange("a", [1, 2], [1, 3])]),
        ({"a": None}, {}, [FieldChange("a", None, ABSENT)]),
        ({"a": True}, {"a": 1}, [FieldChange("a", True, 1)]),
        ({}, {"x/y": "1"}, [FieldChange('["x/y"]', ABSENT, "1")]),
        (
            {"m": [{"path": "a.rego", "source": "1"}, {"path": "b.rego", "source": "2"}]},
            {"m": [{"path": "b.rego", "source": "3"}]},
            [
                FieldChange("m[a.rego]", {"path": "a.rego", "source": "1"}, ABSENT),
                FieldChange("m[b.rego].source", "2", "3"),
            ],
        ),
        ({"m": [{"x": 1}, {"x": 2}]}, {"m": [{"x": 1}, {"x": 3}]}, [FieldChange("m[1].x", 2, 3)]),
    ],
)
def test_shape(before: Any, after: Any, expected: list[FieldChange]) -> None:
    """Objects by key, lists of scalars whole, lists of named objects by name, others by place."""
    assert list(diff(before, after)) == expected


def test_order_of_named_objects() -> None:
    """Named objects that change places are a change."""
    one, other = {"path": "a"}, {"path": "b"}
    assert diff([one, other], [other, one])


def test_leaves() -> None:
    """A created resource is shown field by field."""
    value = {"a": {"b": 1}, "c": [], "d": {}, "e": [{"path": "p", "x": 1}], "f": [{"x": 2}]}
    assert [(leaf.path, leaf.after) for leaf in leaves(value, "spec")] == [
        ("spec.a.b", 1),
        ("spec.c", []),
        ("spec.d", {}),
        ("spec.e[p].path", "p"),
        ("spec.e[p].x", 1),
        ("spec.f[0].x", 2),
    ]
