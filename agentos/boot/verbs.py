"""Every verb of the control service, each with what it needs and nothing more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Unavailable
from agentos.abi.freeze import Freeze
from agentos.boot.checkpoints import Checkpoints
from agentos.boot.erasures import Erasures
from agentos.boot.gateway import gateway_handlers
from agentos.boot.scheduling import sched_handlers
from agentos.boot.triggers import trigger_handlers
from agentos.control import audit_verbs, registry_verbs
from agentos.control.approval_verbs import ApprovalVerbs
from agentos.control.authorize import Authorize
from agentos.control.backup_verbs import BackupVerbs
from agentos.control.budget_verbs import BudgetVerbs
from agentos.control.erasure_verbs import ErasureVerbs
from agentos.control.freeze_verbs import FreezeVerbs
from agentos.control.fs_verbs import FsVerbs
from agentos.control.lock_verbs import LockVerbs
from agentos.control.policy_verbs import PolicyVerbs
from agentos.control.principal import Caller, Handler
from agentos.control.principal_verbs import PrincipalVerbs
from agentos.control.proposals import Proposals
from agentos.control.secret_verbs import SecretVerbs
from agentos.control.session_life_verbs import SessionLifeVerbs
from agentos.control.session_verbs import SessionVerbs
from agentos.control.supervise_verbs import SuperviseVerbs
from agentos.control.workspace_verbs import WorkspaceVerbs
from agentos.eventlog.port import EventLog
from agentos.policy.decide import CacheStats
from agentos.projections.projector import Projector
from agentos.registry.apply import Applier
from agentos.registry.principal import Principals
from agentos.registry.store import Registry

if TYPE_CHECKING:
    from agentos.boot.runtime import Runtime

CHANGING: Final = frozenset({"registry.apply", "registry.delete", "registry.rollback"})
"""Verbs after which another revision may be in force."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What is there once a runtime is open, beside what it always has. `principals_changed` and `revision_changed` put in force
    what a verb has stored."""

    registry: Registry
    registry_log: EventLog
    principals: Principals
    applier: Applier
    checkpoints: Checkpoints
    erasures: Erasures
    backups: BackupVerbs
    may: Authorize
    principals_changed: Callable[[], Awaitable[None]]
    revision_changed: Callable[[], Awaitable[None]]


def verbs(runtime: Runtime, opened: Opened) -> dict[str, Handler]:
    """The verbs by name, those of the runtime itself left out."""
    sessions, tenants, timer, random = runtime.sessions, runtime.tenants, runtime.timer, runtime.random
    current, erasures = runtime.configurations.current, opened.erasures

    def revision(tenant: str) -> int:
        return current(tenant).revision

    async def projector(tenant: str) -> Projector:
        return tenants.get(tenant).projector

    async def wordsmith(tenant: str) -> Projector:
        return tenants.get(tenant).wordsmith

    def policy_in_force(tenant: str) -> tuple[int, str, CacheStats]:
        decider = runtime.configurations.decider(tenant)
        if decider is None:
            raise Unavailable(f"no policy is loaded for tenant {tenant}")
        return revision(tenant), decider.digest, decider.stats()

    def held(tenant: str, agents: Sequence[str] | None) -> Freeze | None:
        return runtime.freezes.of_chain(tenant, agents, current(tenant))

    def served() -> frozenset[str]:
        return runtime.configurations.tenants

    proposals = Proposals(current, runtime.workspaces, runtime.spaces)
    handlers: dict[str, Handler] = {
        **opened.backups.handlers(),
        **SessionVerbs(sessions, tenants.log, tenants, runtime.workspaces, timer, random, erasures.assign, held).handlers(),
        **WorkspaceVerbs(sessions, runtime.workspaces).handlers(),
        **FsVerbs(
            sessions,
            runtime.workspaces,
            runtime.spaces,
            runtime.hands.versions,
            erasures.chain,
            revision,
            lambda tenant: current(tenant).spaces,
            runtime.space_labels,
            timer,
        ).handlers(),
        **ErasureVerbs(erasures, revision).handlers(),
        **SessionLifeVerbs(runtime.life, runtime.forks, runtime.signals).handlers(),
        **PrincipalVerbs(opened.principals, served, opened.principals_changed, runtime.backend.user_stanza).handlers(),
        **audit_verbs.handlers(
            projectors=projector,
            wordsmiths=wordsmith,
            logs=tenants.log,
            registry=opened.registry_log,
            notaries=opened.checkpoints,
            chains=erasures.chain,
            revision=revision,
            clock=timer,
            random=random,
        ),
        **PolicyVerbs(
            opened.registry, tenants.log, lambda: runtime.factory.version, policy_in_force, opened.principals
        ).handlers(),
        **LockVerbs(
            runtime.locks, tenants, erasures.chain, revision, timer, lambda tenant: runtime.waits.waits(sessions.live(tenant))
        ).handlers(),
        **FreezeVerbs(runtime.freezing, timer).handlers(),
        **SuperviseVerbs(runtime.supervision, erasures.chain, revision).handlers(),
        **gateway_handlers(sessions, runtime.configurations, timer, runtime.stopping.stop, held),
        **trigger_handlers(runtime.triggers, tenants, sessions, erasures.chain, revision, timer, random),
        **sched_handlers(runtime.admissions, runtime.configurations),
        **BudgetVerbs(runtime.budgets, current, sessions.state, timer).handlers(),
        **ApprovalVerbs(
            sessions, current, tenants, opened.applier, opened.revision_changed, opened.may, timer, proposals
        ).handlers(),
        **SecretVerbs(runtime.hands.broker, lambda tenant: current(tenant).secrets).handlers(),
    }
    for verb, handler in registry_verbs.handlers(opened.applier).items():
        handlers[verb] = _then(handler, opened.revision_changed) if verb in CHANGING else handler
    return handlers


def _then(handler: Handler, after: Callable[[], Awaitable[None]]) -> Handler:
    """`handler`, and `after` when it made a revision; the answer comes when the revision is in force."""

    async def both(caller: Caller, params: dict[str, Json]) -> Json:
        answer = await handler(caller, params)
        if isinstance(answer, dict) and answer.get("revision") is not None:
            try:
                await after()
            except AgentOSError as error:
                raise Unavailable(
                    f"the revision is stored, but could not be put in force yet: {error.message}",
                    mend="the runtime goes on trying; agentos status shows which revision is in force",
                ) from error
        return answer

    return both
