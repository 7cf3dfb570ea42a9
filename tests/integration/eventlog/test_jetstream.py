"""What can go wrong between the log and its server: lost answers, lost connections, full disks, foreign streams."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from nats.errors import TimeoutError as NatsTimeout

from agentos.abi.errors import Conflict, LogUnavailable, SequenceConflict, TooLarge
from agentos.eventlog import Message
from agentos.eventlog.adapters import stream_set
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.server_config import Account, User
from agentos.eventlog.adapters.streams import api_level, describe_streams, drop_stream

SUBJECT = "ev.0.s-1"


def messages(prefix: str, count: int, *, size: int = 1) -> list[Message]:
    return [Message(f"{prefix}-{number}", b"x" * size) for number in range(count)]


def lose(client, monkeypatch, *, there: int = 0, back: int = 0) -> None:
    """Let the next `there` publishes never arrive, then the answers to the next `back` never return."""
    real = client.request
    lost = {"there": there, "back": back}

    async def request(subject, *rest, **options):
        if subject != SUBJECT:
            return await real(subject, *rest, **options)
        if lost["there"]:
            lost["there"] -= 1
            raise NatsTimeout
        answer = await real(subject, *rest, **options)
        if lost["back"]:
            lost["back"] -= 1
            raise NatsTimeout
        return answer

    monkeypatch.setattr(client, "request", request)


@pytest.fixture
async def door(open_account):
    async with open_account() as door:
        await ensure_streams(door.client, ["EV_0", "EV_1"])
        yield door


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("there", "back"), [(0, 1), (1, 0), (2, 1)])
async def test_a_lost_answer_is_settled_by_the_subject_itself(door, monkeypatch, count, there, back):
    """Whether the request or its answer is lost, an append returns its true position and is stored once."""
    log = JetStreamLog(door.client)
    base = await log.append(SUBJECT, messages("a", 2), after=0)
    lose(door.client, monkeypatch, there=there, back=back)
    assert await log.append(SUBJECT, messages("b", count), after=base) == base + count
    assert await log.end("EV_0") == base + count


async def test_a_lost_answer_does_not_hide_a_conflict(door, monkeypatch):
    """If the request was lost and somebody else appended in between, the append is a conflict."""
    log = JetStreamLog(door.client)
    await log.append(SUBJECT, messages("theirs", 1), after=0)
    lose(door.client, monkeypatch, there=1)
    with pytest.raises(SequenceConflict):
        await log.append(SUBJECT, messages("ours", 1), after=0)


async def test_a_server_that_never_answers_is_unavailable_in_time(door, monkeypatch):
    """When every try is lost, LogUnavailable is raised as soon as the patience is used up, and a later repeat works."""
    with monkeypatch.context() as patch:
        lose(door.client, patch, there=10**9)
        with pytest.raises(LogUnavailable) as caught:
            await JetStreamLog(door.client, patience=0.05).append(SUBJECT, messages("a", 1), after=0)
    assert caught.value.retryable
    assert caught.value.where == SUBJECT
    assert await JetStreamLog(door.client).append(SUBJECT, messages("a", 1), after=0) == 1


async def test_a_closed_connection_is_unavailable(door):
    """Every method of a log whose connection is closed says so."""
    log = JetStreamLog(door.client)
    await door.client.close()
    for work in (log.append(SUBJECT, messages("a", 1), after=0), log.last(SUBJECT), log.end("EV_0"), anext(log.follow("EV_0"))):
        with pytest.raises(LogUnavailable, match="closed"):
            await work


async def test_a_stream_that_was_never_made_is_empty_and_cannot_be_followed(door):
    """Reading a missing stream finds nothing and makes nothing; following it fails with a sentence."""
    log = JetStreamLog(door.client)
    assert await log.last("ev.9.s") is None
    assert await log.end("EV_9") == 0
    assert [stored async for stored in log.scan("EV_9")] == [stored async for stored in log.read("ev.9.s")] == []
    with pytest.raises(LogUnavailable, match="EV_9 cannot be followed"):
        await anext(log.follow("EV_9"))
    assert await log.streams() == ("EV_0", "EV_1")


async def test_a_stream_that_another_process_made_is_found(door, open_account, monkeypatch):
    """`ends` finds it and wakes who waits; without that the slow look does."""
    ours, theirs = JetStreamLog(door.client), JetStreamLog(door.client)
    known = await ours.streams()
    waiting = asyncio.ensure_future(ours.new_streams(known))
    await theirs.append("ev.202611.0.s-1", messages("a", 1), after=0)
    assert await ours.ends() == {"EV_0": 0, "EV_1": 0, "EV_202611_0": 1}
    async with asyncio.timeout(10):
        assert await waiting == ("EV_202611_0",)
    monkeypatch.setattr(stream_set, "LOOK_S", 0.01)
    waiting = asyncio.ensure_future(ours.new_streams(await ours.streams()))
    await theirs.append("ev.202612.1.s-1", messages("a", 1), after=0)
    async with asyncio.timeout(10):
        assert await waiting == ("EV_202612_1",)


async def test_a_stream_that_vanished_ends_its_followers_and_takes_no_appends(door):
    """Deleted behind our back: the follower fails, an append fails, and no empty stream comes in its place."""
    log = JetStreamLog(door.client)
    await log.append("ev.202611.0.s-1", messages("a", 1), after=0)
    followed = log.follow("EV_202611_0")
    assert (await anext(followed)).position == 1
    await door.client.request("$JS.API.STREAM.DELETE.EV_202611_0", b"")
    with pytest.raises(LogUnavailable):
        await anext(followed)
    with pytest.raises(LogUnavailable, match="nobody answers"):
        await log.append("ev.202611.0.s-1", messages("b", 1), after=1)
    assert await log.streams() == ("EV_0", "EV_1")
    assert await log.end("EV_202611_0") == 0


async def test_a_stream_that_was_dropped_on_purpose_is_not_made_again(door):
    """After `forbid` and `drop_stream` nothing can be added to its sessions, and reading finds nothing."""
    log = JetStreamLog(door.client)
    await log.append("ev.202611.0.s-1", messages("a", 3), after=0)
    log.forbid(["EV_202611_0"])
    with pytest.raises(Conflict, match="was retired"):
        await log.append("ev.202611.0.s-1", messages("b", 1), after=3)
    assert await log.end("EV_202611_0") == 3
    for _ in range(2):
        await drop_stream(door.client, "EV_202611_0")
    with pytest.raises(Conflict, match="was retired"):
        await log.append("ev.202611.0.s-2", messages("b", 1), after=0)
    assert [stored async for stored in log.read("ev.202611.0.s-1")] == []
    assert await log.streams() == ("EV_0", "EV_1")


async def test_replicas_that_the_server_cannot_keep_are_refused(door):
    """A server that stands alone says so for a new stream and for those that exist, which stay as they are."""
    for work in (
        ensure_streams(door.client, ["EV_202611_0"], replicas=3),
        JetStreamLog(door.client).declare(3),
        JetStreamLog(door.client, replicas=3).append("ev.202611.0.s-1", messages("a", 1), after=0),
    ):
        with pytest.raises(LogUnavailable, match="cannot keep so many replicas"):
            await work
    assert [facts.replicas for facts in await describe_streams(door.client)] == [1, 1]
    await JetStreamLog(door.client).declare(1)


async def test_a_message_beyond_the_limit_of_the_server_is_refused(door):
    """A message of more than 8 MB is refused with what to do about it; one of 7 MB is stored and read."""
    log = JetStreamLog(door.client)
    with pytest.raises(TooLarge, match="larger than the server takes"):
        await log.append(SUBJECT, messages("a", 1, size=9_000_000), after=0)
    await log.append(SUBJECT, messages("b", 1, size=7_000_000), after=0)
    await log.append("ev.0.s-2", messages("c", 3, size=3_000_000), after=0)
    assert [len(stored.data) async for stored in log.scan("EV_0")] == [7_000_000, 3_000_000, 3_000_000, 3_000_000]


async def test_a_full_store_is_said_and_keeps_what_it_has(own_server, new_key):
    """When the server may store no more, appends say so and reading goes on; with more room the same append succeeds."""
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)), max_store=3_000_000)
    await server.start()
    client = await connect(server.url, key, name="test")
    await ensure_streams(client, ["EV_0"])
    log = JetStreamLog(client)
    end = await log.append(SUBJECT, messages("a", 2, size=1_000_000), after=0)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="no space left") as caught:
            await log.append(SUBJECT, messages("b", 3, size=600_000), after=end)
        assert caught.value.mend
    kept = [message.position async for message in log.read(SUBJECT)]
    assert kept[:end] == list(range(1, end + 1))
    await client.close()
    await server.stop()

    server = own_server(Account("A", (User(key.public_key),)), max_store=30_000_000)
    await server.start()
    client = await connect(server.url, key, name="test")
    log = JetStreamLog(client)
    assert await log.append(SUBJECT, messages("b", 3, size=600_000), after=end) == end + 3
    assert [message.position async for message in log.read(SUBJECT)] == list(range(1, end + 4))
    await client.close()


async def test_streams_are_made_once_and_checked_afterwards(door):
    """Making streams again changes nothing; deletion and purge are refused by the server itself."""
    await ensure_streams(door.client, ("EV_0", "EV_1", "REG"))
    log = JetStreamLog(door.client)
    await log.append(SUBJECT, messages("a", 3), after=0)
    for name, body in (("STREAM.PURGE.EV_0", {}), ("STREAM.MSG.DELETE.EV_0", {"seq": 1})):
        answer = json.loads((await door.client.request(f"$JS.API.{name}", json.dumps(body).encode())).data)
        assert "error" in answer
    assert await log.end("EV_0") == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"discard": "old"}, 'discard is "old", expected "new"'),
        ({"storage": "memory"}, 'storage is "memory", expected "file"'),
        ({"max_msgs": 5}, "max_msgs is 5, expected -1"),
        ({"republish": {"src": ">", "dest": "copy.>"}}, "republish is"),
    ],
)
async def test_a_stream_that_could_lose_messages_is_refused(open_account, change, said):
    """An existing stream with another configuration is named with the field that is wrong."""
    async with open_account() as door:
        config = {
            "name": "EV_0",
            "subjects": ["ev.0.>"],
            "storage": "file",
            "discard": "new",
            "deny_delete": True,
            "deny_purge": True,
            "allow_direct": True,
            "allow_atomic": True,
            **change,
        }
        answer = json.loads((await door.client.request("$JS.API.STREAM.CREATE.EV_0", json.dumps(config).encode())).data)
        assert "error" not in answer
        with pytest.raises(LogUnavailable) as caught:
            await ensure_streams(door.client, ["EV_0"])
        assert said in caught.value.message


async def test_switches_that_are_off_are_turned_on_and_told(open_account):
    """An existing stream that lacks a protection or batches gets them, once; its messages stay."""
    async with open_account() as door:
        config = {"name": "EV_0", "subjects": ["ev.0.>"], "storage": "file", "discard": "new"}
        await door.client.request("$JS.API.STREAM.CREATE.EV_0", json.dumps(config).encode())
        await door.client.request(SUBJECT, b"x")
        (facts,) = await ensure_streams(door.client, ["EV_0"])
        assert facts.mended == ("deny_delete", "deny_purge", "allow_direct", "allow_atomic")
        assert (facts.atomic, facts.messages, facts.first, facts.last, facts.subjects) == (True, 1, 1, 1, 1)
        (again,) = await ensure_streams(door.client, ["EV_0"])
        assert again.mended == ()
        answer = json.loads((await door.client.request("$JS.API.STREAM.PURGE.EV_0", b"{}")).data)
        assert "error" in answer


async def test_a_stream_that_is_refused_is_left_as_it_is(open_account):
    """Where something else is wrong with it, nothing of a stream is changed."""
    async with open_account() as door:
        config = {"name": "EV_0", "subjects": ["ev.0.>"], "storage": "file", "discard": "new", "max_bytes": 10**6}
        await door.client.request("$JS.API.STREAM.CREATE.EV_0", json.dumps(config).encode())
        with pytest.raises(LogUnavailable, match="max_bytes is 1000000, expected -1"):
            await ensure_streams(door.client, ["EV_0"])
        answer = json.loads((await door.client.request("$JS.API.STREAM.INFO.EV_0", b"{}")).data)
        assert not answer["config"].get("deny_delete")


async def test_streams_are_described_for_status(door):
    """What a stream is, in the order asked for, as values and as JSON; one that is not there is an error."""
    end = await JetStreamLog(door.client).append(SUBJECT, messages("a", 2), after=0)
    second, first = await describe_streams(door.client, ["EV_1", "EV_0"])
    assert (second.name, second.messages, second.last, second.subjects) == ("EV_1", 0, 0, 0)
    facts = first.to_dict()
    assert facts.pop("created")
    assert facts.pop("bytes") > 0
    assert facts == {
        "name": "EV_0",
        "atomic": True,
        "replicas": 1,
        "messages": 2,
        "subjects": 1,
        "first": 1,
        "last": end,
        "mended": [],
    }
    assert await api_level(door.client) >= 2
    with pytest.raises(LogUnavailable, match="no such stream"):
        await describe_streams(door.client, ["EV_9"])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_appends_and_followers_live_through_a_restart_of_the_server(own_server, new_key, how):
    """While the server is killed and started again, a writer loses nothing it was told is stored, a follower skips nothing."""
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)))
    await server.start()
    client = await connect(server.url, key, name="test", reconnect=True)
    await ensure_streams(client, ["EV_0"])
    log = JetStreamLog(client)
    seen: list[int] = []
    stored = asyncio.Event()
    total = 60

    async def write() -> None:
        end = 0
        for number in range(total // 3):
            end = await log.append(SUBJECT, messages(f"m{number}", 1), after=end)
            end = await log.append(SUBJECT, messages(f"n{number}", 2), after=end)
            if number == 5:
                stored.set()

    async def watch() -> None:
        async for message in log.follow("EV_0"):
            seen.append(message.position)
            if len(seen) == total:
                return

    watcher, writer = asyncio.create_task(watch()), asyncio.create_task(write())
    await asyncio.wait_for(stored.wait(), 20)
    assert server.pid is not None
    os.kill(server.pid, how)
    await server.wait()
    await server.start()
    await asyncio.wait_for(asyncio.gather(watcher, writer), 30)
    assert seen == list(range(1, total + 1))
    assert [message.position async for message in log.scan("EV_0")] == seen
    await client.close()


async def test_a_follower_begins_again_when_its_consumer_is_taken_away(door):
    """Somebody deletes the follower's consumer on the server: it goes on behind the last message it gave."""
    log = JetStreamLog(door.client)
    end = await log.append(SUBJECT, messages("a", 3), after=0)
    following = log.follow("EV_0")
    seen = [(await anext(following)).position for _ in range(3)]
    coming = asyncio.ensure_future(anext(following))
    end = await log.append(SUBJECT, messages("b", 1), after=end)
    seen.append((await coming).position)
    names = json.loads((await door.client.request("$JS.API.CONSUMER.NAMES.EV_0", b"")).data)["consumers"]
    for name in names:
        await door.client.request(f"$JS.API.CONSUMER.DELETE.EV_0.{name}", b"")
    end = await log.append(SUBJECT, messages("c", 2), after=end)
    seen += [(await asyncio.wait_for(anext(following), 10)).position for _ in range(2)]
    assert len(names) == 1
    assert seen == [1, 2, 3, 4, 5, 6]
    await following.aclose()
    names = json.loads((await door.client.request("$JS.API.CONSUMER.NAMES.EV_0", b"")).data)["consumers"]
    assert not names


@pytest.mark.parametrize("ask", ["end", "last"])
async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(door, monkeypatch, ask):
    """Whoever is cancelled while it asks the server ends, though the client has the answer by then and returns it."""
    await JetStreamLog(door.client).append(SUBJECT, messages("a", 1), after=0)
    log, real, answered = JetStreamLog(door.client), door.client.request, asyncio.Event()

    async def request(*words, **options):
        answer = await real(*words, **options)
        answered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return answer

    monkeypatch.setattr(door.client, "request", request)
    task = asyncio.create_task(log.end("EV_0") if ask == "end" else log.last(SUBJECT))
    await answered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
