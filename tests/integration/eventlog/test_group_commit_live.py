"""Group commit on a real server: many appends share a batch, and each gets the answer that it would have got alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from nats.errors import TimeoutError as NatsTimeout

from agentos.abi.errors import LogUnavailable, SequenceConflict
from agentos.eventlog import Message
from agentos.eventlog.adapters import group_commit, streams
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.server_config import Account, User
from agentos.eventlog.adapters.stream_reading import get_page

MANY = 100


def subject(number: int) -> str:
    return f"ev.0.s-{number}"


def one(name: str, *, size: int = 1) -> list[Message]:
    return [Message(name, name.encode().ljust(size, b"."))]


async def stored(log) -> dict[str, list[str]]:
    """What is in EV_0, per subject."""
    found: dict[str, list[str]] = {}
    async for message in log.scan("EV_0"):
        found.setdefault(message.subject, []).append(message.data.rstrip(b".").decode())
    return found


async def api(client, name, body=None):
    return json.loads((await client.request(f"$JS.API.{name}", json.dumps(body or {}).encode())).data)


@pytest.fixture
async def door(open_account):
    async with open_account() as door:
        await ensure_streams(door.client, ["EV_0"])
        yield door


class Wire:
    """Sees what the log sends: the size of each batch, and how many publishes there were; loses what it is told to lose."""

    def __init__(self, client, monkeypatch) -> None:
        self.batches: list[int] = []
        self.publishes = 0
        self.answers_to_lose = 0
        self.commits_to_lose = 0
        self.frames_to_lose = 0
        self._request, self._send = client.request, client._send_command
        monkeypatch.setattr(client, "request", self.request)
        monkeypatch.setattr(client, "_send_command", self.send)

    async def request(self, subject, *rest, headers=None, **options):
        if subject.startswith("$JS."):
            return await self._request(subject, *rest, headers=headers, **options)
        commit = "Nats-Batch-Commit" in (headers or {})
        if commit:
            self.batches.append(int(headers["Nats-Batch-Sequence"]))
        else:
            self.publishes += 1
        if commit and self.commits_to_lose:
            self.commits_to_lose -= 1
            raise NatsTimeout
        answer = await self._request(subject, *rest, headers=headers, **options)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise NatsTimeout
        return answer

    async def send(self, command, *rest, **options):
        if self.frames_to_lose and command.count(b"Nats-Batch-Id") > 1:
            self.frames_to_lose -= 1
            command = command[command.index(b"\r\nHPUB ", 1) + 2 :]  # the first message of the batch is missing
        await self._send(command, *rest, **options)


@pytest.fixture
def wire(door, monkeypatch) -> Wire:
    return Wire(door.client, monkeypatch)


async def test_appends_that_wait_together_share_a_batch(door, wire):
    """A hundred sessions at once are one batch, each gets its own position; a lone append is a plain publish."""
    log = JetStreamLog(door.client)
    ends = await asyncio.gather(*(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(MANY)))
    assert sorted(ends) == list(range(1, MANY + 1))
    for number, end in enumerate(ends):
        assert [message.position async for message in log.read(subject(number))] == [end]
    assert sum(wire.batches) + wire.publishes == MANY
    wire.batches.clear()
    wire.publishes = 0
    ends = await asyncio.gather(*(log.append(subject(number), one(f"b-{number}"), after=end) for number, end in enumerate(ends)))
    assert (wire.batches, wire.publishes) == ([MANY], 0)
    await log.append(subject(0), one("c"), after=ends[0])
    assert (wire.batches, wire.publishes) == ([MANY], 1)


async def test_a_few_appends_do_not_wait_for_a_batch(door, wire):
    """Fewer than a batch is worth are published by themselves, side by side."""
    log = JetStreamLog(door.client)
    await asyncio.gather(*(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(group_commit.FEW - 1)))
    assert (wire.batches, wire.publishes) == ([], group_commit.FEW - 1)


async def test_the_guilty_does_not_take_the_innocent_along(door, wire):
    """Of a batch in which some expect a wrong position, exactly those are conflicts; the others are stored, once."""
    log, other = JetStreamLog(door.client), JetStreamLog(door.client)
    for number in (7, 50):
        await other.append(subject(number), one(f"theirs-{number}"), after=0)
    await log.append(subject(200), [Message("warm-1", b"warm-1"), Message("warm-2", b"warm-2")], after=0)
    appends = [log.append(subject(number), one(f"a-{number}"), after=9 if number == 80 else 0) for number in range(MANY)]
    results = await asyncio.gather(*appends, return_exceptions=True)
    guilty = {number for number, result in enumerate(results) if not isinstance(result, int)}
    assert guilty == {7, 50, 80}
    assert all(isinstance(results[number], SequenceConflict) and results[number].where == subject(number) for number in guilty)
    found = await stored(log)
    assert found.pop(subject(200)) == ["warm-1", "warm-2"]
    stored_by = {number: "theirs" if number in guilty else "a" for number in range(MANY) if number != 80}
    assert found == {subject(number): [f"{who}-{number}"] for number, who in stored_by.items()}
    for number, result in enumerate(results):
        if number not in guilty:
            assert [message.position async for message in log.read(subject(number))] == [result]
    assert len(wire.batches) == 3, "the warm-up, the batch that was refused, and the one of the innocent"


async def test_what_is_stored_already_gets_its_first_answer_in_a_batch(door, wire):
    """Repetitions among new appends return their first positions, and nothing is stored twice."""
    log = JetStreamLog(door.client)
    first = await asyncio.gather(*(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(30)))
    again = await asyncio.gather(*(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(MANY)))
    assert again[:30] == first
    assert await stored(log) == {subject(number): [f"a-{number}"] for number in range(MANY)}


async def test_an_id_that_is_stored_elsewhere_is_the_only_conflict(door, wire):
    """An append whose id stands in another subject is refused alone, also when both were handed in together."""
    log = JetStreamLog(door.client)
    await log.append(subject(500), one("taken"), after=0)
    ids = ["taken" if number == 3 else "twin" if number in (8, 9) else f"a-{number}" for number in range(MANY)]
    results = await asyncio.gather(
        *(log.append(subject(number), one(name), after=0) for number, name in enumerate(ids)), return_exceptions=True
    )
    assert [number for number, result in enumerate(results) if isinstance(result, SequenceConflict)] == [3, 9]
    assert all(isinstance(result, int) for number, result in enumerate(results) if number not in (3, 9))
    assert await log.end("EV_0") == MANY - 1


@pytest.mark.parametrize(
    ("lost", "times"), [("answers_to_lose", 1), ("commits_to_lose", 1), ("commits_to_lose", 2), ("frames_to_lose", 1)]
)
async def test_a_batch_that_is_lost_somewhere_is_stored_once(door, wire, lost, times):
    """Whatever is lost of a batch, each append returns its true position and is stored once."""
    log = JetStreamLog(door.client)
    await log.append(subject(500), [Message("warm-1", b""), Message("warm-2", b"")], after=0)
    setattr(wire, lost, times)
    ends = await asyncio.gather(*(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(MANY)))
    assert getattr(wire, lost) == 0
    for number, end in enumerate(ends):
        assert [message.position async for message in log.read(subject(number))] == [end]
    assert await log.end("EV_0") == MANY + 2


async def test_a_lost_answer_does_not_hide_conflicts_in_a_batch(door, wire):
    """Requests lost, others have written meanwhile: those subjects are conflicts, the rest is stored."""
    log, other = JetStreamLog(door.client), JetStreamLog(door.client)
    await log.append(subject(500), [Message("warm-1", b""), Message("warm-2", b"")], after=0)
    await other.append(subject(5), one("theirs"), after=0)
    wire.commits_to_lose = 1
    results = await asyncio.gather(
        *(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(MANY)), return_exceptions=True
    )
    assert [number for number, result in enumerate(results) if not isinstance(result, int)] == [5]
    assert isinstance(results[5], SequenceConflict)
    assert (await stored(log))[subject(5)] == ["theirs"]


async def test_a_server_that_never_answers_fails_everybody_in_time(door, wire):
    """When every answer is lost and reading is, too, all get LogUnavailable about their own subject; repeating is right."""
    log = JetStreamLog(door.client)
    await log.append(subject(500), [Message("warm-1", b""), Message("warm-2", b"")], after=0)
    impatient = JetStreamLog(door.client, patience=0.3)
    await impatient.append(subject(501), [Message("warm-3", b""), Message("warm-4", b"")], after=0)
    wire.commits_to_lose = 10**9
    results = await asyncio.gather(
        *(impatient.append(subject(number), one(f"a-{number}"), after=0) for number in range(MANY)), return_exceptions=True
    )
    assert all(isinstance(result, LogUnavailable) for result in results)
    assert [result.where for result in results] == [subject(number) for number in range(MANY)]
    wire.commits_to_lose = 0
    await asyncio.gather(*(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(MANY)))
    assert await log.end("EV_0") == MANY + 4


async def test_appends_to_one_subject_keep_their_order(door):
    """Appends handed in for the same subject are tried in that order: of those that expect the same position the first wins."""
    log = JetStreamLog(door.client)
    results = await asyncio.gather(
        *(log.append(subject(number % 10), one(f"{number}"), after=0) for number in range(MANY)), return_exceptions=True
    )
    assert [isinstance(result, int) for result in results] == [number < 10 for number in range(MANY)]
    assert await stored(log) == {subject(number): [f"{number}"] for number in range(10)}


async def test_large_and_many_messages_are_cut_into_batches(door, wire):
    """More bytes or messages than a batch takes make several; appends of several messages stay in one piece."""
    log = JetStreamLog(door.client)
    sizes = [1 + number % 40 for number in range(MANY)]
    ends = await asyncio.gather(
        *(
            log.append(subject(number), [Message(f"{number}-{part}", b"x" * 2000) for part in range(size)], after=0)
            for number, size in enumerate(sizes)
        )
    )
    assert len(wire.batches) > 1
    assert max(wire.batches) <= 1000
    for number, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        assert [message.position async for message in log.read(subject(number))] == list(range(end - size + 1, end + 1))


async def test_cancelling_callers_tears_nothing(door):
    """Half of the callers leave at any moment: the other half is served, and a cancelled append is whole or not there."""
    log = JetStreamLog(door.client)
    tasks = [
        asyncio.create_task(log.append(subject(number), [Message(f"{number}-{part}", b"x") for part in range(3)], after=0))
        for number in range(MANY)
    ]
    for number, task in enumerate(tasks):
        if number % 2:
            task.cancel()
        if number % 10 == 0:
            await asyncio.sleep(0.001)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, int) for result in results[::2])
    assert any(isinstance(result, asyncio.CancelledError) for result in results[1::2])
    await log.append(subject(500), one("last"), after=0)
    for number in range(MANY):
        count = len([message async for message in log.read(subject(number))])
        assert count == 3 if number % 2 == 0 else count in (0, 3)
        following = await log.last(subject(number))
        await log.append(subject(number), one(f"more-{number}"), after=following.position if following else 0)


@pytest.mark.parametrize("how", ["never", "turned off"])
async def test_a_stream_without_batches_is_written_one_by_one(open_account, monkeypatch, how):
    """Where a stream takes no batches, or takes them no more, the same appends succeed, conflict and repeat all the same."""
    if how == "never":
        monkeypatch.setitem(streams._KEEPS, "allow_atomic", False)
    async with open_account() as door:
        await ensure_streams(door.client, ["EV_0"])
        wire, log = Wire(door.client, monkeypatch), JetStreamLog(door.client)
        if how == "turned off":
            await log.append(subject(500), [Message("warm-1", b""), Message("warm-2", b"")], after=0)
            config = (await api(door.client, "STREAM.INFO.EV_0"))["config"]
            assert "error" not in await api(door.client, "STREAM.UPDATE.EV_0", config | {"allow_atomic": False})
        wire.batches.clear()
        several = [Message(f"m-{part}", b"x") for part in range(5)]
        assert await log.append("ev.0.several", several, after=0) == await log.append("ev.0.several", several, after=0)
        results = await asyncio.gather(
            *(log.append(subject(number), one(f"a-{number}"), after=number // 99) for number in range(MANY)),
            return_exceptions=True,
        )
        assert [number for number, result in enumerate(results) if not isinstance(result, int)] == [99]
        assert isinstance(results[99], SequenceConflict)
        assert len(await stored(log)) == MANY + (how == "turned off")
        assert len(wire.batches) == (how == "turned off"), "the one that was refused"
        with pytest.raises(SequenceConflict):
            await log.append("ev.0.several", [Message(f"n-{part}", b"x") for part in range(3)], after=0)


async def test_too_many_open_batches_on_the_server_are_gone_around(door, wire):
    """Somebody has left fifty batches open on the stream: appends go one by one meanwhile, and are stored."""
    for number in range(50):
        headers = {"Nats-Batch-Id": f"left-{number}", "Nats-Batch-Sequence": "1"}
        await door.client.publish("ev.0.left", b"", headers=headers)
    log = JetStreamLog(door.client)
    ends = await asyncio.gather(*(log.append(subject(number), one(f"a-{number}"), after=0) for number in range(MANY)))
    assert sorted(ends) == list(range(1, MANY + 1))


async def test_a_store_that_fills_up_within_a_batch_promises_nothing_it_does_not_keep(own_server, new_key):
    """When there is no room, appends fail; what was acknowledged is there after a restart, and repeating the rest is right."""
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)), max_store=3_000_000)
    await server.start()
    client = await connect(server.url, key, name="test")
    await ensure_streams(client, ["EV_0"])
    log = JetStreamLog(client, patience=4)
    ends: dict[int, int] = {}
    failed: set[int] = set()
    for wave in range(0, 120, 20):
        numbers = range(wave, wave + 20)
        results = await asyncio.gather(
            *(log.append(subject(number), one(f"a-{number}", size=40_000), after=0) for number in numbers), return_exceptions=True
        )
        for number, result in zip(numbers, results, strict=True):
            if isinstance(result, int):
                ends[number] = result
            else:
                assert isinstance(result, LogUnavailable)
                assert result.where == subject(number)
                failed.add(number)
    assert ends
    assert failed
    await client.close()
    await server.stop()

    server = own_server(Account("A", (User(key.public_key),)), max_store=30_000_000)
    await server.start()
    client = await connect(server.url, key, name="test")
    log = JetStreamLog(client)
    found = await stored(log)
    assert all(found[subject(number)] == [f"a-{number}"] for number in ends)
    again = await asyncio.gather(
        *(log.append(subject(number), one(f"a-{number}", size=40_000), after=0) for number in range(120))
    )
    assert all(again[number] == end for number, end in ends.items())
    assert await stored(log) == {subject(number): [f"a-{number}"] for number in range(120)}
    await client.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_many_writers_live_through_restarts_of_the_server(own_server, new_key, how):
    """While the server is killed again and again under a hundred writers, every acknowledged event is stored once, in order."""
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)))
    await server.start()
    client = await connect(server.url, key, name="test", reconnect=True)
    await ensure_streams(client, ["EV_0"])
    log = JetStreamLog(client, patience=30)
    acknowledged: dict[int, list[int]] = {number: [] for number in range(MANY)}
    total = 0
    enough = asyncio.Event()

    async def write(number: int) -> None:
        nonlocal total
        end = 0
        for round_ in range(30):
            messages = [Message(f"{number}-{round_}-{part}", f"{round_}-{part}".encode()) for part in range(1 + number % 7 // 6)]
            end = await log.append(subject(number), messages, after=end)
            acknowledged[number].append(end)
            total += 1
            if total % 700 == 0:
                enough.set()

    writers = asyncio.gather(*(write(number) for number in range(MANY)))
    for _ in range(3):
        await asyncio.wait_for(enough.wait(), 30)
        assert server.pid is not None
        os.kill(server.pid, how)
        await server.wait()
        enough.clear()
        await server.start()
    await asyncio.wait_for(writers, 60)
    for number in range(MANY):
        parts = 1 + number % 7 // 6
        read = [(message.position, message.data.decode()) async for message in log.read(subject(number))]
        assert [data for _, data in read] == [f"{round_}-{part}" for round_ in range(30) for part in range(parts)]
        assert [position for position, _ in read[parts - 1 :: parts]] == acknowledged[number]
    await client.close()


async def test_a_batch_is_read_whole_or_not_at_all(door):
    """Nobody sees the beginning of a batch without its end."""
    log = JetStreamLog(door.client)
    seen: list[int] = []
    writing = asyncio.create_task(log.append(subject(0), [Message(f"{part}", b"x" * 500) for part in range(1000)], after=0))
    while not writing.done():
        seen.append(len((await get_page(door.client, "EV_0", subject(0), 0, 5)).messages))
    assert await writing == 1000
    assert set(seen) <= {0, 1000}
