"""Rules between documents: references that lead somewhere, names that are taken once, grants that constrain what a tool takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.resource import Key
from agentos.abi.syscall import MODEL_CALL
from agentos.manifests.document import Document
from agentos.manifests.fault import Path, Problem, closest, listed, shown
from agentos.manifests.inputschema import arguments

Found = Iterator[tuple[Document, Problem]]

_REFERENCES: Final[Mapping[str, tuple[tuple[tuple[str, ...], str], ...]]] = {
    "Agent": ((("model",), "Model"), (("tools",), "Tool")),
    "ToolGrant": ((("agents",), "Agent"), (("tools",), "Tool")),
    "Policy": ((("scope", "agents"), "Agent"), (("scope", "tools"), "Tool")),
}
"""Per kind: (path below spec, kind of what it names). A Policy may also name the pseudo tool of model calls."""


def check_references(documents: Sequence[Document], existing: Collection[Key], unread: Collection[str] | None) -> Found:
    """Problems between `documents`, each with the document it is in.

    `existing` are resources that are there besides them. `unread` are names in texts that could not be read (None: all names):
    a reference to one of them is not called dangling, as its target is there and has a fault of its own.
    """
    yield from _check_names(documents)
    known = {document.key for document in documents} | set(existing)
    known.add(Key("Tenant", "*", DEFAULT_TENANT))
    names: dict[tuple[str, str], set[str]] = {}
    for key in known:
        names.setdefault((key.kind, key.tenant), set()).add(key.name)
    for document in documents:
        for kind, tenant, path, name in _references(document):
            if Key(kind, tenant, name) not in known and unread is not None and name not in unread:
                yield document, _dangling(kind, tenant, path, name, names)
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


def _references(document: Document) -> Iterator[tuple[str, str, Path, str]]:
    """What `document` refers to, as (kind, tenant, path, name); parts that are no names are left to the schema."""
    if document.kind != "Tenant":
        yield "Tenant", "*", ("metadata", "tenant"), document.tenant
    for place, kind in _REFERENCES.get(document.kind, ()):
        value: Json = document.spec
        for step in place:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str):
            yield kind, document.tenant, ("spec", *place), value
        elif isinstance(value, list):
            for index, name in enumerate(value):
                if isinstance(name, str) and (document.kind, name) != ("Policy", MODEL_CALL):
                    yield kind, document.tenant, ("spec", *place, index), name


def _dangling(kind: str, tenant: str, path: Path, name: str, names: Mapping[tuple[str, str], set[str]]) -> Problem:
    word = kind.lower()
    here = names.get((kind, tenant), set())
    meant = closest(name, here)
    elsewhere = sorted(other for (of, other), found in names.items() if of == kind and name in found)
    if meant:
        mend = f"did you mean {meant}?"
    elif elsewhere:
        mend = f"tenant {elsewhere[0]} has one, but references stay within a tenant: declare it in {tenant} too"
    else:
        mend = f"declare {'an' if kind == 'Agent' else 'a'} {kind} of that name"
    return Problem(
        "reference.unknown",
        path,
        f"there is no {word} {shown(name)}" + ("" if kind == "Tenant" else f" in tenant {tenant}"),
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
