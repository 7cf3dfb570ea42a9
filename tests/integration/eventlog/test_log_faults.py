"""How a log fails, one body of tests over both adapters: what its caller is told, what is stored, and that repeating is right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from nats.errors import TimeoutError as NatsTimeout

from agentos.abi.errors import LogUnavailable, SequenceConflict, TooLarge
from agentos.eventlog import EventLog, Message
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.faults import NONE, Fault, Kind
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.adapters.server_config import Account, User

ROOM = 2_000_000
SUBJECTS = [f"ev.0.s-{number}" for number in range(40)]


class World(Protocol):
    """A log and ways to break it."""

    log: EventLog

    def lost(self) -> Any:
        """A context in which no append arrives."""

    def unanswered(self) -> Any:
        """A context in which every append arrives, and nothing that is asked is answered."""

    async def close(self) -> None:
        """Break the connection for good."""


class MemoryWorld:
    def __init__(self) -> None:
        self.fault: Fault = NONE
        self.log = MemoryLog(faults=self, room=ROOM)

    def next(self, subject: str, messages: int) -> Fault:
        return self.fault

    @contextmanager
    def _failing(self, kind: Kind):
        self.fault = Fault(kind)
        yield
        self.fault = NONE

    def lost(self):
        return self._failing(Kind.LOST)

    def unanswered(self):
        return self._failing(Kind.UNANSWERED)

    async def close(self) -> None:
        self.log.close()


class JetStreamWorld:
    def __init__(self, client) -> None:
        self._client = client
        self.log = JetStreamLog(client, patience=3)

    @contextmanager
    def _failing(self, *, arrives: bool):
        real, log = self._client.request, self.log
        self.log = JetStreamLog(self._client, patience=0.2)

        async def request(subject, *rest, **options):
            if arrives and subject.startswith("ev."):
                await real(subject, *rest, **options)
            raise NatsTimeout

        self._client.request = request
        yield
        self._client.request, self.log = real, log

    def lost(self):
        return self._failing(arrives=False)

    def unanswered(self):
        return self._failing(arrives=True)

    async def close(self) -> None:
        await self._client.close()


@pytest.fixture(params=["memory", "jetstream"])
async def world(request: pytest.FixtureRequest, own_server, new_key) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)), max_store=ROOM)
    await server.start()
    client = await connect(server.url, key, name="test", reconnect=True)
    await ensure_streams(client, ["EV_0"])
    yield JetStreamWorld(client)
    await client.close()


def messages(prefix: str, count: int, *, size: int = 1) -> list[Message]:
    return [Message(f"{prefix}-{number}", b"x" * size) for number in range(count)]


async def everywhere(log: EventLog, count: int, *, after: int = 0) -> list[Any]:
    """Append `count` messages to each of forty subjects at once; the outcomes."""
    appends = (log.append(subject, messages(subject, count), after=after) for subject in SUBJECTS)
    return await asyncio.gather(*appends, return_exceptions=True)


@pytest.mark.parametrize("count", [1, 3])
async def test_what_never_arrives_is_unavailable_and_not_stored(world, count):
    """Each caller is told about its own subject, nothing is stored, and repeating stores it."""
    with world.lost():
        outcomes = await everywhere(world.log, count)
    assert all(isinstance(outcome, LogUnavailable) and outcome.retryable for outcome in outcomes)
    assert [outcome.where for outcome in outcomes] == SUBJECTS
    assert await world.log.end("EV_0") == 0
    assert sorted(await everywhere(world.log, count)) == [count * number for number in range(1, 41)]


@pytest.mark.parametrize("count", [1, 3])
async def test_a_lost_answer_is_unavailable_and_repeating_finds_it(world, count):
    """Nobody is told a position, all is stored; repeating returns the true positions and stores nothing twice."""
    with world.unanswered():
        outcomes = await everywhere(world.log, count)
    assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
    end = await world.log.end("EV_0")
    ends = await everywhere(world.log, count)
    assert await world.log.end("EV_0") == max(end, 40 * count) == 40 * count
    for subject, position in zip(SUBJECTS, ends, strict=True):
        found = [message.position async for message in world.log.read(subject)]
        assert found == list(range(position - count + 1, position + 1))


async def test_somebody_else_in_between_is_a_conflict(world):
    """A caller that was not told, and finds the subject moved by another, gets a conflict; the others are served."""
    with world.lost():
        await everywhere(world.log, 1)
    await world.log.append(SUBJECTS[11], messages("theirs", 1), after=0)
    outcomes = await everywhere(world.log, 1)
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, SequenceConflict)] == [11]
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 39
    assert await world.log.end("EV_0") == 40


async def test_a_wrong_position_and_a_known_id_are_conflicts_of_their_own(world):
    """Among many appends at once only those that are wrong are refused, each about its own subject."""
    await world.log.append("ev.0.other", messages(SUBJECTS[3], 1), after=0)
    appends = [
        world.log.append(subject, messages(subject, 1), after=5 if number == 20 else 0) for number, subject in enumerate(SUBJECTS)
    ]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    wrong = {number: outcome for number, outcome in enumerate(outcomes) if not isinstance(outcome, int)}
    assert {number: (type(error), error.where) for number, error in wrong.items()} == {
        number: (SequenceConflict, SUBJECTS[number]) for number in (3, 20)
    }
    assert await world.log.end("EV_0") == 39


async def test_a_message_that_is_too_large_harms_nobody_else(world):
    """It is refused for good, before anything is sent; those beside it are stored."""
    large = world.log.append("ev.0.large", [Message("small", b""), Message("large", b"x" * 9_000_000)], after=0)
    outcomes = await asyncio.gather(large, everywhere(world.log, 1), return_exceptions=True)
    assert isinstance(outcomes[0], TooLarge)
    assert not outcomes[0].retryable
    assert all(isinstance(outcome, int) for outcome in outcomes[1])
    assert await world.log.end("EV_0") == 40


async def test_without_room_appends_fail_and_nothing_that_was_told_is_lost(world):
    """When the store is full every append says so, what was acknowledged can be read, and another try fails the same way."""
    told: dict[str, int] = {}
    refused = 0
    for wave in range(6):
        subjects = [f"ev.0.w{wave}-{number}" for number in range(20)]
        appends = (world.log.append(subject, messages(subject, 1, size=40_000), after=0) for subject in subjects)
        for subject, outcome in zip(subjects, await asyncio.gather(*appends, return_exceptions=True), strict=True):
            if isinstance(outcome, int):
                told[subject] = outcome
            else:
                assert isinstance(outcome, LogUnavailable)
                assert outcome.where == subject
                refused += 1
    assert told
    assert refused
    for subject, position in told.items():
        last = await world.log.last(subject)
        assert last is not None
        assert last.position == position
    with pytest.raises(LogUnavailable, match="no space left"):
        await world.log.append("ev.0.more", messages("more", 2, size=600_000), after=0)


async def test_a_closed_log_says_so(world):
    """Every method raises LogUnavailable, and appends that many wait for do, too."""
    await world.log.append("ev.0.a", messages("a", 1), after=0)
    await world.close()
    works = [
        world.log.append("ev.0.a", messages("b", 1), after=1),
        world.log.last("ev.0.a"),
        world.log.end("EV_0"),
        anext(world.log.read("ev.0.a")),
        anext(world.log.scan("EV_0")),
        anext(world.log.follow("EV_0")),
    ]
    for work in works:
        with pytest.raises(LogUnavailable, match="closed"):
            await work
    assert all(isinstance(outcome, LogUnavailable) for outcome in await everywhere(world.log, 1))
