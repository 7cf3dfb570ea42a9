"""The whole policy of one tenant at one revision: the modules that decide for it, and the facts that they know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentos.abi.canonical import Json
from agentos.abi.resource import Key, Resource
from agentos.policy.bundle import axioms, policy_digest, policy_modules
from agentos.policy.data import build_data
from agentos.policy.port import Module


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What a decider of a tenant is loaded with. `data` is the root document (`schemas/v1/policy-data.json`)."""

    modules: tuple[Module, ...]
    data: Mapping[str, Json] = field(hash=False)

    @property
    def digest(self) -> str:
        """The `policydigest` of events that were decided by it."""
        return policy_digest(self.modules)


def tenant_policy(resources: Sequence[Resource], tenant: str, granted_by: Mapping[Key, str]) -> TenantPolicy:
    """The axioms and the tenant's own Policy resources, and its declarations as data."""
    shipped = (*axioms("syscall"), *axioms("admission"), *axioms("approval"))
    data = build_data(resources, tenant, granted_by=granted_by)
    return TenantPolicy((*shipped, *policy_modules(resources, tenant)), data)
