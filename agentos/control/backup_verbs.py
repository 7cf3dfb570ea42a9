"""The verb backup.create: a backup is a run of its own, which may take minutes; whoever asks goes on asking until it is done.

Only a principal of the fleet may: a backup holds every tenant's log. The file is written by the runtime, on its host.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict, Denied, NotFound, UsageError
from agentos.abi.ids import Clock, Random, new_id
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers

log = logging.getLogger(__name__)

WAIT_S: Final = 1.0
"""How long one request waits for a run to end, in seconds."""


@dataclass(slots=True)
class Progress:
    """How far a backup is: streams that are whole, bytes so far, and what is being written."""

    streams: int = 0
    bytes: int = 0
    doing: str = ""

    def more(self, size: int) -> None:
        """`size` bytes were written."""
        self.bytes += size


class Maker(Protocol):
    """Makes backups."""

    def place(self, to: str | None) -> Path:
        """The file that a backup to `to` (None: the home's own folder for backups) becomes. Raises UsageError, Conflict."""

    async def make(self, target: Path, by: str, progress: Progress) -> dict[str, Json]:
        """Write one; the report. Raises AgentOSError."""


@dataclass(slots=True)
class _Run:
    name: str
    progress: Progress
    task: asyncio.Task[dict[str, Json]]


class BackupVerbs:
    """The verb; see `handlers`. One backup at a time."""

    def __init__(self, maker: Maker, clock: Clock, random: Random) -> None:
        self._maker = maker
        self._clock = clock
        self._random = random
        self._run: _Run | None = None

    def handlers(self) -> Handlers:
        """The verb by name."""
        return {"backup.create": self.create}

    async def create(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{to?: file or folder on the runtime's host} or {run} → {run, done, streams, bytes, doing, report?}.

        Without `to` it goes into the home's own folder for backups. Ask with `run` until it is `done`; `report` is what
        `schemas/v1/backup-report.json` describes.
        """
        take = Params(params)
        name, to = take.text_or_none("run"), take.text_or_none("to")
        take.end()
        if not caller.fleet:
            raise Denied(
                f"{caller.name} may not backup.create",
                rules=("tenant.fleet",),
                reasons=("a backup holds the logs of all tenants; only a principal of the fleet can make one",),
            )
        if name is not None and to is not None:
            raise UsageError("run and to exclude each other: a backup is begun, or asked for")
        run = self._start(to, caller) if name is None else self._run
        if run is None or (name is not None and run.name != name):
            raise NotFound(f"there is no backup {name}", mend="begin one: agentos backup create")
        await asyncio.wait([run.task], timeout=WAIT_S)
        told = run.progress
        answer: dict[str, Json] = {"run": run.name, "done": run.task.done(), "streams": told.streams, "bytes": told.bytes}
        answer["doing"] = told.doing
        if run.task.done():
            answer["report"] = run.task.result()
        return answer

    async def close(self) -> None:
        """End a backup that is under way; what it has written is removed."""
        if self._run is not None and not self._run.task.done():
            self._run.task.cancel()
            await asyncio.wait([self._run.task])

    def _start(self, to: str | None, caller: Caller) -> _Run:
        if self._run is not None and not self._run.task.done():
            raise Conflict("a backup is being made already", mend="wait until that is done")
        target, progress = self._maker.place(to), Progress()
        task = asyncio.create_task(self._maker.make(target, caller.actor, progress), name=f"backup to {target}")
        task.add_done_callback(_told)
        self._run = _Run(new_id("b", self._clock, self._random), progress, task)
        return self._run


def _told(task: asyncio.Task[dict[str, Json]]) -> None:
    """The log says how it ended, whether anybody still asks or not."""
    if task.cancelled():
        log.warning("%s: ended before it was whole; nothing is left of it", task.get_name())
    elif error := task.exception():
        log.warning("%s: %s", task.get_name(), error)
    else:
        log.info("%s: done", task.get_name())
