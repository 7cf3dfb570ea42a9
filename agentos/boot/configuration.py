"""From desired state to what a turn needs: one immutable configuration per tenant and revision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import EngineUnavailable, NotFound, PolicyError
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.resource import Key, Resource
from agentos.boot.arbitration import DEFAULT_PROGRAM, arbitration, deadline_ms, usable_models
from agentos.boot.standing_spec import standing_spec
from agentos.boot.trigger_spec import trigger_spec
from agentos.control.rate import REQUESTS_PER_SECOND
from agentos.credentials.reference import secret_ref
from agentos.drivers.dispatch import model_spec, tool_spec
from agentos.files.quota import STORAGE, Amount
from agentos.kernel.arguments import compile_check
from agentos.kernel.port import AgentSpec, Configuration, GatewaySpec, HarnessSpec
from agentos.policy.decide import Decider
from agentos.policy.port import PolicyEngineFactory
from agentos.policy.tenant import tenant_policy
from agentos.registry.state import State
from agentos.sandbox.profile import profile_of
from agentos.scheduler.declared import STANDARD

log = logging.getLogger(__name__)

SIDE_BY_SIDE: Final = 4
"""Tenants whose policies are loaded at one time."""


def tenants_of(resources: Sequence[Resource]) -> frozenset[str]:
    """The declared tenants, and `default`, which always exists."""
    return frozenset({DEFAULT_TENANT, *(item.key.name for item in resources if item.key.kind == "Tenant")})


async def load_decider(
    factory: PolicyEngineFactory, resources: Sequence[Resource], tenant: str, granted_by: Mapping[Key, str]
) -> Decider:
    """The policy of `tenant`: the axioms, its own modules, its data. Raises PolicyError; without an engine all is denied."""
    policy = tenant_policy(resources, tenant, granted_by)
    try:
        return await Decider.load(factory, policy.modules, policy.data)
    except EngineUnavailable as error:
        return Decider.denying(error)


async def configure(factory: PolicyEngineFactory, state: State, tenant: str) -> tuple[Configuration, Decider]:
    """The configuration of `tenant` in `state`, and its decider."""
    resources = state.resources()
    own = [item for item in resources if item.key.tenant == tenant]
    try:
        decider = await load_decider(factory, resources, tenant, {key: entry.by for key, entry in state.entries.items()})
    except PolicyError as error:
        # It loaded when it was applied, and with another engine it does not. All is denied to the tenant, and the others run.
        log.critical("the policies of tenant %s do not load, so everything is denied there: %s", tenant, error)
        decider = Decider.denying(EngineUnavailable(f"the policies of tenant {tenant} do not load: {error.message}"))
    declared = state.get(Key("Tenant", "*", tenant))
    limits = declared.spec.get("limits", {}) if declared is not None else {}
    approvals = declared.spec.get("approvals", {}) if declared is not None else {}
    locks = declared.spec.get("locks", {}) if declared is not None else {}
    tools = {item.key.name: tool_spec(item) for item in own if item.key.kind == "Tool"}
    configuration = Configuration(
        tenant=tenant,
        revision=state.revision,
        policy_digest=decider.digest,
        max_sessions=limits.get("sessions", 100),
        agents={item.key.name: _agent(item) for item in own if item.key.kind == "Agent"},
        tools=tools,
        models={item.key.name: model_spec(item) for item in usable_models(resources, tenant)},
        checks={name: compile_check(tool.input_schema) for name, tool in tools.items()},
        decider=decider,
        approval_timeout_ms=approvals.get("timeoutSeconds", 86_400) * 1000,
        approval_valid_ms=approvals.get("validSeconds", 3_600) * 1000,
        triggers={item.key.name: trigger_spec(item) for item in own if item.key.kind == "Trigger"},
        arbitration=arbitration(resources, tenant),
        sandboxes={item.key.name: profile_of(item) for item in own if item.key.kind == "Sandbox"},
        secrets={item.key.name: secret_ref(item) for item in own if item.key.kind == "Secret"},
        spaces=frozenset(one["name"] for one in (declared.spec.get("spaces", ()) if declared is not None else ())),
        lock_victim=locks.get("victim", "requester"),
        storage=Amount(limits.get("storageMiB", STORAGE.bytes >> 20) << 20, limits.get("files", STORAGE.files)),
        requests_per_second=limits.get("requestsPerSecond", REQUESTS_PER_SECOND),
    )
    return configuration, decider


def _agent(resource: Resource) -> AgentSpec:
    spec = resource.spec
    inputs = spec.get("inputs", {})
    return AgentSpec(
        name=resource.key.name,
        model=spec["model"],
        instructions=spec["instructions"],
        tools=tuple(spec.get("tools", ())),
        labels=dict(resource.labels),
        goal_labels=tuple(inputs.get("goalLabels", ())),
        file_labels={place: tuple(labels) for place, labels in inputs.get("fileLabels", {}).items()},
        program=spec.get("program", DEFAULT_PROGRAM),
        priority=spec.get("priorityClass", STANDARD),
        deadline_ms=deadline_ms(spec),
        fail_fast=bool(spec.get("failFast", False)),
        standing=standing_spec(spec),
        sandbox=spec.get("sandbox"),
        harness=_harness(spec.get("harness")),
        gateway=_gateway(spec.get("gateway", {})),
    )


def _harness(declared: Mapping[str, Json] | None) -> HarnessSpec | None:
    return None if declared is None else HarnessSpec(tuple(declared["command"]), declared.get("sandbox"))


def _gateway(declared: Mapping[str, Json]) -> GatewaySpec:
    return GatewaySpec(frozenset(declared.get("principals", ())), declared.get("idleSeconds", 3600) * 1000)


class Configurations:
    """The configuration in force for every tenant; swapped whole, so that a turn never sees a mixture.

    A session in the middle of a turn keeps the configuration it has, and with it that revision's policy engine, which is freed
    when the last session has let go of it.
    """

    def __init__(self, factory: PolicyEngineFactory, told: Callable[[Configuration], None] | None = None) -> None:
        """`told` is told of each tenant's configuration once it is in force."""
        self._factory = factory
        self._told = told
        self._current: dict[str, tuple[Configuration, Decider]] = {}
        self.revision = -1
        """The revision in force, -1 before the first `refresh`."""

    def current(self, tenant: str) -> Configuration:
        """See `kernel.port.ConfigurationSource`."""
        if tenant not in self._current:
            raise NotFound(f"there is no tenant {tenant}", mend="declare it: kind Tenant; agentos get tenant lists them")
        return self._current[tenant][0]

    def storage(self, tenant: str) -> Amount:
        """What the files of `tenant` may take up; of one that is not there (any more), as of one that says nothing."""
        found = self._current.get(tenant)
        return STORAGE if found is None else found[0].storage

    def requests_per_second(self, tenant: str) -> int:
        """How often the principals of `tenant` (`*`: of the fleet) may ask together."""
        found = self._current.get(tenant)
        return REQUESTS_PER_SECOND if found is None else found[0].requests_per_second

    def decider(self, tenant: str) -> Decider | None:
        """The policy in force for `tenant`; None for a tenant that is not there yet."""
        found = self._current.get(tenant)
        return found[1] if found is not None else None

    @property
    def tenants(self) -> frozenset[str]:
        """The tenants that are served."""
        return frozenset(self._current)

    async def refresh(self, state: State) -> None:
        """Put `state` in force, all tenants at once."""
        tenants = sorted(tenants_of(state.resources()))
        # Side by side, so that a server that is slow to take one tenant's policies holds up few others; not all at once, for
        # compiling in the process has a deadline too.
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def make(tenant: str) -> tuple[Configuration, Decider]:
            async with places:
                return await configure(self._factory, state, tenant)

        made = await asyncio.gather(*map(make, tenants))
        self._current = dict(zip(tenants, made, strict=True))
        self.revision = state.revision
        if self._told is not None:
            for configuration, _ in made:
                self._told(configuration)
