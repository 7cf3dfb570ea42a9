"""A decision of the scheduler with 100,000 turns that wait in 10,000 sessions, over what a heap of as many costs."""

from __future__ import annotations

import heapq
import random
import time

from agentos.scheduler.arbiter import Arbiter, Limits, PriorityClass, Turn
from benchmarks.measure import Figure, figure

TURNS, SESSIONS, ROUNDS = 100_000, 10_000, 20_000
FLOOR = "floor: a push and a pop of a heap of as many"
CLASSES = {
    "interactive": PriorityClass("interactive", rank=10),
    "standard": PriorityClass("standard", rank=5),
    "batch": PriorityClass("batch", aging_ms=None),
}


def run() -> list[Figure]:
    """A turn comes, a turn is chosen, a turn ends, each beside a push and a pop; microseconds."""
    draw = random.Random(1)  # noqa: S311 - the same turns each time
    arbiter = Arbiter("model", Limits(slots=64), CLASSES)
    paths = [(f"tenant-{number % 3}", f"program-{number % 40}", f"agent-{number}") for number in range(SESSIONS)]
    heap: list[tuple[int, int]] = []
    times: dict[str, list[float]] = {name: [] for name in ("a turn comes", "the next turn is chosen", "a turn ends", FLOOR)}

    def make(number: int) -> Turn:
        session = number % SESSIONS
        return Turn(f"t{number}", f"s{session}", paths[session], draw.choice(sorted(CLASSES)), draw.randint(1, 2000), number)

    for number in range(TURNS):
        arbiter.enqueue(make(number))
        heapq.heappush(heap, (draw.randint(0, TURNS), number))
    running: list[Turn] = []
    for number in range(TURNS, TURNS + ROUNDS):
        now, turn = number, make(number)
        started = time.perf_counter_ns()
        arbiter.enqueue(turn)
        came = time.perf_counter_ns()
        admission = arbiter.next(now)
        chosen = time.perf_counter_ns()
        assert admission is not None
        running.append(admission.turn)
        if len(running) == 64:
            ended = running.pop(draw.randrange(64))
            used = draw.randint(1, 2000)
            begun = time.perf_counter_ns()
            arbiter.finish(ended.id, used=used, now_ms=now)
            times["a turn ends"].append((time.perf_counter_ns() - begun) / 1000)
        entry = (draw.randint(0, TURNS), number)
        begun = time.perf_counter_ns()
        heapq.heappush(heap, entry)
        heapq.heappop(heap)
        floor = time.perf_counter_ns() - begun
        for name, spent in (("a turn comes", came - started), ("the next turn is chosen", chosen - came), (FLOOR, floor)):
            times[name].append(spent / 1000)
    assert arbiter.waiting() == TURNS
    return [figure(name, values) for name, values in times.items()]


def lines(figures: list[Figure]) -> list[str]:
    """The section of the report."""
    floor = next(one.p50 for one in figures if one.name == FLOOR)
    return [
        f"{TURNS:,} turns wait in {SESSIONS:,} sessions of 3 tenants and 40 programs, in 3 classes. A choice finds the class,",
        "the tenant, the program, the agent and the turn, and charges them.",
        "",
        "| what | p50 µs | p99 µs | ratio to the floor |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {one.name} | {one.p50:.1f} | {one.p99:.1f} | {one.p50 / floor:.1f} |" for one in figures),
    ]


if __name__ == "__main__":
    print("\n".join(lines(run())))
