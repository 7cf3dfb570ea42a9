"""The contract of the event log port, one body of tests over both adapters, and over a stream that takes no atomic batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from agentos.abi.errors import SequenceConflict
from agentos.abi.ids import new_id
from agentos.eventlog import AUDIT_CHAIN, EventLog, Message, session_subject, stream_of
from agentos.eventlog.adapters import streams
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.adapters.streams import describe_streams

ONE, TWO = session_subject("s-one"), session_subject("s-two")


class At:
    """A clock that is set by hand, and bytes that count."""

    def __init__(self, moment: str) -> None:
        self.set(moment)
        self.count = 0

    def set(self, moment: str) -> None:
        self.ms = round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000)

    def now_ms(self) -> int:
        return self.ms

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")


@pytest.fixture(params=["memory", "jetstream", "without batches"])
async def log(request: pytest.FixtureRequest, open_account, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EventLog]:
    if request.param == "memory":
        yield MemoryLog()
        return
    if request.param == "without batches":
        # As a server does that does not know of them: every stream, also one that comes later, is made without.
        monkeypatch.setitem(streams._KEEPS, "allow_atomic", False)
    async with open_account() as door:
        yield JetStreamLog(door.client)
        for facts in await describe_streams(door.client):
            assert facts.atomic is (request.param == "jetstream")


def messages(prefix: str, count: int, *, size: int = 0) -> list[Message]:
    return [Message(f"{prefix}-{number}", f"{prefix}-{number}".encode().ljust(size, b".")) for number in range(count)]


async def read(log: EventLog, subject: str, after: int = 0) -> list[tuple[int, bytes]]:
    return [(stored.position, stored.data) async for stored in log.read(subject, after=after)]


async def test_an_empty_log_is_empty(log):
    """A subject and a stream that nothing was written to have no last message, no end and nothing to read."""
    assert await log.last(ONE) is None
    assert await log.end("EV_0") == 0
    assert await read(log, ONE) == []
    assert [stored async for stored in log.scan("EV_0")] == []
    assert await log.ends() == {}
    assert await log.streams() == ()


async def test_a_stream_is_there_with_its_first_message(log):
    """Reading makes no stream; the first append does, and `ends` tells each stream of events and where it ends."""
    for subject in (ONE, AUDIT_CHAIN, "blob.202611.00ff", "reg.revision"):
        assert await read(log, subject) == []
    assert await log.ends() == {}
    for subject, count in ((AUDIT_CHAIN, 1), (ONE, 3), ("blob.202611.00ff", 2), ("reg.revision", 1)):
        await log.append(subject, messages(subject, count), after=0)
    assert await log.ends() == {stream_of(ONE): 3, "AUD": 1}
    assert await log.streams() == (stream_of(ONE), "AUD")


async def test_a_new_month_makes_new_streams(log):
    """When the clock passes the end of a month, sessions go to other streams; the old ones go on where they are."""
    clock = At("2026-11-30T23:59:59.999")
    old = new_id("s", clock, clock)
    end = await log.append(session_subject(old), messages("old", 2), after=0)
    clock.set("2026-12-01T00:00:00.000")
    fresh = [new_id("s", clock, clock) for _ in range(40)]
    await asyncio.gather(*(log.append(session_subject(name), messages(name, 2), after=0) for name in fresh))
    await log.append(session_subject(old), messages("later", 1), after=end)
    months = {stream.split("_")[1]: 0 for stream in await log.streams()}
    for stream, last in (await log.ends()).items():
        months[stream.split("_")[1]] += last
    assert months == {"202611": 3, "202612": 80}
    assert len(await log.streams()) == 3
    assert [data for _, data in await read(log, session_subject(fresh[7]))] == [m.data for m in messages(fresh[7], 2)]


async def test_who_waits_for_new_streams_is_told_at_once(log):
    """`new_streams` names what is not known, now or once it comes into being; streams of blobs are none of those."""
    await log.append(ONE, messages("a", 1), after=0)
    assert await log.new_streams(()) == (stream_of(ONE),)
    waiting = asyncio.ensure_future(log.new_streams([stream_of(ONE)]))
    await log.append("blob.202611.00ff", messages("blob", 1), after=0)
    await log.append(ONE, messages("b", 1), after=1)
    assert not waiting.done()
    await log.append("ev.202612.1.s", messages("c", 1), after=0)
    async with asyncio.timeout(10):
        assert await waiting == ("EV_202612_1",)


async def test_the_first_appends_to_a_stream_may_come_together(log):
    """Many writers that meet a stream which is not there yet make it once, and all are stored."""
    await asyncio.gather(*(log.append(f"ev.202701.0.s-{number}", messages(f"{number}", 3), after=0) for number in range(50)))
    assert await log.ends() == {"EV_202701_0": 150}


async def test_what_is_appended_is_read_byte_for_byte(log):
    """Bytes come back as they were, in order, with growing positions; `last` is the last of them."""
    blobs = [b"", b"\x00\xff\r\n", "ünï".encode(), b"x" * 300_000]
    position = 0
    for number, blob in enumerate(blobs):
        position = await log.append(ONE, [Message(f"m-{number}", blob)], after=position)
    assert await read(log, ONE) == list(enumerate(blobs, start=1))
    last = await log.last(ONE)
    assert last is not None
    assert (last.subject, last.position, last.data) == (ONE, position, blobs[-1])


@pytest.mark.parametrize("count", [1, 2, 7])
async def test_an_append_on_an_old_position_is_a_conflict(log, count):
    """If the subject has moved past `after`, or never was there, SequenceConflict is raised and nothing is stored."""
    first = await log.append(ONE, messages("a", 1), after=0)
    for after in (0, first + 5):
        with pytest.raises(SequenceConflict) as caught:
            await log.append(ONE, messages("b", count), after=after)
        assert caught.value.where == ONE
    assert await read(log, ONE) == [(1, b"a-0")]
    assert await log.append(ONE, messages("b", count), after=first) == first + count


@pytest.mark.parametrize("count", [1, 2, 7])
async def test_a_repeated_append_returns_the_first_answer(log, count):
    """The same ids after the same position are stored once, also when the subject has moved on since."""
    base = await log.append(ONE, messages("a", 1), after=0)
    end = await log.append(ONE, messages("b", count), after=base)
    assert await log.append(ONE, messages("b", count), after=base) == end
    later = await log.append(ONE, messages("c", 3), after=end)
    assert await log.append(ONE, messages("b", count), after=base) == end
    assert [data for _, data in await read(log, ONE)] == [
        m.data for m in (*messages("a", 1), *messages("b", count), *messages("c", 3))
    ]
    assert later == end + 3


async def test_other_company_is_no_repetition(log):
    """An append whose ids are stored in another order, or beside other messages, is a conflict."""
    end = await log.append(ONE, messages("a", 3), after=0)
    for wrong in ([*messages("a", 2), Message("z", b"")], messages("a", 3)[::-1], messages("a", 3)[1:]):
        with pytest.raises(SequenceConflict):
            await log.append(ONE, wrong, after=0)
    assert await log.end(stream_of(ONE)) == end


async def test_what_is_missing_of_an_append_is_added(log):
    """If only the first messages of an append are stored, and nothing behind them, repeating it adds the rest."""
    base = await log.append(ONE, messages("a", 1), after=0)
    await log.append(ONE, messages("b", 2), after=base)
    assert await log.append(ONE, messages("b", 5), after=base) == base + 5
    assert await log.append(ONE, messages("b", 6), after=base) == base + 6
    await log.append(ONE, messages("c", 1), after=base + 6)
    with pytest.raises(SequenceConflict):
        await log.append(ONE, messages("b", 7), after=base)
    assert [data for _, data in await read(log, ONE)] == [b"a-0", *(f"b-{number}".encode() for number in range(6)), b"c-0"]


@pytest.mark.parametrize("count", [1, 3])
async def test_an_id_is_stored_once_in_a_stream(log, count):
    """An id that is stored already cannot be appended at another place of its stream."""
    end = await log.append(ONE, messages("a", 3), after=0)
    with pytest.raises(SequenceConflict):
        await log.append(ONE, messages("a", count), after=end)
    assert await log.end(stream_of(ONE)) == end


async def test_an_append_is_checked_before_it_is_sent(log):
    """No messages, an id that stands twice, and a subject of no stream are mistakes of the caller."""
    for wrong in ([], [Message("a", b""), Message("a", b"")]):
        with pytest.raises(ValueError, match="id of its own"):
            await log.append(ONE, wrong, after=0)
    for subject in ("ev.0.*", "ev.0.>", "ev.0.a b", "ev.0", "other.x", "ev.0.a\r\nPUB x 0"):
        with pytest.raises(ValueError, match="belongs to no stream"):
            await log.append(subject, messages("a", 1), after=0)
    for identity in ("", "a b", "ü", "a\r\nNats-Rollup: all"):
        with pytest.raises(ValueError, match="id of a message"):
            await log.append(ONE, [Message(identity, b"")], after=0)
    with pytest.raises(ValueError, match="at most 1000"):
        await log.append(ONE, messages("a", 1001), after=0)
    assert await log.append(ONE, messages("a", 1000), after=0) == 1000


async def test_subjects_of_one_stream_do_not_mix(log):
    """Subjects share positions and nothing else: each has its own order, expectations and readers."""
    subjects = [f"ev.1.s-{number}" for number in range(5)]
    ends = dict.fromkeys(subjects, 0)
    for round_ in range(4):
        for subject in subjects:
            ends[subject] = await log.append(subject, messages(f"{subject}-{round_}", 1 + round_ % 2), after=ends[subject])
    for subject in subjects:
        data = [data.decode() for _, data in await read(log, subject)]
        assert data == [f"{subject}-{round_}-{number}" for round_ in range(4) for number in range(1 + round_ % 2)]
    positions = [stored.position async for stored in log.scan("EV_1")]
    assert positions == list(range(1, 31))
    assert await log.end("EV_1") == 30
    assert await log.end("EV_0") == 0


async def test_reading_begins_behind_a_position(log):
    """`after` leaves out what is at or before it."""
    await log.append(ONE, messages("a", 5), after=0)
    assert [position for position, _ in await read(log, ONE, after=3)] == [4, 5]
    assert await read(log, ONE, after=5) == []
    assert [stored.position async for stored in log.scan(stream_of(ONE), after=2)] == [3, 4, 5]


async def test_only_one_of_many_writers_wins_a_position(log):
    """Of appends that expect the same position exactly one is stored, the others are told."""
    results = await asyncio.gather(
        *(log.append(ONE, messages(f"w{number}", 1 + number % 2), after=0) for number in range(12)), return_exceptions=True
    )
    won = [number for number, result in enumerate(results) if isinstance(result, int)]
    assert len(won) == 1
    assert all(isinstance(result, SequenceConflict) for number, result in enumerate(results) if number not in won)
    assert [data for _, data in await read(log, ONE)] == [m.data for m in messages(f"w{won[0]}", 1 + won[0] % 2)]


async def test_many_writers_on_subjects_of_their_own_all_win(log):
    """Sixty concurrent writers of batches and single messages lose nothing and keep their order."""

    async def write(number: int) -> None:
        end = 0
        for round_ in range(5):
            end = await log.append(f"ev.0.w-{number}", messages(f"{number}-{round_}", 1 + number % 3), after=end)

    await asyncio.gather(*(write(number) for number in range(60)))
    for number in range(60):
        data = [data.decode() for _, data in await read(log, f"ev.0.w-{number}")]
        assert data == [f"{number}-{round_}-{index}" for round_ in range(5) for index in range(1 + number % 3)]


async def test_ten_thousand_events_are_scanned_read_and_followed_without_gap(log):
    """Scan, read and follow of 10,000 events give each once, in order."""
    end = 0
    for number in range(20):
        end = await log.append("ev.0.many", messages(f"b{number}", 500, size=200), after=end)
    await log.append("ev.0.other", messages("other", 3), after=0)
    assert [stored.position async for stored in log.scan("EV_0")] == list(range(1, 10_004))
    assert [position for position, _ in await read(log, "ev.0.many")] == list(range(1, 10_001))
    followed = log.follow("EV_0", after=100)
    assert [(await anext(followed)).position for _ in range(9_903)] == list(range(101, 10_004))
    await followed.aclose()


async def test_follow_waits_for_what_comes(log):
    """A follower sees what was there, then each message as it is appended, singles and batches, for all subjects."""
    await log.append("ev.0.a", messages("past", 3), after=0)
    seen: list[tuple[str, int, bytes]] = []
    enough = asyncio.Event()

    async def watch() -> None:
        async for stored in log.follow("EV_0"):
            seen.append((stored.subject, stored.position, stored.data))
            if len(seen) in (3, 1003):
                enough.set()

    watcher = asyncio.create_task(watch())
    await asyncio.wait_for(enough.wait(), 10)
    enough.clear()
    end = 3
    for number in range(100):
        end = await log.append("ev.0.a", messages(f"n{number}", 1), after=end)
    await log.append("ev.0.b", messages("batch", 900), after=0)
    await asyncio.wait_for(enough.wait(), 20)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert [position for _, position, _ in seen] == list(range(1, 1004))
    assert [subject for subject, _, _ in seen] == ["ev.0.a"] * 103 + ["ev.0.b"] * 900


async def test_a_scan_ends_where_the_stream_ended_when_it_began(log):
    """Messages appended during a scan or a read are not part of it."""
    await log.append("ev.0.a", messages("a", 5), after=0)
    for reading in (log.scan("EV_0"), log.read("ev.0.a")):
        first = await anext(reading)
        last = await log.last("ev.0.a")
        assert last is not None
        await log.append("ev.0.a", messages(f"more-{last.position}", 2), after=last.position)
        rest = [stored.position async for stored in reading]
        assert [first.position, *rest] == list(range(1, last.position + 1))
