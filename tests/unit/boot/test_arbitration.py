"""From declarations to what the kernel arbitrates by: exact amounts, one endpoint for all who share it, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.resource import Resource, is_fleet_kind
from agentos.boot.arbitration import arbitration, microdollars, usable_models
from agentos.boot.configuration import Configurations
from agentos.manifests import validate_resource
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.registry.state import Entry, State
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.classes import PriorityClass
from agentos.scheduler.declared import BUILT_IN, UNBOUNDED, Batch, Budget, Circuit, Endpoint, ModelClass, Price, Route, When

PLAY = {"provider": "scripted", "scripted": {"play": {"rules": [{"id": "done", "say": "Finished."}]}}}
HOSTED = {"provider": "anthropic", "anthropic": {"model": "claude-sonnet-4-5", "maxTokens": 8192}}


def declared(kind: str, name: str, spec: dict[str, Any], tenant: str = "default") -> Resource:
    """A resource as it is stored: checked, with its defaults."""
    place = {} if is_fleet_kind(kind) else {"tenant": tenant}
    body = {"apiVersion": "agentos/v1", "kind": kind, "metadata": {"name": name, **place}, "spec": spec}
    resource, faults = validate_resource(body)
    assert resource is not None, faults
    return resource


def agent(name: str, tenant: str = "default", **more: Any) -> Resource:
    governance = {"owner": "o", "purpose": "p", "risk": "minimal"}
    return declared("Agent", name, {"instructions": "work", "model": "m", "governance": governance, **more}, tenant)


@given(st.integers(0, 9_999_999_999_999))
def test_amounts_are_exact(amount: int) -> None:
    """Every amount that can be declared is the number of microdollars that it says, however it is written."""
    for text in {f"{Decimal(amount).scaleb(-6):f}", f"{amount // 1_000_000}.{amount % 1_000_000:06}"}:
        assert microdollars(text) == amount


@pytest.mark.parametrize("text", ["1.0000001", "one", ""])
def test_what_is_no_amount(text: str) -> None:
    """Nothing is rounded, and nothing is guessed."""
    with pytest.raises(ValueError, match=r"digits|invalid literal"):
        microdollars(text)


def test_nothing_declared() -> None:
    """The built-in classes, no limit, no price, and for agents what policy holds their sessions to."""
    found = arbitration([declared("Model", "m", PLAY), agent("a")], "default")
    assert found.endpoints == {"m": Endpoint(("default", "m"))}
    assert found.endpoints["m"].limits == Limits(UNBOUNDED)
    assert (found.priorities, found.allowed, found.deadlines, found.weights, found.tool_limits) == (BUILT_IN, None, {}, {}, {})
    assert found.per_session == {"a": Budget(tokens=1_000_000, calls=200)}
    assert (found.per_day, found.in_all, found.model_classes) == ({}, {}, {})


def test_an_endpoint_is_what_its_model_says() -> None:
    """Limits, price, circuit, sizes; without `maxOutputTokens` the provider's bound counts."""
    spec = {
        **HOSTED,
        "limits": {"concurrency": 2, "requestsPerMinute": 50, "tokensPerMinute": 40_000},
        "price": {"inputPerMillion": "3.00", "outputPerMillion": "0.000001"},
        "circuit": {"openSeconds": 60},
        "contextTokens": 200_000,
        "continuesPartial": True,
    }
    found = arbitration([declared("Model", "m", spec)], "default").endpoints["m"]
    assert found == Endpoint(
        ("default", "m"), Limits(2, 50, 40_000), Price(3_000_000, 1), Circuit(5, 60_000), 200_000, 8192, True, None, 1000
    )
    smaller = declared("Model", "m", {**HOSTED, "maxOutputTokens": 100})
    assert arbitration([smaller], "default").endpoints["m"].max_output == 100


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, Batch()),
        ({"windowSeconds": 1, "most": 7, "expectHours": 2}, Batch(1000, 7, 7_200_000)),
    ],
)
def test_batches_of_a_model(said: dict[str, Any], found: Batch) -> None:
    """Only where they are declared; the price of a call in one is a part of the price."""
    assert arbitration([declared("Model", "m", HOSTED)], "default").endpoints["m"].batch is None
    assert arbitration([declared("Model", "m", {**HOSTED, "batch": said})], "default").endpoints["m"].batch == found
    price = {"inputPerMillion": "3.00", "outputPerMillion": "0.000001", "batchPercent": 50}
    made = arbitration([declared("Model", "m", {**HOSTED, "batch": said, "price": price})], "default").endpoints["m"]
    assert made.batch == replace(found, percent=50)
    assert made.price.at(50) == Price(1_500_000, 1)


def test_a_lent_model_is_one_endpoint_for_all() -> None:
    """Who was lent a model knows it by its name, with the key of who declares it; others do not know it."""
    fleet = [
        declared("Model", "fast", {**PLAY, "limits": {"concurrency": 1}}),
        declared("Model", "secret", PLAY),
        declared("Model", "own", PLAY, "acme"),
        declared("Tenant", "acme", {"models": ["fast"]}),
        declared("Tenant", "globex", {}),
    ]
    assert {name: one.key for name, one in arbitration(fleet, "acme").endpoints.items()} == {
        "own": ("acme", "own"),
        "fast": ("default", "fast"),
    }
    assert arbitration(fleet, "acme").endpoints["fast"] == arbitration(fleet, "default").endpoints["fast"]
    assert arbitration(fleet, "globex").endpoints == {}


def test_a_model_of_its_own_is_never_taken_for_a_lent_one() -> None:
    """Should both be there in spite of all, the tenant's own counts: a conversation does not leave for another's model."""
    both = [
        declared("Model", "fast", PLAY),
        declared("Model", "fast", PLAY, "acme"),
        declared("Tenant", "acme", {"models": ["fast"]}),
    ]
    assert [str(item.key) for item in usable_models(both, "acme")] == ["model/acme/fast"]


def test_classes_are_of_the_whole_fleet() -> None:
    """Declared ones beside the built-in ones, or in their place, for every tenant; which it may have is the tenant's."""
    fleet = [
        declared("PriorityClass", "nightly", {"rank": -50, "background": True, "preemptible": True, "headroomPercent": 20}),
        declared("PriorityClass", "interactive", {"rank": 10, "patienceSeconds": 0, "concurrency": 2, "deadlineSeconds": 30}),
        declared("PriorityClass", "slow", {"rank": -1, "agingSeconds": 300}),
        declared("Tenant", "acme", {"priorityClasses": ["nightly", "standard"]}),
    ]
    mine, other = arbitration(fleet, "acme"), arbitration(fleet, "default")
    assert mine.priorities == other.priorities
    assert mine.priorities["nightly"] == PriorityClass("nightly", -50, None, preemptible=True, leave=20)
    assert mine.priorities["interactive"] == PriorityClass("interactive", 10, 60_000, 0, slots=2)
    assert mine.priorities["slow"] == PriorityClass("slow", -1, 300_000)
    assert mine.priorities["batch"] == BUILT_IN["batch"]
    assert (mine.deadlines, mine.allowed, other.allowed) == ({"interactive": 30_000}, {"nightly", "standard"}, None)


def test_routes_keep_their_order() -> None:
    """A class is its routes as they stand, with amounts in microdollars."""
    when = {
        "steps": ["continue"],
        "maxTokens": 4000,
        "labels": ["pii"],
        "withoutLabels": ["x"],
        "maxOutputPricePerMillion": "15.5",
    }
    routes = [{"models": ["small"], "when": when}, {"models": ["b", "a"]}]
    found = arbitration([declared("ModelClass", "large", {"routes": routes})], "default").model_classes
    held = When(("continue",), 4000, frozenset({"pii"}), frozenset({"x"}), 15_500_000)
    assert found == {"large": ModelClass("large", (Route(("small",), held), Route(("b", "a"))))}


def test_shares_and_budgets() -> None:
    """Weights by path, budgets by account; of other tenants' agents nothing."""
    tenant = {
        "weight": 3,
        "programs": {"support": {"weight": 2, "budget": {"total": {"calls": 9}}}, "idle": {}},
        "budget": {"perDay": {"dollars": "20"}, "total": {"seconds": 7, "bytes": 8}},
    }
    fleet = [
        declared("Tenant", "acme", tenant),
        agent("a", "acme", program="support", weight=5, budget={"dollars": "1.50", "seconds": 2, "perDay": {"tokens": 10}}),
        agent("b", "acme", weight=4),
        agent("c", weight=6, budget={"perDay": {"tokens": 1}}),
        declared("Tool", "t", {"description": "d", "effect": "read", "driver": {"builtin": {"primitive": "read"}}}, "acme"),
        declared(
            "Tool",
            "u",
            {"description": "d", "effect": "read", "driver": {"builtin": {"primitive": "read"}}, "limits": {"callsPerMinute": 3}},
            "acme",
        ),
    ]
    found = arbitration(fleet, "acme")
    assert found.weights == {
        ("acme",): 3,
        ("acme", "support"): 2,
        ("acme", "support", "a"): 5,
        ("acme", "default", "b"): 4,
    }
    assert found.per_session["a"] == Budget(tokens=1_000_000, microdollars=1_500_000, calls=200, milliseconds=2000)
    assert found.per_day == {("tenant", ""): Budget(microdollars=20_000_000), ("agent", "a"): Budget(tokens=10)}
    assert found.in_all == {("tenant", ""): Budget(milliseconds=7000, bytes=8), ("program", "support"): Budget(calls=9)}
    assert found.tool_limits == {"u": Limits(UNBOUNDED, 3)}


async def test_the_configuration_has_it() -> None:
    """A turn finds lent models, its agent's program, class and deadline, and whether calls of a tool commute."""
    read = {"description": "d", "effect": "read", "driver": {"builtin": {"primitive": "read"}}, "commutes": True}
    fleet = [
        declared("Model", "m", PLAY),
        declared("Tenant", "acme", {"models": ["m"]}),
        agent("a", "acme", program="support", priorityClass="batch", deadlineSeconds=5, failFast=True),
        agent("b", "acme"),
        declared("Tool", "read", read, "acme"),
    ]
    found = Configurations(EmbeddedFactory())
    await found.refresh(State.of(1, {item.key: Entry(item, item.digest(), "principal/op", 1) for item in fleet}))
    mine = found.current("acme")
    assert mine.models["m"].settings == found.current("default").models["m"].settings
    assert mine.arbitration.endpoints["m"].key == ("default", "m")
    a, b = mine.agents["a"], mine.agents["b"]
    assert (a.program, a.priority, a.deadline_ms) == ("support", "batch", 5000)
    assert (b.program, b.priority, b.deadline_ms) == ("default", "standard", None)
    assert (a.fail_fast, b.fail_fast) == (True, False)
    assert mine.tools["read"].commutes
