"""The event log in memory: the port's whole contract without a server, for unit tests, dry runs and simulations.

Positions are counted per stream from 1, as JetStream does. Nothing survives the process. It fails as the real one does: by
itself (a conflict, a message too large, no room, closed), and as `faults` plans it. Without faults an append is done within the
turn of the event loop that it is called in.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Sequence

from agentos.abi.errors import LogUnavailable, SequenceConflict, TooLarge
from agentos.eventlog.adapters.faults import Faults, Kind
from agentos.eventlog.adapters.server_config import MAX_PAYLOAD
from agentos.eventlog.port import Message, Stored, ids_of
from agentos.eventlog.subject import event_streams, stream_of


class MemoryLog:
    """An `EventLog` of one account. Streams come into being with their first message."""

    def __init__(self, *, faults: Faults | None = None, largest: int = MAX_PAYLOAD, room: int | None = None) -> None:
        """`largest` is how many bytes a message may have, `room` how many all of them together (None: no limit)."""
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)
        self._faults = faults
        self._largest = largest
        self.room = room
        self._turns: dict[str, asyncio.Lock] = {}
        self._closed = False
        self._widened = asyncio.Event()

    def close(self) -> None:
        """From now on every method raises LogUnavailable, those that wait too."""
        self._closed = True
        for stream in self._streams.values():
            stream.wake()
        self._widened.set()

    def drop(self, stream: str) -> None:
        """Let a whole stream vanish, as somebody can who has the tools of the server. Its followers get LogUnavailable."""
        gone = self._streams.pop(stream)
        gone.gone = True
        gone.wake()

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        """See `EventLog.append`."""
        ids, stream = ids_of(messages), self._stream(stream_of(subject), subject)
        if max(len(message.data) for message in messages) > self._largest:
            raise TooLarge(
                "a message is larger than the log takes", where=subject, mend="keep large content in files and log its digest"
            )
        if self._faults is None:
            return self._append(stream, subject, messages, ids, after)
        async with self._turns.setdefault(subject, asyncio.Lock()):
            fault = self._faults.next(subject, len(messages))
            for _ in range(fault.delay):
                await asyncio.sleep(0)
            self._stream(stream_of(subject), subject)
            if fault.kind in (Kind.LOST, Kind.FULL):
                raise _no_room(subject) if fault.kind is Kind.FULL else _no_answer(subject)
            if fault.kind is Kind.TORN:
                if len(messages) > 1:
                    self._append(stream, subject, messages[:1], ids[:1], after)
                raise _no_room(subject)
            position = self._append(stream, subject, messages, ids, after)
            if fault.kind is Kind.UNANSWERED:
                raise _no_answer(subject)
            return position

    def _append(self, stream: _Stream, subject: str, messages: Sequence[Message], ids: list[str], after: int) -> int:
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
        if self.room is not None:
            size = sum(len(message.data) for message in rest)
            if size > self.room:
                raise _no_room(subject)
            self.room -= size
        first = not stream.stored
        for message in rest:
            stream.add(subject, message)
        stream.wake()
        if first:
            widened, self._widened = self._widened, asyncio.Event()
            widened.set()
        return len(stream.stored) if rest else behind[-1]

    def _stream(self, name: str, where: str) -> _Stream:
        if self._closed:
            raise LogUnavailable("the connection to the event log is closed", where=where)
        return self._streams[name]

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.read`."""
        stream = self._stream(stream_of(subject), subject)
        for position in stream.behind(subject, after):
            yield stream.stored[position - 1]

    async def last(self, subject: str) -> Stored | None:
        """See `EventLog.last`."""
        stream = self._stream(stream_of(subject), subject)
        position = stream.last(subject)
        return stream.stored[position - 1] if position else None

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.scan`."""
        for stored in self._stream(stream, stream).stored[after:]:
            yield stored

    async def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.follow`."""
        while True:
            source = self._stream(stream, stream)
            for stored in source.stored[after:]:
                yield stored
                after = stored.position
            if len(source.stored) <= after:
                await source.grown()
            if source.gone:
                raise LogUnavailable(f"the event log has no stream {stream} any more", where=stream)

    async def end(self, stream: str) -> int:
        """See `EventLog.end`."""
        return len(self._stream(stream, stream).stored)

    async def ends(self) -> dict[str, int]:
        """See `EventLog.ends`."""
        if self._closed:
            raise LogUnavailable("the connection to the event log is closed")
        made = event_streams(name for name, stream in self._streams.items() if stream.stored)
        return {name: len(self._streams[name].stored) for name in made}

    async def streams(self) -> tuple[str, ...]:
        """See `EventLog.streams`."""
        return tuple(await self.ends())

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        """See `EventLog.new_streams`."""
        while True:
            widened = self._widened
            found = tuple(name for name in await self.ends() if name not in known)
            if found:
                return found
            await widened.wait()


def _no_answer(subject: str) -> LogUnavailable:
    return LogUnavailable("the event log does not answer", where=subject, mend="see `agentos status`; repeating is safe")


def _no_room(subject: str) -> LogUnavailable:
    return LogUnavailable(
        "the event log has no space left", where=subject, mend="free space on its disk or raise the limit of the server"
    )


class _Stream:
    """One stream: what is stored, the id of each message, the positions of each subject, and who waits for more."""

    __slots__ = ("_places", "_waiters", "gone", "ids", "known", "stored")

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.ids: list[str] = []
        self.known: set[str] = set()
        self.gone = False
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
