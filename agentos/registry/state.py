"""Desired state at one revision: which resources there are, who last changed each, and the tree that binds them.

The tree is the canonical JSON `{"agent/default/triage": {"by": "principal/alice", "digest": "sha256:…", "revision": 3}, …}`; its
digest names the whole state, resources and attribution. Two revisions with one tree digest are the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json, canonical, digest
from agentos.abi.resource import Key, Resource

EMPTY_TREE: Final = digest(b"{}")
"""The tree digest of a registry that holds nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource in the state, with who last changed it (`principal/alice`) and in which revision."""

    resource: Resource
    digest: str
    by: str
    revision: int


@dataclass(frozen=True, slots=True)
class State:
    """Desired state at `revision` (0: nothing was ever applied). `tree` is the digest of the tree."""

    revision: int
    tree: str
    entries: Mapping[Key, Entry] = field(hash=False)

    @classmethod
    def empty(cls) -> State:
        return cls(0, EMPTY_TREE, {})

    @classmethod
    def of(cls, revision: int, entries: Mapping[Key, Entry]) -> State:
        """The state that holds `entries`, its tree computed."""
        return cls(revision, digest(tree_bytes(entries)), dict(entries))

    def part(self, tenant: str) -> str:
        """The digest of the tree of one tenant's resources alone: it tells nothing of what others have."""
        return digest(tree_bytes({key: entry for key, entry in self.entries.items() if key.tenant == tenant}))

    def get(self, key: Key) -> Resource | None:
        """The resource `key`, None if the state has none."""
        entry = self.entries.get(key)
        return entry.resource if entry is not None else None

    def resources(self, *, kind: str | None = None, tenant: str | None = None) -> tuple[Resource, ...]:
        """All resources (of `kind`, of `tenant`) ordered by kind, tenant, name."""
        return tuple(
            self.entries[key].resource
            for key in sorted(self.entries)
            if (kind is None or key.kind == kind) and (tenant is None or key.tenant == tenant)
        )


def tree_bytes(entries: Mapping[Key, Entry]) -> bytes:
    """The canonical bytes of the tree of `entries`."""
    tree: dict[str, Json] = {
        str(key): {"by": entry.by, "digest": entry.digest, "revision": entry.revision} for key, entry in entries.items()
    }
    return canonical(tree)


def changed_keys(one: State, other: State, *, among: Iterable[str] | None = None) -> tuple[Key, ...]:
    """The keys whose resource differs between two states (of the tenants `among`, None: of all), sorted."""
    tenants = None if among is None else frozenset(among)
    return tuple(
        key
        for key in sorted(one.entries.keys() | other.entries.keys())
        if (tenants is None or key.tenant in tenants) and _digest(one, key) != _digest(other, key)
    )


def _digest(state: State, key: Key) -> str | None:
    entry = state.entries.get(key)
    return entry.digest if entry is not None else None
