"""Plain scalars mean what YAML 1.2 says, never what YAML 1.1 said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import Json
from agentos.manifests.scalar import NotJson, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("nUll", "nUll"),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("NO", "NO"),
        ("on", "on"),
        ("y", "y"),
        ("12:30:00", "12:30:00"),
        ("2027-01-31", "2027-01-31"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("-0x1F", "-0x1F"),
        ("+12", 12),
        ("-7", -7),
        ("1.10", 1.1),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("-", "-"),
        ("+.", "+."),
        ("1e", "1e"),
        ("9007199254740992", 2**53),
        ("٣", "٣"),
    ],
)
def test_core_schema(text: str, value: Json) -> None:
    """A scalar has the value and the type of YAML 1.2's core schema."""
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", [".inf", "-.INF", ".nan", "9007199254740993", "-9007199254740993", "9" * 5000, "0x20000000000001", "1e999"]
)
def test_numbers_that_json_does_not_keep(text: str) -> None:
    """A number that another reader would change is refused, however long it is."""
    with pytest.raises(NotJson):
        resolve(text)


@given(st.integers(-(2**53), 2**53))
def test_integers_come_back(number: int) -> None:
    """A whole number that JSON keeps is read as written."""
    assert resolve(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float) -> None:
    """A float is read as written."""
    assert resolve(repr(number)) == number
