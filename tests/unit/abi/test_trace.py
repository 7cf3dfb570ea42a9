"""An error's places are told, its words are not: neither its own, nor those of what it came from."""

from __future__ import annotations

import pytest

from agentos.abi.errors import DriverError
from agentos.abi.trace import trace

CANARY = "kestrel-canary-3d90"


def parse(text: str) -> int:
    return int(text)


def caught(cause: bool) -> BaseException:
    """An error about the canary that came of another one about it."""
    try:
        try:
            parse(CANARY)
        except ValueError as error:
            error.add_note(CANARY)
            if cause:
                raise DriverError(f"the tool said {CANARY}", where=CANARY, mend=CANARY) from error
            raise DriverError(f"the tool said {CANARY}")  # noqa: B904 - as it happens
    except DriverError as error:
        return error


@pytest.mark.parametrize("cause", [True, False])
def test_types_and_places_and_no_words(cause: bool) -> None:
    """Both errors of the chain, the files and functions, and nothing that they say."""
    told = trace(caught(cause))
    assert CANARY not in told
    assert "agentos.abi.errors.DriverError" in told
    assert "builtins.ValueError" in told
    assert "test_trace.py" in told
    assert "in parse" in told


def test_groups_tell_what_is_in_them() -> None:
    """Every error of a group, and of a group in a group."""
    group = ExceptionGroup(CANARY, [caught(True), ExceptionGroup(CANARY, [KeyError(CANARY)])])
    told = trace(group)
    assert CANARY not in told
    assert told.count("ExceptionGroup") == 2
    assert "builtins.KeyError" in told
    assert "builtins.ValueError" in told


def test_a_circle_ends() -> None:
    """Errors that name each other as their cause."""
    one, two = ValueError(CANARY), KeyError(CANARY)
    one.__cause__, two.__cause__ = two, one
    assert trace(one).count("builtins.") == 2
