"""From an OpenAPI document to Tools: one manifest an operation, each with the part of the document that it needs and no more.

What cannot be a tool is told with the reason and left out. A Tool made here reads (`effect: read`) if its method only reads, may
be made again (`idempotent`) if the method says so, and labels what comes back as untrusted: others wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import DriverError, ManifestError
from agentos.drivers.http_request import READING
from agentos.drivers.openapi import METHODS, Operation, operation
from agentos.drivers.openapi_schema import OpenApiFault, pointed
from agentos.manifests.agreement_http import check_http
from agentos.manifests.compose import Limits, compose
from agentos.manifests.fault import closest, dotted, listed
from agentos.manifests.gather import Unreadable, decode
from agentos.manifests.position import Text

LIMITS: Final = Limits(size=32 * 1024 * 1024)
"""How large a document may be: those of large APIs have ten megabytes and more."""

MAX_TOOL: Final = 512 * 1024
"""Most bytes of one Tool: what its operation refers to stands in it."""

_AGAIN: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that do the same when they are made twice (RFC 9110, section 9.2.2)."""

_DESCRIPTION: Final = 1000
_KEPT: Final = frozenset({"operationId", "summary", "description", "parameters", "requestBody"})
_DROPPED: Final = frozenset({"example", "examples", "externalDocs", "xml", "deprecated", "callbacks", "links"})
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_NAMES: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions", "content"})
"""Keywords below which keys are names, and not keywords."""
_VALUES: Final = frozenset({"enum", "const", "default", "required"})
"""Keywords below which nothing is a keyword."""
_TEXTS: Final = frozenset({"yaml.key", "yaml.number"})
"""Flaws of a text that do not matter here: a status as a key (only answers have any), a number that is kept as text."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the importer is asked for."""

    operations: tuple[str, ...] = ()
    """operationIds, or `METHOD /path`; none: all."""
    url: str = ""
    """The base address; "": that of the document's first server."""
    prefix: str = ""
    """What the names of the tools begin with, before a hyphen."""
    secret: str = ""
    """The Secret that goes into the headers that the API asks for; "": none."""
    private: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    """Tools as manifests, and sentences about what was left out or is still to be done."""

    tools: list[dict[str, Json]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    method: str
    body: Mapping[str, Json]
    item: Mapping[str, Json]

    @property
    def shown(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def id(self) -> str:
        given = self.body.get("operationId")
        return given if isinstance(given, str) and given else self.shown


def read_document(name: str, data: bytes) -> dict[str, Json]:
    """The document in a file, JSON or YAML. Raises ManifestError."""
    try:
        reading = compose(Text(name, decode(data, LIMITS)), LIMITS)
    except Unreadable as error:
        raise ManifestError(error.message, where=name, mend=error.mend) from error
    flaws = [flaw for flaw in reading.flaws if flaw.code not in _TEXTS]
    if flaws:
        line, column = flaws[0].mark[:2]
        raise ManifestError(flaws[0].message, where=f"{name}:{line}:{column}", mend=flaws[0].mend)
    values = [one.value for one in reading.documents if one.value is not None]
    if len(values) != 1 or not isinstance(values[0], dict) or not isinstance(values[0].get("paths"), dict):
        raise ManifestError("this is no OpenAPI document", where=name, mend="it is one mapping with `openapi` and `paths`")
    return values[0]


def import_tools(document: Mapping[str, Json], wishes: Wishes) -> Imported:
    """The Tools of the operations that are wished for. Raises ManifestError for one that is not there, or cannot be a tool."""
    imported = Imported()
    taken: set[str] = set()
    for found in _chosen(document, wishes.operations):
        try:
            tool = _tool(document, found, wishes, imported.notes)
        except (DriverError, ManifestError) as error:
            if wishes.operations:
                raise ManifestError(f"{found.id}: {error.message}", where=error.where, mend=error.mend) from error
            imported.left_out.append(f"{found.id}: {error.message}")
            continue
        name = _name(found.id, wishes.prefix, taken)
        imported.tools.append({"apiVersion": "agentos/v1", "kind": "Tool", "metadata": {"name": name}, "spec": tool})
    return imported


def _chosen(document: Mapping[str, Json], names: Sequence[str]) -> Iterator[_Found]:
    known = list(_operations(document))
    if not names:
        yield from known
        return
    by_name = {name: found for found in known for name in (found.shown, found.id)}
    for name in names:
        if name not in by_name:
            meant = closest(name, by_name)
            mend = f"did you mean {meant}?" if meant else f"known: {listed([found.id for found in known][:20]) or 'none'}"
            raise ManifestError(f"there is no operation {name!r}", mend=mend)
        yield by_name[name]


def _operations(document: Mapping[str, Json]) -> Iterator[_Found]:
    for path, item in document["paths"].items():
        held = item
        if isinstance(item, dict) and isinstance(item.get("$ref"), str):
            held = pointed(document, item["$ref"], ("paths", path))[0]
        if isinstance(held, dict):
            yield from (_Found(str(path), method, held[method], held) for method in METHODS if isinstance(held.get(method), dict))


def _tool(document: Mapping[str, Json], found: _Found, wishes: Wishes, notes: list[str]) -> dict[str, Json]:
    """The spec of the Tool of an operation."""
    needed = slim(document, found.path, found.method, found.id)
    made = operation(needed, found.id)
    method = made.shape.method
    http: dict[str, Json] = {"url": wishes.url or _server(document, found)}
    if wishes.private:
        http["private"] = list(wishes.private)
    http["openapi"] = {"operation": found.id, "document": needed}
    spec: dict[str, Json] = {
        "description": _description(found),
        "effect": "read" if method in READING else "external",
    }
    if method in _AGAIN:
        spec["idempotent"] = True
    spec["labels"] = ["untrusted"]
    credentials, note = _credentials(document, found, made, wishes.secret)
    if credentials:
        spec["credentials"] = credentials
    elif note:
        notes.append(f"{found.id}: {note}")
    spec["driver"] = {"http": http}
    # Credentials that the API insists on may be added by hand: without them the rest is judged all the same.
    judged = {**spec, "credentials": credentials or [{"secret": "x", "header": name} for name in made.by_credential]}
    for problem in check_http(judged):
        raise ManifestError(problem.message, where=dotted(problem.path), mend=problem.mend)
    try:
        size = len(canonical(spec))
    except NotCanonical as error:
        raise ManifestError(str(error)) from error
    if size > MAX_TOOL:
        raise ManifestError(f"with all that it refers to it has {size} bytes, and a tool has at most {MAX_TOOL}")
    return spec


def _description(found: _Found) -> str:
    said = [found.body.get(key) for key in ("summary", "description")]
    text = " ".join(" ".join(one.split()) for one in said if isinstance(one, str) and one.strip()) or found.shown
    return text if len(text) <= _DESCRIPTION else text[: _DESCRIPTION - 1] + "…"


def _name(operation_id: str, prefix: str, taken: set[str]) -> str:
    """A name for the tool: words in lower case with hyphens between them, each name once."""
    words = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3-\2\4", operation_id)
    plain = re.sub(r"[^a-z0-9]+", "-", f"{prefix}-{words}".lower()).strip("-")
    plain = (plain if plain[:1].isalpha() else f"op-{plain}")[:63].strip("-")
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain[: 62 - len(str(number))]}-{number}"
    taken.add(name)
    return name


def _server(document: Mapping[str, Json], found: _Found) -> str:
    """The address of the first server that the operation, its path or the document names, with its variables filled in."""
    for holder in (found.body, found.item, document):
        servers = holder.get("servers")
        if isinstance(servers, list) and servers and isinstance(servers[0], dict):
            url, variables = str(servers[0].get("url", "")), servers[0].get("variables")
            for name, variable in (variables if isinstance(variables, dict) else {}).items():
                if isinstance(variable, dict):
                    url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
            if url.startswith(("https://", "http://")):
                return url
    raise ManifestError("the document names no server with an absolute address", mend="give one with --url")


# --- credentials


def _credentials(document: Mapping[str, Json], found: _Found, made: Operation, secret: str) -> tuple[list[dict[str, Json]], str]:
    """The credentials of a tool with `secret`, or, without one, a sentence about what the API asks for."""
    wanted = dict(_asked(document, found))
    for header in made.by_credential:
        wanted.setdefault(header, "{}")
    if not wanted:
        return [], ""
    if secret:
        forms = {header: {} if form == "{}" else {"format": form} for header, form in wanted.items()}
        return [{"secret": secret, "header": header, **form} for header, form in forms.items()], ""
    return [], f"the API asks for {listed(wanted)}: give the Secret with --secret, or add `credentials:`"


def _asked(document: Mapping[str, Json], found: _Found) -> Iterator[tuple[str, str]]:
    """(header, format) of the first way to be let in that consists of headers alone."""
    ways = found.body.get("security", document.get("security"))
    components = document.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, dict) else None
    if not isinstance(ways, list) or not isinstance(schemes, dict):
        return
    for way in ways:
        headers = [_header(schemes.get(name)) for name in way] if isinstance(way, dict) else [None]
        if all(headers):
            yield from (header for header in headers if header is not None)
            return


def _header(scheme: Json) -> tuple[str, str] | None:
    if not isinstance(scheme, dict):
        return None
    match scheme.get("type"), scheme.get("in"), str(scheme.get("scheme", "")).lower():
        case "apiKey", "header", _:
            return str(scheme.get("name", "")), "{}"
        case "http", _, "basic":
            return "Authorization", "Basic {}"
        case ("http", _, "bearer") | ("oauth2" | "openIdConnect", _, _):
            return "Authorization", "Bearer {}"
    return None


# --- the part of a document


def slim(document: Mapping[str, Json], path: str, method: str, name: str) -> dict[str, Json]:
    """What one operation needs of `document`, at the same places; its operationId is `name`. Raises OpenApiFault."""
    item = document["paths"][path]
    if isinstance(item.get("$ref"), str):
        item = pointed(document, item["$ref"], ("paths", path))[0]
    kept: dict[str, Json] = {key: value for key, value in item[method].items() if key in _KEPT}
    held: dict[str, Json] = {method: _bare({**kept, "operationId": name})}
    if "parameters" in item:
        held["parameters"] = _bare(item["parameters"])
    made: dict[str, Json] = {"openapi": document.get("openapi"), "paths": {path: held}}
    if "jsonSchemaDialect" in document:
        made["jsonSchemaDialect"] = document["jsonSchemaDialect"]
    waiting, seen = list(_references(held)), set[str]()
    while waiting:
        reference = waiting.pop()
        if reference not in seen:
            seen.add(reference)
            target, _ = pointed(document, reference, ("paths", path, method))
            part = _bare(target)
            _put(made, reference, part)
            waiting += _references(part)
    return made


def _put(made: dict[str, Json], reference: str, part: Json) -> None:
    """Place `part` where `reference` leads to, which may lie within what is there already, or around it."""
    *front, last = [unquote(step).replace("~1", "/").replace("~0", "~") for step in reference[2:].split("/")]
    holder: Json = made
    for step in front:
        holder = holder.setdefault(step, {}) if isinstance(holder, dict) else None
    if not isinstance(holder, dict):
        raise OpenApiFault(f"the reference {reference[:80]!r} leads into a list", ("paths",), mend="put it below `components`")
    there = holder.get(last)
    holder[last] = {**there, **part} if isinstance(there, dict) and isinstance(part, dict) else part


def _references(node: Json) -> Iterator[str]:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("$ref"), str):
                yield one["$ref"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _bare(node: Json, *, named: bool = False) -> Json:
    """`node` without what only people read, and without bounds that no number of ours reaches. `named`: its keys are names."""
    if isinstance(node, list):
        return [_bare(one) for one in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Json] = {}
    for key, value in node.items():
        if not named:
            if key in _DROPPED or key.startswith("x-") or (key in _BOUNDS and isinstance(value, str)):
                continue
            if key in _VALUES:
                made[key] = value
                continue
        made[key] = _bare(value, named=not named and key in _NAMES)
    return made
