"""Faults of the log in memory: planned by a script or a seed, and the same each time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import LogUnavailable, SequenceConflict
from agentos.eventlog import Message
from agentos.eventlog.adapters.faults import NONE, Fault, Kind, Script, Seeded
from agentos.eventlog.adapters.memory import MemoryLog


def several(prefix: str, count: int) -> list[Message]:
    return [Message(f"{prefix}-{number}", f"{prefix}-{number}".encode()) for number in range(count)]


@pytest.mark.parametrize(
    ("kind", "count", "kept"),
    [
        (Kind.LOST, 3, 0),
        (Kind.UNANSWERED, 3, 3),
        (Kind.FULL, 3, 0),
        (Kind.TORN, 3, 1),
        (Kind.TORN, 1, 0),
    ],
)
async def test_each_kind_keeps_what_it_says_and_repeating_is_right(kind, count, kept):
    """The caller is not told a position; what is kept is as the kind says; the repeated append is stored once."""
    log = MemoryLog(faults=Script([Fault(kind)]))
    with pytest.raises(LogUnavailable) as caught:
        await log.append("ev.0.a", several("a", count), after=0)
    assert caught.value.where == "ev.0.a"
    assert caught.value.mend
    assert await log.end("EV_0") == kept
    assert await log.append("ev.0.a", several("a", count), after=0) == count
    assert await log.end("EV_0") == count


async def test_a_delayed_append_is_overtaken_by_other_subjects_only():
    """Appends to other subjects come first; those to the same subject keep their order."""
    log = MemoryLog(faults=Script([Fault(delay=5), NONE, NONE]))
    slow = asyncio.create_task(log.append("ev.0.a", several("slow", 1), after=0))
    behind = asyncio.create_task(log.append("ev.0.a", several("behind", 1), after=0))
    other = asyncio.create_task(log.append("ev.0.b", several("other", 1), after=0))
    results = await asyncio.gather(slow, behind, other, return_exceptions=True)
    assert [message.data async for message in log.scan("EV_0")] == [b"other-0", b"slow-0"]
    assert isinstance(results[1], SequenceConflict)


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_a_seed_gives_the_same_history_each_time_and_loses_nothing_acknowledged(seed, sessions):
    """Two runs of one seed store the same; whatever fails, callers who repeat end with each message once, in order."""

    async def play() -> list[tuple[str, bytes]]:
        log = MemoryLog(faults=Seeded(seed, lost=0.2, unanswered=0.2, torn=0.1, full=0.1, delay=3))

        async def write(number: int) -> None:
            end = 0
            for round_ in range(4):
                while True:
                    try:
                        end = await log.append(f"ev.0.s-{number}", several(f"{number}-{round_}", 1 + round_ % 2), after=end)
                    except LogUnavailable:
                        continue
                    break

        await asyncio.gather(*(write(number) for number in range(sessions)))
        return [(message.subject, message.data) async for message in log.scan("EV_0")]

    first, second = asyncio.run(play()), asyncio.run(play())
    assert first == second
    for number in range(sessions):
        found = [data.decode() for subject, data in first if subject == f"ev.0.s-{number}"]
        assert found == [f"{number}-{round_}-{part}" for round_ in range(4) for part in range(1 + round_ % 2)]


def test_probabilities_are_checked():
    """More than everything, and less than nothing, are mistakes."""
    for wrong in ({"lost": 0.6, "full": 0.6}, {"torn": -0.1}):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Seeded(1, **wrong)


async def test_closing_wakes_who_waits():
    """A follower that waits for more is told that the log is closed."""
    log = MemoryLog()
    waiting = asyncio.ensure_future(anext(log.follow("EV_0")))
    await asyncio.sleep(0)
    log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await waiting
