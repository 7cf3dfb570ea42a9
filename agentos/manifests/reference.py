"""Rules between documents: references that lead somewhere, names that are taken once, grants that constrain what a tool takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.resource import Key, is_fleet_kind
from agentos.abi.syscall import PSEUDO
from agentos.manifests.document import Document
from agentos.manifests.fault import Path, Problem, closest, listed, shown
from agentos.manifests.inputschema import arguments
from agentos.manifests.sending import check_sending
from agentos.manifests.standing_order import ORDERS, check_standing
from agentos.sandbox.profile import DEFAULT
from agentos.scheduler.declared import BUILT_IN

Found = Iterator[tuple[Document, Problem]]

_REFERENCES: Final[Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]] = {
    "Tenant": ((("models",), ("Model",)), (("priorityClasses",), ("PriorityClass",))),
    "ModelClass": ((("routes", "models"), ("Model",)),),
    "Agent": (
        (("model",), ("Model", "ModelClass")),
        (("tools",), ("Tool",)),
        (("priorityClass",), ("PriorityClass",)),
        (("sandbox",), ("Sandbox",)),
        (("harness", "sandbox"), ("Sandbox",)),
        *((("standing", order), ("Agent",)) for order in ORDERS),
    ),
    "Tool": (
        (("driver", "delegate", "agents"), ("Agent",)),
        (("driver", "delegate", "reduce", "agent"), ("Agent",)),
        (("driver", "delegate", "tools"), ("Tool",)),
        (("sandbox",), ("Sandbox",)),
        (("credentials", "secret"), ("Secret",)),
    ),
    "ToolGrant": ((("agents",), ("Agent",)), (("tools",), ("Tool",))),
    "Trigger": ((("agent",), ("Agent",)), (("on", "run", "agents"), ("Agent",)), (("priorityClass",), ("PriorityClass",))),
    "Policy": ((("scope", "agents"), ("Agent",)), (("scope", "tools"), ("Tool",))),
}
"""Per kind: (path below spec, kinds of what it may name). A Policy may also name the pseudo tools."""

_WORDS: Final = {"PriorityClass": "priority class", "ModelClass": "model class"}
"""Kinds as a sentence calls them, where that is not the kind in lower case."""


def check_references(documents: Sequence[Document], existing: Collection[Key], unread: Collection[str] | None) -> Found:
    """Problems between `documents`, each with the document it is in.

    `existing` are resources that are there besides them. `unread` are names in texts that could not be read (None: all names):
    a reference to one of them is not called dangling, as its target is there and has a fault of its own.
    """
    yield from _check_names(documents)
    yield from _check_model_names(documents)
    yield from check_standing(documents)
    yield from check_sending(documents)
    known = {document.key for document in documents} | set(existing)
    known |= {Key("Tenant", "*", DEFAULT_TENANT), *(Key("PriorityClass", "*", name) for name in BUILT_IN)}
    names: dict[tuple[str, str], set[str]] = {}
    for key in known:
        names.setdefault((key.kind, key.tenant), set()).add(key.name)
    lent: dict[str, set[str]] = {}
    for document in documents:
        if document.kind == "Tenant":
            lent.setdefault(document.name, set()).update(name for _, name in _leaves(document.spec, ("models",)))
    for document in documents:
        for kinds, tenant, path, name in _references(document):
            here = {one: other for other in kinds for one in names.get((other, tenant), ())}
            if "Model" in kinds and document.kind != "Tenant":
                here |= dict.fromkeys(lent.get(tenant, ()), "Model")
            if "Sandbox" in kinds:
                here[DEFAULT] = "Sandbox"
            if name not in here and unread is not None and name not in unread:
                yield document, _dangling(kinds[0], tenant, path, name, here, names)
    if unread is not None:
        yield from _check_spaces(documents, existing, unread)
    tools = {(document.tenant, document.name): document for document in documents if document.kind == "Tool"}
    for document in documents:
        if document.kind == "ToolGrant":
            for problem in _check_constraints(document, tools):
                yield document, problem


def _check_names(documents: Iterable[Document]) -> Found:
    first: dict[Key, Document] = {}
    for document in documents:
        if not document.name:
            continue
        other = first.setdefault(document.key, document)
        if other is not document:
            place = other.position(("metadata", "name"))
            where = f"first at {place}" if place else "in the same set"
            kind, name = document.kind.lower(), document.name
            message = f"{kind}/{name} is declared twice ({where})"
            yield document, Problem("reference.duplicate", ("metadata", "name"), message, "rename or remove one of the two")


def _check_model_names(documents: Sequence[Document]) -> Found:
    """What agents name as their model is one thing: a Model, a ModelClass, or a Model that the tenant was lent."""
    models = {(document.tenant, document.name): document.kind for document in documents if document.kind == "Model"}
    for document in documents:
        if document.kind == "ModelClass" and (document.tenant, document.name) in models:
            message = f"there is a model {shown(document.name)} too, and agents name both in one field"
            yield document, Problem("reference.taken", ("metadata", "name"), message, "rename one of the two")
    own = models | {(document.tenant, document.name): document.kind for document in documents if document.kind == "ModelClass"}
    for document in documents:
        for path, name in _leaves(document.spec, ("models",)) if document.kind == "Tenant" else ():
            kind = own.get((document.name, name))
            if kind is not None:
                message = f"tenant {document.name} has a {_word(kind)} {shown(name)} of its own"
                yield (
                    document,
                    Problem("reference.taken", ("spec", *path), message, "take it off this list, or rename one of the two"),
                )


_SPACES: Final = {"Tool": ("driver", "builtin", "space"), "Trigger": ("on", "workspace", "space")}
"""Where documents name a shared space of their tenant."""


def _check_spaces(documents: Sequence[Document], existing: Collection[Key], unread: Collection[str]) -> Found:
    """Spaces are declared once each, by the Tenant whose documents name them. One that is not in this set is not looked into."""
    declared = {document.name: document for document in documents if document.kind == "Tenant"}
    spaces: dict[str, list[str]] = {}
    for tenant, document in declared.items():
        known = spaces[tenant] = []
        for path, name in _leaves(document.spec, ("spaces", "name")):
            if name in known:
                message = f"the space {shown(name)} stands twice"
                yield document, Problem("reference.duplicate", ("spec", *path), message, "rename or remove one of the two")
            known.append(name)
    for document in documents:
        tenant = document.tenant
        if tenant not in declared and (Key("Tenant", "*", tenant) in existing or tenant in unread):
            continue
        for path, name in _leaves(document.spec, _SPACES[document.kind]) if document.kind in _SPACES else ():
            if name not in spaces.get(tenant, ()):
                meant = closest(name, spaces.get(tenant, ()))
                mend = f"did you mean {meant}?" if meant else f"declare it in the Tenant {tenant}: `spaces: [{{name: {name}}}]`"
                message = f"tenant {tenant} has no space {shown(name)}"
                yield document, Problem("reference.unknown", ("spec", *path), message, mend)


def _references(document: Document) -> Iterator[tuple[tuple[str, ...], str, Path, str]]:
    """What `document` refers to, as (kinds, tenant, path, name); parts that are no names are left to the schema."""
    if not is_fleet_kind(document.kind):
        yield ("Tenant",), "*", ("metadata", "tenant"), document.tenant
    for place, kinds in _REFERENCES.get(document.kind, ()):
        # What a Tenant lends to itself is the default tenant's.
        home = DEFAULT_TENANT if document.kind == "Tenant" else document.tenant
        for path, name in _leaves(document.spec, place):
            if document.kind != "Policy" or name not in PSEUDO:
                yield kinds, "*" if is_fleet_kind(kinds[0]) else home, ("spec", *path), name


def _leaves(value: Json, steps: tuple[str, ...], path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The texts at `steps` below `value`, with their paths; lists on the way are gone through."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, steps, (*path, index))
    elif steps:
        if isinstance(value, Mapping) and steps[0] in value:
            yield from _leaves(value[steps[0]], steps[1:], (*path, steps[0]))
    elif isinstance(value, str):
        yield path, value


def _word(kind: str) -> str:
    return _WORDS.get(kind, kind.lower())


def _dangling(
    kind: str, tenant: str, path: Path, name: str, here: Mapping[str, str], names: Mapping[tuple[str, str], set[str]]
) -> Problem:
    """`here` are the names that would do, `names` all of them by kind and tenant."""
    meant = closest(name, here)
    if name in names.get(("ModelClass", tenant), ()):
        mend = "that is a model class, and a Model is named here: name those of its routes"
    elif meant:
        mend = f"did you mean {meant}?"
    elif kind == "Model" and tenant != DEFAULT_TENANT:
        mend = f"declare one in tenant {tenant}, or have it lent one of tenant {DEFAULT_TENANT}: `models` in its Tenant"
    else:
        # Whether another tenant has one is not said: it is not for everybody to know what others have.
        mend = f"declare {'an' if kind == 'Agent' else 'a'} {kind} of that name" + (
            "" if is_fleet_kind(kind) else " in this tenant"
        )
    return Problem(
        "reference.unknown",
        path,
        f"there is no {_word(kind)} {shown(name)}" + ("" if is_fleet_kind(kind) else f" in tenant {tenant}"),
        mend,
    )


def _check_constraints(grant: Document, tools: Mapping[tuple[str, str], Document]) -> Iterator[Problem]:
    constraints, named = grant.spec.get("args"), grant.spec.get("tools")
    if not isinstance(constraints, dict) or not isinstance(named, list):
        return
    for argument, constraint in constraints.items():
        path: Path = ("spec", "args", argument)
        for name in named:
            tool = tools.get((grant.tenant, name)) if isinstance(name, str) else None
            known = arguments(tool.spec) if tool is not None else None
            if known is None:
                continue
            if argument not in known:
                meant = closest(argument, known)
                mend = f"did you mean {meant}?" if meant else f"it takes {listed(known) or 'no arguments'}"
                yield Problem("grant.argument", path, f"tool {name} has no argument {shown(argument)}", mend, at="key")
            elif isinstance(constraint, dict):
                yield from _check_types(constraint, known[argument], name, path)


_APPLIES: Final[Mapping[str, frozenset[str]]] = {
    "glob": frozenset({"string"}),
    "pattern": frozenset({"string"}),
    "maxLength": frozenset({"string"}),
    "minimum": frozenset({"integer", "number"}),
    "maximum": frozenset({"integer", "number"}),
}
"""The types of arguments that a condition can hold for."""


def _check_types(constraint: Mapping[str, Json], schema: Json, tool: str, path: Path) -> Iterator[Problem]:
    kind = schema.get("type") if isinstance(schema, dict) else None
    types = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, list) else set()
    for condition, possible in _APPLIES.items():
        if condition in constraint and types and not types & possible:
            message = f"{condition} never holds: argument {path[-1]} of tool {tool} is {listed(sorted(types), 'or')}"
            fitting = sorted(name for name, kinds in _APPLIES.items() if kinds & types)
            yield Problem(
                "grant.type", (*path, condition), message, f"use {listed([*fitting, 'equals', 'oneOf'], 'or')}", at="key"
            )
