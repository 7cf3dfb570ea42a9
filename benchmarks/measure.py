"""Taking turns: two or more subjects measured alternately, so that a drift of the machine falls on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Subject = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Microseconds of one subject: median and 99th percentile of `count` runs."""

    name: str
    p50: float
    p99: float
    count: int


async def in_turn(subjects: Mapping[str, Subject], *, rounds: int, warmup: int = 20) -> dict[str, Figure]:
    """Run every subject `rounds` times, one after the other in each round; return the figures by name."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(warmup + rounds):
        for name, subject in subjects.items():
            started = time.perf_counter_ns()
            await subject()
            elapsed = (time.perf_counter_ns() - started) / 1000
            if turn >= warmup:
                times[name].append(elapsed)
    return {name: figure(name, values) for name, values in times.items()}


def figure(name: str, values: list[float]) -> Figure:
    """The figure of single times in microseconds."""
    ordered = sorted(values)
    return Figure(name, statistics.median(ordered), ordered[int(len(ordered) * 0.99)], len(ordered))
