"""Changes of the registry as admission policy was asked about them: each question made again from the states around a revision.

A revision names who made it; what that principal may do was fixed when it was created. What cannot be made again is told with the
reason: a revision without a recorded decision, one by an actor that is no principal, a tenant that had no policy of its own yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound
from agentos.abi.event import rfc3339
from agentos.abi.ids import DEFAULT_TENANT, FLEET
from agentos.abi.resource import Key
from agentos.registry.apply import admission_question
from agentos.registry.plan import plan, result
from agentos.registry.principal import Principal, Principals
from agentos.registry.revision import Revision
from agentos.registry.state import State
from agentos.registry.store import Registry


@dataclass(frozen=True, slots=True)
class _Asker:
    """A principal as it asked then: `registry.apply.Caller`."""

    name: str
    roles: tuple[str, ...]
    tenant: str
    fleet: bool

    @property
    def actor(self) -> str:
        return f"principal/{self.name}"


async def admissions(registry: Registry, principals: Principals, revision: Revision, tenants: tuple[str, ...]) -> list[Json]:
    """What `revision` was asked about each of `tenants` (`*`: resources of the fleet) that it touched.

    Each is `{revision, tenant, time, actor, decided_by, decision, question}`; with `undecidable`, a sentence, in place of the
    question where that cannot be made again. `decided_by` is the revision whose policy decided: the one before.
    """
    touched = [tenant for tenant in revision.tenants if tenant in tenants]
    if not touched:
        return []
    before, after = await registry.state(revision.number - 1), await registry.state(revision.number)
    asker = await _asker(principals, revision.actor)
    return [_admission(revision, tenant, before, after, asker) for tenant in touched]


async def _asker(principals: Principals, actor: str) -> Principal | str:
    name = actor.removeprefix("principal/")
    if name == actor:
        return f"{actor} is no principal, so its roles are unknown"
    try:
        return await principals.get(name)
    except NotFound:
        return f"there is no record of principal {name}, so its roles are unknown"


def _admission(revision: Revision, tenant: str, before: State, after: State, asker: Principal | str) -> Json:
    row: dict[str, Json] = {
        "revision": revision.number,
        "tenant": tenant,
        "time": rfc3339(revision.time_ms),
        "actor": revision.actor,
        "decided_by": revision.number - 1,
        "decision": revision.admission.get(tenant),
    }
    if row["decision"] is None:
        return {**row, "undecidable": "the revision does not say what admission policy decided"}
    if isinstance(asker, str):
        return {**row, "undecidable": asker}
    if tenant not in {FLEET, DEFAULT_TENANT} and before.get(Key("Tenant", FLEET, tenant)) is None:
        return {**row, "undecidable": f"tenant {tenant} was new: the policy of the default tenant decided"}
    gone = [key for key in before.entries if key not in after.entries]
    planned = plan(before, [entry.resource for entry in after.entries.values()], delete=gone)
    caller = _Asker(asker.name, asker.roles, asker.tenant, asker.fleet)
    # A principal of the fleet acts on a tenant of its choice; the question does not say on which.
    return {**row, "question": admission_question(caller, tenant, planned, result(before, planned.changes), before)}
