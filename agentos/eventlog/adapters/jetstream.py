"""The event log on JetStream, one account's: appends that are durable when they return, reads that skip and repeat nothing.

    client = await connect(server.url, key, name="runtime", reconnect=True)
    await ensure_streams(client, EVENT_STREAMS)
    log = JetStreamLog(client)

Appends are committed in groups (`group_commit` says which together, `writing` what became of them), each with its subject's
expected last sequence on its first message.

Reads are batched direct gets, the tail of `follow` is a standing pull; both check that no position is missing and begin
again behind the last one seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from nats.aio.client import Client

from agentos.eventlog.adapters.append_wire import HEADER_ROOM, Append
from agentos.eventlog.adapters.group_commit import GroupCommit
from agentos.eventlog.adapters.refusal import explain
from agentos.eventlog.adapters.stream_reading import Link, tail
from agentos.eventlog.adapters.streams import ensure_streams
from agentos.eventlog.adapters.writing import too_large
from agentos.eventlog.port import Message, Stored, ids_of
from agentos.eventlog.subject import stream_of

__all__ = ["JetStreamLog", "ensure_streams"]


class JetStreamLog:
    """The `EventLog` of the account that `client` is a user of.

    A lost connection or answer is waited for and retried within `patience` seconds, then LogUnavailable is raised. `client`
    must reconnect for that (`connect(…, reconnect=True)`).
    """

    def __init__(self, client: Client, *, patience: float = 10.0) -> None:
        self._client = client
        self._link = Link(client, patience)
        self._commits: dict[str, GroupCommit] = {}

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        """See `EventLog.append`. LogUnavailable leaves open whether it is stored: repeat it, or read the subject again.

        Appends that wait at the same time share their commits (`group_commit`). Cancelling one does not tear it.
        """
        ids, stream = ids_of(messages), stream_of(subject)
        size, largest = 0, self._client.max_payload - HEADER_ROOM
        for message in messages:
            taken = len(message.data) + len(message.id)
            if taken > largest:
                raise too_large(subject)
            size += taken + HEADER_ROOM
        commit = self._commits.get(stream)
        if commit is None:
            commit = self._commits[stream] = GroupCommit(self._link, stream)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        commit.submit(Append(subject, tuple(messages), ids, after, loop.time(), done, size))
        return await done

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.read`."""
        last = await self.last(subject)
        end = 0 if last is None else last.position
        while after < end:
            page = (await self._link.page(stream_of(subject), subject, after)).until(end)
            for stored in page.messages:
                yield stored
            after = page.messages[-1].position if page.messages else end

    async def last(self, subject: str) -> Stored | None:
        """See `EventLog.last`."""
        return await self._link.last(stream_of(subject), subject)

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.scan`."""
        end = await self.end(stream)
        while after < end:
            page = (await self._link.page(stream, None, after)).until(end)
            for stored in page.messages:
                yield stored
            after = page.messages[-1].position if page.messages else end

    async def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.follow`. Close it (`contextlib.aclosing`) when it is left before it is cancelled."""
        while True:
            async with aclosing(self.scan(stream, after=after)) as past:
                async for stored in past:
                    after = stored.position
                    yield stored
            async with aclosing(tail(self._link, stream, after)) as coming:
                async for stored in coming:
                    after = stored.position
                    yield stored

    async def end(self, stream: str) -> int:
        """See `EventLog.end`."""
        answer = await self._link.api(f"STREAM.INFO.{stream}", {})
        if "error" in answer:
            raise explain(stream, answer["error"])
        return int(answer["state"]["last_seq"])
