"""Canonical JSON: the same bytes as an independent implementation of RFC 8785, and strict reading of hostile bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from abi_values import FLOAT, JSON, TEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import MAX_DEPTH, NotCanonical, canonical, digest, digest_of, parse_strict


@given(JSON)
def test_bytes_equal_those_of_another_implementation(value: Any) -> None:
    """RFC 8785 as the package `rfc8785` writes it: floats, keys beyond the basic plane, escapes."""
    assert canonical(value) == rfc8785.dumps(value)


@given(FLOAT)
def test_floats_are_written_as_ecmascript_does(value: float) -> None:
    """Every double has the digits and the layout of ECMA-262's Number::toString."""
    assert canonical(value) == rfc8785.dumps(value)
    assert float(canonical(value)) == value


@given(st.dictionaries(TEXT, st.integers(0, 9), max_size=8))
def test_the_order_of_keys_at_the_door_does_not_matter(value: dict[str, int]) -> None:
    """Any order of insertion yields the same bytes, in the order of UTF-16 code units."""
    written = canonical(value)
    assert canonical(dict(reversed(value.items()))) == written
    keys = list(json.loads(written))
    assert keys == sorted(keys, key=lambda key: key.encode("utf-16-be"))


def test_keys_are_ordered_by_utf16_not_by_code_point() -> None:
    """U+10000 (surrogates D800 DC00) sorts before U+E000, though its code point is larger."""
    assert canonical({"\ue000": 1, "\U00010000": 2}) == '{"\U00010000":2,"\ue000":1}'.encode()


@given(JSON)
def test_what_is_written_is_read_back(value: Any) -> None:
    """`parse_strict` inverts `canonical`, and writing again changes nothing."""
    written = canonical(value)
    again = parse_strict(written)
    assert again == value
    assert canonical(again) == written
    assert digest_of(value) == digest(written)


@given(st.floats(2**53, 1e21, exclude_min=True, exclude_max=True), st.sampled_from([1, -1]))
def test_a_float_that_would_be_written_as_a_long_integer_is_refused(value: float, sign: int) -> None:
    """1e20 is written 100000000000000000000, which strict reading refuses: so it is refused at the door."""
    with pytest.raises(NotCanonical, match=r"^\$\.n: number beyond 2\^53"):
        canonical({"n": sign * value})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "$: nan is not JSON"),
        ({"a": [1, float("-inf")]}, "$.a[]: -inf is not JSON"),
        ([2**53 + 1], "$[]: integer beyond 2^53: write it as a string"),
        ({"a": -(2**80)}, "$.a: integer beyond 2^53: write it as a string"),
        ({"a": "\ud800"}, "$.a: lone surrogate in text"),
        ({"\udfff": 1}, "$: lone surrogate in text"),
        ({1: 1}, "$: key 1 is not a string"),
        ({"a": {"b": b"x"}}, "$.a.b: bytes is not a JSON value"),
        ({"a": {1, 2}}, "$.a: set is not a JSON value"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_path(value: Any, says: str) -> None:
    """The message names the first part that is wrong."""
    with pytest.raises(NotCanonical) as caught:
        canonical(value)
    assert str(caught.value) == says


def nested(depth: int) -> Any:
    value: Any = 0
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


def test_nesting_is_bounded_alike_in_writing_and_reading() -> None:
    """Whatever may be written may be read, and one level more is refused by both."""
    deepest = nested(MAX_DEPTH + 1)
    assert parse_strict(canonical(deepest)) == deepest
    too_deep = json.dumps(nested(MAX_DEPTH + 2))
    with pytest.raises(NotCanonical, match="nested deeper"):
        canonical(nested(MAX_DEPTH + 2))
    with pytest.raises(NotCanonical, match="nested deeper"):
        parse_strict(too_deep)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":1,"\\u0061":2}',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"9007199254740993",
        b"-9007199254740993",
        b"9" * 5000,
        b"9" * 100_000,
        b"0." + b"1" * 100_000 + b"e400",
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b"{} {}",
        b"[1,]",
        b"{'a':1}",
        b"01",
        b"1.",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'"\x00"',
        b'"\xc3"',
        b'"\xed\xa0\x80"',
    ],
    ids=lambda data: repr(data[:16]),
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    """Two meanings, no meaning, too deep, too large: each is NotCanonical and nothing else."""
    with pytest.raises(NotCanonical):
        parse_strict(data)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Bytes of any kind are a value or NotCanonical."""
    try:
        value = parse_strict(data)
    except NotCanonical:
        return
    assert parse_strict(canonical(value)) == value


TOKENS = ["{", "}", "[", "]", ":", ",", '"a"', '"\\ud83d"', '"\\u0000"', "1", "-0", "1e5", "1E400", "9" * 18, "null", "NaN", " "]


@given(st.lists(st.sampled_from(TOKENS), max_size=14))
def test_no_sequence_of_tokens_raises_anything_else(tokens: list[str]) -> None:
    """As above, nearer to JSON."""
    try:
        value = parse_strict("".join(tokens))
    except NotCanonical:
        return
    canonical(value)


@settings(max_examples=50)
@given(JSON, st.integers(0, 2**16), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_another_value(value: Any, place: int, byte: int) -> None:
    """Strict reading never maps two different canonical texts to one value."""
    written = bytearray(canonical(value))
    place %= len(written)
    if written[place] == byte:
        return
    written[place] = byte
    try:
        other = parse_strict(bytes(written))
    except NotCanonical:
        return
    assert canonical(other) != canonical(value) or canonical(other) != bytes(written)


def test_a_digest_names_its_algorithm() -> None:
    """`sha256:` and 64 hex digits of the stored bytes."""
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
