"""A log whose storage somebody has been at: what it reads can be edited, deleted, cut or lost behind the back of who wrote it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence

from agentos.abi.errors import LogUnavailable
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message, Stored
from agentos.eventlog.subject import stream_of


class BentLog:
    """An `EventLog` over a `MemoryLog`. Change `edits`, `cuts` and `lose` between calls."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.log = log or MemoryLog()
        self.edits: dict[tuple[str, int], bytes | None] = {}
        """(stream, position) → other bytes, None: deleted."""
        self.cuts: dict[str, int] = {}
        """stream → the last position that is left."""
        self.lose = 0
        """So many next answers to a checkpoint get lost on their way back."""

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        position = await self.log.append(subject, messages, after=after)
        if self.lose and subject.startswith("ckpt."):
            self.lose -= 1
            raise LogUnavailable("the answer was lost")
        return position

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        async for stored in self.scan(stream_of(subject), after=after):
            if stored.subject == subject:
                yield stored

    async def last(self, subject: str) -> Stored | None:
        found = [stored async for stored in self.read(subject)]
        return found[-1] if found else None

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        end = self.cuts.get(stream)
        async for stored in self.log.scan(stream, after=after):
            data = self.edits.get((stream, stored.position), stored.data)
            if data is not None and (end is None or stored.position <= end):
                yield Stored(stored.subject, stored.position, data)

    async def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        async for stored in self.log.follow(stream, after=after):
            data = self.edits.get((stream, stored.position), stored.data)
            if data is not None:
                yield Stored(stored.subject, stored.position, data)

    async def end(self, stream: str) -> int:
        return min(await self.log.end(stream), self.cuts.get(stream, 2**53))

    async def ends(self) -> dict[str, int]:
        return {stream: min(end, self.cuts.get(stream, 2**53)) for stream, end in (await self.log.ends()).items()}

    async def streams(self) -> tuple[str, ...]:
        return await self.log.streams()

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        return await self.log.new_streams(known)
