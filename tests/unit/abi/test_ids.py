"""Names and ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.ids import is_name, new_id
from agentos.eventlog.subject import session_of, session_subject, stream_of


class Fixed:
    """A clock and a random source that say what they are told."""

    def __init__(self, ms: int, raw: bytes) -> None:
        self.ms, self.raw = ms, raw

    def now_ms(self) -> int:
        return self.ms

    def token(self, size: int) -> bytes:
        assert size == len(self.raw)
        return self.raw


SOURCES = st.builds(Fixed, st.integers(0, 2**45 - 1), st.binary(min_size=7, max_size=7))


@given(SOURCES, st.sampled_from(["s", "rev", "a-b"]))
def test_an_id_is_a_name_and_a_subject(source: Fixed, prefix: str) -> None:
    """An id may stand in a NATS subject, a path and a command line, and its length is fixed."""
    made = new_id(prefix, source, source)
    assert is_name(made)
    assert len(made) == len(prefix) + 20
    assert session_of(session_subject(made)) == made
    assert stream_of(session_subject(made)).startswith("EV_")


@given(SOURCES, SOURCES)
def test_ids_sort_by_time(one: Fixed, other: Fixed) -> None:
    """The earlier id is the smaller text, whatever randomness says."""
    if one.ms < other.ms:
        assert new_id("s", one, one) < new_id("s", other, other)


@given(st.binary(min_size=7, max_size=7), st.binary(min_size=7, max_size=7))
def test_randomness_keeps_ids_of_one_moment_apart(one: bytes, other: bytes) -> None:
    """The last 50 bits of the random bytes tell two ids of one millisecond apart."""
    bits = (1 << 50) - 1
    same = int.from_bytes(one, "big") & bits == int.from_bytes(other, "big") & bits
    assert (new_id("s", Fixed(5, one), Fixed(5, one)) == new_id("s", Fixed(5, other), Fixed(5, other))) == same


@pytest.mark.parametrize("text", ["a", "a-", "a1", "z" * 63])
def test_names(text: str) -> None:
    """Lower-case letters, digits and dashes, a letter first, at most 63."""
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "A", "1a", "-a", "a" * 64, "a.b", "a b", "a\n", "a*", "a>", "é", "\u0430", "a/b", "..", "a_b", "a\x00"]
)
def test_what_is_no_name(text: str) -> None:
    """Nothing that means something to NATS, a shell, a path or SQL."""
    assert not is_name(text)


@given(st.text(max_size=5))
def test_a_name_is_plain_ascii(text: str) -> None:
    """Whatever passes is made of 37 characters."""
    if is_name(text):
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
