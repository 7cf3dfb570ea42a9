"""What many live sessions take: processes of harnesses, and memory, by the host's own count."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WATCH_S: Final = 0.05


@dataclass
class Crowd:
    """What many live sessions took."""

    sessions: int
    processes: int = 0
    """Most processes of the loop at any time, by the host's own count."""
    idle_mib: float = 0.0
    """Of the runtime before there was any session."""
    runtime_mib: float = 0.0
    """At most, while they were there."""
    harnesses_mib: float = 0.0
    """At most, of all processes of all harnesses, bubblewrap's own among them."""
    asked_s: float = 0.0
    """Until the model was asked by all of them."""
    ended_s: float = 0.0
    """From then until all have finished."""

    @property
    def mib(self) -> float:
        """Runtime and harnesses."""
        return self.runtime_mib + self.harnesses_mib


async def watch(found: Crowd) -> None:
    """Note the most that is seen."""
    while True:
        programs, all_of_them = harnesses()
        found.processes = max(found.processes, len(programs))
        found.runtime_mib = max(found.runtime_mib, rss([os.getpid()]))
        found.harnesses_mib = max(found.harnesses_mib, rss(all_of_them))
        await asyncio.sleep(WATCH_S)


def harnesses() -> tuple[list[int], list[int]]:
    """Processes of the loop itself, and all processes below this one whose command line has it, bubblewrap's own among them."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (parent := _parent(folder)) is not None:
            children.setdefault(parent, []).append(int(folder.name))
    below, found = [*children.get(os.getpid(), [])], list[int]()
    while below:
        pid = below.pop()
        below += children.get(pid, [])
        if b"agentos.harness" in _words(pid):
            found.append(pid)
    return [pid for pid in found if b"bwrap" not in _words(pid).split(b"\0")[0]], found


def _parent(folder: Path) -> int | None:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def rss(pids: Sequence[int]) -> float:
    """MiB of memory that these hold, pages that several share counted for each."""
    total = 0
    for pid in pids:
        try:
            told = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(told[1]) if told else 0
    return total / 1024
