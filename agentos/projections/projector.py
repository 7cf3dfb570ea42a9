"""The projector of one tenant: follows each of its streams and keeps the tenant's read model up to date.

One reader per stream puts what it reads on one bounded queue; one writer takes what is there, up to a batch, and hands it to the
store in a worker thread, where rows and positions are stored in one transaction. When the log or the disk fails, it says so in
`status`, waits and goes on from the stored positions, so that nothing is skipped and nothing is counted twice.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from agentos.abi.errors import LogUnavailable, Unavailable
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import EVENT_STREAMS
from agentos.projections.store import Store

BATCH: Final = 500
"""Most events in one transaction."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far the read model is. `problem` is what stops it at the moment, None when nothing does."""

    positions: Mapping[str, int]
    faults: int
    problem: str | None


class _Ahead(Exception):
    """The read model has read further than the log goes: it belongs to another log."""


class Projector:
    """Keeps `store` equal to the fold of `log`. `async with` starts and stops it; it takes both up where they stand."""

    def __init__(
        self, log: EventLog, store: Store, *, streams: Sequence[str] = EVENT_STREAMS, batch: int = BATCH, pause_s: float = 0.5
    ) -> None:
        """`batch` is the most events per transaction; `pause_s` the seconds to wait after a failure before trying again."""
        self._log = log
        self._store = store
        self._streams = tuple(streams)
        self._batch = batch
        self._pause_s = pause_s
        self._positions: dict[str, int] = {}
        self._problem: str | None = None
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def store(self) -> Store:
        """The read model, to be asked with `agentos.projections.read` and `agentos.audit.query`."""
        return self._store

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to follow, from the stored positions. Does nothing when it already runs."""
        if self._task is None:
            # Known again once they are seen not to lie beyond the log's end.
            self._positions = {}
            self._task = asyncio.create_task(self._run(), name=f"projector {self._store.tenant}")

    async def stop(self) -> None:
        """Stop following. A batch under way is stored first; the store stays open. Raises what killed the projector."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            # The worker thread may still be at the last batch: its lock is free when it is done.
            self._positions = await asyncio.to_thread(self._store.positions)
            if not task.cancelled() and (died := task.exception()) is not None:
                raise died

    async def caught_up(self, positions: Mapping[str, int] | None = None) -> None:
        """Wait until each stream has been read to its position in `positions`; None means the end of every stream now.

        Raises Unavailable when the projector does not run, LogUnavailable when the end cannot be asked for.
        """
        if positions is None:
            positions = {stream: await self._log.end(stream) for stream in self._streams}
        wanted = dict(positions)
        async with self._moved:
            while any(self._positions.get(stream, 0) < position for stream, position in wanted.items()):
                if self._task is None or self._task.done():
                    raise Unavailable("the read model is not being kept up to date", mend="start the runtime again")
                await self._moved.wait()

    async def rebuild(self) -> dict[str, int]:
        """Throw the rows away and read the log again from its first event; return the positions reached.

        Comes back when everything that was in the log at the time of the call is in the rows.
        """
        ends = {stream: await self._log.end(stream) for stream in self._streams}
        running = self._task is not None
        await self.stop()
        await asyncio.to_thread(self._clear)
        await self.start()
        await self.caught_up(ends)
        reached = dict(self._positions)
        if not running:
            await self.stop()
        return reached

    async def behind(self) -> dict[str, int]:
        """How many positions each stream's rows are behind its end, streams at their end left out."""
        ends = {stream: await self._log.end(stream) for stream in self._streams}
        return {stream: end - at for stream, end in ends.items() if (at := self._positions.get(stream, 0)) < end}

    async def status(self) -> Status:
        """Positions, number of faults found so far, and what stops the projector if something does."""
        return Status(dict(self._positions), await asyncio.to_thread(self._count_faults), self._problem)

    async def _run(self) -> None:
        try:
            while True:
                pause = self._pause_s
                try:
                    await self._follow()
                except* LogUnavailable as failed:
                    self._problem = str(failed.exceptions[0])
                except* _Ahead as failed:
                    self._problem, pause = str(failed.exceptions[0]), 0.0
                    await asyncio.to_thread(self._clear)
                except* sqlite3.OperationalError as failed:
                    # A full disk, a lock held too long: the file is sound, the batch comes again.
                    self._problem = f"the read model cannot be written: {failed.exceptions[0]}"
                except* sqlite3.DatabaseError as failed:
                    self._problem, pause = f"the read model was broken and is built anew: {failed.exceptions[0]}", 0.0
                    await asyncio.to_thread(self._store.replace)
                await asyncio.sleep(pause)
        finally:
            # Who waits for a position must learn that nobody works at it any more.
            async with self._moved:
                self._moved.notify_all()

    async def _follow(self) -> None:
        positions = await asyncio.to_thread(self._store.positions)
        ends = {stream: await self._log.end(stream) for stream in self._streams}
        for stream, end in ends.items():
            if end < positions.get(stream, 0):
                raise _Ahead(f"{stream} ends at {end}, the rows had read to {positions[stream]}: they are built anew")
        if all(positions.get(stream, 0) == end for stream, end in ends.items()):
            # The log answers and there is nothing to write: whatever the problem was, it is over.
            self._problem = None
        await self._reached(positions)
        queue: asyncio.Queue[tuple[str, Stored]] = asyncio.Queue(maxsize=2 * self._batch)
        async with asyncio.TaskGroup() as group:
            for stream in self._streams:
                group.create_task(self._read(stream, positions.get(stream, 0), queue))
            group.create_task(self._write(queue))

    async def _read(self, stream: str, after: int, queue: asyncio.Queue[tuple[str, Stored]]) -> None:
        async for stored in self._log.follow(stream, after=after):
            await queue.put((stream, stored))

    async def _write(self, queue: asyncio.Queue[tuple[str, Stored]]) -> None:
        while True:
            batch = [await queue.get()]
            while len(batch) < self._batch and not queue.empty():
                batch.append(queue.get_nowait())
            await self._reached(await asyncio.to_thread(self._store.apply, batch))
            self._problem = None

    async def _reached(self, positions: dict[str, int]) -> None:
        async with self._moved:
            self._positions = positions
            self._moved.notify_all()

    def _clear(self) -> None:
        try:
            self._store.clear()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self._store.replace()

    def _count_faults(self) -> int:
        with self._store.reader() as connection:
            return int(connection.execute("SELECT count(*) FROM faults").fetchone()[0])
