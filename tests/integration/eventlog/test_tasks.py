"""The queue of delegations on a real server: who may publish, what is kept, what is delivered again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout

from agentos.abi.envelope import Envelope, signed, task_subject
from agentos.abi.errors import LogUnavailable
from agentos.boot.backend import SENDER_INBOX, sender_of, user_of
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import NKey, create_seed
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, User
from agentos.eventlog.adapters.tasks import STREAM, SUBJECTS, Delivery, TaskQueue, TaskSender, is_signed
from agentos.registry.principal import Principal


class SystemRandom:
    def token(self, size: int) -> bytes:
        return os.urandom(size)


ENVELOPE = Envelope("default", "s-parent", "c1", 0, "s-child", 2, "sha256:" + "a" * 64, 1, 1000)


def envelope(number: int) -> Envelope:
    return replace(ENVELOPE, index=number, child=f"s-child-{number}")


class Post:
    """A server with one tenant: the runtime's user, its sender, a principal, somebody of another tenant."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.runtime, self.sender, self.ann, self.other = (create_seed(SystemRandom()) for _ in range(4))
        principal = Principal("ann", "default", ("operator",), self.ann.public_key, 0, "system/kernel")
        users = (User(self.runtime.public_key, never=(SUBJECTS,)), sender_of(self.sender), user_of(principal))
        self.accounts = (Account("T-default", users), Account("T-other", (User(self.other.public_key),)))

    @asynccontextmanager
    async def enter(self, key: NKey, inbox: str = "_INBOX") -> AsyncIterator[Client]:
        client = await connect(self.server.url, key, name="test", inbox_prefix=inbox, reconnect=True)
        try:
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[TaskQueue, TaskSender, Client]]:
        """The queue, its sender, and the runtime's client."""
        async with self.enter(self.runtime) as client, self.enter(self.sender, SENDER_INBOX) as sending:
            queue = TaskQueue(client)
            await queue.ensure()
            yield queue, TaskSender(sending, self.sender), client


@pytest.fixture
async def post(own_server: Callable[..., NatsServer]) -> Post:
    made = Post(own_server())
    made.server.config = replace(made.server.config, accounts=made.accounts)
    await made.server.start()
    return made


async def count(client: Client) -> int:
    """How many messages are in the queue."""
    return (await client.jetstream().stream_info(STREAM)).state.messages


async def deliver(queue: TaskQueue, number: int) -> list[Delivery]:
    """The next so many deliveries."""
    found: list[Delivery] = []
    async with asyncio.timeout(20), aclosing(queue.deliveries()) as coming:
        async for delivery in coming:
            found.append(delivery)
            if len(found) == number:
                break
    return found


async def emptied(client: Client) -> None:
    async with asyncio.timeout(10):
        while await count(client):
            await asyncio.sleep(0.01)


async def test_what_is_sent_is_delivered_signed_and_removed_when_it_was_dealt_with(post: Post) -> None:
    """Subject, bytes and signature arrive as they were made; the queue is empty behind it."""
    async with post.open() as (queue, sender, client):
        await sender.send(ENVELOPE)
        [found] = await deliver(queue, 1)
        assert (found.subject, Envelope.from_bytes(found.body)) == (task_subject(post.sender.public_key, "s-child"), ENVELOPE)
        assert found.signature is not None
        assert is_signed(post.sender.public_key, signed(found.subject, found.body), found.signature)
        assert not is_signed(post.other.public_key, signed(found.subject, found.body), found.signature)
        assert found.tries == 1
        await found.done()
        await emptied(client)


async def test_the_same_envelope_sent_twice_is_in_the_queue_once(post: Post) -> None:
    """Whoever does not know whether a send came through sends it again."""
    async with post.open() as (_, sender, client):
        for _ in range(2):
            await sender.send(ENVELOPE)
        assert await count(client) == 1


async def test_an_envelope_made_anew_comes_after_one_that_was_refused(post: Post) -> None:
    """A parent that asks again after a crash is heard, however short the time since the first envelope was dealt with."""
    async with post.open() as (queue, sender, client):
        await sender.send(ENVELOPE)
        (first,) = await deliver(queue, 1)
        await first.refuse()
        await emptied(client)
        await sender.send(replace(ENVELOPE, issued_ms=ENVELOPE.issued_ms + 1))
        (again,) = await deliver(queue, 1)
        assert again.subject == first.subject


@pytest.mark.parametrize("who", ["ann", "runtime", "sender"])
async def test_nobody_but_the_sender_publishes_a_delegation(post: Post, who: str) -> None:
    """The server itself refuses: a principal, the runtime's own user, the sender on a subject of somebody else."""
    async with post.open() as (_, _, client):
        inbox = {"ann": "_INBOX.ann", "sender": SENDER_INBOX}.get(who, "_INBOX")
        sender = post.ann.public_key if who == "sender" else post.sender.public_key
        async with post.enter(getattr(post, who), inbox) as stranger:
            with pytest.raises(NatsTimeout):
                await stranger.request(task_subject(sender, "s-child"), ENVELOPE.to_bytes(), timeout=0.5)
            assert "permissions violation" in str(stranger.last_error).lower()
        assert await count(client) == 0


async def test_the_sender_can_do_nothing_else(post: Post) -> None:
    """Neither read the queue or the log, nor hear others, nor touch a stream."""
    async with post.open() as (_, _, client), post.enter(post.sender, SENDER_INBOX) as sending:
        for subject in (f"$JS.API.STREAM.INFO.{STREAM}", f"$JS.API.STREAM.PURGE.{STREAM}", "$JS.API.DIRECT.GET.EV_0", "ev.0.s-1"):
            with pytest.raises(NatsTimeout):
                await sending.request(subject, b"", timeout=0.3)
            assert subject.lower() in str(sending.last_error).lower()
        heard: list[object] = []

        async def hear(message: object) -> None:
            heard.append(message)

        await sending.subscribe(">", cb=hear)
        await sending.flush()
        await client.publish("anything", b"")
        await client.flush()
        assert "permissions violation" in str(sending.last_error).lower()
        assert heard == []


async def test_another_tenant_reaches_no_queue_but_its_own(post: Post) -> None:
    """The accounts are walls: the same subject in another account is another subject."""
    async with post.open() as (_, _, client), post.enter(post.other) as stranger:
        await stranger.publish(task_subject(post.sender.public_key, "s-child"), ENVELOPE.to_bytes())
        await stranger.flush()
        assert await count(client) == 0


async def test_what_nobody_answered_comes_first_when_somebody_receives_again(post: Post) -> None:
    """A receiver that is gone is not waited for: its messages are delivered at once to the next one."""
    async with post.open() as (queue, sender, client):
        for number in range(5):
            await sender.send(envelope(number))
        first = await deliver(queue, 5)
        again = await deliver(TaskQueue(client), 5)
        assert [one.subject for one in again] == [one.subject for one in first]
        # An answer of the one before counts, too: what it dealt with was dealt with.
        await first[0].done()
        for one in again[1:]:
            await one.done()
        await emptied(client)


async def test_what_is_put_off_comes_again_and_stands_in_nobodys_way(post: Post) -> None:
    """More messages than are asked for ahead are put off for ever: those behind them are delivered all the same."""
    async with post.open() as (queue, sender, client):
        await asyncio.gather(*(sender.send(envelope(number)) for number in range(300)))
        async with asyncio.timeout(30), aclosing(queue.deliveries()) as coming:
            seen = 0
            async for delivery in coming:
                await delivery.later(3600)
                seen += 1
                if seen == 300:
                    await sender.send(ENVELOPE)
                if delivery.subject.endswith(".s-child"):
                    break
        assert seen == 301
        assert await count(client) == 301


async def test_a_message_that_was_put_off_tells_how_often_it_came(post: Post) -> None:
    """So that whoever deals with it can give it up."""
    async with post.open() as (queue, sender, _):
        await sender.send(ENVELOPE)
        tries: list[int] = []
        async with asyncio.timeout(20), aclosing(queue.deliveries()) as coming:
            async for delivery in coming:
                tries.append(delivery.tries)
                if len(tries) == 3:
                    break
                await delivery.later(0.01)
        assert tries == [1, 2, 3]


async def test_a_refused_message_is_gone(post: Post) -> None:
    """It comes never again, not to the next receiver either."""
    async with post.open() as (queue, sender, client):
        await sender.send(ENVELOPE)
        [found] = await deliver(queue, 1)
        await found.refuse()
        await emptied(client)


async def test_an_envelope_outlives_the_server(post: Post) -> None:
    """What was sent is on disk: a server that is killed has it when it is back, and sender and receiver go on by themselves."""
    async with post.open() as (queue, sender, client):
        await sender.send(envelope(0))
        got: list[str] = []

        async def receive() -> None:
            while len(got) < 2:
                try:
                    async with aclosing(queue.deliveries()) as coming:
                        async for delivery in coming:
                            if delivery.subject not in got and got != []:
                                got.append(delivery.subject)
                                break
                            got[:] = got or [delivery.subject]
                except LogUnavailable:
                    continue

        task = asyncio.create_task(receive())
        async with asyncio.timeout(60):
            while not got:
                await asyncio.sleep(0.01)
            await post.server.stop()
            await post.server.start()
            await sender.send(envelope(1))
            await task
        assert await count(client) == 2


async def test_a_queue_that_could_lose_something_is_refused(post: Post) -> None:
    """Somebody made a stream of that name that keeps things in memory, or for a while."""
    async with post.enter(post.runtime) as client:
        await client.jetstream().add_stream(name=STREAM, subjects=[SUBJECTS], storage="memory", retention="workqueue", max_age=60)
        with pytest.raises(LogUnavailable, match="max_age, storage"):
            await TaskQueue(client).ensure()


async def test_a_queue_is_there_once_it_was_made(post: Post) -> None:
    """A tenant that never delegated has none."""
    async with post.enter(post.runtime) as client:
        queue = TaskQueue(client)
        assert not await queue.exists()
        await queue.ensure()
        await queue.ensure()
        assert await queue.exists()
