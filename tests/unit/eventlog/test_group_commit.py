"""Which appends are written when, and together with which others: the real scheduling over a writer that obeys the test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentos.abi.errors import LogUnavailable, SequenceConflict
from agentos.eventlog import Message
from agentos.eventlog.adapters import group_commit
from agentos.eventlog.adapters.append_wire import Append
from agentos.eventlog.adapters.group_commit import BATCH_BYTES, FEW, OPEN_BATCHES, PIPELINE, GroupCommit


class Link:
    """Leads nowhere."""

    client = None
    generation = 0


class Writer:
    """Notes what it is given and finishes it when the test says so."""

    def __init__(self, settle: Any) -> None:
        self.settle = settle
        self.atomic: bool | None = True
        self.most = 1000
        self.given: list[list[str]] = []
        self.gate = asyncio.Event()
        self.outcome: Any = 1
        self.learned = 0
        self.learning: Exception | None = None

    async def alone(self, append: Append) -> None:
        await self.together([append])

    async def together(self, appends: list[Append]) -> None:
        self.given.append([append.messages[0].id for append in appends])
        await self.gate.wait()
        for append in appends:
            if isinstance(self.outcome, RuntimeError):
                raise self.outcome
            self.settle(append, self.outcome)

    async def learn(self) -> None:
        self.learned += 1
        if self.learning is not None:
            raise self.learning
        self.atomic = True


class Bench:
    """A group commit over the writer, and the appends that were handed in."""

    def __init__(self) -> None:
        self.commit = GroupCommit(Link(), "EV_0")  # type: ignore[arg-type]
        self.writer = Writer(self.commit._settle)
        self.commit._writer = self.writer  # type: ignore[assignment]

    def hand_in(self, *names: str, size: int = 1, count: int = 1) -> list[asyncio.Task[int]]:
        """Append to the subject that the name begins with (`a1`: `ev.0.a`)."""
        return [asyncio.create_task(self.submit(self.append(name, size, count))) for name in names]

    async def submit(self, append: Append) -> int:
        self.commit.submit(append)
        return await append.done

    def append(self, name: str, size: int, count: int) -> Append:
        messages = [Message(name if number == 0 else f"{name}-{number}", b"x" * size) for number in range(count)]
        ids = [message.id for message in messages]
        loop = asyncio.get_running_loop()
        return Append(f"ev.0.{name.rstrip('0123456789')}", messages, ids, 0, loop.time(), loop.create_future(), size * count)

    async def given(self) -> list[list[str]]:
        """What the writer was given since the last question, once everybody has done what can be done now."""
        for _ in range(10):
            await asyncio.sleep(0)
        given, self.writer.given = self.writer.given, []
        return given


def names(count: int, prefix: str = "s") -> list[str]:
    """Names of `count` different subjects."""
    return [f"{prefix}{'x' * number}_1" for number in range(count)]


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_few_are_written_each_by_itself_at_once(bench):
    """Up to a dozen are under way side by side, not waiting for each other."""
    bench.hand_in("a1", "b1")
    assert await bench.given() == [["a1"], ["b1"]]
    bench.hand_in("c1")
    assert await bench.given() == [["c1"]]
    bench.hand_in(*names(FEW - 1))
    assert len(await bench.given()) == FEW - 3
    bench.writer.gate.set()
    assert len(await bench.given()) == 2


async def test_many_are_written_together(bench):
    """A dozen that wait in the same moment are one batch, in the order in which they came."""
    waiting = names(FEW)
    bench.hand_in(*waiting)
    assert await bench.given() == [waiting]


async def test_while_batches_are_under_way_the_next_gathers(bench):
    """A second batch goes when it is worth the while, nothing else until one of them has ended; then all that waits goes."""
    bench.hand_in(*names(100, "a"))
    assert [len(group) for group in await bench.given()] == [100]
    bench.hand_in(*names(49, "b"))
    assert await bench.given() == []
    bench.hand_in("more1")
    assert [len(group) for group in await bench.given()] == [50]
    bench.hand_in(*names(200, "c"), "last1")
    assert await bench.given() == []
    assert len(bench.commit._batches) == OPEN_BATCHES
    bench.writer.gate.set()
    assert [len(group) for group in await bench.given()] == [201]


async def test_after_a_batch_the_first_to_come_waits_for_the_others(bench, monkeypatch):
    """Those who come back one by one are gathered for a moment; if few come, they go each by itself."""
    monkeypatch.setattr(group_commit, "GATHER", 0.05)
    bench.writer.gate.set()
    await asyncio.gather(*bench.hand_in(*names(FEW)))
    await bench.given()
    late = bench.hand_in("a1")
    assert await bench.given() == []
    late += bench.hand_in("b1")
    await asyncio.gather(*late)
    assert await bench.given() == [["a1"], ["b1"]]


async def test_a_subject_has_one_append_under_way_in_order(bench):
    """Appends to one subject are never in one batch and never overtake each other."""
    group = names(FEW - 1)
    tasks = bench.hand_in("a1", "a2", "a3", *group)
    assert await bench.given() == [["a1", *group]]
    bench.writer.gate.set()
    await asyncio.gather(*tasks)
    assert await bench.given() == [["a2"], ["a3"]]
    assert not bench.commit._claimed


async def test_appends_with_an_id_in_common_are_in_different_batches(bench):
    """The server refuses a batch in which an id stands twice."""
    group = names(FEW)
    tasks = bench.hand_in(*group)
    twin = bench.append("twin1", 1, 1)
    twin.messages, twin.ids = [Message(group[3], b"")], [group[3]]
    tasks.append(asyncio.create_task(bench.submit(twin)))
    assert await bench.given() == [group]
    bench.writer.gate.set()
    await asyncio.gather(*tasks)
    assert await bench.given() == [[group[3]]]


async def test_a_batch_has_limits(bench):
    """Not more messages than the server takes, not more bytes than are worth writing twice, but always at least one append."""
    bench.writer.most = 20
    tasks = bench.hand_in(*names(30, "a"))
    assert [len(group) for group in await bench.given()] == [20]
    bench.writer.gate.set()
    await asyncio.gather(*tasks)
    await bench.given()
    bench.writer.most = 1000
    bench.writer.gate.clear()
    bench.hand_in(*names(3, "b"), size=BATCH_BYTES // 2, count=2)
    assert [len(group) for group in await bench.given()] == [1, 1]


async def test_several_messages_always_go_as_a_batch_and_take_the_others_along(bench):
    """An append of several messages does not wait for others, and those who wait go with it."""
    bench.hand_in("a1", count=3)
    bench.hand_in("b1")
    assert await bench.given() == [["a1", "b1"]]


async def test_who_has_left_is_not_written(bench):
    """A cancelled append that was not begun is dropped; one that was begun goes on, and its subject with it."""
    begun = bench.hand_in("a1")
    assert await bench.given() == [["a1"]]
    waiting = bench.hand_in("a2", "a3", "a4")
    await bench.given()
    for task in (*begun, waiting[0], waiting[1]):
        task.cancel()
    await bench.given()
    bench.writer.gate.set()
    assert await waiting[2] == 1
    assert await bench.given() == [["a4"]]
    group = bench.hand_in(*names(FEW))
    for task in group:
        task.cancel()
    await bench.given()
    assert await bench.given() == []
    assert not bench.commit._claimed


async def test_each_caller_gets_its_own_outcome(bench):
    """A refusal reaches the caller as it is; the subject is free afterwards."""
    bench.writer.gate.set()
    bench.writer.outcome = SequenceConflict("moved", where="ev.0.a")
    with pytest.raises(SequenceConflict, match="moved"):
        await bench.hand_in("a1")[0]
    bench.writer.outcome = 7
    assert await bench.hand_in("a2")[0] == 7


async def test_a_failure_nobody_foresaw_reaches_every_caller(bench):
    """Nobody waits for ever for a writer that broke."""
    bench.writer.gate.set()
    bench.writer.outcome = RuntimeError("broken")
    results = await asyncio.gather(*bench.hand_in(*names(FEW), "a1", "a2"), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * (FEW + 2)
    assert not bench.commit._claimed


async def test_without_batches_publishes_are_pipelined(bench):
    """On a stream that takes none, many are under way side by side, also those of several messages."""
    bench.writer.atomic = False
    bench.hand_in(*names(PIPELINE + 5), count=2)
    assert len(await bench.given()) == PIPELINE


async def test_it_is_learned_on_the_way_whether_there_are_batches(bench):
    """A few go ahead meanwhile; once it is known, the rest is one batch."""
    bench.writer.atomic = None
    bench.hand_in(*names(FEW + 30))
    first, *others = await bench.given()
    assert len(first) == 1
    assert sum(len(group) for group in others) == FEW + 29
    assert max(len(group) for group in others) >= 30
    assert bench.writer.learned == 1


async def test_a_server_that_does_not_tell_is_not_asked_all_the_time(bench):
    """If it cannot be learned, appends are tried by themselves, which tells their callers why."""
    bench.writer.atomic = None
    bench.writer.learning = LogUnavailable("away")
    bench.writer.gate.set()
    await asyncio.gather(*bench.hand_in(*names(40), count=2))
    assert all(len(group) == 1 for group in await bench.given())
    assert bench.writer.learned == 1
