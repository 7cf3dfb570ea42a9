"""Reading a workload: what is written is what comes out, and whatever is wrong is named with its path and a mend."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agentos.abi.errors import ManifestError
from agentos.scheduler.arbiter import Limits, PriorityClass
from agentos.scheduler.workload import Crowd, read_workload

BODY: dict[str, Any] = {
    "seconds": 60,
    "endpoints": [{"name": "large", "slots": 2, "tokensPerSecond": 10, "requestsPerMinute": 5, "tokensPerMinute": 900}],
    "classes": [
        {"name": "standard", "rank": 5, "patienceSeconds": 2},
        {"name": "batch", "aging": False, "leave": 20, "slots": 1},
    ],
    "weights": {"acme": 2, "acme/support/triage-1": 3},
    "quotas": {"acme/support": {"slots": 1}},
    "budgets": {"acme": {"tokens": 5000}},
    "agents": [
        {
            "tenant": "acme",
            "program": "support",
            "name": "triage",
            "count": 2,
            "class": "standard",
            "endpoint": "large",
            "arrivals": {"perMinute": 2},
            "tokens": [10, 20],
            "estimate": 0.5,
            "deadlineSeconds": 3,
            "failFast": True,
            "from": 1,
            "until": 9,
        }
    ],
}


def test_what_is_written_is_what_comes_out() -> None:
    """Every field, with seconds in ms and paths in parts."""
    found = read_workload(BODY)
    assert (found.duration_ms, found.seed) == (60_000, 1)
    assert [(one.name, one.limits, one.tokens_per_second) for one in found.endpoints] == [("large", Limits(2, 5, 900), 10)]
    assert found.classes == {
        "standard": PriorityClass("standard", 5, 60_000, 2000),
        "batch": PriorityClass("batch", 0, None, slots=1, leave=20),
    }
    assert found.weights == {("acme",): 2, ("acme", "support", "triage-1"): 3}
    assert (found.quotas, found.budgets) == ({("acme", "support"): 1}, {("acme",): 5000})
    path = ("acme", "support", "triage")
    assert found.crowds == (Crowd(path, 2, "standard", "large", 2.0, (10, 20), 0.5, 1000, 9000, 3000, True),)
    assert found.crowds[0].paths() == [("acme", "support", "triage-0"), ("acme", "support", "triage-1")]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("seconds",), 0),
        (("seed",), True),
        (("endpoints",), []),
        (("endpoints", 0), "large"),
        (("endpoints", 0, "slots"), 1.5),
        (("endpoints", 0, "speed"), 1),
        (("classes", 1, "name"), "standard"),
        (("classes", 0, "name"), "a/b"),
        (("classes", 0, "aging"), "no"),
        (("agents", 0, "class"), "urgent"),
        (("agents", 0, "endpoint"), "huge"),
        (("agents", 0, "arrivals"), "often"),
        (("agents", 0, "arrivals", "perHour"), 3),
        (("agents", 0, "tokens"), [20, 10]),
        (("agents", 0, "tokens"), [True, 10]),
        (("agents", 0, "estimate"), 0),
        (("agents", 0, "estimate"), float("nan")),
        (("weights", "acme"), 0),
        (("weights", "acne"), 1),
        (("quotas", "acme/support", "slots"), 0),
        (("quotas", "acme/support", "tokens"), 1),
        (("budgets", "acme"), 5),
        (("wieghts",), {}),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_what_is_wrong_is_named(path: tuple[str | int, ...], value: object) -> None:
    """The fault has the path, and the error how to mend it."""
    body = copy.deepcopy(BODY)
    inner: Any = body
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with pytest.raises(ManifestError) as caught:
        read_workload(body)
    assert caught.value.faults[0]["path"] == path
    assert caught.value.mend


@pytest.mark.parametrize("body", [None, [], "text", {}], ids=["nothing", "a list", "text", "an empty mapping"])
def test_what_is_no_workload_is_refused(body: object) -> None:
    """Whatever it is."""
    with pytest.raises(ManifestError):
        read_workload(body)


def test_an_agent_is_described_once() -> None:
    """Two entries of one name would be one agent with two ways."""
    with pytest.raises(ManifestError, match="there already"):
        read_workload(BODY | {"agents": BODY["agents"] * 2})
