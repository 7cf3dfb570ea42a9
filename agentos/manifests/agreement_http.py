"""What an http tool and its request have to agree on: each argument has one place, and none overrules what is declared."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.syscall import ToolEffect
from agentos.drivers.http_request import (
    FORM_TYPE,
    READING,
    Shape,
    base_of,
    content_type,
    is_json,
    media_type,
    placeholders,
    plain_shape,
    refused_header,
    refused_path,
)
from agentos.drivers.openapi import operation_of
from agentos.drivers.openapi_schema import OpenApiFault
from agentos.manifests.agreement_sandbox import check_ranges
from agentos.manifests.fault import Path, Problem, closest, listed, shown
from agentos.manifests.inputschema import check_input_schema

_HERE: Final[Path] = ("spec", "driver", "http")
_OF_THE_DOCUMENT: Final = ("method", "path", "query", "body")
"""What an OpenAPI operation says itself."""


def check_http(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of an http tool, whose spec this is, beside those of its inputSchema."""
    http = spec["driver"]["http"]
    yield from _address(http)
    yield from _headers(spec, http)
    shape: Shape | None
    if "openapi" in http:
        for field in _OF_THE_DOCUMENT:
            # An empty query is the default, which stands in every resource.
            if http.get(field, {}) != {}:
                message = f"the operation of the document says what `{field}` would say"
                yield Problem("tool.http", (*_HERE, field), message, "remove it, or openapi", at="key")
        shape = yield from _operation(spec, http)
    else:
        shape = yield from _declared(spec, http)
    if shape is not None:
        yield from _method(spec, http, shape)


def _address(http: Mapping[str, Json]) -> Iterator[Problem]:
    private = http.get("private", ())
    try:
        base_of(http["url"])
    except DriverError as error:
        yield Problem("tool.url", (*_HERE, "url"), error.message, error.mend or "for example https://api.acme.example/v1")
    else:
        if http["url"].startswith("http://") and not private:
            message = "plain http leads to private networks alone, and `private` names none"
            yield Problem("tool.url", (*_HERE, "url"), message, "write https://, or name the network under private")
    yield from check_ranges(private, (*_HERE, "private"), "tool.private")


def _headers(spec: Mapping[str, Json], http: Mapping[str, Json]) -> Iterator[Problem]:
    """No header that is not a declaration's to set, and none of them twice."""
    seen: dict[str, str] = {}
    named = [(name, (*_HERE, "headers", name)) for name in http.get("headers", {})]
    if "idempotencyHeader" in http:
        named.append((http["idempotencyHeader"], (*_HERE, "idempotencyHeader")))
    for name, path in named:
        refused = refused_header(name)
        if refused is not None:
            yield Problem("tool.header", path, *refused, at="key")
        yield from _once(name, path, seen)
    for index, credential in enumerate(spec.get("credentials", ())):
        if "header" in credential:
            yield from _once(credential["header"], ("spec", "credentials", index, "header"), seen)


def _once(name: str, path: Path, seen: dict[str, str]) -> Iterator[Problem]:
    first = seen.setdefault(name.lower(), name)
    if first is not name:
        yield Problem("tool.header", path, f"the header {name} is given twice", "leave one of them", at="key")


def _operation(spec: Mapping[str, Json], http: Mapping[str, Json]) -> Generator[Problem, None, Shape | None]:
    """The shape that the document gives; None, and a Problem, if it gives none."""
    document: Path = (*_HERE, "openapi", "document")
    try:
        found = operation_of(http)
    except OpenApiFault as fault:
        # A name that is not there is a fault of whoever names it, not of the document.
        path = (*_HERE, "openapi", "operation") if fault.path == ("paths",) else (*document, *fault.path)
        yield Problem("tool.openapi", path, fault.message, fault.mend or "correct the document")
        return None
    for problem in check_input_schema(found.schema, ()):
        yield Problem("tool.openapi", (*document, *found.where), f"its arguments: {problem.message}", problem.mend)
    given = {credential.get("header", "").lower() for credential in spec.get("credentials", ())}
    for name in found.by_credential:
        if name.lower() not in given:
            message = f"the API asks for the header {name}, which no argument carries"
            yield Problem("tool.openapi", (*document, *found.where), message, f"add `credentials:` with header: {name}")
    return found.shape


def _declared(spec: Mapping[str, Json], http: Mapping[str, Json]) -> Generator[Problem, None, Shape | None]:
    """The shape of a request that is declared field by field; each argument stands in one place of it."""
    reason = refused_path(http.get("path", ""))
    if reason is not None:
        yield Problem("tool.path", (*_HERE, "path"), f"the path {reason}", "for example /repos/{owner}/issues")
        return None
    shape = plain_shape(http)
    schema = spec.get("inputSchema")
    if not isinstance(schema, dict):
        return shape
    known = schema.get("properties", {})
    if not isinstance(known, dict):
        return shape
    used: dict[str, Path] = {}
    for name, path in _places(http):
        if name not in known:
            meant = closest(name, known)
            mend = f"did you mean {meant}?" if meant else f"known: {listed(known) or 'none'}"
            yield Problem("tool.argument", path, f"{shown(name)} is no property of inputSchema", mend)
        elif name in used:
            yield Problem("tool.argument", path, f"the argument {shown(name)} stands in the request twice", "leave one of them")
        used.setdefault(name, path)
    for name in placeholders(http.get("path", "")):
        yield from _in_path(schema, known, name)
    for name in known:
        if name not in used:
            message = f"the argument {shown(name)} goes nowhere"
            mend = "name it in path, query or body, or remove it"
            yield Problem("tool.argument", ("spec", "inputSchema", "properties", name), message, mend, at="key")
    return shape


def _places(http: Mapping[str, Json]) -> Iterator[tuple[str, Path]]:
    """Each argument that the request takes, and where it says so."""
    yield from ((name, (*_HERE, "path")) for name in placeholders(http.get("path", "")))
    yield from ((name, (*_HERE, "query", parameter)) for parameter, name in http.get("query", {}).items())
    body = http.get("body", ())
    if isinstance(body, str):
        yield body, (*_HERE, "body")
    else:
        yield from ((name, (*_HERE, "body", index)) for index, name in enumerate(body))


def _in_path(schema: Mapping[str, Json], known: Mapping[str, Json], name: str) -> Iterator[Problem]:
    """Without an argument of the path there is no path, and it is one part of it."""
    if name in known and name not in schema.get("required", ()):
        message = f"{shown(name)} is a part of the path, so it has to be required"
        path: Path = ("spec", "inputSchema", "required") if "required" in schema else ("spec", "inputSchema")
        yield Problem("tool.argument", path, message, f"add {name} to `required`", at="key")
    kind = known[name].get("type") if isinstance(known.get(name), dict) else None
    if kind in {"array", "object", "null"}:
        message = f"{shown(name)} is a part of the path, which is no {kind}"
        yield Problem("tool.argument", ("spec", "inputSchema", "properties", name, "type"), message, "write type: string")


def _method(spec: Mapping[str, Json], http: Mapping[str, Json], shape: Shape) -> Iterator[Problem]:
    reads = shape.method in READING
    if spec["effect"] != ToolEffect.EXTERNAL and not (reads and spec["effect"] == ToolEffect.READ):
        message = f"a {shape.method} request reaches beyond the workspace" + ("" if reads else ", and may change what is there")
        yield Problem("tool.effect", ("spec", "effect"), message, f"write effect: {'read, or external' if reads else 'external'}")
    if reads and "body" in http:
        yield Problem(
            "tool.body", (*_HERE, "body"), f"a {shape.method} request has no body", "remove it, or write method: POST", at="key"
        )
    if not reads and http.get("redirects", 0):
        message = f"redirects are followed of requests that read, and this one is {shape.method}"
        yield Problem("tool.redirects", (*_HERE, "redirects"), message, "remove it", at="key")
    kind = media_type(content_type(http))
    if "body" in http and "openapi" not in http and not is_json(kind) and kind != FORM_TYPE and isinstance(http["body"], list):
        message = f"fields make a JSON body or a form, and the body is {kind}"
        yield Problem("tool.body", (*_HERE, "body"), message, "name the one argument that is the body, or change Content-Type")
