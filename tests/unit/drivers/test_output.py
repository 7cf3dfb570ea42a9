"""Output: what is shown is bounded, what is cut is kept, and a cut is never silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import digest
from agentos.abi.errors import DriverError
from agentos.drivers.output import Shown, beginning, bounded, ending


class Memory:
    """Keeps in memory; or refuses to."""

    def __init__(self, *, full: bool = False) -> None:
        self.kept: dict[str, tuple[str, str, bytes]] = {}
        self._full = full

    def clean(self, tenant: str, session: str, data: bytes) -> bytes:
        del tenant, session
        return data

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        if self._full:
            raise DriverError("the disk is full")
        self.kept[digest(data)] = (tenant, session, data)
        return digest(data)


def shown(body: bytes, limit: int, outputs: Memory | None = None) -> Shown:
    return bounded(body, limit, outputs, tenant="t", session="s-1")


def test_what_fits_is_shown_whole() -> None:
    """And kept nowhere."""
    memory = Memory()
    assert shown(b"x" * 1024, 1024, memory) == Shown("x" * 1024, 1024)
    assert shown(b"", 1024, memory) == Shown("", 0)
    assert memory.kept == {}


def test_what_does_not_fit_is_kept_whole() -> None:
    """The notice says how much is shown, of how much, and how to get the rest."""
    memory = Memory()
    body = b"0123456789" * 200
    cut = shown(body, 1024, memory)
    assert memory.kept == {digest(body): ("t", "s-1", body)}
    assert (cut.truncated, cut.digest, cut.bytes) == (True, digest(body), 2000)
    assert cut.text.endswith(
        f"\n[cut here: the first 768 of 2000 bytes are shown; the whole is kept: agentos fs cat SESSION {digest(body)}]"
    )
    assert len(cut.text.encode()) <= 1024


@pytest.mark.parametrize("outputs", [None, Memory(full=True)])
def test_what_cannot_be_kept_is_said_to_be_lost(outputs: Memory | None) -> None:
    """The call has happened: its result is given all the same, and the loss is no secret."""
    cut = shown(b"x" * 2000, 1024, outputs)
    assert (cut.truncated, cut.digest) == (True, None)
    assert "the rest is lost: " in cut.text


def test_what_is_no_text_is_replaced_and_still_fits() -> None:
    """A replacement takes three bytes for one: the bound holds for what is shown."""
    cut = shown(b"\xff" * 1000, 1024, Memory())
    assert cut.truncated
    assert len(cut.text.encode()) <= 1024


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode), st.integers(0, 120))
def test_a_beginning_is_a_beginning(body: bytes, limit: int) -> None:
    """Its bytes are the first ones, its text is no longer than the limit, and of valid text no character is cut in two."""
    head = beginning(body, limit)
    assert body.startswith(head)
    assert len(head.decode("utf-8", "replace").encode()) <= limit
    try:
        body.decode()
    except UnicodeDecodeError:
        return
    head.decode()


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode), st.integers(0, 120))
def test_an_ending_is_an_ending(body: bytes, limit: int) -> None:
    """The end of the text, no longer than the limit."""
    tail = ending(body, limit)
    assert body.decode("utf-8", "replace").endswith(tail)
    assert len(tail.encode()) <= limit


def test_an_ending_begins_with_a_line() -> None:
    """Where one begins near; a long line is not thrown away for the short one behind it."""
    assert ending(b"first line\nsecond line\nthird line", 30) == "second line\nthird line"
    assert ending(b"x" * 100 + b"\nend", 40) == "x" * 36 + "\nend"
