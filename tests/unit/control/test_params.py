"""Parameters of a verb: taken or refused, never guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import UsageError
from agentos.control.params import Params

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(ANY)
def test_a_reader_gives_its_type_or_a_usage_error(value: Any) -> None:
    """No value is converted: true is no number, a number no text, null no list."""
    checks = {
        "text": (lambda take: take.text("x", longest=5), isinstance(value, str) and value != ""),
        "text_or_none": (lambda take: take.text_or_none("x"), value is None or (isinstance(value, str) and value != "")),
        "number": (lambda take: take.number("x", default=0, highest=9), type(value) is int and 0 <= value <= 9),
        "flag": (lambda take: take.flag("x"), isinstance(value, bool)),
        "texts": (lambda take: take.texts("x"), isinstance(value, list) and all(isinstance(item, str) for item in value)),
    }
    for name, (read, fits) in checks.items():
        take = Params({"x": value})
        if fits:
            got = read(take)
            assert (list(got) if isinstance(got, tuple) else got) == value, name
            take.end()
        else:
            with pytest.raises(UsageError, match="parameter x: expected"):
                read(take)


@given(st.dictionaries(st.sampled_from("abcdef"), ANY, max_size=4))
def test_what_nobody_took_is_named(params: dict[str, Any]) -> None:
    """Unknown parameters are refused by name, sorted; the caller's own object is not changed."""
    copy = dict(params)
    take = Params(params)
    take.text_or_none("a") if isinstance(params.get("a"), str) and params["a"] else None
    rest = sorted(set(params) - ({"a"} if isinstance(params.get("a"), str) and params["a"] else set()))
    if rest:
        with pytest.raises(UsageError) as caught:
            take.end()
        assert str(caught.value) == f"unknown parameters: {', '.join(rest)}"
    else:
        take.end()
    assert params.keys() == copy.keys()


def test_what_is_missing() -> None:
    """Required readers refuse, optional ones have their defaults."""
    take = Params({})
    assert (take.text_or_none("x"), take.number("x", default=7, highest=9), take.flag("x")) == (None, 7, False)
    for read in (take.text, take.texts):
        with pytest.raises(UsageError):
            read("x")


@pytest.mark.parametrize(("value", "fits"), [(0, False), (1, True), (10, True), (11, False), (2**70, False), (-1, False)])
def test_numbers_have_bounds(value: int, fits: bool) -> None:
    """Both ends belong to the range."""
    if fits:
        assert Params({"n": value}).number("n", default=1, lowest=1, highest=10) == value
    else:
        with pytest.raises(UsageError, match="from 1 to 10"):
            Params({"n": value}).number("n", default=1, lowest=1, highest=10)
