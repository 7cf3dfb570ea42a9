"""Bodies on the wire: there and back, and bounded whatever comes."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.errors import UsageError
from agentos.control import wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
GZIP = {wire.ENCODING: "gzip"}


@settings(deadline=None)
@given(VALUES, st.booleans())
def test_a_body_comes_out_as_it_went_in(value: object, large: bool) -> None:
    """Small or compressed, any JSON value survives."""
    body = {"value": value, "fill": "x" * wire.GZIP_ABOVE if large else ""}
    data, headers = wire.encode(body)
    assert headers == (GZIP if large else {})
    assert wire.decode(data, headers) == body


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(1, 50))
def test_parts_joined_are_the_whole(data: bytes, size: int) -> None:
    """No part is longer than asked for, none is missing, and nothing is sent as one empty part."""
    parts = wire.split(data, size)
    assert b"".join(parts) == data
    assert len(parts) == max(1, -(-len(data) // size))
    assert all(len(part) <= size for part in parts)


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from([None, {}, GZIP, {wire.ENCODING: "br"}]))
def test_junk_is_a_usage_error(data: bytes, headers: dict[str, str] | None) -> None:
    """Bytes of any kind are a JSON value or UsageError."""
    try:
        value = wire.decode(data, headers)
    except UsageError:
        return
    assert json.loads(json.dumps(value)) == value or value != value


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"{}", mtime=0)[:-4],
        gzip.compress(b'{"a":1}', mtime=0)[:10],
        gzip.compress(b"{}", mtime=0)[:-8] + b"\0" * 8,
        gzip.compress(b"{}", mtime=0)[:10] + b"\xff" * 20,
        gzip.compress(b"{}", mtime=0) + b"junk",
        b"\x1f\x8b",
        b"{}",
        b"",
    ],
    ids=["cut trailer", "cut body", "wrong checksum", "broken deflate", "junk behind", "only magic", "not gzip", "empty"],
)
def test_broken_compression_is_a_usage_error(data: bytes) -> None:
    """A stream that is cut, altered, or no stream at all."""
    with pytest.raises(UsageError):
        wire.decode(data, GZIP)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'"\xff"'])
def test_hostile_json_is_a_usage_error(data: bytes) -> None:
    """Too deep, too long, not UTF-8."""
    with pytest.raises(UsageError):
        wire.decode(data, None)


def test_a_small_message_cannot_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb that unpacks to a hundred times the bound is refused after the bound, not unpacked."""
    monkeypatch.setattr(wire, "MAX_BODY", 1024 * 1024)
    bomb = gzip.compress(b"0" * 100 * wire.MAX_BODY)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="larger than 1048576 bytes"):
            wire.decode(bomb, GZIP)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * wire.MAX_BODY


def test_a_body_beyond_the_bound_is_refused_without_compression_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on the body, however it came."""
    monkeypatch.setattr(wire, "MAX_BODY", 10)
    with pytest.raises(UsageError, match="larger than 10 bytes"):
        wire.decode(b'"0123456789"', None)
