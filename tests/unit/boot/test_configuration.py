"""From desired state to configurations: per tenant, swapped whole, and never half."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi.errors import EngineUnavailable, NotFound
from agentos.abi.resource import Key, Resource
from agentos.boot.configuration import Configurations, tenants_of
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.registry.state import Entry, State


def resource(kind: str, name: str, spec: dict[str, Any], tenant: str = "default") -> Resource:
    return Resource(Key(kind, "*" if kind == "Tenant" else tenant, name), {}, {}, spec)


AGENT = {
    "model": "m",
    "instructions": "work",
    "tools": ["write"],
    "budget": {"calls": 5, "tokens": 5},
    "governance": {"owner": "o", "purpose": "p", "risk": "minimal"},
}


def state(revision: int, *resources: Resource) -> State:
    return State.of(revision, {item.key: Entry(item, item.digest(), "principal/op", revision) for item in resources})


def test_tenants_are_the_declared_ones_and_default() -> None:
    """`default` exists without being declared."""
    assert tenants_of([]) == {"default"}
    assert tenants_of([resource("Tenant", "acme", {}), resource("Agent", "a", AGENT, "globex")]) == {"default", "acme"}


async def test_each_tenant_has_its_own_configuration() -> None:
    """Agents, limits and policy of its own; a tenant that is not declared has none."""
    found = Configurations(EmbeddedFactory())
    assert found.tenants == frozenset()
    acme = [resource("Tenant", "acme", {"limits": {"sessions": 3}}), resource("Agent", "a", AGENT, "acme")]
    await found.refresh(state(4, *acme, resource("Agent", "b", AGENT)))
    assert found.tenants == {"default", "acme"}
    mine, other = found.current("acme"), found.current("default")
    assert (set(mine.agents), mine.max_sessions, mine.revision) == ({"a"}, 3, 4)
    assert (set(other.agents), other.max_sessions) == ({"b"}, 100)
    assert mine.agents["a"].tools == ("write",)
    with pytest.raises(NotFound, match="no tenant globex"):
        found.current("globex")
    assert found.decider("globex") is None


async def test_a_turn_keeps_the_configuration_it_has() -> None:
    """A refresh makes new ones and changes none that somebody holds."""
    found = Configurations(EmbeddedFactory())
    await found.refresh(state(1, resource("Agent", "a", AGENT)))
    held = found.current("default")
    await found.refresh(state(2))
    assert (set(held.agents), held.revision) == ({"a"}, 1)
    assert (set(found.current("default").agents), found.current("default").revision) == (set(), 2)


async def test_a_tenant_whose_policy_does_not_load_is_denied_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    """It loaded when it was applied; should it not load now, everything is denied there, and said."""
    found = Configurations(EmbeddedFactory())
    broken = {"target": "syscall", "mode": "enforce", "modules": [{"path": "p.rego", "source": "package ("}]}
    await found.refresh(state(2, resource("Tenant", "acme", {}), resource("Policy", "broken", broken, "acme")))
    model_call = {
        "syscall": {"tool": "model-call", "effect": "external", "args": {"model": "m"}, "args_digest": "d"},
        "agent": {"name": "a", "labels": {}},
    }
    decision = await found.current("acme").decider.decide_syscall(model_call)
    assert decision.effect == "deny"
    assert "the policies of tenant acme do not load" in decision.reasons[0]
    other = await found.current("default").decider.decide_syscall(model_call)
    assert "do not load" not in str(other.reasons)
    assert "everything is denied there" in caplog.text


async def test_without_an_engine_there_is_a_configuration_that_denies() -> None:
    """The runtime stands; every question is answered with a denial that says how to get an engine."""

    class Missing:
        version = "none"

        async def load(self, modules: object, data: object) -> object:
            raise EngineUnavailable("there is no policy engine", mend="make")

    found = Configurations(Missing())  # type: ignore[arg-type]
    await found.refresh(state(1, resource("Agent", "a", AGENT)))
    decision = await found.current("default").decider.decide_syscall({})
    assert decision.effect == "deny"
    assert "no policy engine" in decision.reasons[0]
