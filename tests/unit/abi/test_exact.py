"""Reading what must be canonical: exactly what the careful way takes, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import MAX_DEPTH, NotCanonical, canonical, parse_strict
from agentos.abi.exact import read_exact

SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12
)


def careful(data: bytes) -> Any:
    """The value, or None in a list of its own when the data is refused."""
    try:
        value = parse_strict(data)
        return [value] if canonical(value) == data else None
    except NotCanonical:
        return None


def exact(data: bytes) -> Any:
    try:
        return [read_exact(data)]
    except NotCanonical:
        return None


@settings(deadline=None)
@given(VALUES, st.booleans(), st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_it_takes_what_the_careful_way_takes(value: Any, sort: bool, ascii_only: bool, separators: tuple[str, str]) -> None:
    """However a value was written; and the value is the same, down to the types of its numbers."""
    data = json.dumps(value, sort_keys=sort, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")
    assert repr(exact(data)) == repr(careful(data))
    try:
        data = canonical(value)
    except NotCanonical:
        return
    assert read_exact(data) == parse_strict(data)


@settings(deadline=None)
@given(st.binary(max_size=12) | st.text('{}[]",:0123456789.eE-+ \\utrfalsn\U00010000\uffff\tNI', max_size=12).map(str.encode))
def test_it_refuses_what_the_careful_way_refuses(data: bytes) -> None:
    """Whatever the bytes are."""
    assert repr(exact(data)) == repr(careful(data))


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b"9007199254740993",
        b"-0",
        b"1.0",
        b"1e1",
        b"NaN",
        b'"\\ud800"',
        b'"\\u0061"',
        b' {"a":1}',
        b'{"a":1}\n',
        '{"\U00010000":1,"\uffff":1}'.encode(),
        '{"\uffff":1,"\U00010000":1}'.encode(),
        b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
        b"[" * 100_000,
        b"",
        b"\xff",
    ],
)
def test_what_is_not_canonical_is_told(data: bytes) -> None:
    """Each of these is refused unless the careful way takes it."""
    assert repr(exact(data)) == repr(careful(data))


def test_bytes_that_say_something_twice_are_refused() -> None:
    """Though a lenient reader would make one value of them."""
    with pytest.raises(NotCanonical, match="twice"):
        read_exact(b'{"a":1,"a":1}')
