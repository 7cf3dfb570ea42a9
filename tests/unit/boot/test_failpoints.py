"""Failpoints count passes of one point, and nothing is wrapped where none is asked for."""

from __future__ import annotations

import pytest

from agentos.abi.errors import UsageError
from agentos.boot.failpoints import Failpoints
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message

SUBJECT = "ev.000000.0.s-1"


@pytest.mark.parametrize(
    ("point", "number", "left"),
    [("before-append", 2, 1), ("after-append", 2, 2), ("before-session.owned", 1, 1), ("after-session.owned", 1, 2)],
)
async def test_it_kills_at_the_pass_that_it_was_told(point: str, number: int, left: int) -> None:
    """Before an append nothing is stored, after it everything; a type counts its own events alone."""
    log, killed = MemoryLog(), RuntimeError("killed")

    def kill() -> None:
        raise killed

    wrapped = Failpoints(point, number, kill).log(log)
    await wrapped.append(SUBJECT, [Message("1", b'{"type":"agentos.session.created"}')], after=0)
    with pytest.raises(RuntimeError, match="killed"):
        await wrapped.append(SUBJECT, [Message("2", b'{"type":"agentos.session.owned"}\t{"data":{}}')], after=1)
    assert [stored.position async for stored in log.read(SUBJECT)] == list(range(1, left + 1))


def test_without_the_variable_there_is_none() -> None:
    assert Failpoints.of_environment({}) is None
    assert Failpoints.of_environment({"AGENTOS_FAILPOINT": ""}) is None


@pytest.mark.parametrize("text", ["after-append", "append:1", "after-append:0", "after-append:x", "after-append:1 "])
def test_a_point_that_there_is_not(text: str) -> None:
    """A typing error would make a test that proves nothing."""
    with pytest.raises(UsageError, match="names no failpoint"):
        Failpoints.of_environment({"AGENTOS_FAILPOINT": text})
