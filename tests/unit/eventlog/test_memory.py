"""The log in memory against a model: lists per subject, and one list for the stream."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import SequenceConflict
from agentos.eventlog import Message
from agentos.eventlog.adapters.memory import MemoryLog

steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(["append", "repeat", "stale", "ahead"])), max_size=30
)


@given(steps)
def test_appends_of_any_order_are_read_in_their_order(plan):
    """Whatever is appended, repeated or refused: reads give what was accepted, in order, once; scan gives all of it."""

    async def play() -> None:
        log = MemoryLog()
        model: list[tuple[str, bytes]] = []
        ends: dict[str, int] = {}
        past: dict[str, tuple[list[Message], int, int]] = {}
        for number, (which, count, how) in enumerate(plan):
            subject = f"ev.0.s-{which}"
            end = ends.get(subject, 0)
            messages = [Message(f"{number}-{index}", f"{number}-{index}".encode()) for index in range(count)]
            if how == "repeat" and subject in past:
                before, after, answer = past[subject]
                assert await log.append(subject, before, after=after) == answer
            elif how == "ahead" or (how == "stale" and end):
                with pytest.raises(SequenceConflict):
                    await log.append(subject, messages, after=end + 1 if how == "ahead" else 0)
            else:
                ends[subject] = await log.append(subject, messages, after=end)
                past[subject] = (messages, end, ends[subject])
                model += [(subject, message.data) for message in messages]
        assert [(stored.subject, stored.data) async for stored in log.scan("EV_0")] == model
        assert [stored.position async for stored in log.scan("EV_0")] == list(range(1, len(model) + 1))
        assert await log.end("EV_0") == len(model)
        for subject, end in ends.items():
            read = [stored async for stored in log.read(subject)]
            assert [stored.data for stored in read] == [data for known, data in model if known == subject]
            assert await log.last(subject) == read[-1]
            assert read[-1].position == end
            assert [stored async for stored in log.read(subject, after=read[0].position)] == read[1:]

    asyncio.run(play())


async def test_two_followers_each_get_everything():
    """Followers do not take from each other, and each wakes for what is appended later."""
    log = MemoryLog()
    followers = [log.follow("EV_0"), log.follow("EV_0", after=1)]
    waiting = [asyncio.ensure_future(anext(follower)) for follower in followers]
    await log.append("ev.0.a", [Message("1", b"1"), Message("2", b"2")], after=0)
    assert [(await first).data for first in waiting] == [b"1", b"2"]
    waiting = [asyncio.ensure_future(anext(follower)) for follower in followers]
    await log.append("ev.0.b", [Message("3", b"3")], after=0)
    assert [(await second).data for second in waiting] == [b"2", b"3"]


async def test_a_follower_may_be_cancelled_while_it_waits():
    """Cancelling a follower leaves the log as it was."""
    log = MemoryLog()
    waiting = asyncio.ensure_future(anext(log.follow("EV_0")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await log.append("ev.0.a", [Message("1", b"1")], after=0) == 1
