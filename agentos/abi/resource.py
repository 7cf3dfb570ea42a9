"""A resource: one declaration, validated and without its file. The unit of desired state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json, canonical, digest

API_VERSION: Final = "agentos/v1"

KINDS: Final = (
    "Tenant",
    "PriorityClass",
    "Model",
    "ModelClass",
    "Sandbox",
    "Secret",
    "Tool",
    "Agent",
    "ToolGrant",
    "Trigger",
    "Policy",
)
"""The kinds that are interpreted, in the order in which one needs the other."""

_FLEET_KINDS: Final = frozenset({"Tenant", "PriorityClass"})


def is_fleet_kind(kind: str) -> bool:
    """Whether resources of `kind` belong to the whole fleet: the tenant of their keys is `*`."""
    return kind in _FLEET_KINDS


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What identifies a resource. `str()` gives `agent/default/triage`; of the fleet is `tenant/*/acme`."""

    kind: str
    tenant: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.tenant}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """The inverse of `str()`. Raises ValueError."""
        kind, tenant, name = text.split("/")
        for known in KINDS:
            if known.lower() == kind:
                return cls(known, tenant, name)
        raise ValueError(f"unknown kind in {text!r}")


@dataclass(frozen=True, slots=True)
class Resource:
    """One validated declaration; defaults filled in, files it referred to included by content."""

    key: Key
    labels: Mapping[str, str] = field(hash=False)
    annotations: Mapping[str, str] = field(hash=False)
    spec: Mapping[str, Json] = field(hash=False)

    def to_dict(self) -> dict[str, Json]:
        """The manifest form: `apiVersion`, `kind`, `metadata`, `spec`."""
        metadata: dict[str, Json] = {"name": self.key.name}
        if not is_fleet_kind(self.key.kind):
            metadata["tenant"] = self.key.tenant
        if self.labels:
            metadata["labels"] = dict(self.labels)
        if self.annotations:
            metadata["annotations"] = dict(self.annotations)
        return {"apiVersion": API_VERSION, "kind": self.key.kind, "metadata": metadata, "spec": dict(self.spec)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Json]) -> Resource:
        """The inverse of `to_dict`. Expects a document that already passed the schema."""
        metadata = body["metadata"]
        tenant = "*" if is_fleet_kind(body["kind"]) else metadata.get("tenant", "default")
        return cls(
            key=Key(body["kind"], tenant, metadata["name"]),
            labels=metadata.get("labels", {}),
            annotations=metadata.get("annotations", {}),
            spec=body.get("spec", {}),
        )

    def to_bytes(self) -> bytes:
        """Canonical bytes: what is stored as a blob."""
        return canonical(self.to_dict())

    def digest(self) -> str:
        return digest(self.to_bytes())
