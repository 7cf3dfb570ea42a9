"""What the tests of the registry share: a clock and randomness that repeat, a registry in memory, an applier that trusts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import ManifestError
from agentos.abi.resource import Key, Resource, is_fleet_kind
from agentos.control.principal import Caller
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.registry.apply import Applier
from agentos.registry.store import Registry


@dataclass
class Ticks:
    """A clock that stands still until it is moved, and bytes that never repeat."""

    now: int = 1_763_713_800_000
    used: int = 0

    def now_ms(self) -> int:
        return self.now

    def token(self, size: int) -> bytes:
        self.used += 1
        return self.used.to_bytes(size, "big")


def make(kind: str, name: str, spec: Mapping[str, Json], *, tenant: str = "default", **labels: str) -> Resource:
    """One resource."""
    return Resource(Key(kind, "*" if is_fleet_kind(kind) else tenant, name), labels, {}, dict(spec))


def agent(name: str = "triage", *, tenant: str = "default", model: str = "fast", calls: int = 10, **labels: str) -> Resource:
    """One agent."""
    spec = {
        "instructions": "sort the inbox",
        "model": model,
        "tools": ["read"],
        "budget": {"calls": calls, "tokens": 1000},
        "governance": {"owner": "ops", "purpose": "triage", "risk": "limited"},
    }
    return make("Agent", name, spec, tenant=tenant, **labels)


def grant(name: str = "triage-read", **spec: Json) -> Resource:
    """One grant: agent triage may read, unless `spec` says otherwise."""
    return make("ToolGrant", name, {"agents": ["triage"], "tools": ["read"], "args": {}, "approval": "none", **spec})


@dataclass
class Gate:
    """Stands in for validation, references and admission policy, and remembers what it was asked."""

    decision: Decision = field(default_factory=lambda: Decision(Verdict.ALLOW))
    questions: list[tuple[str, dict[str, Json]]] = field(default_factory=list)
    dangling: bool = False

    def validate(self, manifest: Json) -> Resource:
        if not isinstance(manifest, dict) or "spec" not in manifest:
            raise ManifestError("is no manifest", faults=[{"text": "a manifest lacks its spec"}])
        return Resource.from_dict(manifest)

    async def check(self, resources: Sequence[Resource], tenants: Sequence[str]) -> None:
        del tenants
        if self.dangling:
            raise ManifestError("dangling reference", faults=[{"text": f"among {len(resources)}"}])

    async def admit(self, tenant: str, document: dict[str, Json]) -> Decision:
        self.questions.append((tenant, document))
        return self.decision


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def registry(log: MemoryLog, ticks: Ticks) -> Registry:
    return Registry(log, ticks, ticks)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def applier(registry: Registry, gate: Gate) -> Applier:
    return Applier(registry, validate=gate.validate, check=gate.check, admit=gate.admit)


@pytest.fixture
def alice() -> Caller:
    """An operator of the whole fleet."""
    return Caller("alice", ("operator",), "default", fleet=True)


@pytest.fixture
def bob() -> Caller:
    """An operator of the tenant acme."""
    return Caller("bob", ("operator",), "acme", fleet=False)


@pytest.fixture
def new() -> SimpleNamespace:
    """Makers of resources: `new.agent()`, `new.grant()`, `new.resource(kind, name, spec)`."""
    return SimpleNamespace(agent=agent, grant=grant, resource=make)
