"""From declarations to what the kernel arbitrates by: endpoints, classes, routes, shares and budgets of one tenant. Pure.

A tenant knows its own Models and those of the tenant `default` that its Tenant lends it. A lent model is the same endpoint for
all who use it: its key is the tenant that declares it, and its name there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.resource import Resource
from agentos.policy.data import DEFAULT_CALLS, DEFAULT_TOKENS
from agentos.registry.priority import priority_class
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.declared import (
    BUILT_IN,
    UNBOUNDED,
    Arbitration,
    Batch,
    Budget,
    Circuit,
    Endpoint,
    ModelClass,
    Price,
    Route,
    When,
)
from agentos.scheduler.share import Path

DEFAULT_PROGRAM: Final = "default"
_MAX_OUTPUT: Final = 4096

_ADDED: Final = {"anthropic": 1000}
"""Tokens that a provider adds to any request of ours. Anthropic documents 530 at most: instructions, where there are tools."""

Spec = Mapping[str, Json]


def arbitration(resources: Sequence[Resource], tenant: str) -> Arbitration:
    """Everything that `resources`, which are those of the whole fleet, say about arbitration in `tenant`."""
    declared = tenant_spec(resources, tenant)
    own = [item for item in resources if item.key.tenant == tenant]
    agents = {item.key.name: item.spec for item in own if item.key.kind == "Agent"}
    classes = [item for item in resources if item.key.kind == "PriorityClass"]
    allowed = declared.get("priorityClasses")
    return Arbitration(
        endpoints={item.key.name: endpoint(item) for item in usable_models(resources, tenant)},
        model_classes={item.key.name: _model_class(item) for item in own if item.key.kind == "ModelClass"},
        priorities={**BUILT_IN, **{item.key.name: priority_class(item.key.name, item.spec) for item in classes}},
        allowed=None if allowed is None else frozenset(allowed),
        deadlines={item.key.name: due for item in classes if (due := deadline_ms(item.spec)) is not None},
        weights=dict(_weights(tenant, declared, agents)),
        tool_limits={
            item.key.name: _limits(item.spec["limits"], "callsPerMinute")
            for item in own
            if item.key.kind == "Tool" and "limits" in item.spec
        },
        per_session={name: _per_session(spec) for name, spec in agents.items()},
        per_day=dict(_per_day(declared, agents)),
        in_all=dict(_in_all(declared)),
    )


def tenant_spec(resources: Sequence[Resource], tenant: str) -> Spec:
    """The spec of the Tenant that declares `tenant`; empty where there is none."""
    return next((item.spec for item in resources if item.key.kind == "Tenant" and item.key.name == tenant), {})


def usable_models(resources: Sequence[Resource], tenant: str) -> list[Resource]:
    """The Models that agents of `tenant` may name: its own, then those of the tenant `default` that it was lent."""
    models = [item for item in resources if item.key.kind == "Model"]
    lent = frozenset(tenant_spec(resources, tenant).get("models", ()))
    own = [item for item in models if item.key.tenant == tenant]
    taken = {item.key.name for item in own}
    return own + [
        item for item in models if item.key.tenant == DEFAULT_TENANT and item.key.name in lent and item.key.name not in taken
    ]


def deadline_ms(spec: Spec) -> int | None:
    """`deadlineSeconds` of an Agent or a PriorityClass in milliseconds; None where it has none."""
    seconds: int | None = spec.get("deadlineSeconds")
    return None if seconds is None else seconds * 1000


def microdollars(dollars: str) -> int:
    """`1.50` is 1,500,000, exactly. The schema has checked the text; ValueError for any that it refuses."""
    whole, _, part = dollars.partition(".")
    if len(part) > 6:
        raise ValueError(f"{dollars} has more than six digits behind the point")
    return int(whole) * 1_000_000 + int(part.ljust(6, "0"))


def endpoint(model: Resource) -> Endpoint:
    """What is arbitrated about a Model."""
    spec = model.spec
    price, circuit = spec.get("price"), spec.get("circuit", {})
    largest = spec[spec["provider"]].get("maxTokens", _MAX_OUTPUT)
    known = Circuit()
    return Endpoint(
        key=(model.key.tenant, model.key.name),
        limits=_limits(spec.get("limits", {}), "requestsPerMinute"),
        price=Price()
        if price is None
        else Price(microdollars(price["inputPerMillion"]), microdollars(price["outputPerMillion"])),
        circuit=Circuit(
            circuit.get("failures", known.failures),
            circuit["openSeconds"] * 1000 if "openSeconds" in circuit else known.open_ms,
        ),
        context_tokens=spec.get("contextTokens"),
        max_output=spec.get("maxOutputTokens", largest),
        continues=spec.get("continuesPartial", False),
        batch=_batch(spec["batch"], 100 if price is None else price.get("batchPercent", 100)) if "batch" in spec else None,
        added_tokens=_ADDED.get(spec["provider"], 0),
    )


def _batch(spec: Spec, percent: int) -> Batch:
    known = Batch()
    hours: int | None = spec.get("expectHours")
    return Batch(
        spec["windowSeconds"] * 1000 if "windowSeconds" in spec else known.window_ms,
        spec.get("most", known.most),
        known.expect_ms if hours is None else hours * 3_600_000,
        percent,
    )


def _limits(limits: Spec, calls: str) -> Limits:
    """`calls` is the name of the field that says how many may begin within a minute."""
    return Limits(limits.get("concurrency", UNBOUNDED), limits.get(calls), limits.get("tokensPerMinute"))


def _model_class(item: Resource) -> ModelClass:
    return ModelClass(
        item.key.name, tuple(Route(tuple(one["models"]), _when(one.get("when", {}))) for one in item.spec["routes"])
    )


def _when(when: Spec) -> When:
    dearest = when.get("maxOutputPricePerMillion")
    return When(
        steps=tuple(when.get("steps", ())),
        max_tokens=when.get("maxTokens"),
        labels=frozenset(when.get("labels", ())),
        without=frozenset(when.get("withoutLabels", ())),
        max_output_price=None if dearest is None else microdollars(dearest),
    )


def _weights(tenant: str, declared: Spec, agents: Mapping[str, Spec]) -> Iterator[tuple[Path, int]]:
    if "weight" in declared:
        yield (tenant,), declared["weight"]
    for name, program in declared.get("programs", {}).items():
        if "weight" in program:
            yield (tenant, name), program["weight"]
    for name, spec in agents.items():
        if "weight" in spec:
            yield (tenant, spec.get("program", DEFAULT_PROGRAM), name), spec["weight"]


def _per_session(agent: Spec) -> Budget:
    """What policy holds a session to, in calls and tokens, holds here too."""
    return _budget({"calls": DEFAULT_CALLS, "tokens": DEFAULT_TOKENS, **agent.get("budget", {})})


def _per_day(declared: Spec, agents: Mapping[str, Spec]) -> Iterator[tuple[tuple[str, str], Budget]]:
    for account, budget in _budgets(declared):
        if "perDay" in budget:
            yield account, _budget(budget["perDay"])
    for name, spec in agents.items():
        if "perDay" in spec.get("budget", {}):
            yield ("agent", name), _budget(spec["budget"]["perDay"])


def _in_all(declared: Spec) -> Iterator[tuple[tuple[str, str], Budget]]:
    for account, budget in _budgets(declared):
        if "total" in budget:
            yield account, _budget(budget["total"])


def _budgets(declared: Spec) -> Iterator[tuple[tuple[str, str], Spec]]:
    """The budgets of a Tenant and of its programs, by their accounts."""
    if "budget" in declared:
        yield ("tenant", ""), declared["budget"]
    for name, program in declared.get("programs", {}).items():
        if "budget" in program:
            yield ("program", name), program["budget"]


def _budget(amounts: Spec) -> Budget:
    dollars, seconds = amounts.get("dollars"), amounts.get("seconds")
    return Budget(
        tokens=amounts.get("tokens"),
        microdollars=None if dollars is None else microdollars(dollars),
        calls=amounts.get("calls"),
        milliseconds=None if seconds is None else seconds * 1000,
        bytes=amounts.get("bytes"),
    )
