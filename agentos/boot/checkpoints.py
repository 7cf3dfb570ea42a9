"""The daemon that keeps every log of the runtime under signed checkpoints: one notary per tenant, and one for the registry.

A notary follows the streams of its log, hands what it reads to the prover in batches, and has a checkpoint signed when 1,000
events are not under one yet, or when the first of them has waited for `SOON_S`; when nothing happens, once an hour; and when the
runtime stops. At the start, and once a day, it reads the whole log again in the background and compares. Whatever shows that the
log is not what it was is an alarm: from then on nothing is signed, and `status` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from agentos.abi.errors import ChainBroken, NotFound, Unavailable
from agentos.abi.ids import FLEET, Random
from agentos.audit.keyring import KeyRing
from agentos.audit.prover import Prover, Signed
from agentos.audit.recheck import Recheck
from agentos.audit.rotation import Rotation
from agentos.audit.tiles import TilesBroken, TileStore
from agentos.eventlog.adapters.jetstream import ensure_streams
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import CHECKPOINT_STREAM, REGISTRY_STREAM
from agentos.kernel.port import Timer

log = logging.getLogger(__name__)

EVENTS: Final = 1000
"""Most events between two checkpoints."""

SOON_S: Final = 0.75
"""Seconds that an event waits for its checkpoint: what is left of one second is for signing and storing it."""

IDLE_S: Final = 3600.0
"""Seconds between two checkpoints when nothing happens."""

AGAIN_S: Final = 86_400.0
"""Seconds between two readings of the whole log."""

GATHER_S: Final = 0.05
"""Seconds in which events gather before they are hashed and stored together."""

PAUSE_S: Final = 0.5
"""Seconds until something that failed is tried again."""

PATIENCE_S: Final = 20.0
"""Seconds that a question waits for the trees to hold all that the log holds."""

SHARE: Final = 4
"""Reading the whole log again in the background takes one part of so many of the time."""


class Notary:
    """Keeps the log of `prover` under checkpoints. `start` it; `stop` signs a last time."""

    def __init__(self, prover: Prover, timer: Timer, *, soon_s: float = SOON_S, idle_s: float = IDLE_S) -> None:
        self.prover = prover
        self.problem: str | None = None
        self._timer = timer
        self._soon_us, self._idle_us = int(soon_s * 1e6), int(idle_s * 1e6)
        self._tasks: list[asyncio.Task[None]] = []
        self._sizes: dict[str, int] = {}
        self._moved = asyncio.Condition()
        self._hurry = asyncio.Event()
        self._signed_us: int | None = None
        self._first_us: int | None = None

    async def start(self) -> None:
        """Begin. Comes back at once; the work is done beside everything else."""
        self._tasks = [
            asyncio.create_task(self._run(), name=f"notary {self.prover.name}"),
            asyncio.create_task(self._read_again(), name=f"notary {self.prover.name}: whole log"),
        ]

    async def stop(self) -> None:
        """End, with a checkpoint over all that there is. What cannot be signed now is signed at the next start."""
        running = set(self._tasks)
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=PAUSE_S)
        if self._tasks:
            await self._finish()
        self._tasks = []
        await asyncio.to_thread(self.prover.tiles.close)

    async def now(self) -> Signed:
        """A checkpoint over everything that is in the log at the time of the call.

        Raises ChainBroken when there is an alarm, Unavailable when it takes too long.
        """
        ends = await self.prover.ends()
        self._hurry.set()
        try:
            async with asyncio.timeout(PATIENCE_S):
                async with self._moved:
                    while any(self._sizes.get(stream, -1) < end for stream, end in ends.items()):
                        self.prover.check()
                        await self._moved.wait()
                self.prover.check()
                return self._fresh() or await self.sign()
        except TimeoutError as error:
            self.prover.check()
            read, total = sum(self._sizes.values()), sum(ends.values())
            why = self.problem or f"{read} of {total} events are in the trees"
            raise Unavailable(f"the checkpoints are behind the log: {why}", mend="ask again in a moment") from error

    async def sign(self) -> Signed:
        """A checkpoint over what was read so far. Raises as `Prover.sign`."""
        first, self._first_us = self._first_us, None
        try:
            signed = await self.prover.sign()
        except BaseException:
            self._first_us = self._first_us or first
            raise
        self._signed_us = self._timer.monotonic_us()
        self.problem = None  # what is signed is stored: the log answers
        async with self._moved:
            self._moved.notify_all()
        return signed

    def warnings(self) -> list[str]:
        """What `status` has to say."""
        if self.prover.alarm is not None:
            return [
                f"the log was changed behind the runtime's back: {self.prover.alarm}; nothing is signed: agentos audit verify"
            ]
        return [] if self.problem is None else [f"checkpoints: {self.problem}"]

    def _fresh(self) -> Signed | None:
        """The last checkpoint, if nothing was read since and it is of this moment."""
        last, signed_us = self.prover.last, self._signed_us
        if last is None or signed_us is None or not self._covers(last):
            return None
        return last if self._timer.monotonic_us() - signed_us < self._soon_us else None

    def _covers(self, last: Signed) -> bool:
        return all(last.checkpoint.tree(stream).size == size for stream, size in self._sizes.items())

    async def _run(self) -> None:
        opened = False
        while True:
            try:
                if not opened:
                    await self.prover.open()
                    opened = True
                ends = await self.prover.ends()
                await self._reached()
                self.prover.check()
                await self._follow(ends)
            except* ChainBroken as failed:
                self._say(failed)
            except* (Unavailable, sqlite3.OperationalError) as failed:
                self._say(failed)
            except* (sqlite3.DatabaseError, TilesBroken) as failed:
                self._say(failed)
                opened = False
            if self.prover.alarm is not None:
                await self._alarmed()
                return
            await self._timer.sleep(PAUSE_S)

    def _say(self, failed: BaseExceptionGroup[BaseException]) -> None:
        told = str(failed.exceptions[0])
        if told != self.problem:
            log.warning("checkpoints of %s: %s", self.prover.name, told)
        self.problem = told

    async def _alarmed(self) -> None:
        log.critical("%s: the log was changed behind the runtime's back: %s", self.prover.name, self.prover.alarm)
        async with self._moved:
            self._moved.notify_all()

    async def _follow(self, streams: Collection[str]) -> None:
        """Read, hash, sign, until something fails."""
        sizes = await self.prover.sizes()
        queue: asyncio.Queue[tuple[str, Stored]] = asyncio.Queue(maxsize=2 * EVENTS)
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(self._read(stream, sizes[stream], queue))
            group.create_task(self._write(queue))
            group.create_task(self._widen(group, streams, queue))

    async def _read(self, stream: str, after: int, queue: asyncio.Queue[tuple[str, Stored]]) -> None:
        async with aclosing(self.prover.log.follow(stream, after=after)) as coming:
            async for stored in coming:
                await queue.put((stream, stored))

    async def _widen(self, group: asyncio.TaskGroup, known: Collection[str], queue: asyncio.Queue[tuple[str, Stored]]) -> None:
        """Follow each stream that comes into being."""
        read = set(known)
        while True:
            for stream in await self.prover.new_streams(read):
                read.add(stream)
                group.create_task(self._read(stream, 0, queue))

    async def _write(self, queue: asyncio.Queue[tuple[str, Stored]]) -> None:
        waiting = 0
        while True:
            batch = await self._batch(queue, EVENTS - waiting)
            if batch:
                waiting += await self.prover.take(batch)
                self.prover.check()
                self._first_us = self._first_us or self._timer.monotonic_us()
                await self._reached()
            if queue.empty():
                self._hurry.clear()
            self.problem = None
            if waiting >= EVENTS or self._left_us() <= 0:
                await self.sign()
                waiting = 0

    async def _batch(self, queue: asyncio.Queue[tuple[str, Stored]], room: int) -> list[tuple[str, Stored]]:
        """What there is to take, at most `room`; nothing when it is time to sign."""
        try:
            # Not `wait_for`, which may swallow a cancellation when an item comes at the same moment.
            async with asyncio.timeout(max(0.0, self._left_us() / 1e6)):
                batch = [await queue.get()]
        except TimeoutError:
            return []
        if queue.qsize() < room - 1:
            # One transaction for many events costs little more than for one; who asks for a checkpoint now does not wait.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._hurry.wait()
        while len(batch) < room and not queue.empty():
            batch.append(queue.get_nowait())
        return batch

    def _left_us(self) -> int:
        """Microseconds until the next checkpoint is due."""
        now = self._timer.monotonic_us()
        if self._signed_us is None:
            return 0  # what a crash left unsigned does not wait
        if self._first_us is not None:
            return self._first_us + self._soon_us - now
        return self._signed_us + self._idle_us - now

    async def _reached(self) -> None:
        async with self._moved:
            self._sizes = await self.prover.sizes()
            self._moved.notify_all()

    async def _finish(self) -> None:
        try:
            await self.prover.ends()
            for stream, size in (await self.prover.sizes()).items():
                await self._take_rest(stream, size)
            self._sizes = await self.prover.sizes()
            if self.prover.alarm is None and not (self.prover.last and self._covers(self.prover.last)):
                await self.prover.sign()
        except (Unavailable, ChainBroken, sqlite3.Error, TilesBroken) as error:
            log.warning("no last checkpoint of %s: %s", self.prover.name, error)

    async def _take_rest(self, stream: str, size: int) -> None:
        batch: list[tuple[str, Stored]] = []
        async with aclosing(self.prover.log.scan(stream, after=size)) as rest:
            async for stored in rest:
                batch.append((stream, stored))
                if len(batch) == EVENTS:
                    await self.prover.take(batch)
                    batch = []
        await self.prover.take(batch)

    async def _read_again(self) -> None:
        """Read the whole log in the background, at the start and once a day."""
        while True:
            async with self._moved:
                while self.prover.last is None and self.prover.alarm is None:
                    await self._moved.wait()
            if self.prover.alarm is not None:
                return
            begun = self._timer.monotonic_us()

            async def rest() -> None:
                nonlocal begun
                took = self._timer.monotonic_us() - begun
                await self._timer.sleep((SHARE - 1) * took / 1e6)
                begun = self._timer.monotonic_us()

            try:
                outcome = await Recheck(self.prover, pause=rest).run()
                if outcome.findings:
                    self.prover.raise_alarm(outcome.findings[0])
                    await self._alarmed()
                    return
                if outcome.trees_broken:
                    log.warning("the trees beside the log %s were damaged: they are built anew", self.prover.name)
                    await self.prover.rebuild()
            except (Unavailable, sqlite3.Error, TilesBroken) as error:
                log.warning("%s could not be read again: %s", self.prover.name, error)
            await self._timer.sleep(AGAIN_S)


class Checkpoints:
    """The notaries of the runtime. `folder` is where read models are."""

    def __init__(self, folder: Path, ring: KeyRing, timer: Timer, random: Random) -> None:
        self.ring = ring
        self._folder = folder
        self._timer = timer
        self._random = random
        self._notaries: dict[str, Notary] = {}

    async def open(self, tenant: str, client: Client, eventlog: EventLog, *, replicas: int = 1) -> None:
        """Keep the log of `tenant` (`*`: the registry) under checkpoints from now on; their stream is kept in `replicas`."""
        await ensure_streams(client, (CHECKPOINT_STREAM,), replicas=replicas)
        name, streams = (REGISTRY_STREAM, (REGISTRY_STREAM,)) if tenant == FLEET else (tenant, None)
        tiles = await asyncio.to_thread(TileStore.open, self._folder / f"{name}.tiles.db", tenant=name)
        prover = Prover(name, eventlog, tiles, self.ring, self._timer, streams=streams)
        notary = self._notaries[tenant] = Notary(prover, self._timer)
        await notary.start()

    def get(self, tenant: str) -> Notary:
        """The notary of `tenant`. Raises NotFound."""
        if tenant not in self._notaries:
            raise NotFound(f"there is no tenant {tenant}", mend="declare it: kind Tenant; agentos get tenant lists them")
        return self._notaries[tenant]

    def warnings(self, tenant: str) -> Sequence[str]:
        """What `status` has to say about the log of `tenant` and the registry's."""
        return [line for one in (tenant, FLEET) if one in self._notaries for line in self._notaries[one].warnings()]

    async def rotate(self) -> Rotation:
        """Replace the signing key; every log gets a checkpoint of the new key at once. Raises IdentityError, OSError."""
        made = [notary.prover.last.checkpoint.time_ms for notary in self._notaries.values() if notary.prover.last]
        # Not before the last checkpoint of the old key, whatever the clock says.
        rotation = self.ring.rotate(self._random, max([self._timer.now_ms(), *made]))
        for notary in self._notaries.values():
            try:
                await notary.prover.sign()
            except (Unavailable, ChainBroken) as error:
                log.warning("no checkpoint of %s with the new key yet: %s", notary.prover.name, error)
        return rotation

    async def close(self) -> None:
        """Stop, each with a last checkpoint."""
        for notary in self._notaries.values():
            await notary.stop()
        self._notaries = {}
