"""A kill switch that was thrown: whom it holds, who threw it, why.

A freeze holds everything of the fleet, of a tenant, of a program or of an agent of a tenant. It says nothing of what that means:
`kernel.freeze` does. In the audit chain of each tenant that it holds it stands as `agentos.audit.frozen`, and its end as
`agentos.audit.thawed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agentos.abi.canonical import Json
from agentos.abi.ids import is_name


class ScopeKind(StrEnum):
    """How wide a freeze is."""

    FLEET = "fleet"
    TENANT = "tenant"
    PROGRAM = "program"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class FreezeScope:
    """Whom a freeze holds. `name` is that of the program or agent, empty for the others."""

    kind: ScopeKind
    name: str = ""

    def to_dict(self) -> dict[str, Json]:
        """`{kind, name?}`, as events say it."""
        return {"kind": str(self.kind), **({"name": self.name} if self.name else {})}

    def __str__(self) -> str:
        match self.kind:
            case ScopeKind.FLEET:
                return "the fleet"
            case ScopeKind.TENANT:
                return "the tenant"
            case _:
                return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Freeze:
    """One freeze in force. `tenant` is the one that it holds something of; the fleet's have `abi.ids.FLEET`."""

    id: str
    tenant: str
    scope: FreezeScope
    reason: str
    actor: str
    time_ms: int

    def covers(self, tenant: str, agents: Iterable[tuple[str, str]]) -> bool:
        """Whether it holds work of `tenant` that is done for `agents`, each with its program."""
        match self.scope.kind:
            case ScopeKind.FLEET:
                return True
            case ScopeKind.TENANT:
                return tenant == self.tenant
            case ScopeKind.PROGRAM:
                return tenant == self.tenant and any(program == self.scope.name for _, program in agents)
            case ScopeKind.AGENT:
                return tenant == self.tenant and any(agent == self.scope.name for agent, _ in agents)


def read_scope(body: Mapping[str, Json]) -> FreezeScope:
    """A scope as an event or a command says it. Raises ValueError, KeyError or TypeError for anything else."""
    kind, name = ScopeKind(body["kind"]), body.get("name", "")
    if not isinstance(name, str) or bool(name) != (kind in {ScopeKind.PROGRAM, ScopeKind.AGENT}):
        raise ValueError("a program and an agent have a name, the tenant and the fleet have none")
    if name and not is_name(name):
        raise ValueError("no program and no agent has such a name")
    return FreezeScope(kind, name)
