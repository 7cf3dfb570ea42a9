"""Running a program in a place to its end, as a driver does."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentos.sandbox.port import Launch, Place, Sandboxes
from agentos.sandbox.profile import Profile, standard

FAR_S = 60.0
MARK = {"MARK": f"tests-of-sandboxes-{os.getpid()}"}
"""By what the processes of these tests are known, whoever they belong to by then."""


@dataclass(frozen=True)
class Ended:
    """How it ended: as asyncio counts, and what it wrote."""

    code: int
    out: str
    err: str
    report: dict[str, Any]


@contextlib.asynccontextmanager
async def running(sandboxes: Sandboxes, launch: Launch) -> AsyncIterator[tuple[Place, asyncio.subprocess.Process]]:
    """A process that has begun, in its place."""
    async with sandboxes.place(launch) as place:
        process = await asyncio.create_subprocess_exec(
            *place.argv,
            env=dict(place.env),
            cwd=place.cwd,
            pass_fds=tuple(place.pass_fds),
            process_group=0,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await place.started(process.pid)
            yield place, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
            # Nothing is left to be read by a transport that the loop has forgotten.
            process._transport.close()


async def run(
    sandboxes: Sandboxes, workspace: Path, command: Sequence[str], profile: Profile | None = None, **more: Any
) -> Ended:
    """Run `command` in a place of `profile` (the standard one) and wait for its end."""
    env = {**MARK, **more.pop("env", {})}
    launch = Launch(tuple(command), profile or standard(), workspace, more.pop("owner", "default/s-1"), env=env, **more)
    async with asyncio.timeout(FAR_S), running(sandboxes, launch) as (place, process):
        out, err = await process.communicate()
        report = place.report()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode(), report)


def living() -> set[int]:
    """Processes with the mark of these tests that have not ended."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if MARK["MARK"].encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
    return found
