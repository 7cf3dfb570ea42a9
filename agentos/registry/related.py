"""What else in the desired state concerns one resource: who uses it, what it may do by whose grant, which policies look at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.ids import DEFAULT_TENANT, FLEET
from agentos.abi.resource import Key, Resource, is_fleet_kind
from agentos.registry.state import State
from agentos.sandbox.profile import DEFAULT

_MODELS: Final = ("Model", "ModelClass")

_USES: Final = (
    ("Tenant", "models", ("Model",)),
    ("Tenant", "priorityClasses", ("PriorityClass",)),
    ("ModelClass", "routes", ("Model",)),
    ("Agent", "model", _MODELS),
    ("Agent", "tools", ("Tool",)),
    ("Agent", "priorityClass", ("PriorityClass",)),
    ("Agent", "sandbox", ("Sandbox",)),
    ("Agent", "harness", ("Sandbox",)),
    ("Tool", "sandbox", ("Sandbox",)),
    ("Tool", "credentials", ("Secret",)),
    ("ToolGrant", "agents", ("Agent",)),
    ("ToolGrant", "tools", ("Tool",)),
    ("Trigger", "agent", ("Agent",)),
    ("Trigger", "priorityClass", ("PriorityClass",)),
)
"""Which field of which kind names which kinds."""


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
    for field, other in _named(state, subject):
        yield "names", other, field
    if kind == "Tenant":
        for one in state.resources(tenant=name):
            yield "holds", one.key, ""
        return
    # A model of the default tenant may be lent to others, and a class of the fleet is used by all.
    for one in state.resources(tenant=tenant if kind not in {"Model", "PriorityClass"} else None):
        if any(other == subject.key for _, other in _named(state, one)):
            yield ("granted by" if one.key.kind == "ToolGrant" else "used by"), one.key, _detail(one)
    if kind != "Policy":
        for one in state.resources(kind="Policy", tenant=tenant):
            yield "judged by", one.key, f"{one.spec.get('target', 'syscall')}, {one.spec.get('mode', 'enforce')}"


def _named(state: State, one: Resource) -> Iterator[tuple[str, Key]]:
    """(field, key) of what `one` names."""
    for user, field, kinds in _USES:
        if user == one.key.kind:
            for name in _listed(one.spec.get(field)):
                key = _found(state, one, kinds, name)
                if key is not None:
                    yield field, key


def _found(state: State, one: Resource, kinds: tuple[str, ...], name: str) -> Key | None:
    """What `name` means in `one`: something of its own tenant or of the fleet, or a Model that its tenant was lent.

    None for a class that is built in, and for the sandbox `default` where nobody declares it.
    """
    if is_fleet_kind(kinds[0]):
        key = Key(kinds[0], FLEET, name)
        return key if key in state.entries else None
    if one.key.kind == "Tenant":
        return Key(kinds[0], DEFAULT_TENANT, name)
    if kinds == ("Sandbox",) and name == DEFAULT and Key("Sandbox", one.key.tenant, name) not in state.entries:
        return None
    own = [key for kind in kinds if (key := Key(kind, one.key.tenant, name)) in state.entries]
    if own or "Model" not in kinds:
        return own[0] if own else Key(kinds[0], one.key.tenant, name)
    tenant = state.get(Key("Tenant", FLEET, one.key.tenant))
    lent = tenant is not None and name in tenant.spec.get("models", ())
    return Key("Model", DEFAULT_TENANT if lent else one.key.tenant, name)


def _listed(value: Json) -> list[str]:
    """Names in a field; those of routes and credentials, each once."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [value["sandbox"]] if "sandbox" in value else []
    return list(dict.fromkeys(name for item in value or () for name in _of_item(item)))


def _of_item(item: Json) -> list[str]:
    if isinstance(item, str):
        return [item]
    return [item["secret"]] if "secret" in item else list(item["models"])


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
