"""Reading a JetStream stream: pages by batched direct get, the tail by a standing pull, both over a link that may break.

    direct get   one request, up to `batch` messages (or the last of many subjects), then an end marker (status 204); 404 when
                 there is nothing
    tail         an ephemeral consumer of ours; pulls are topped up at half, each delivery is numbered by the server

The numbers the server sends along (`Nats-Last-Sequence`, the delivery number) show whether a message was lost on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.nuid import NUID

from agentos.abi.errors import LogUnavailable
from agentos.eventlog.port import Stored

PAGE: Final = 1000
"""Messages of one direct get at most."""

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one direct get, about: the server ends the page with the message that passes it."""

_TRY = 2.0  # seconds for one request before its loss is assumed
_LOOK = 0.01  # seconds between two looks at a lost connection
_DESERTED = 0.5  # seconds that JetStream may be away on a connection that stands
_PULL = 256  # messages asked for ahead
_HEARTBEAT = 5.0  # seconds between signs of life of a waiting pull
_EXPIRES = 60.0  # seconds until an unused pull is renewed
_WATCH = 0.25  # seconds until a quiet tail looks whether the connection was replaced
_IDLE = 30.0  # seconds after which the server forgets a consumer that nobody pulls from
_SECOND = 1_000_000_000  # the API counts in nanoseconds


class Link:
    """A client that may lose its connection, and the patience to wait for it (seconds)."""

    def __init__(self, client: Client, patience: float) -> None:
        self.client = client
        self._patience = patience

    @property
    def generation(self) -> int:
        """Grows each time the connection is replaced."""
        return self.client.stats["reconnects"]

    def tries(self, where: str, *, since: float | None = None) -> Tries:
        """The tries that one operation on `where` (a subject or stream) has, from now or from `since` (loop time)."""
        begin = asyncio.get_running_loop().time() if since is None else since
        return Tries(self.client, begin + self._patience, where)

    async def api(self, name: str, body: dict[str, Any], *, since: float | None = None) -> dict[str, Any]:
        """Ask the JetStream API (`STREAM.INFO.EV_0`); the answer may hold an `error`. Raises LogUnavailable."""
        tries = self.tries(name, since=since)
        while True:
            seconds = await tries.next()
            try:
                answer = await _request(self.client, f"$JS.API.{name}", json.dumps(body).encode(), seconds)
            except NatsError as error:
                await tries.lost(error)
                continue
            found: dict[str, Any] = json.loads(answer.data)
            return found

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of `subject`. Raises LogUnavailable."""
        tries = self.tries(subject)
        while True:
            seconds = await tries.next()
            try:
                return await get_last(self.client, stream, subject, seconds)
            except NatsError as error:
                await tries.lost(error)

    async def lasts(self, stream: str, subjects: Sequence[str]) -> dict[str, int]:
        """The position of the last message of each of `subjects` (at most 1,000) that has one. Raises LogUnavailable.

        A subject may be missing although it has one, should its message have been lost on the way.
        """
        tries = self.tries(stream)
        query = {"multi_last": list(subjects), "max_bytes": PAGE_BYTES}
        while True:
            seconds = await tries.next()
            try:
                page = await _collect(self.client, stream, query, seconds)
            except NatsError as error:
                await tries.lost(error)
            else:
                return {stored.subject: stored.position for stored in page.messages}

    async def page(self, stream: str, subject: str | None, after: int, *, batch: int = PAGE) -> Page:
        """See `get_page`, repeated until there is one. Raises LogUnavailable."""
        tries = self.tries(subject or stream)
        while True:
            seconds = await tries.next()
            try:
                return await get_page(self.client, stream, subject, after, seconds, batch=batch)
            except NatsError as error:
                await tries.lost(error)


class Tries:
    """Counts down the patience of one operation: `next()` before each try, `lost(error)` after one that got no answer.

    `until` is the loop time at which the patience ends.
    """

    __slots__ = ("_client", "_deserted", "_error", "_until", "_where")

    def __init__(self, client: Client, until: float, where: str) -> None:
        self._client = client
        self._where = where
        self._until = until
        self._error: NatsError | None = None
        self._deserted: float | None = None  # since when nobody takes the request

    async def next(self) -> float:
        """Wait for a connection; seconds that this try may take. Raises LogUnavailable when the patience is at its end."""
        now = asyncio.get_running_loop().time
        while not self._client.is_connected and not self._client.is_closed and now() < self._until:  # noqa: ASYNC110 - the client has no event
            await asyncio.sleep(_LOOK)
        left = self._until - now()
        if self._client.is_closed:
            raise LogUnavailable("the connection to the event log is closed", where=self._where) from self._error
        if left <= 0:
            raise LogUnavailable(
                "the event log does not answer", where=self._where, mend="see `agentos status`; repeating is safe"
            ) from self._error
        return min(left, _TRY)

    async def lost(self, error: NatsError) -> None:
        """Note why a try failed. Raises LogUnavailable when nobody has taken the request for a while."""
        self._error = error
        if not isinstance(error, NoRespondersError):
            self._deserted = None
            return
        # A server that is stopping or starting has no JetStream for a moment; beyond that there is no such stream.
        now = asyncio.get_running_loop().time()
        self._deserted = self._deserted or now
        if now - self._deserted > _DESERTED:
            raise LogUnavailable(
                "nobody answers for the event log: its stream was never made, or JetStream is off or out of space",
                where=self._where,
                mend="look into the log of the nats-server and at the free space of its disk",
            ) from error
        await asyncio.sleep(_LOOK)

    async def put_off(self, said: str) -> None:
        """Note that the server asks for another try, and why; wait a moment."""
        self._error, self._deserted = NatsError(f"nats: {said}"), None
        await asyncio.sleep(_LOOK)


@dataclass(frozen=True, slots=True)
class Page:
    """Messages in stream order, and the id of each."""

    messages: tuple[Stored, ...] = ()
    ids: tuple[str, ...] = ()

    def until(self, position: int) -> Page:
        """The part up to `position`."""
        count = sum(stored.position <= position for stored in self.messages)
        return self if count == len(self.messages) else Page(self.messages[:count], self.ids[:count])


async def _request(client: Client, subject: str, data: bytes, seconds: float) -> Msg:
    """Ask and be answered. Raises nats errors."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    found = await client.request(subject, data, timeout=seconds)
    # nats-py waits by `wait_for`, which on Python 3.11 swallows a cancellation that comes with the answer. One that came before
    # was heard: who asks nevertheless clears up, and is answered.
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return found


async def get_last(client: Client, stream: str, subject: str, seconds: float) -> Stored | None:
    """The last message of `subject`. Raises nats errors."""
    query = json.dumps({"last_by_subj": subject}).encode()
    found = await _request(client, f"$JS.API.DIRECT.GET.{stream}", query, seconds)
    headers = found.headers or {}
    if headers.get("Status") == "404":
        return None
    _expect_message(headers)
    return Stored(subject, int(headers["Nats-Sequence"]), found.data)


async def get_page(client: Client, stream: str, subject: str | None, after: int, seconds: float, *, batch: int = PAGE) -> Page:
    """The next messages of `stream` behind position `after`, of `subject` or (None) of all subjects. Raises nats errors.

    May end early (at PAGE_BYTES, or before a message that was lost on the way); empty only when there is nothing more.
    """
    query: dict[str, Any] = {"seq": after + 1, "batch": batch, "max_bytes": PAGE_BYTES}
    if subject is not None:
        query["next_by_subj"] = subject
    return await _collect(client, stream, query, seconds)


async def _collect(client: Client, stream: str, query: dict[str, Any], seconds: float) -> Page:
    """The messages that a batched direct get answers with, up to the first that was lost on the way. Raises nats errors."""
    received: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=received.put)
    messages: list[Stored] = []
    ids: list[str] = []
    whole = True
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode(), reply=inbox)
        async with asyncio.timeout(seconds):
            while True:
                found = await received.get()
                headers = found.headers or {}
                if "Status" in headers:
                    break
                before = messages[-1].position if messages else 0
                whole = whole and int(headers["Nats-Last-Sequence"]) == before
                if whole:
                    messages.append(Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), found.data))
                    ids.append(headers.get("Nats-Msg-Id", ""))
    except TimeoutError as error:
        raise NatsTimeout from error
    finally:
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()
    if headers["Status"] not in ("204", "404"):
        _expect_message(headers)
    if not whole and not messages:
        raise NatsError("nats: the beginning of a page was lost")
    return Page(tuple(messages), tuple(ids))


def _expect_message(headers: dict[str, str]) -> None:
    status = headers.get("Status")
    if status == "503":
        raise NoRespondersError
    if status is not None:
        raise NatsError(f"nats: direct get answered {status} {headers.get('Description', '')}")


async def tail(link: Link, stream: str, after: int) -> AsyncGenerator[Stored, None]:
    """The messages of `stream` behind `after` as they come, until it is not sure that none is missing; then it ends.

    Raises LogUnavailable when the server cannot be asked.
    """
    client, generation = link.client, link.generation
    name = f"tail-{NUID().next().decode('ascii')}"
    consumer = {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(_IDLE * _SECOND),
    }
    answer = await link.api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": consumer})
    if "error" in answer:
        raise LogUnavailable(f"stream {stream} cannot be followed: {answer['error'].get('description')}", where=stream)
    inbox = client.new_inbox()
    received: asyncio.Queue[Msg] = asyncio.Queue()
    asked = 0
    delivered = 0
    quiet = 0.0
    try:
        subscription = await client.subscribe(inbox, cb=received.put)
        try:
            while True:
                if asked <= _PULL // 2:
                    await _pull(client, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", inbox, _PULL - asked)
                    asked = _PULL
                try:
                    # Not `wait_for`: on Python 3.11 it can swallow a cancellation that comes with the message.
                    async with asyncio.timeout(_WATCH):
                        found = await received.get()
                except TimeoutError:
                    quiet += _WATCH
                    if link.generation != generation or quiet > 2.5 * _HEARTBEAT:
                        return
                    continue
                quiet = 0.0
                status = (found.headers or {}).get("Status")
                if status is None:
                    position, number = _places(found.reply)
                    if number != delivered + 1:
                        return
                    delivered = number
                    asked -= 1
                    yield Stored(found.subject, position, found.data)
                elif status == "408":  # a pull has waited for its whole time: this many of its messages never came
                    asked -= int((found.headers or {}).get("Nats-Pending-Messages", asked))
                elif status != "100":
                    return
        finally:
            await subscription.unsubscribe()
            await client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}")
    except NatsError:
        return  # the connection is gone; the caller finds out for good, or begins again


async def _pull(client: Client, subject: str, inbox: str, batch: int) -> None:
    request = {"batch": batch, "expires": int(_EXPIRES * _SECOND), "idle_heartbeat": int(_HEARTBEAT * _SECOND)}
    await client.publish(subject, json.dumps(request).encode(), reply=inbox)


def _places(reply: str) -> tuple[int, int]:
    """Stream position and delivery number of a delivered message.

    From its reply subject `$JS.ACK.<stream>.<consumer>.<tries>.<position>.<number>.<time>.<pending>`; a newer form has a
    domain and an account behind `ACK`.
    """
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 1])
