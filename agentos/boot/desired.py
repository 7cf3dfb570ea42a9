"""What has to hold before a desired state is stored: every manifest by itself, all together, and what admission policy says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision
from agentos.abi.errors import ManifestError, Unavailable
from agentos.abi.ids import DEFAULT_TENANT, FLEET
from agentos.abi.resource import Resource
from agentos.boot.backend import Backend
from agentos.boot.configuration import Configurations, load_decider, tenants_of
from agentos.boot.engines import Engines
from agentos.boot.log_terms import require_terms
from agentos.boot.walls import require_room, walls_of
from agentos.drivers.adapters.play import check_play
from agentos.manifests import check_references, validate_resource
from agentos.policy.bundle import policy_modules
from agentos.policy.lint_apart import Linter


class Desired:
    """Checks desired states against what this runtime can hold."""

    def __init__(self, backend: Backend, engines: Engines, configurations: Configurations) -> None:
        self._backend = backend
        self._engines = engines
        self._configurations = configurations
        self._linter = Linter()

    async def check(self, resources: Sequence[Resource], tenants: Sequence[str]) -> None:
        """Whether a desired state holds together: references, then that the policies of the tenants concerned load."""
        self._backend.require(tenants_of(resources))
        self._engines.require(tenants_of(resources))
        await require_terms(self._backend, resources)
        require_room(await self._backend.room(), tenants_of(resources), walls_of(resources))
        await asyncio.to_thread(check_references, resources)
        for tenant in tenants:
            if tenant != FLEET:
                await _lint(self._linter, resources, tenant)
                decider = await load_decider(self._engines.checking, resources, tenant, {})
                decider.close()

    async def admit(self, tenant: str, document: dict[str, Json]) -> Decision:
        """The admission policy in force: the tenant's own, or the default tenant's for what has no tenant yet."""
        decider = self._configurations.decider(tenant) or self._configurations.decider(DEFAULT_TENANT)
        if decider is None:
            raise Unavailable("no admission policy is loaded")
        return await decider.admit(document)


async def _lint(linter: Linter, resources: Sequence[Resource], tenant: str) -> None:
    """The checks of a tenant's Rego that compiling it does not make. Raises ManifestError with every finding."""
    policies: dict[str, list[Resource]] = {}
    for one in resources:
        if one.key.kind == "Policy":
            policies.setdefault(one.spec["target"], []).append(one)
    found = await linter.lint({target: policy_modules(of_target, tenant) for target, of_target in policies.items()})
    if found:
        faults = [{"text": f"{one.path}:{one.line}:{one.column}: {one.message}; {one.mend}"} for one in found]
        raise ManifestError(f"the policies of tenant {tenant} are wrong; nothing was changed", faults=faults)


def validate(manifest: Json) -> Resource:
    """One manifest by itself, defaults filled in. Raises ManifestError; references are checked later, together."""
    resource, faults = validate_resource(manifest, check_play=check_play)
    if resource is None:
        raise ManifestError("a declaration is wrong", faults=[{**one.to_dict(), "text": str(one)} for one in faults])
    return resource
