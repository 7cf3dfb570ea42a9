"""The report: what was deserved, received and waited for; and the bounds, under workloads that are drawn at random."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.scheduler.report import report, row_to_dict
from agentos.scheduler.simulate import simulate
from agentos.scheduler.workload import read_workload

BASE: dict[str, Any] = {
    "seconds": 3000,
    "seed": 3,
    "endpoints": [{"name": "large", "slots": 4, "tokensPerSecond": 100}],
    "classes": [
        {"name": "interactive", "rank": 10, "patienceSeconds": 1},
        {"name": "standard", "rank": 5, "agingSeconds": 3600},
        {"name": "batch", "aging": False, "preemptible": True},
    ],
}


def crowd(tenant: str, name: str = "a", program: str = "p", **more: Any) -> dict[str, Any]:
    what = {"tenant": tenant, "program": program, "name": name, "class": "standard", "endpoint": "large", "tokens": [100, 300]}
    return what | more


def test_deserved_is_shared_like_water() -> None:
    """Who asks for less than its part gets that; the rest is shared by weight; received comes near to it."""
    body = BASE | {
        "weights": {"acme": 3},
        "agents": [crowd("acme"), crowd("beta"), crowd("gamma", arrivals={"perMinute": 1}), crowd("delta", count=3)],
        "quotas": {"delta": {"slots": 1}},
    }
    shown = report(simulate(read_workload(body)))
    shares = {one.path: one for one in shown.shares}
    assert shares["gamma",].deserved == shares["gamma",].received
    assert shares["acme",].deserved == pytest.approx(3 * shares["beta",].deserved)
    assert shares["delta",].deserved == shares["delta",].received
    for name in ("acme", "beta"):
        assert shares[name,].received == pytest.approx(shares[name,].deserved, rel=0.01)
    assert {one.parent for one in shown.fairness} == {(), ("delta", "p")}


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_bounds_hold_in_the_report(seed: int) -> None:
    """Whatever the weights, sizes and estimates: lag within its bound, no inversion, no overdraft, equals served as equals."""
    draw = random.Random(seed)
    agents = [
        crowd(
            draw.choice("xyz"),
            f"a{number}",
            draw.choice("pq"),
            count=draw.randint(1, 4),
            tokens=[draw.randint(1, 100), draw.randint(100, 500)],
            estimate=draw.choice([0.1, 1, 3]),
            **{"class": draw.choice(["standard", "standard", "batch"])},
        )
        for number in range(5)
    ]
    agents.append(crowd("x", "ask", arrivals={"perMinute": draw.choice([2, 20])}, **{"class": "interactive"}))
    known = sorted({one["tenant"] for one in agents})
    body = BASE | {
        "agents": agents,
        "weights": {tenant: draw.randint(1, 5) for tenant in known},
        "budgets": {known[0]: {"tokens": draw.randint(0, 200_000)}},
    }
    shown = report(simulate(read_workload(body)))
    assert shown.inversions.count == 0
    assert shown.inversions.longest_ms <= shown.inversions.longest_turn_ms
    assert shown.overdrafts == 0
    for one in shown.fairness:
        assert one.lag <= one.bound
        assert one.worst is None or one.worst >= 0.99


def test_fifo_is_seen_to_be_unfair_and_inverted() -> None:
    """The measures tell a scheduler that does not do what it should."""
    body = BASE | {
        "agents": [
            crowd("acme", count=20),
            crowd("beta"),
            crowd("beta", "ask", arrivals={"perMinute": 2}, **{"class": "interactive"}),
        ]
    }
    fair, fifo = (report(simulate(read_workload(body), name)) for name in ("fair", "fifo"))
    assert fair.jain > 0.999
    assert fifo.jain < 0.7
    assert (fair.inversions.count, fifo.inversions.count > 100) == (0, True)
    assert next(one for one in fifo.fairness if not one.parent).lag > next(one for one in fair.fairness if not one.parent).bound


def test_a_hundred_forked_children_do_not_change_what_a_rival_gets() -> None:
    """By less than a hundredth."""
    got = []
    for children in (1, 101):
        body = BASE | {"agents": [crowd("acme", "rival"), crowd("beta", count=children), crowd("beta", "other", "q")]}
        shares = {one.path: one.received for one in report(simulate(read_workload(body))).shares}
        got.append(shares["acme",] / (shares["acme",] + shares["beta",]))
    assert got[1] == pytest.approx(got[0], rel=0.01)


def test_a_batch_flood_keeps_no_urgent_turn_waiting() -> None:
    """p99 within 1.2 of what it is without the flood, and one turn."""
    asks = [crowd("acme", "ask", count=5, arrivals={"perMinute": 2}, **{"class": "interactive"})]
    flood = [crowd("beta", count=100, tokens=[1000, 5000], **{"class": "batch"})]
    calm, full = (report(simulate(read_workload(BASE | {"agents": agents}))) for agents in (asks, asks + flood))
    waits = [next(one for one in shown.waits if one.priority == "interactive").p99 for shown in (calm, full)]
    assert waits[1] <= 1.2 * waits[0] + 2000
    assert sum(one.stopped for one in full.waits) > 0


def test_the_json_says_what_the_report_does() -> None:
    """Names as in a workload; times say ms; a row can be told apart from every other."""
    run = simulate(
        read_workload(BASE | {"agents": [crowd("acme", count=2, deadlineSeconds=1)], "budgets": {"acme": {"tokens": 999}}})
    )
    shown = report(run).to_dict()
    assert shown["turns"]["came"] == sum(shown["turns"][name] for name in ("ended", "left", "refused"))
    assert shown["budgets"][0] == {"path": "acme", "limit": 999, "used": shown["budgets"][0]["used"], "peak": 900}
    assert {"endpoint", "class", "p50_ms", "longest_ms", "late"} <= set(shown["waits"][0])
    assert shown["shares"][0]["path"] == "acme"
    rows = [row_to_dict(row) for row in run.rows]
    assert len({row["turn"] for row in rows}) == len(rows) == shown["turns"]["ended"]
    assert rows[0]["due_ms"] == rows[0]["came_ms"] + 1000
