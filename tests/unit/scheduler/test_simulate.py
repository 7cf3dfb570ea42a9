"""The simulation: no turn is lost or doubled under any scheduler, limits hold in its rows, and a run can be repeated."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.scheduler.simulate import SCHEDULERS, Run, simulate
from agentos.scheduler.workload import read_workload


def body(seed: int, **more: Any) -> dict[str, Any]:
    """A small workload drawn from `seed`: crowds of every class on one or two endpoints, some saturated, some not."""
    draw = random.Random(seed)
    agents = [
        {
            "tenant": draw.choice(["acme", "beta"]),
            "program": draw.choice(["p", "q"]),
            "name": f"a{number}",
            "count": draw.randint(1, 4),
            "class": draw.choice(["interactive", "standard", "batch"]),
            "endpoint": draw.choice(["large", "small"]),
            "tokens": [draw.randint(1, 50), draw.randint(50, 400)],
            "estimate": draw.choice([0.1, 1, 5]),
            **({"arrivals": {"perMinute": draw.choice([1, 10, 60])}} if draw.random() < 0.5 else {}),
            **({"deadlineSeconds": 5, "failFast": True} if draw.random() < 0.5 else {}),
            **({"from": 20, "until": 90} if draw.random() < 0.3 else {}),
        }
        for number in range(draw.randint(1, 6))
    ]
    return {
        "seconds": 150,
        "seed": seed,
        "endpoints": [
            {"name": "large", "slots": 3, "tokensPerSecond": 50},
            {"name": "small", "slots": 2, "tokensPerSecond": 100, "requestsPerMinute": 40, "tokensPerMinute": 6000},
        ],
        "classes": [
            {"name": "interactive", "rank": 10, "patienceSeconds": 1},
            {"name": "standard", "rank": 5, "agingSeconds": 10},
            {"name": "batch", "aging": False, "preemptible": True, "leave": 20},
        ],
        "agents": agents,
        **more,
    }


def runs(seed: int, scheduler: str) -> Run:
    made = body(seed)
    first = made["agents"][0]
    made["quotas"] = {f"{first['tenant']}/{first['program']}": {"slots": 1}}
    made["budgets"] = {first["tenant"]: {"tokens": 20_000}}
    return simulate(read_workload(made), scheduler)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), scheduler=st.sampled_from(SCHEDULERS))
def test_no_turn_is_lost_or_doubled(seed: int, scheduler: str) -> None:
    """Whatever came ended, waits, runs or was refused; what was stopped came again; nobody exceeds slots or budgets."""
    run = runs(seed, scheduler)
    stopped = sum(row.stopped for row in run.rows)
    names = [row.turn for row in run.rows] + [one.turn for one in run.left]
    assert len(names) == len(set(names))
    assert run.came == len(run.rows) - stopped + len(run.left) + run.refused
    for spent in run.budgets:
        got = sum(row.tokens for row in run.rows if row.path[: len(spent.path)] == spent.path)
        assert spent.used <= spent.peak <= spent.limit
        # What a stopped turn used is booked when the whole of it has ended.
        assert spent.used <= got <= spent.limit
    moments = [(row.order[1], 1, row) for row in run.rows] + [(row.order[2], -1, row) for row in run.rows]
    moments += [(one.order[1], 1, one) for one in run.left if one.order[1] is not None]
    used: Counter[object] = Counter()
    for _, by, row in sorted(moments, key=lambda moment: moment[0]):
        used[row.endpoint] += by
        used[row.endpoint, row.path[:2]] += by
        assert used["large"] <= 3
        assert used["small"] <= 2
        for path, slots in run.workload.quotas.items():
            assert scheduler != "fair" or used[row.endpoint, path] <= slots
    for row in run.rows:
        assert row.came_ms <= row.began_ms <= row.ended_ms
        assert row.order == tuple(sorted(row.order))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_run_can_be_repeated(scheduler: str) -> None:
    """Row for row."""
    assert runs(5, scheduler) == runs(5, scheduler)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_slots_are_not_left_idle(seed: int) -> None:
    """On an endpoint without rates and quotas, while fewer run than it has slots nobody waits."""
    run = simulate(read_workload(body(seed)), "fair")
    moments = [moment for row in run.rows if row.endpoint == "large" for moment in zip(row.order, (0, 1, -1), strict=True)]
    for one in run.left:
        if one.endpoint == "large":
            moments += [(one.order[0], 0)] + ([] if one.order[1] is None else [(one.order[1], 1)])
    times = {number: row.came_ms for row in run.rows for number in row.order[:1]}
    times |= {row.order[1]: row.began_ms for row in run.rows} | {row.order[2]: row.ended_ms for row in run.rows}
    times |= {one.order[0]: one.came_ms for one in run.left}
    times |= {one.order[1]: one.began_ms or 0 for one in run.left if one.order[1] is not None}
    waiting = running = 0
    before = 0
    for number, what in sorted(moments):
        if times[number] > before:
            assert not waiting or running == 3
            before = times[number]
        waiting += 1 if what == 0 else -1 if what == 1 else 0
        running += what


def test_turns_are_as_long_whoever_schedules_and_whoever_else_there_is() -> None:
    """Each agent's first turns are the same in all runs."""
    alone = body(3)
    alone["agents"] = alone["agents"][:1]
    first: dict[str, list[int]] = {}
    for made, scheduler in ((alone, "fair"), (body(3), "fifo"), (body(3), "round-robin")):
        run = simulate(read_workload(made), scheduler)
        path = read_workload(alone).crowds[0].paths()[0]
        mine = sorted((row.order[0], row.tokens) for row in run.rows if row.path == path and not row.stopped)
        first[scheduler] = [tokens for _, tokens in mine[:3]]
    assert first["fifo"][:1] == first["fair"][:1] == first["round-robin"][:1]


def test_a_stopped_turn_goes_on_with_what_is_left_of_it() -> None:
    """Its parts add up to one turn, however often it was stopped."""
    made = body(1)
    made["endpoints"] = [{"name": "large", "slots": 1, "tokensPerSecond": 10}]
    kind = {"tenant": "acme", "program": "p", "endpoint": "large"}
    made["agents"] = [
        {**kind, "name": "slow", "class": "batch", "tokens": 500, "arrivals": {"perMinute": 0.5}},
        {**kind, "name": "ask", "class": "interactive", "tokens": 20, "arrivals": {"perMinute": 6}},
    ]
    run = simulate(read_workload(made | {"seconds": 3000}), "fair")
    slow = [row for row in run.rows if row.priority == "batch"]
    assert sum(row.stopped for row in slow) > 10
    parts: dict[str, list[int]] = {}
    for row in slow:
        parts.setdefault(row.job, []).append(row.tokens)
        assert row.stopped or sum(parts.pop(row.job)) == 500
    assert len(parts) < 30


def test_an_unknown_scheduler_is_refused() -> None:
    """By its name."""
    with pytest.raises(ValueError, match="lottery"):
        simulate(read_workload(body(1)), "lottery")
