"""The event log in memory: the port's whole contract without a server, for unit tests and dry runs.

Positions are counted per stream from 1, as JetStream does. Nothing survives the process.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

from agentos.abi.errors import SequenceConflict
from agentos.eventlog.port import Message, Stored, ids_of
from agentos.eventlog.subject import stream_of


class MemoryLog:
    """An `EventLog` of one account. Streams come into being with their first message."""

    def __init__(self) -> None:
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        """See `EventLog.append`."""
        ids = ids_of(messages)
        stream = self._streams[stream_of(subject)]
        behind = stream.behind(subject, after)[: len(ids)]
        rest = messages[len(behind) :]
        last = stream.last(subject)
        theirs = [stream.ids[position - 1] for position in behind] != ids[: len(behind)]
        if theirs or last < after or not stream.known.isdisjoint(message.id for message in rest):
            raise SequenceConflict(
                f"{subject} ends at position {last}, expected {after}",
                where=subject,
                mend="read the subject again and repeat on top of what is there",
            )
        for message in rest:
            stream.add(subject, message)
        stream.wake()
        return len(stream.stored) if rest else behind[-1]

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.read`."""
        stream = self._streams[stream_of(subject)]
        for position in stream.behind(subject, after):
            yield stream.stored[position - 1]

    async def last(self, subject: str) -> Stored | None:
        """See `EventLog.last`."""
        stream = self._streams[stream_of(subject)]
        position = stream.last(subject)
        return stream.stored[position - 1] if position else None

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.scan`."""
        for stored in self._streams[stream].stored[after:]:
            yield stored

    async def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.follow`."""
        source = self._streams[stream]
        while True:
            for stored in source.stored[after:]:
                yield stored
                after = stored.position
            if len(source.stored) <= after:
                await source.grown()

    async def end(self, stream: str) -> int:
        """See `EventLog.end`."""
        return len(self._streams[stream].stored)


class _Stream:
    """One stream: what is stored, the id of each message, the positions of each subject, and who waits for more."""

    __slots__ = ("_places", "_waiters", "ids", "known", "stored")

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.ids: list[str] = []
        self.known: set[str] = set()
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        self._waiters: set[asyncio.Future[None]] = set()

    def behind(self, subject: str, after: int) -> list[int]:
        """The positions of `subject` greater than `after`, in order."""
        places = self._places[subject]
        return places[bisect_right(places, after) :]

    def last(self, subject: str) -> int:
        """The position of the last message of `subject`, 0 if there is none."""
        places = self._places[subject]
        return places[-1] if places else 0

    def add(self, subject: str, message: Message) -> None:
        self.stored.append(Stored(subject, len(self.stored) + 1, message.data))
        self.ids.append(message.id)
        self.known.add(message.id)
        self._places[subject].append(len(self.stored))

    def wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def grown(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
