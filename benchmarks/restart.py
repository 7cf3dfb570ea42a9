"""A start with a long history: 1 million events of 100,000 finished sessions, then 100,000 sessions that wait for a person.

`python -m benchmarks.restart [SESSIONS]` prints the figures. The history is fabricated into a real home; then the runtime is
started on it as a process of its own and asked for its sessions.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from agentos.boot.home import Home
from agentos.boot.runtime import open_runtime
from benchmarks.fabricate import fabricate

AGENTOS = Path(sys.executable).with_name("agentos")

SESSIONS: Final = 100_000
TURNS: Final = 2
"""Ten events a session."""

APART: Final = 500


async def run(folder: Path, sessions: int = SESSIONS) -> dict[str, float]:
    """Measure; return the figures by name."""
    found: dict[str, float] = {}
    for name, parked in (("finished", False), ("parked", True)):
        home = folder / name
        async with open_runtime(Home(home)) as runtime:
            log, now_ms, policy = runtime.tenants.log("default"), runtime.timer.now_ms(), "sha256:" + "0" * 64
            begun = time.perf_counter()
            events = await fabricate(log, sessions, turns=TURNS, until_ms=now_ms, policy=policy, apart=APART, parked=parked)
            found[f"{name}: events"] = events
            found[f"{name}: events/s written"] = events / (time.perf_counter() - begun)
            begun = time.perf_counter()
            served = runtime.tenants.get("default")
            await served.projector.caught_up()
            await served.wordsmith.caught_up()
            found[f"{name}: seconds until the read models have the rest"] = time.perf_counter() - begun
        found |= {f"{name}: {what}": value for what, value in (await _start(home)).items()}
    return found


async def _start(home: Path) -> dict[str, float]:
    environment = {**os.environ, "AGENTOS_HOME": str(home)}
    begun = time.perf_counter()
    started = await asyncio.create_subprocess_exec(
        AGENTOS, "up", "--detach", env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, err = await started.communicate()
    took = time.perf_counter() - begun
    if started.returncode != 0:
        raise RuntimeError(f"agentos up ended with {started.returncode}: {err.decode()}")
    try:
        pid = json.loads((home / "run" / "endpoint.json").read_text())["pid"]
        begun = time.perf_counter()
        listed = await _command(environment, "ps", "--all", "-o", "json")
        asked = time.perf_counter() - begun
        children = {one: _memory(one) for one in _children(pid)}
        return {
            "seconds from `up` to ready": took,
            "seconds of the first `ps`": asked,
            "sessions that it lists": float(len(listed)),
            "MiB of the runtime": _memory(pid),
            "MiB of its children": sum(children.values()),
        }
    finally:
        await _command(environment, "down")


async def _command(environment: dict[str, str], *words: str) -> Any:
    done = await asyncio.create_subprocess_exec(AGENTOS, *words, env=environment, stdout=asyncio.subprocess.PIPE)
    out, _ = await done.communicate()
    if done.returncode != 0:
        raise RuntimeError(f"agentos {' '.join(words)} ended with {done.returncode}")
    return json.loads(out) if "json" in words else None


def _memory(pid: int) -> float:
    """Resident memory in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory")


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        figures = asyncio.run(run(Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS))
    for title, value in figures.items():
        sys.stdout.write(f"{title:60} {value:12,.2f}\n")
