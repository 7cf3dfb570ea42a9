"""Events of publishers: from a principal's message into a stream of the runtime's own, and from there to whoever wants it.

A publisher sends to `evt.<its own name>.<name…>`, which the server lets nobody else do, so who sent it is the subject and not the
message. It does not write into the stream by itself. JetStream acknowledges to whatever reply subject a message names, and a
message with the reply subject of a session would make the server write into the log of that session; a message's headers could
hide other publishers' messages, too. So the runtime takes it from `evt.` and writes it to `inb.`, where the runtime alone may
write, and only then answers, into the publisher's own inbox and nowhere else: `{"sequence": 7}` once it is on disk, and
`{"error": …}` where it is not. Who gets no answer sends again, with the same `Nats-Msg-Id`.

A publisher may send so many events per second. What comes beyond is not stored, and nothing is asked about it: the answer says
when to come again.

What is in the stream `INBOUND` stays there until it was acted on: a durable consumer hands out one message at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from agentos.abi.errors import AgentOSError, LogUnavailable, TooOften
from agentos.abi.ids import is_name
from agentos.eventlog.adapters.refusal import MISSING, OTHER_CONFIG, explain
from agentos.eventlog.adapters.stream_reading import Link

log = logging.getLogger(__name__)

STREAM: Final = "INBOUND"

CONSUMER: Final = "triggers"

MAX_EVENT: Final = 1024 * 1024
"""Most bytes of an event."""

MAX_STREAM: Final = 1024 * 1024 * 1024
"""Most bytes of events that wait to be acted on, of a tenant whose log has room for that; whoever sends beyond is told to come
again."""

MAX_SUBJECT: Final = 256
"""Most characters of a subject."""

PATIENCE_S: Final = 5.0
"""Seconds that one question to the stream may take."""

AT_ONCE: Final = 64
"""Messages that are taken side by side: they share what one sync to disk costs."""

ACT_S: Final = 60
"""Seconds until a message that was handed out and not answered for is handed out again."""

REFUSALS: Final = 64
"""Answers to events that came too often, under way at one time; who sends beyond gets none."""

_WAIT_S: Final = 20.0
"""Seconds that one question for the next message waits for there to be one."""

_SECOND: Final = 1_000_000_000

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64}){0,15}", re.ASCII)
_CONTENT: Final = re.compile(r"[ -~]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventIn:
    """An event as it stands in the stream. `name` is what follows the publisher in its subject, `at_ms` when it came."""

    publisher: str
    name: str
    sequence: int
    at_ms: int
    id: str
    """Of this event and no other, also where the stream was made anew."""
    data: bytes
    content_type: str
    tries: int = 1
    """How often it was handed out, this time included."""


class EventsIn:
    """The events that the publishers of one tenant send. `client` is in the tenant's account, `door` is where they send to."""

    def __init__(
        self,
        client: Client,
        *,
        allowed: Callable[[str], Awaitable[bool]],
        replicas: Callable[[], int] = lambda: 1,
        door: Client | None = None,
        wait: Callable[[str, int], float] = lambda _publisher, _size: 0.0,
        room: Callable[[], int] = lambda: MAX_STREAM,
    ) -> None:
        """`allowed`: whether a principal of that name is a publisher of the tenant now. `replicas`: of the tenant's log.

        `door`: the same connection where it is left out. `wait`: counts an event of so many bytes of a publisher; the seconds
        until it may send it, 0.0 for now. `room`: most bytes of events that wait to be acted on.
        """
        self._client = client
        self._door = door or client
        self._wait = wait
        self._room = room
        self._kept = 0
        self._refusing: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._link = Link(client, PATIENCE_S)
        self._allowed = allowed
        self._replicas = replicas
        self._made = False
        self._came = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._taking: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Take what publishers send while the block runs. Raises LogUnavailable."""

        async def take(message: Msg) -> None:
            publisher, _ = _sender(message.subject)
            seconds = 0.0 if publisher is None else self._wait(publisher, len(message.data))
            if publisher is not None and seconds:
                self._refuse(publisher, message, seconds)
                return
            # Not more at once than that: what comes meanwhile waits in the client, which has a bound of its own.
            await self._places.acquire()
            task = asyncio.create_task(self._take(message))
            self._taking.add(task)
            task.add_done_callback(self._taken)

        try:
            subscription = await self._door.subscribe("evt.*.>", queue="agentos", cb=take)
        except NatsError as error:
            raise LogUnavailable(f"events of publishers cannot be heard: {error}") from error
        try:
            yield
        finally:
            if not self._door.is_closed:
                await subscription.unsubscribe()
            if under_way := self._taking | self._refusing:
                await asyncio.wait(under_way)

    async def next(self) -> tuple[EventIn, Msg] | None:
        """The next event that nobody has answered for, and what to answer for it with; None when there was none for a while.

        Raises LogUnavailable.
        """
        if not self._made and not await self._there():
            self._came.clear()
            try:
                async with asyncio.timeout(_WAIT_S):
                    await self._came.wait()
            except TimeoutError:
                return None
        query = json.dumps({"batch": 1, "expires": int(_WAIT_S * _SECOND)}).encode()
        try:
            # It comes under the subject that it is stored by, which only an inbox of its own can take for the answer.
            asked = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"
            found = await self._client.request(asked, query, timeout=_WAIT_S + 5, old_style=True)
        except NatsError as error:
            self._made = False
            raise LogUnavailable(f"events of publishers cannot be read: {error}", where=STREAM) from error
        if (task := asyncio.current_task()) is not None and task.cancelling():
            # The library swallows a cancellation that comes together with an answer; the event comes again.
            raise asyncio.CancelledError
        if "Status" in (found.headers or {}) or not found.reply:
            return None
        return _event(found), found

    async def done(self, message: Msg) -> None:
        """Answer for a message: it was acted on, and is forgotten. Lost, it comes again."""
        await self._say(message, b"+ACK")

    async def later(self, message: Msg, seconds: int) -> None:
        """Answer for a message: it is to come again."""
        await self._say(message, b"-NAK " + json.dumps({"delay": seconds * _SECOND}).encode())

    async def _say(self, message: Msg, word: bytes) -> None:
        try:
            await self._client.publish(message.reply, word)
        except NatsError as error:
            log.info("an event of a publisher will come again: %s", error)

    def _refuse(self, publisher: str, message: Msg, seconds: float) -> None:
        """Tell a publisher when to send an event again. Say so in the log now and then: a line for each would fill it."""
        self._refused += 1
        if self._refused & (self._refused - 1) == 0:
            log.warning("%d events of publishers came too often, the last of %s", self._refused, publisher)
        if not message.reply.startswith(f"_INBOX.{publisher}.") or len(self._refusing) >= REFUSALS:
            return
        error = TooOften(
            "events come too often and are not stored",
            retry_after_ms=max(1, math.ceil(seconds * 1000)),
            mend=f"send it again in {seconds:.3g} s",
        )
        task = asyncio.create_task(self._tell(message, {"error": error.to_dict()}))
        self._refusing.add(task)
        task.add_done_callback(self._refusing.discard)

    async def _tell(self, message: Msg, body: dict[str, Any]) -> None:
        try:
            await self._door.publish(message.reply, json.dumps(body).encode())
        except NatsError as error:
            log.info("the sender of an event on %s got no answer: %s", message.subject[:MAX_SUBJECT], error)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taking.discard(task)
        self._places.release()
        if not task.cancelled() and task.exception() is not None:
            log.error("an event of a publisher was not taken", exc_info=task.exception())

    async def _take(self, message: Msg) -> None:
        """Store a message, then answer its sender."""
        publisher, name = _sender(message.subject)
        answerable = publisher is not None and message.reply.startswith(f"_INBOX.{publisher}.")
        if message.reply and not answerable:
            # It would have us write where the sender may not. Nobody who means well does that.
            log.warning(
                "an event on %s names a reply subject that is not its sender's, and is refused", message.subject[:MAX_SUBJECT]
            )
            return
        try:
            body: dict[str, Any] = await self._store(publisher, name, message)
        except AgentOSError as error:
            log.info("an event on %s was refused: %s", message.subject[:MAX_SUBJECT], error.message)
            body = {"error": error.to_dict()}
        if answerable:
            await self._tell(message, body)

    async def _store(self, publisher: str | None, name: str, message: Msg) -> dict[str, Any]:
        """Write the message into the stream; what its sender is told. Raises AgentOSError."""
        if publisher is None or len(message.subject) > MAX_SUBJECT or not _NAME.fullmatch(name):
            raise AgentOSError(
                "the subject names no event", mend="evt.<your name>.<name>: letters, digits, `_` and `-` between the dots"
            )
        if len(message.data) > MAX_EVENT:
            raise AgentOSError(f"the event has {len(message.data)} bytes, and {MAX_EVENT} is the most")
        if not await self._allowed(publisher):
            raise AgentOSError(
                f"{publisher} is no publisher here", mend="an operator can make one: principal create --role publisher"
            )
        given = message.headers or {}
        headers = {"Nats-Expected-Stream": STREAM}
        if given.get("Nats-Msg-Id"):
            # Each publisher has ids of its own: nobody can hide what another one sends.
            named = f"{publisher}\0{given['Nats-Msg-Id']}".encode("utf-8", "replace")
            headers["Nats-Msg-Id"] = hashlib.sha256(named).hexdigest()
        content = given.get("Content-Type", "")
        if _CONTENT.fullmatch(content):
            headers["Content-Type"] = content
        if not self._made or self._kept != self._room():
            await self._make()
        try:
            answer = json.loads(
                (await self._client.request(f"inb.{publisher}.{name}", message.data, timeout=PATIENCE_S, headers=headers)).data
            )
        except NatsError as error:
            self._made = False
            raise LogUnavailable("the event may not be stored; send it again", where=STREAM) from error
        if "error" in answer:
            raise explain(STREAM, answer["error"])
        self._came.set()
        return {"sequence": int(answer["seq"]), **({"duplicate": True} if answer.get("duplicate") else {})}

    async def _there(self) -> bool:
        """Whether the stream is there, with its consumer. Raises LogUnavailable."""
        answer = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" in answer:
            if answer["error"].get("err_code") in MISSING:
                return False
            raise explain(STREAM, answer["error"])
        await self._make()
        return True

    async def _make(self) -> None:
        """Make stream and consumer where they are missing; give the stream the room it has now. Raises LogUnavailable."""
        room = self._room()
        stream: dict[str, Any] = {
            "name": STREAM,
            "subjects": ["inb.>"],
            "storage": "file",
            "retention": "workqueue",
            "discard": "new",
            "max_bytes": room,
            "max_msg_size": MAX_EVENT + 4096,
            "duplicate_window": 600 * _SECOND,
            "num_replicas": self._replicas(),
        }
        consumer: dict[str, Any] = {
            "durable_name": CONSUMER,
            "name": CONSUMER,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": ACT_S * _SECOND,
            # What waits for a trigger that cannot fire now keeps nothing else from being handed out.
            "max_ack_pending": -1,
            "max_deliver": -1,
        }
        for name, body in (
            (f"STREAM.CREATE.{STREAM}", stream),
            (f"CONSUMER.CREATE.{STREAM}.{CONSUMER}", {"stream_name": STREAM, "config": consumer}),
        ):
            answer = await self._link.api(name, body)
            if body is stream and answer.get("error", {}).get("err_code") == OTHER_CONFIG:
                answer = await self._resize(room)
            if "error" in answer and answer["error"].get("err_code") != OTHER_CONFIG:
                raise explain(STREAM, answer["error"])
        self._made, self._kept = True, room

    async def _resize(self, room: int) -> dict[str, Any]:
        """Give the stream, which is there, its room; what the server says."""
        found = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" in found or found["config"].get("max_bytes") == room:
            return found
        return await self._link.api(f"STREAM.UPDATE.{STREAM}", found["config"] | {"max_bytes": room})


def matches(pattern: str, name: str) -> bool:
    """Whether a subject of a trigger (`orders.*`, `orders.>`) means the event `name`, as NATS reads it."""
    wanted, given = pattern.split("."), name.split(".")
    for place, word in enumerate(wanted):
        if word == ">":
            return place == len(wanted) - 1 and len(given) > place
        if place >= len(given) or word not in ("*", given[place]):
            return False
    return len(wanted) == len(given)


def _sender(subject: str) -> tuple[str | None, str]:
    """The publisher that a subject is authenticated by, and what follows it."""
    _, _, rest = subject.partition(".")
    publisher, _, name = rest.partition(".")
    return (publisher if is_name(publisher) else None), name


def _event(message: Msg) -> EventIn:
    publisher, name = _sender(message.subject)
    # `$JS.ACK.<stream>.<consumer>.<tries>.<position>.<number>.<time>.<pending>`; a newer form has a domain and an account first.
    tokens = message.reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    sequence, at_ns = int(tokens[first]), int(tokens[first + 2])
    content = (message.headers or {}).get("Content-Type", "application/octet-stream")
    return EventIn(
        publisher or "", name, sequence, at_ns // 1_000_000, f"{sequence}-{at_ns}", message.data, content, int(tokens[first - 1])
    )
