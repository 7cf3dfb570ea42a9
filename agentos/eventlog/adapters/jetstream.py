"""The event log on JetStream, one account's: appends that are durable when they return, reads that skip and repeat nothing.

    log = JetStreamLog(await connect(server.url, key, name="runtime", reconnect=True))

A stream is made by the first append to it (`stream_set`), with the replicas that the tenant declares. Appends are committed in
groups (`group_commit` says which together, `writing` what became of them), each with its subject's expected last sequence on its
first message.

Reads are batched direct gets, the tail of `follow` is a standing pull; both check that no position is missing and begin
again behind the last one seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing

from nats.aio.client import Client

from agentos.eventlog.adapters.append_wire import HEADER_ROOM, Append
from agentos.eventlog.adapters.group_commit import GroupCommit
from agentos.eventlog.adapters.refusal import MISSING, explain
from agentos.eventlog.adapters.stream_reading import Link, tail
from agentos.eventlog.adapters.stream_set import StreamSet
from agentos.eventlog.adapters.streams import ensure_streams, keep_replicas
from agentos.eventlog.adapters.writing import too_large
from agentos.eventlog.port import Message, Stored, ids_of
from agentos.eventlog.subject import stream_of

__all__ = ["JetStreamLog", "ensure_streams"]


class JetStreamLog:
    """The `EventLog` of the account that `client` is a user of.

    A lost connection or answer is waited for and retried within `patience` seconds, then LogUnavailable is raised. `client`
    must reconnect for that (`connect(…, reconnect=True)`).
    """

    def __init__(self, client: Client, *, patience: float = 10.0, replicas: int = 1) -> None:
        self._client = client
        self._link = Link(client, patience)
        self._streams = StreamSet(self._link, replicas)
        self._commits: dict[str, GroupCommit] = {}

    @property
    def replicas(self) -> int:
        """In how many replicas new streams are kept."""
        return self._streams.replicas

    async def declare(self, replicas: int) -> None:
        """Keep all streams, those to come too, in so many replicas. Raises LogUnavailable where the server cannot."""
        self._streams.replicas = replicas
        await keep_replicas(self._client, replicas)

    def forbid(self, streams: Iterable[str]) -> None:
        """Append nothing to these any more, and never make them again: they were dropped on purpose, or are about to be."""
        names = set(streams)
        self._streams.forbid(names)
        for name in names:
            self._commits.pop(name, None)

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        """See `EventLog.append`. LogUnavailable leaves open whether it is stored: repeat it, or read the subject again.

        Raises Conflict for a stream that was dropped on purpose.
        Appends that wait at the same time share their commits (`group_commit`). Cancelling one does not tear it.
        """
        ids, stream = ids_of(messages), stream_of(subject)
        size, largest = 0, self._client.max_payload - HEADER_ROOM
        for message in messages:
            taken = len(message.data) + len(message.id)
            if taken > largest:
                raise too_large(subject)
            size += taken + HEADER_ROOM
        loop = asyncio.get_running_loop()
        since = loop.time()
        commit = self._commits.get(stream)
        if commit is None:
            await self._streams.ensure(stream, subject)
            commit = self._commits.setdefault(stream, GroupCommit(self._link, stream))
        done: asyncio.Future[int] = loop.create_future()
        commit.submit(Append(subject, tuple(messages), ids, after, since, done, size))
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
        stream = stream_of(subject)
        return await self._link.last(stream, subject) if await self._streams.exists(stream) else None

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
            if answer["error"].get("err_code") in MISSING:
                return 0
            raise explain(stream, answer["error"])
        return int(answer["state"]["last_seq"])

    async def ends(self) -> dict[str, int]:
        """See `EventLog.ends`."""
        return await self._streams.ends()

    async def streams(self) -> tuple[str, ...]:
        """See `EventLog.streams`."""
        return tuple(await self.ends())

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        """See `EventLog.new_streams`."""
        return await self._streams.new(known)
