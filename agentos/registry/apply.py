"""From declarations to a revision: validate, check references, plan, ask admission policy, require the loud words, commit.

Everything a client sends is validated again here. A proposal is made first, whole, and nothing is stored until each step has
passed, so a refusal leaves the registry as it was.

Deleting needs `destroy` and widening permission `widen` to be allowed. A missing one is a UsageError (exit 64): the command
lacks a word; Denied (exit 3) is kept for what policy, or the border of a tenant, refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from agentos.abi.canonical import Json, NotCanonical
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import Conflict, Denied, ManifestError, UsageError
from agentos.abi.ids import DEFAULT_TENANT, FLEET
from agentos.abi.resource import API_VERSION, Key, Resource
from agentos.registry.plan import Change, Plan, plan, replan, restore, result
from agentos.registry.revision import Revision
from agentos.registry.selector import Selector
from agentos.registry.state import State
from agentos.registry.store import Registry

Validate: TypeAlias = Callable[[Json], Resource]
"""One manifest, checked against its schema, defaults filled in; gives the same for what it returned. Raises ManifestError."""

Check: TypeAlias = Callable[[Sequence[Resource], Sequence[str]], Awaitable[None]]
"""Whether a whole desired state holds together (references, Rego), given all its resources and the tenants that are touched.

Raises ManifestError or PolicyError.
"""

Admit: TypeAlias = Callable[[str, dict[str, Json]], Awaitable[Decision]]
"""What the admission policy in force for a tenant (`*`: for resources of the fleet) says to an input document."""


class Caller(Protocol):
    """Who asks: an authenticated principal. `tenant` is the one it acts on; `fleet` says that it may act on all."""

    @property
    def name(self) -> str: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def tenant(self) -> str: ...
    @property
    def fleet(self) -> bool: ...
    @property
    def actor(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Allow:
    """The loud words that a command was given."""

    destroy: bool = False
    widen: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan that holds together, and what admission policy says to it, per tenant; `restores`: the state it goes back to."""

    plan: Plan
    admission: Mapping[str, Decision] = field(hash=False)
    restores: State | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Which of `allow_destroy` and `allow_widen` applying it takes."""
        destroy = ("allow_destroy",) if self.plan.destroys else ()
        return (*destroy, "allow_widen") if self.plan.widens else destroy

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape of the answer to `registry.plan`."""
        return {
            "plan": self.plan.to_dict(),
            "counts": self.plan.counts(),
            "needs": list(self.needs),
            "admission": {tenant: decision.to_dict() for tenant, decision in self.admission.items()},
        }


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of it: `revision` is None when nothing had to change, or in a dry run."""

    proposal: Proposal
    revision: Revision | None
    dry_run: bool

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape of the answer to `registry.apply`, `registry.delete` and `registry.rollback`."""
        revision = self.revision.to_dict() if self.revision is not None else None
        return {**self.proposal.to_dict(), "revision": revision, "dry_run": self.dry_run}


class Applier:
    """Makes and applies proposals on behalf of callers."""

    def __init__(self, registry: Registry, *, validate: Validate, check: Check, admit: Admit) -> None:
        self.registry = registry
        self._validate = validate
        self._check = check
        self._admit = admit

    async def propose(
        self, caller: Caller, manifests: Sequence[Json], *, prune: Selector | None = None, delete: Collection[Key] = ()
    ) -> Proposal:
        """Plan to apply `manifests` and to delete. Raises ManifestError with the faults of every manifest, UsageError, Denied."""
        desired = self._read(manifests)
        _guard(caller, [*(resource.key for resource in desired), *delete])
        current = await self.registry.state()
        tenants = () if caller.fleet else (caller.tenant,)
        planned = plan(current, desired, prune=prune, delete=delete, tenants=tenants, base=_base(caller, current))
        return await self._propose(caller, current, planned)

    async def propose_rollback(self, caller: Caller, to: int) -> Proposal:
        """Plan to go back to revision `to`, in the caller's tenant only if it is bound to one. Raises NotFound."""
        goal, current = await self.registry.state(to), await self.registry.state()
        tenants = None if caller.fleet else (caller.tenant,)
        if not caller.fleet:
            goal = State.of(goal.revision, {key: old for key, old in goal.entries.items() if key.tenant == caller.tenant})
        return await self._propose(
            caller, current, restore(current, goal, tenants=tenants, base=_base(caller, current)), restores=goal
        )

    async def propose_saved(self, caller: Caller, saved: Plan) -> Proposal:
        """Take up a saved plan. Raises Conflict if it is stale or was applied already, UsageError if it was altered."""
        _guard(caller, [change.key for change in saved.changes])
        await self.registry.require_base(saved)
        self._read([change.resource.to_dict() for change in saved.changes if change.resource is not None])
        current = await self.registry.state()
        if replan(current, saved) != saved:
            raise UsageError("the plan does not say what it would do: it was altered", mend="make the plan again")
        return await self._propose(caller, current, saved)

    async def apply(
        self,
        caller: Caller,
        proposal: Proposal,
        *,
        reason: str = "",
        allow: Allow | None = None,
        dry_run: bool = False,
        expect: str | None = None,
    ) -> Applied:
        """Commit `proposal` as one revision. A dry run does all but that.

        `expect` is the digest of the plan that the caller was shown. Raises Conflict if the plan is another by now or somebody
        was first, UsageError if a loud word is missing, Denied if admission policy says anything but allow.
        """
        if expect is not None and expect != proposal.plan.digest:
            raise Conflict("what would change is no longer what was shown", mend="look at the plan again")
        if not proposal.plan.changes:
            return Applied(proposal, None, dry_run)
        _require_admitted(proposal)
        _require_words(proposal, allow or Allow())
        if dry_run:
            return Applied(proposal, None, dry_run=True)
        revision = await self.registry.commit(
            proposal.plan,
            actor=caller.actor,
            reason=reason,
            restores=proposal.restores,
            admission={tenant: decision.to_dict() for tenant, decision in proposal.admission.items()},
        )
        return Applied(proposal, revision, dry_run=False)

    def _read(self, manifests: Sequence[Json]) -> list[Resource]:
        """Validate every manifest; report the faults of all at once."""
        resources: list[Resource] = []
        faults: list[Mapping[str, object]] = []
        for place, manifest in enumerate(manifests):
            try:
                resource = self._validate(manifest)
                resource.to_bytes()
            except ManifestError as error:
                faults.extend(error.faults or [error.to_dict()])
            except NotCanonical as error:
                faults.append({"text": f"manifest {place + 1}: {error}"})
            else:
                resources.append(resource)
        if faults:
            raise ManifestError(f"{len(faults)} faults in the declarations; nothing was changed", faults=faults)
        return resources

    async def _propose(self, caller: Caller, current: State, planned: Plan, restores: State | None = None) -> Proposal:
        after = result(current, planned.changes)
        if planned.changes:
            await self._check([after[key] for key in sorted(after)], planned.tenants)
        admission = {
            tenant: await self._admit(tenant, admission_question(caller, tenant, planned, after, current))
            for tenant in planned.tenants
        }
        return Proposal(planned, admission, restores)


def admission_question(
    caller: Caller, tenant: str, planned: Plan, after: Mapping[Key, Resource], current: State
) -> dict[str, Json]:
    """The input of the admission policy (`schemas/v1/admission-input.json`).

    A deletion names what goes as `resource` and as `before`. Changes of what is of the fleet are put under the default tenant's
    name; with a changed Tenant stand the resources of that tenant, because what it takes back may be in use there.
    """
    shown = {tenant, FLEET}
    if tenant == FLEET:
        shown |= {change.key.name for change in planned.changes if change.key.kind == "Tenant"}
    return {
        "abi": API_VERSION,
        "principal": {"name": caller.name, "roles": list(caller.roles), "tenant": FLEET if caller.fleet else caller.tenant},
        "tenant": DEFAULT_TENANT if tenant == FLEET else tenant,
        "changes": [_changed(change, current) for change in planned.changes if change.key.tenant == tenant],
        "resources": [after[key].to_dict() for key in sorted(after) if key.tenant in shown],
    }


def _changed(change: Change, current: State) -> dict[str, Json]:
    before = current.get(change.key)
    one = change.resource or before
    body: dict[str, Json] = {"action": str(change.action), "resource": one.to_dict() if one is not None else None}
    if before is not None:
        body["before"] = before.to_dict()
    return body


def _base(caller: Caller, current: State) -> str:
    return current.tree if caller.fleet else current.part(caller.tenant)


def _guard(caller: Caller, keys: Iterable[Key]) -> None:
    """A principal that is bound to a tenant changes that tenant only."""
    if caller.fleet:
        return
    for key in keys:
        if key.tenant != caller.tenant:
            what = "tenants are declared" if key.tenant == FLEET else "another tenant is changed"
            raise Denied(
                f"principal {caller.name} may change tenant {caller.tenant} only",
                rules=("registry.tenant",),
                reasons=(f"{what} by principals of the whole fleet",),
                where=str(key),
                mend="ask an operator of the fleet",
            )


def _require_admitted(proposal: Proposal) -> None:
    refused = {tenant: said for tenant, said in proposal.admission.items() if said.effect is not Verdict.ALLOW}
    if refused:
        raise Denied(
            f"admission policy refuses the change in tenant {', '.join(sorted(refused))}; nothing was changed",
            rules=[rule for said in refused.values() for rule in said.rules],
            reasons=[reason for said in refused.values() for reason in said.reasons],
            mend="change the declarations, or ask who owns the policy",
        )


def _require_words(proposal: Proposal, allow: Allow) -> None:
    planned = proposal.plan
    missing = []
    if planned.destroys and not allow.destroy:
        missing.append(("--allow-destroy", f"deletes {len(planned.destroys)} ({planned.destroys[0]})"))
    if planned.widens and not allow.widen:
        missing.append(("--allow-widen", f"widens permission ({planned.widens[0]})"))
    if missing:
        raise UsageError(
            f"the plan {' and '.join(what for _, what in missing)}; nothing was changed",
            mend=f"look at the plan, then pass {' '.join(flag for flag, _ in missing)}",
        )
