"""What else in the desired state concerns one resource: who uses it, what it may do by whose grant, which policies look at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.resource import Key, Resource
from agentos.registry.state import State

_USES: Final = (
    ("Agent", "model", "Model"),
    ("Agent", "tools", "Tool"),
    ("ToolGrant", "agents", "Agent"),
    ("ToolGrant", "tools", "Tool"),
)
"""Which field of which kind names which kind."""


def related(state: State, key: Key) -> tuple[dict[str, Json], ...]:
    """`{relation, key, detail}` of all that concerns `key`: what it names, what names it, the policies of its tenant."""
    subject = state.get(key)
    if subject is None:
        return ()
    return tuple(
        {"relation": relation, "key": str(other), "detail": detail} for relation, other, detail in _relations(state, subject)
    )


def _relations(state: State, subject: Resource) -> Iterator[tuple[str, Key, str]]:
    kind, tenant, name = subject.key.kind, subject.key.tenant, subject.key.name
    if kind == "Tenant":
        for one in state.resources(tenant=name):
            yield "holds", one.key, ""
        return
    for user, field, used in _USES:
        if user == kind:
            for other in _listed(subject.spec.get(field)):
                yield "names", Key(used, tenant, other), field
    for one in state.resources(tenant=tenant):
        for user, field, used in _USES:
            if one.key.kind == user and used == kind and name in _listed(one.spec.get(field)):
                yield ("granted by" if user == "ToolGrant" else "used by"), one.key, _detail(one)
    if kind != "Policy":
        for one in state.resources(kind="Policy", tenant=tenant):
            yield "judged by", one.key, f"{one.spec.get('target', 'syscall')}, {one.spec.get('mode', 'enforce')}"


def _listed(value: Json) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _detail(one: Resource) -> str:
    if one.key.kind != "ToolGrant":
        return ""
    parts = [f"{', '.join(one.spec['agents'])} may call {', '.join(one.spec['tools'])}"]
    if one.spec.get("args"):
        parts.append(f"only with constrained {', '.join(sorted(one.spec['args']))}")
    if one.spec.get("approval", "none") == "required":
        parts.append("after approval")
    if one.spec.get("until"):
        parts.append(f"until {one.spec['until']}")
    if one.spec.get("maxUses"):
        parts.append(f"{one.spec['maxUses']} times")
    return ", ".join(parts)
