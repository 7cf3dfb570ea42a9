"""Snapshots of a stream, as the server makes them: every message with its sequence, headers and time, and the configuration.

`snapshot` streams the server's archive into a file; `restore` makes the stream anew from it on a server that has none of that
name. Sequences survive, so a chain or a checkpoint made before still holds after. The server sends a window of chunks and goes on
as they are acknowledged (JetStream API `STREAM.SNAPSHOT` and `STREAM.RESTORE`). `stream_names` says what there is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.errors import TimeoutError as NatsTimeout

from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict, LogUnavailable, NotFound

CHUNK: Final = 128 * 1024
_PATIENCE: Final = 30.0
_NOT_FOUND: Final = 10059
_EXISTS: Final = frozenset({10058, 10130})


class Sink(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`. Raises OSError."""


class Source(Protocol):
    """What an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot holds: the stream's configuration and state as the server gave them, and the archive's size in bytes."""

    stream: str
    config: Mapping[str, Json] = field(hash=False)
    state: Mapping[str, Json] = field(hash=False)
    bytes: int

    @property
    def messages(self) -> int:
        """How many messages it holds."""
        return int(self.state["messages"])


async def stream_names(client: Client) -> list[str]:
    """The names of all streams of the account, sorted. Raises LogUnavailable."""
    found: list[str] = []
    while True:
        answer = await _ask(client, "$JS.API.STREAM.NAMES", {"offset": len(found)})
        page = answer.get("streams") or []
        found += page
        if not page or len(found) >= int(answer["total"]):
            return sorted(found)


async def snapshot(client: Client, stream: str, target: Sink) -> Snapshot:
    """Write an archive of `stream` to `target` as of now; messages appended meanwhile may or may not be in it.

    The server checks the stored bytes first. Readers' places in the stream are left out. Raises NotFound without such a stream,
    LogUnavailable when the server stops or finds damage, and what `target.write` raises.
    """
    inbox = client.new_inbox()
    chunks = await client.subscribe(inbox)
    try:
        answer = await _ask(
            client,
            f"$JS.API.STREAM.SNAPSHOT.{stream}",
            {"deliver_subject": inbox, "chunk_size": CHUNK, "jsck": True, "no_consumers": True},
        )
        size = 0
        while True:
            message = await _next(chunks.next_msg(timeout=_PATIENCE), stream)
            if not message.data:
                _check_end(message, stream)
                return Snapshot(stream, answer["config"], answer["state"], size)
            target.write(message.data)
            size += len(message.data)
            if message.reply:
                await client.publish(message.reply)
    finally:
        await chunks.unsubscribe()


async def restore(client: Client, made: Snapshot, source: Source) -> int:
    """Make the stream of `made` from the archive `source`; return how many messages it has then.

    Raises Conflict when a stream of that name is there, LogUnavailable when the server does not take the archive.
    """
    answer = await _ask(client, f"$JS.API.STREAM.RESTORE.{made.stream}", {"config": dict(made.config), "state": dict(made.state)})
    subject = str(answer["deliver_subject"])
    while chunk := await asyncio.to_thread(source.read, CHUNK):
        done = await _next(client.request(subject, chunk, timeout=_PATIENCE), made.stream)
        _refuse(done.data, made.stream)
    last = await _next(client.request(subject, b"", timeout=_PATIENCE), made.stream)
    body = _refuse(last.data, made.stream)
    return int(body["state"]["messages"])


async def delete_stream(client: Client, stream: str) -> None:
    """Drop a stream with all that it holds. Raises NotFound, LogUnavailable."""
    await _ask(client, f"$JS.API.STREAM.DELETE.{stream}", {})


async def _ask(client: Client, subject: str, body: Json) -> dict[str, Json]:
    stream = subject.rpartition(".")[2]
    answer = await _next(client.request(subject, json.dumps(body).encode(), timeout=_PATIENCE), stream)
    return _refuse(answer.data, stream)


def _refuse(data: bytes, stream: str) -> dict[str, Json]:
    """The body of an answer of the server. Raises what it says is wrong."""
    body: dict[str, Json] = json.loads(data) if data else {}
    error = body.get("error")
    if error is None:
        return body
    if error.get("err_code") == _NOT_FOUND:
        raise NotFound(f"the server has no stream {stream}")
    if error.get("err_code") in _EXISTS:
        raise Conflict(f"the server has a stream {stream} already", mend="restore into an empty server")
    raise LogUnavailable(f"stream {stream}: {error.get('description')}")


def _check_end(message: Msg, stream: str) -> None:
    headers = message.headers or {}
    status = headers.get("Status", "204")
    if status not in {"204", ""}:
        raise LogUnavailable(f"the snapshot of stream {stream} broke off: {status} {headers.get('Description', '')}".rstrip())


async def _next(coming: Awaitable[Msg], stream: str) -> Msg:
    try:
        return await coming
    except NatsTimeout as error:
        raise LogUnavailable(f"the server says nothing more about stream {stream}") from error
    except (Error, OSError) as error:
        raise LogUnavailable(f"stream {stream}: {error}") from error
