"""Files that come into shared spaces, as firings: one for each content of each file, to every trigger whose pattern means it.

What triggers were told is kept (`drivers.adapters.space_arrivals`) once their firing is durable. So what came while no runtime
was there is told at the next start, and what was told before a crash and not kept is told again, as the same firing. A trigger
that is switched off is told nothing, later either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from agentos.abi.errors import AgentOSError, DriverError, NotFound, UsageError
from agentos.drivers.adapters.space_arrivals import SqliteArrivals
from agentos.drivers.adapters.space_watch import hints, look, read
from agentos.drivers.spaces import Spaces
from agentos.kernel.firing import Arrival, Firing
from agentos.kernel.port import Timer
from agentos.supervisor.arriving import Seen, Settling, arrival_id, meant
from agentos.supervisor.triggers import Triggers

log = logging.getLogger(__name__)

LOOK_S: Final = 30.0
"""Seconds between two looks where nothing has hinted at a change: hints may be lost."""

SOON_S: Final = 0.5
"""Seconds between two looks while some file may still be written to."""

LATER_S: Final = 5.0
"""Seconds until a space is tried again that could not be looked at."""


class Arrivals:
    """The shared spaces that triggers wait for, of all tenants."""

    def __init__(self, triggers: Triggers, spaces: Spaces, known: SqliteArrivals, timer: Timer) -> None:
        self._triggers = triggers
        self._spaces = spaces
        self._known = known
        self._timer = timer
        self._changed = asyncio.Event()
        self._watches: dict[tuple[str, str], tuple[Mapping[str, str], asyncio.Task[None]]] = {}
        triggers.on_change(self._changed.set)

    @property
    def watching(self) -> int:
        """How many spaces are watched."""
        return len(self._watches)

    async def run(self) -> None:
        """Watch the spaces that are declared, as they are declared, until cancelled."""
        try:
            while True:
                self._changed.clear()
                if await self._follow():
                    await self._changed.wait()
                else:
                    await self._timer.sleep(LATER_S)
        finally:
            await self._end(list(self._watches))

    async def _follow(self) -> bool:
        """Have one watch for each space that triggers wait for; whether all could begin. One that cannot holds up no other."""
        wanted: dict[tuple[str, str], dict[str, str]] = {}
        whole = True
        for tenant in self._triggers.tenants():
            own: dict[str, tuple[str, str]] = {}
            for spec in self._triggers.declared(tenant, "workspace"):
                if isinstance(spec.on, Arrival):
                    own[spec.name] = (spec.on.space, spec.on.glob)
            if not own and not any(of == tenant for of, _ in self._watches):
                continue
            try:
                new = await asyncio.to_thread(self._known.renewed, tenant, own)
            except DriverError as error:
                log.warning("tenant %s: arrivals in shared spaces wait: %s", tenant, error)
                wanted |= {place: dict(globs) for place, (globs, _) in self._watches.items() if place[0] == tenant}
                whole = False
                continue
            for name, watched in own.items():
                if name in new:
                    try:
                        await asyncio.to_thread(self._begin, tenant, name, watched)
                    except DriverError as error:
                        log.warning("trigger %s of tenant %s waits for arrivals later: %s", name, tenant, error)
                        whole = False
                        continue
                wanted.setdefault((tenant, watched[0]), {})[name] = watched[1]
        await self._end([place for place, (globs, _) in self._watches.items() if wanted.get(place) != globs])
        for place, globs in wanted.items():
            if place not in self._watches:
                task = asyncio.create_task(self._watch(*place, globs), name=f"watch space {place[1]} of tenant {place[0]}")
                task.add_done_callback(_look)
                self._watches[place] = (globs, task)
        return whole

    async def _end(self, places: Sequence[tuple[str, str]]) -> None:
        tasks = [self._watches.pop(place)[1] for place in places]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, tenant: str, trigger: str, watched: tuple[str, str]) -> None:
        """Count what is there as known to a new trigger; blocks."""
        space, glob = watched
        folder, known = self._spaces.folder(tenant, space), {}
        for path in look(folder):
            if meant(glob, path):
                # What cannot be read is not known, and fires once it can.
                with suppress(DriverError):
                    known[path] = read(folder, path)[0]
        self._known.watch(tenant, trigger, watched, known)

    async def _watch(self, tenant: str, space: str, globs: Mapping[str, str]) -> None:
        """Look at a space whenever something may have changed, and tell of what has come to stand still."""
        settling, hinted = Settling(), asyncio.Event()
        hinting: asyncio.Task[None] | None = None
        try:
            while True:
                hinted.clear()
                try:
                    folder = await asyncio.to_thread(self._spaces.folder, tenant, space)
                    if hinting is None:
                        hinting = asyncio.create_task(hints(folder, hinted.set))
                    files = {path: Seen(*status) for path, status in (await asyncio.to_thread(look, folder)).items()}
                    for path in settling.look(files, self._timer.monotonic_us()):
                        if not await self._arrived(tenant, space, folder, path, globs):
                            settling.again(path, self._timer.monotonic_us())
                    pause_s = settling.pause_s(self._timer.monotonic_us())
                except DriverError as error:
                    log.warning("space %s of tenant %s cannot be looked at: %s", space, tenant, error)
                    await self._timer.sleep(LOOK_S)
                    continue
                if pause_s is not None and pause_s <= SOON_S:
                    await self._timer.sleep(SOON_S)
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S if pause_s is None else min(pause_s, LOOK_S)):
                            await hinted.wait()
        finally:
            if hinting is not None:
                hinting.cancel()
                await asyncio.wait((hinting,))

    async def _arrived(self, tenant: str, space: str, folder: Path, path: str, globs: Mapping[str, str]) -> bool:
        """Tell the triggers that mean `path` of what is in it. Whether all were told."""
        names = [name for name, glob in globs.items() if meant(glob, path)]
        if not names:
            return True
        try:
            digest, content = await asyncio.to_thread(read, folder, path)
        except DriverError as error:
            # Gone again, or made unreadable: there is nothing to tell of. A change shows at the next look.
            log.info("space %s of tenant %s: a file came and cannot be read: %s", space, tenant, error.message)
            return True
        whole = True
        for name in names:
            try:
                if await asyncio.to_thread(self._known.told, tenant, name, space, path) != digest:
                    if await self._fire(tenant, name, space, path, digest, content):
                        await asyncio.to_thread(self._known.tell, tenant, name, space, path, digest)
                    else:
                        whole = False
            except DriverError as error:
                log.warning("trigger %s of tenant %s: a file is told again: %s", name, tenant, error)
                whole = False
        return whole

    async def _fire(self, tenant: str, trigger: str, space: str, path: str, digest: str, content: bytes | None) -> bool:
        """Whether the firing is durable, or can never be. Raises SpaceUnlabelled."""
        writer = await asyncio.to_thread(self._known.writer, tenant, space, path, digest)
        firing = Firing(
            trigger=trigger,
            id=arrival_id(space, path, digest),
            at_ms=self._timer.now_ms(),
            source="workspace",
            payload=content,
            labels=await asyncio.to_thread(self._spaces.labels_of, tenant, space, path, digest),
            facts={"space": space, "path": path, "digest": digest, "carried": content is not None},
        )
        try:
            if writer is not None:
                firing = replace(firing, hops=await self._triggers.hops_from(tenant, writer))
            await self._triggers.fire(tenant, firing)
        except (NotFound, UsageError) as error:
            log.warning("trigger %s of tenant %s: a file is lost to it: %s", trigger, tenant, error)
        except AgentOSError as error:
            log.info("trigger %s of tenant %s: a file is told again: %s", trigger, tenant, error.message)
            return False
        return True


def _look(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a shared space is watched no more until the runtime is started again", exc_info=task.exception())
