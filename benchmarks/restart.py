"""A start with a long history: sessions that are over, then as many that wait for a person.

    python -m benchmarks.restart [SESSIONS]

With 100,000 sessions the first history has a million events. It is made by `benchmarks.mould`; then a runtime makes its read
models and trees of it, and stops. What is measured is the next start: `agentos up` as a process of its own, in turn with its two
floors, the start of the nats-server alone on the same log, and `agentos up` on a home without any history.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from agentos.abi.errors import Unavailable
from agentos.abi.ids import DEFAULT_TENANT, new_id
from agentos.boot.backend import Embedded
from agentos.boot.home import Home
from agentos.boot.runtime import Runtime, open_runtime
from agentos.boot.system import SystemRandom, SystemTimer
from benchmarks.fabricate import Chain, Then
from benchmarks.mould import Mould, pour

AGENTOS: Final = Path(sys.executable).with_name("agentos")

SESSIONS: Final = 20_000
TURNS: Final = 2
"""Ten events a session."""

ROUNDS: Final = 3

POLICY: Final = "sha256:" + "0" * 64


@dataclass
class History:
    """One history and what was measured on it; seconds unless the name says otherwise."""

    events: int = 0
    cast: float = 0.0
    folded: float = 0.0
    server: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    up: list[float] = field(default_factory=list)
    ps: list[float] = field(default_factory=list)
    listed: int = 0
    mib: list[float] = field(default_factory=list)
    server_mib: list[float] = field(default_factory=list)
    later_mib: float = 0.0
    """The most that a runtime used which had read its whole log again."""

    def lines(self) -> list[str]:
        """The values of a column, in the order of NAMES."""
        up, server, bare = median(self.up), median(self.server), median(self.bare)
        return [
            f"{self.events:,}",
            f"{self.events / self.cast:,.0f}",
            f"{self.events / self.folded:,.0f}",
            f"{server:.2f}",
            f"{bare:.2f}",
            f"{up:.2f}",
            f"{up / (server + bare):.2f}",
            f"{max(self.up):.2f}",
            f"{median(self.ps):.2f}",
            f"{self.listed:,}",
            f"{median(self.mib):.0f}",
            f"{self.later_mib:.0f}",
            f"{median(self.server_mib):.0f}",
        ]


NAMES: Final = (
    "events",
    "events/s cast",
    "events/s into read models and trees, made anew",
    "floor: nats-server alone to ready, s",
    "floor: `agentos up --detach` without a history, s",
    "`agentos up --detach` to ready, s",
    "to the sum of both floors",
    "the slowest, s",
    "the first `agentos ps --all`, s",
    "sessions that it lists",
    "MiB of the runtime then",
    "MiB of the runtime at most, until it has read the whole log again",
    "MiB of the nats-server",
)


async def run(folder: Path, sessions: int = SESSIONS) -> list[str]:
    """Measure; the section for the report."""
    bare = Home(folder / "bare")
    async with open_runtime(bare):
        pass
    measured = []
    for parked in (False, True):
        home = Home(folder / ("parked" if parked else "over"))
        found = await _prepare(home, sessions, parked=parked)
        for _ in range(ROUNDS):
            found.server.append(await _server(home))
            found.bare.append((await _up(bare.root))[0])
            await _down(bare.root)
            took, pid = await _up(home.root)
            found.up.append(took)
            await _look(home.root, pid, found)
            await _down(home.root)
        found.later_mib = await _later(home)
        measured.append(found.lines())
    lines = [f"| | {sessions:,} sessions that are over | {sessions:,} that wait for a person |", "| --- | ---: | ---: |"]
    return [*lines, *(f"| {name} | {one} | {other} |" for name, one, other in zip(NAMES, *measured, strict=True))]


async def _prepare(home: Home, sessions: int, *, parked: bool) -> History:
    """Write the history and let a runtime fold it."""
    found, now_ms = History(), SystemTimer().now_ms()
    chain = Chain(new_id("s", Then(now_ms), SystemRandom()), now_ms, POLICY)
    begun = time.perf_counter()
    found.events = await pour(home, Mould(chain.parked() if parked else chain.whole(TURNS)), sessions, until_ms=now_ms)
    found.cast = time.perf_counter() - begun
    begun = time.perf_counter()
    async with open_runtime(home) as runtime:
        served = runtime.tenants.get(DEFAULT_TENANT)
        await served.projector.caught_up()
        await served.wordsmith.caught_up()
        await _signed(runtime)
        found.folded = time.perf_counter() - begun
    return found


async def _signed(runtime: Runtime) -> None:
    """Wait until a checkpoint covers the whole log."""
    assert runtime.checkpoints is not None
    notary = runtime.checkpoints.get(DEFAULT_TENANT)
    while True:
        try:
            await notary.now()
        except Unavailable:
            continue  # it waited for a while; a long log takes longer
        return


async def _server(home: Home) -> float:
    """Seconds until the nats-server of a home is ready by itself."""
    backend = Embedded(home.nats, home.keys, SystemRandom(), 0)
    begun = time.perf_counter()
    await backend.start((DEFAULT_TENANT,))
    took = time.perf_counter() - begun
    await backend.stop()
    return took


async def _up(home: Path) -> tuple[float, int]:
    """Seconds of `agentos up --detach`, and the runtime's pid."""
    begun = time.perf_counter()
    await _command(home, "up", "--detach")
    took = time.perf_counter() - begun
    return took, json.loads((home / "run" / "endpoint.json").read_text())["pid"]


async def _down(home: Path) -> None:
    await _command(home, "down")


async def _look(home: Path, pid: int, found: History) -> None:
    """Ask for its sessions, and what it weighs then."""
    begun = time.perf_counter()
    found.listed = len(await _command(home, "ps", "--all", "-o", "json"))
    found.ps.append(time.perf_counter() - begun)
    found.mib.append(_memory(pid))
    found.server_mib.append(sum(map(_memory, _children(pid))))


async def _later(home: Home) -> float:
    """The most MiB that a runtime has used once it has read its whole log again, which it does in the background."""
    _, pid = await _up(home.root)
    try:
        await _command(home.root, "audit", "verify")
        return _memory(pid, "VmHWM")
    finally:
        await _down(home.root)


async def _command(home: Path, *words: str) -> Any:
    environment = {**os.environ, "AGENTOS_HOME": str(home)}
    done = await asyncio.create_subprocess_exec(
        AGENTOS, *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await done.communicate()
    if done.returncode != 0:
        raise RuntimeError(f"agentos {' '.join(words)} ended with {done.returncode}: {err.decode()}")
    return json.loads(out) if "json" in words else None


def _memory(pid: int, kind: str = "VmRSS") -> float:
    """Resident memory in MiB; `VmHWM` for the most that it was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory")


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as scratch:
        print("\n".join(asyncio.run(run(Path(scratch), int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS))))
