"""A revision: one atomic step of desired state, as it stands in the log (`schemas/v1/revision.json`).

Revision N is the N-th event of the chain `registry`; its `tree` names the state, its `parent` the state before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken
from agentos.abi.event import REVISION_APPLIED, Event, rfc3339

CHAIN: Final = "registry"
"""The subject inside the events of the chain of revisions."""

_KEYS: Final = frozenset({"revision", "tree", "parent", "reason", "counts", "plan", "tenants", "restores", "admission"})


@dataclass(frozen=True, slots=True)
class Revision:
    """One applied revision.

    `parent` is None for the first. `counts` has create, update, delete and widen. `plan` is the digest of the plan that made it,
    `tenants` whom it touched, `restores` the revision it rolled back to, if it did. `admission` holds the decisions, per tenant.
    """

    number: int
    time_ms: int
    actor: str
    reason: str
    tree: str
    parent: str | None
    counts: Mapping[str, int] = field(hash=False)
    plan: str
    tenants: tuple[str, ...]
    restores: int | None = None
    admission: Mapping[str, Json] = field(default_factory=dict, hash=False)

    def data(self) -> dict[str, Json]:
        """The payload of the event `agentos.registry.applied`."""
        body: dict[str, Json] = {
            "revision": self.number,
            "tree": self.tree,
            "parent": self.parent,
            "reason": self.reason,
            "counts": dict(self.counts),
            "plan": self.plan,
            "tenants": list(self.tenants),
        }
        if self.restores is not None:
            body["restores"] = self.restores
        if self.admission:
            body["admission"] = dict(self.admission)
        return body

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape that `agentos history -o json` prints."""
        return {**self.data(), "actor": self.actor, "time": rfc3339(self.time_ms)}

    @classmethod
    def of(cls, event: Event, parent: str | None) -> Revision:
        """Read the event that follows the state `parent`. Raises ChainBroken when it is not the next revision of that state."""
        where, data = f"{CHAIN}#{event.seq}", event.data
        try:
            if event.type != REVISION_APPLIED or data["revision"] != event.seq or set(data) - _KEYS:
                raise ChainBroken(f"is not revision {event.seq}", where=where)
            if data["parent"] != parent:
                raise ChainBroken(f"is based on the state {data['parent']}, not on {parent}", where=where)
            return cls(
                number=event.seq,
                time_ms=event.time_ms,
                actor=event.actor,
                reason=str(data["reason"]),
                tree=str(data["tree"]),
                parent=parent,
                counts=dict(data["counts"]),
                plan=str(data["plan"]),
                tenants=tuple(data["tenants"]),
                restores=data.get("restores"),
                admission=data.get("admission", {}),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ChainBroken(f"is not a revision of this runtime: {error}", where=where) from error
