"""Rewriting at JSON Pointers: what is to go is gone, everything else stays, and twice is once."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import canonical
from agentos.abi.obligation import Obligation
from agentos.kernel.rewrite import MOST_LISTED, rewrite

NAMES = st.sampled_from(["a", "b", "", "~", "/", "*", "0", "ä"])
LEAVES = st.none() | st.booleans() | st.integers(-100, 100) | st.floats(-1e6, 1e6) | st.text(max_size=6)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=12
)
STEPS = st.lists(NAMES | st.sampled_from(["1", "00", "-1", "²", "9" * 5000]), min_size=1, max_size=4)


def pointer(steps: list[str]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def redact(path: str) -> Obligation:
    return Obligation("redact", "r.redact", {"in": "args", "path": path})


def mask(path: str, keep: int = 2) -> Obligation:
    return Obligation("mask", "r.mask", {"in": "args", "path": path, "keep": keep})


def cap(path: str, maximum: int = 10) -> Obligation:
    return Obligation("cap", "r.cap", {"path": path, "maximum": maximum})


OBLIGATIONS = st.lists(
    st.builds(redact, STEPS.map(pointer))
    | st.builds(mask, STEPS.map(pointer), st.integers(0, 4))
    | st.builds(cap, STEPS.map(pointer), st.integers(-5, 5)),
    max_size=4,
)


@given(VALUES, OBLIGATIONS)
def test_twice_is_once_and_what_goes_in_stays(value: Any, obligations: list[Obligation]) -> None:
    """A second pass changes nothing, and the first leaves its input as it was; changes are told if and only if there are any."""
    before = copy.deepcopy(value)
    once = rewrite(value, obligations)
    assert repr(value) == repr(before)
    twice = rewrite(once.value, obligations)
    assert (twice.changes, canonical(twice.value)) == ((), canonical(once.value))
    assert bool(once.changes) == (canonical(once.value) != canonical(value))


CANARY = 'kanarienvogel-"\\\n\u00fc'
"""Written in more than one way in JSON."""


@given(VALUES, st.lists(NAMES, min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4), OBLIGATIONS)
def test_a_redacted_value_is_nowhere(value: Any, steps: list[str], stars: list[bool], others: list[Obligation]) -> None:
    """Put somewhere and redacted there (by name or by `*`), whatever else is done: no spelling of it is left in the bytes."""
    planted = value
    where: Any = {}
    planted = where
    for step in steps[:-1]:
        where[step] = {"rest": value}
        where = where[step]
    where[steps[-1]] = [CANARY, {CANARY: value}]
    named = ["*" if star else step for step, star in zip(steps, stars, strict=False)]
    found = rewrite(planted, [*others, redact(pointer(named))])
    for text in (canonical(found.value).decode(), json.dumps(found.value), repr(found.value), str(found.changes)):
        assert "kanarienvogel" not in text


@given(VALUES, OBLIGATIONS)
def test_caps_and_masks_hold(value: Any, obligations: list[Obligation]) -> None:
    """After it no number at a capped path is larger than the cap; or it is said that it could not be done."""
    found = rewrite({"n": value}, [*obligations, cap("/n", 3)])
    left = found.value["n"]
    number = isinstance(left, int | float) and not isinstance(left, bool)
    assert left <= 3 if number else any(one.kind == "cap" for one, _ in found.unmet)


@pytest.mark.parametrize(
    ("value", "obligation", "expected", "places"),
    [
        ({"to": ["a", "b"]}, redact("/to/*"), {"to": ["[redacted]", "[redacted]"]}, ["/to/0", "/to/1"]),
        ({"to": ["a", "b"]}, redact("/to/1"), {"to": ["a", "[redacted]"]}, ["/to/1"]),
        ({"a": {"x": 1}, "b": {"x": 2, "y": 3}}, redact("/*/x"), None, ["/a/x", "/b/x"]),
        ({"a/b": {"m~n": 1}}, redact("/a~1b/m~0n"), {"a/b": {"m~n": "[redacted]"}}, ["/a~1b/m~0n"]),
        ({"~1": 1}, redact("/~01"), {"~1": "[redacted]"}, ["/~01"]),
        ({"": 1}, redact("/"), {"": "[redacted]"}, ["/"]),
        ({"card": "4111111111111111"}, mask("/card", 4), {"card": "************1111"}, ["/card"]),
        ({"card": "411"}, mask("/card", 4), {"card": "411"}, []),
        ({"card": "ab"}, mask("/card", 0), {"card": "**"}, ["/card"]),
        ({"n": 11.5}, cap("/n"), {"n": 10}, ["/n"]),
        ({"n": 9.5}, cap("/n"), {"n": 9.5}, []),
        ({"to": ["a"]}, redact("/to/01"), {"to": ["a"]}, []),
        ({"to": ["a"]}, redact("/to/-"), {"to": ["a"]}, []),
        ({"to": ["a"]}, redact("/to/" + "9" * 1000), {"to": ["a"]}, []),
        ({"to": "a"}, redact("/to/0"), {"to": "a"}, []),
        ({}, mask("/to"), {}, []),
    ],
)
def test_pointers(value: Any, obligation: Obligation, expected: Any, places: list[str]) -> None:
    """RFC 6901 and `*`; what is not there is nothing to do, and every change is told by its own path."""
    found = rewrite(value, [obligation])
    assert found.unmet == ()
    assert [change.path for change in found.changes] == places
    assert expected is None or found.value == expected


@pytest.mark.parametrize(
    ("value", "obligation", "left"),
    [
        ({"x": 4111}, mask("/x"), "[redacted]"),
        ({"x": ["4111"]}, mask("/x"), "[redacted]"),
        ({"x": None}, mask("/x"), "[redacted]"),
        ({"x": "1000"}, cap("/x"), "1000"),
        ({"x": True}, cap("/x"), True),
        ({"x": None}, cap("/x"), None),
    ],
)
def test_what_cannot_be_done_is_said(value: Any, obligation: Obligation, left: Any) -> None:
    """A mask on what is no text, a cap on what is no number; a secret is not shown for it."""
    found = rewrite(value, [obligation])
    [(unmet, why)] = found.unmet
    assert (unmet, found.value["x"]) == (obligation, left)
    assert "there is another value" in why


def test_obligations_on_one_place_agree() -> None:
    """The stricter mask, the smaller cap, and redaction before both."""
    assert rewrite({"x": "abcdef"}, [mask("/x", 4), mask("/x", 1)]).value == {"x": "*****f"}
    assert rewrite({"x": "abcdef"}, [mask("/x", 1), mask("/x", 4)]).value == {"x": "*****f"}
    assert rewrite({"x": 50}, [cap("/x", 20), cap("/x", 30)]).value == {"x": 20}
    assert rewrite({"x": "abcdef"}, [mask("/x"), redact("/x")]).value == {"x": "[redacted]"}
    assert rewrite({"x": 5}, [mask("/x"), redact("/x")]).unmet == ()


def test_the_account_of_changes_is_bounded() -> None:
    """A hundred thousand elements are rewritten, and told in a few kilobytes."""
    found = rewrite({"rows": list(range(100_000)), "k" * 5000: 1}, [redact("/rows/*"), redact("/*")])
    assert len(found.changes) <= MOST_LISTED + 2
    assert all(len(change.path) <= 1024 for change in found.changes)
    assert found.value == {"rows": "[redacted]", "k" * 5000: "[redacted]"}
