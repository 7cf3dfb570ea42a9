"""The projector of one tenant: follows each of its streams, those to come too, and keeps the tenant's read model up to date.

One reader per stream puts what it reads on one bounded queue; one writer takes what is there, up to a batch, and hands it to the
store in a worker thread, where rows and positions are stored in one transaction. When the log or the disk fails, it says so in
`status`, waits and goes on from the stored positions, so that nothing is skipped and nothing is counted twice. A stream that
is gone takes its rows along: the read model is built anew from what the log still holds. The file is read whole once a day and
whenever a reader stumbled over it; one that is broken is thrown away and built anew too.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from agentos.abi.errors import LogUnavailable, Unavailable
from agentos.eventlog.port import EventLog, Stored
from agentos.projections.read_model import ReadModel

BATCH: Final = 500
"""Most events in one transaction."""

FIRST_CHECK_S: Final = 60.0
"""Seconds after the start until the file is read whole for the first time, so that the start is not held up."""

CHECK_S: Final = 86_400.0
"""Seconds from one such reading to the next."""

LOOK_S: Final = 1.0
"""Seconds between two looks whether a reader stumbled."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far the read model is. `problem` is what stops it at the moment, None when nothing does.

    `rebuilds` counts the broken files that were thrown away since the start, `broken` says what was wrong with the last one.
    """

    positions: Mapping[str, int]
    faults: int
    problem: str | None
    rebuilds: int = 0
    broken: str | None = None


class _Ahead(Exception):
    """The read model has read further than the log goes: it belongs to another log."""


class Projector:
    """Keeps `store` equal to the fold of `log`. `async with` starts and stops it; it takes both up where they stand."""

    def __init__(self, log: EventLog, store: ReadModel, *, batch: int = BATCH, pause_s: float = 0.5) -> None:
        """`batch` is the most events per transaction; `pause_s` the seconds to wait after a failure before trying again."""
        self._log = log
        self._store = store
        self._batch = batch
        self._pause_s = pause_s
        self._positions: dict[str, int] = {}
        self._problem: str | None = None
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._check_in_s = FIRST_CHECK_S

    @property
    def store(self) -> ReadModel:
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
            while not task.done():
                # More than once: what fails at the very moment takes the place of a cancellation, and would be tried again.
                task.cancel()
                await asyncio.wait([task], timeout=self._pause_s)
            # The worker thread may still be at the last batch: its lock is free when it is done.
            self._positions = await asyncio.to_thread(self._store.positions)
            if not task.cancelled() and (died := task.exception()) is not None:
                raise died

    async def caught_up(self, positions: Mapping[str, int] | None = None) -> None:
        """Wait until each stream has been read to its position in `positions`; None means the end of every stream now.

        Raises Unavailable when the projector does not run, LogUnavailable when the end cannot be asked for.
        """
        if positions is None:
            positions = await self._log.ends()
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
        ends = await self._log.ends()
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
        ends = await self._log.ends()
        return {stream: end - at for stream, end in ends.items() if (at := self._positions.get(stream, 0)) < end}

    async def status(self) -> Status:
        """Positions, number of faults found so far, and what stops the projector if something does."""
        faults, store = await asyncio.to_thread(self._count_faults), self._store
        return Status(dict(self._positions), faults, self._problem, store.rebuilds, store.broken)

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
                    await asyncio.to_thread(self._store.replace, str(failed.exceptions[0]))
                await asyncio.sleep(pause)
        finally:
            # Who waits for a position must learn that nobody works at it any more.
            async with self._moved:
                self._moved.notify_all()

    async def _follow(self) -> None:
        positions = await asyncio.to_thread(self._store.positions)
        ends = await self._log.ends()
        for stream, position in positions.items():
            if ends.get(stream, 0) < position:
                said = f"ends at {ends[stream]}" if stream in ends else "is gone"
                raise _Ahead(f"{stream} {said}, the rows had read to {position}: they are built anew")
        if all(positions.get(stream, 0) == end for stream, end in ends.items()):
            # The log answers and there is nothing to write: whatever the problem was, it is over.
            self._problem = None
        await self._reached(positions)
        queue: asyncio.Queue[tuple[str, Stored]] = asyncio.Queue(maxsize=2 * self._batch)
        async with asyncio.TaskGroup() as group:
            for stream in ends:
                group.create_task(self._read(stream, positions.get(stream, 0), queue))
            group.create_task(self._write(queue))
            group.create_task(self._widen(group, ends, queue))
            group.create_task(self._watch())

    async def _watch(self) -> None:
        """Read the file whole when that is due. Raises sqlite3.DatabaseError when it is broken."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._check_in_s -= LOOK_S
            if self._store.doubted or self._check_in_s <= 0:
                await asyncio.to_thread(self._store.check)
                self._check_in_s = CHECK_S

    async def _widen(self, group: asyncio.TaskGroup, known: Iterable[str], queue: asyncio.Queue[tuple[str, Stored]]) -> None:
        """Follow each stream that comes into being."""
        read = set(known)
        while True:
            for stream in await self._log.new_streams(read):
                read.add(stream)
                group.create_task(self._read(stream, 0, queue))

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
