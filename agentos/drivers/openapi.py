"""One operation of an OpenAPI document (3.0 or 3.1) as a tool: the shape of its request, and the JSON Schema of its arguments.

What becomes an argument, in this order: the parameters of the path, of the query and of headers, by their names; then the body.
A body that is a plain object gives its fields as arguments; any other is the one argument `body`. A name that is taken already is
written with its place before it (`query_id`), and characters beyond letters, digits and `_.-` become `_`. Headers and cookies
that carry secrets are never arguments: they come by `credentials`, and `by_credential` tells which of them the API insists on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.drivers.http_request import (
    FORM_TYPE,
    READING,
    Body,
    Parameter,
    Shape,
    Style,
    is_json,
    is_secretive,
    media_type,
    refused_header,
    refused_path,
)
from agentos.drivers.openapi_schema import OpenApiFault, Path, Schemas, resolved

METHODS: Final = ("get", "head", "post", "put", "patch", "delete")
"""Methods that a tool may have."""

BODY: Final = "body"
"""The argument that is the body, where its fields are none."""

_STYLES: Final[Mapping[tuple[str, str, bool], Style]] = {
    ("query", "form", True): Style.REPEAT,
    ("query", "form", False): Style.COMMA,
    ("query", "spaceDelimited", True): Style.REPEAT,
    ("query", "spaceDelimited", False): Style.SPACE,
    ("query", "pipeDelimited", True): Style.REPEAT,
    ("query", "pipeDelimited", False): Style.PIPE,
    ("query", "deepObject", True): Style.DEEP,
    ("query", "deepObject", False): Style.DEEP,
    ("header", "simple", False): Style.COMMA,
    ("header", "simple", True): Style.COMMA,
    ("path", "simple", False): Style.COMMA,
    ("path", "simple", True): Style.COMMA,
}
_DEFAULT_STYLE: Final = {"query": "form", "header": "simple", "path": "simple"}
_IGNORED_HEADERS: Final = frozenset({"accept", "content-type", "authorization"})
"""Headers that OpenAPI itself says are no parameters."""

_BEYOND_FIELDS: Final = frozenset(
    {
        "$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "patternProperties", "propertyNames", "dependentSchemas",
        "dependentRequired", "dependencies", "minProperties", "maxProperties", "unevaluatedProperties", "enum", "const",
        "default",
    }
)  # fmt: skip
"""Keywords that say something about a body as a whole, which its fields as arguments would not."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as a tool."""

    shape: Shape
    schema: Mapping[str, Json] = field(hash=False)
    """JSON Schema 2020-12 of the arguments."""
    by_credential: tuple[str, ...] = ()
    """Headers that it insists on and that no argument gives."""
    summary: str = ""
    where: Path = ()
    """Where in the document it stands."""


def operation_ids(document: Mapping[str, Json]) -> Iterator[tuple[str, str, str]]:
    """(operationId, method in capitals, path) of every operation that has an id, in the order of the document."""
    for path, item in _items(document):
        for method in METHODS:
            found = item.get(method)
            if isinstance(found, dict) and isinstance(found.get("operationId"), str):
                yield found["operationId"], method.upper(), path


def input_schema(http: Mapping[str, Json]) -> Mapping[str, Json]:
    """The schema of the arguments of a tool with `openapi`. Raises OpenApiFault."""
    return operation_of(http).schema


def arguments(http: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The arguments of such a tool by name, with the schema of each; None if the document does not give the operation."""
    try:
        known: Mapping[str, Json] = input_schema(http)["properties"]
    except (OpenApiFault, KeyError, TypeError, AttributeError):
        # Asked before the document is judged: it may be of any form.
        return None
    return known


def operation_of(http: Mapping[str, Json]) -> Operation:
    """The operation that `driver.http` names; its own `headers` are no arguments. Raises OpenApiFault."""
    declared = http["openapi"]
    fixed = frozenset(name.lower() for name in http.get("headers", {}))
    return operation(declared["document"], str(declared["operation"]), fixed)


def operation(document: Mapping[str, Json], name: str, fixed: frozenset[str] = frozenset()) -> Operation:
    """The operation `name`; `fixed` are headers (in lower case) that are given in another way. Raises OpenApiFault."""
    version = document.get("openapi")
    if not isinstance(version, str) or not re.fullmatch(r"3\.[01](\.\d+)?([.-].*)?", version):
        raise OpenApiFault(f"the version {version!r} is not read", ("openapi",), mend="a document of OpenAPI 3.0 or 3.1")
    if document.get("jsonSchemaDialect") not in {None, "https://spec.openapis.org/oas/3.1/dialect/base"}:
        raise OpenApiFault("schemas of another dialect are not read", ("jsonSchemaDialect",), mend="remove it")
    path, method, item = _find(document, name)
    where: Path = ("paths", path, method)
    body = item[method]
    reader = _Reader(document, Schemas(document, old=version.startswith("3.0")), fixed)
    reader.parameters([*_listed(item, ("paths", path)), *_listed(body, where)])
    template = reader.path(path, ("paths", path))
    content = None
    if "requestBody" in body:
        if method.upper() in READING:
            raise OpenApiFault(f"a request of {method.upper()} has no body", (*where, "requestBody"), mend="remove it")
        content = reader.body(body["requestBody"], (*where, "requestBody"))
    shape = Shape(method.upper(), template, tuple(reader.query), tuple(reader.headers), content)
    said = next((body[key] for key in ("summary", "description") if isinstance(body.get(key), str) and body[key].strip()), "")
    return Operation(shape, reader.schema(), tuple(reader.by_credential), said.strip(), where)


def _items(document: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    paths = document.get("paths")
    for path, item in (paths if isinstance(paths, dict) else {}).items():
        if isinstance(item, dict) and isinstance(path, str) and path.startswith("/"):
            yield path, resolved(document, item, ("paths", path))[0] if "$ref" in item else item


def _find(document: Mapping[str, Json], name: str) -> tuple[str, str, Mapping[str, Json]]:
    found = [
        (path, method, item)
        for path, item in _items(document)
        for method in METHODS
        if isinstance(item.get(method), dict) and item[method].get("operationId") == name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise OpenApiFault(f"the operationId {name!r} stands {len(found)} times", ("paths", found[1][0]), mend="make them differ")
    known = [known for known, _, _ in operation_ids(document)]
    meant = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    mend = f"did you mean {meant[0]}?" if meant else f"known: {', '.join(known[:20]) or 'none'}{' …' if len(known) > 20 else ''}"
    raise OpenApiFault(f"there is no operation {name!r}", ("paths",), mend=mend)


def _listed(holder: Mapping[str, Json], path: Path) -> list[tuple[Json, Path]]:
    found = holder.get("parameters", [])
    if not isinstance(found, list):
        raise OpenApiFault("parameters are a list", (*path, "parameters"))
    return [(one, (*path, "parameters", index)) for index, one in enumerate(found)]


class _Reader:
    """Gathers the arguments of one operation."""

    def __init__(self, document: Mapping[str, Json], schemas: Schemas, fixed: frozenset[str]) -> None:
        self._document = document
        self._schemas = schemas
        self._fixed = fixed
        self._properties: dict[str, Json] = {}
        self._required: list[str] = []
        self._in_path: dict[str, str] = {}
        self.query: list[Parameter] = []
        self.headers: list[Parameter] = []
        self.by_credential: list[str] = []

    def schema(self) -> dict[str, Json]:
        """The schema of all arguments."""
        made: dict[str, Json] = {"type": "object", "properties": self._properties, "additionalProperties": False}
        if self._required:
            made["required"] = self._required
        if self._schemas.defs:
            made["$defs"] = self._schemas.defs
        return made

    def parameters(self, nodes: list[tuple[Json, Path]]) -> None:
        """Take the parameters of the path item and of the operation, of which the later override."""
        chosen: dict[tuple[str, str], tuple[Mapping[str, Json], Path]] = {}
        for node, path in nodes:
            body, where = resolved(self._document, node, path)
            name, place = body.get("name"), body.get("in")
            if not isinstance(name, str) or not name or place not in {"path", "query", "header", "cookie"}:
                raise OpenApiFault("a parameter has a `name`, and `in`: path, query, header or cookie", where)
            chosen[str(place), name.lower() if place == "header" else name] = (body, where)
        for place in ("path", "query", "header", "cookie"):
            for (there, _), (body, where) in chosen.items():
                if there == place:
                    self._parameter(str(body["name"]), place, body, where)

    def _parameter(self, name: str, place: str, body: Mapping[str, Json], path: Path) -> None:
        required = body.get("required") is True or place == "path"
        if place == "cookie":
            if required and "Cookie" not in self.by_credential:
                self.by_credential.append("Cookie")
            return
        if place == "header" and not self._is_argument(name, path, required=required):
            return
        schema, where, style = self._form(body, place, path)
        argument = self._argument(name, place, path)
        made = self._schemas.add(schema, where)
        if isinstance(body.get("description"), str) and isinstance(made, dict) and "description" not in made:
            made = {**made, "description": body["description"]}
        self._properties[argument] = made
        if required:
            self._required.append(argument)
        if place == "path":
            self._in_path[name] = argument
        else:
            (self.query if place == "query" else self.headers).append(Parameter(name, argument, style))

    def _is_argument(self, name: str, path: Path, *, required: bool) -> bool:
        """Whether a header is for the model to give."""
        if name.lower() in self._fixed or name.lower() in _IGNORED_HEADERS:
            return False
        if is_secretive(name):
            if required:
                self.by_credential.append(name)
            return False
        refused = refused_header(name)
        if refused is not None:
            raise OpenApiFault(refused[0], path, mend="remove the parameter")
        return True

    def _form(self, body: Mapping[str, Json], place: str, path: Path) -> tuple[Json, Path, Style]:
        """The schema of a parameter, where it stands, and how its value is written."""
        content = body.get("content")
        if isinstance(content, dict):
            kind = next(iter(content), "")
            if len(content) != 1 or not is_json(str(kind)) or place != "query":
                raise OpenApiFault("a parameter with `content` is read in the query, as JSON", (*path, "content"))
            inner = content[kind]
            schema = inner.get("schema", {}) if isinstance(inner, dict) else {}
            return schema, (*path, "content", kind, "schema"), Style.JSON
        written = body.get("style", _DEFAULT_STYLE[place])
        explode = body.get("explode", written == "form")
        style = _STYLES.get((place, str(written), bool(explode)))
        if style is None:
            raise OpenApiFault(f"parameters of the style {str(written)[:40]!r} are not read", (*path, "style"), mend="remove it")
        return body.get("schema", {"type": "string"}), (*path, "schema"), style

    def _argument(self, name: str, place: str, path: Path) -> str:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64]
        for choice in (plain, f"{place}_{plain}"[:64]):
            if choice not in self._properties:
                return choice
        raise OpenApiFault(f"two arguments would be called {place}_{plain}", path, mend="rename one of them")

    def path(self, template: str, where: Path) -> str:
        """The path with the names of the arguments in its placeholders."""
        reason = refused_path(template)
        if reason is not None:
            raise OpenApiFault(f"the path {reason}", where, mend="correct it")
        used: list[str] = []

        def renamed(found: re.Match[str]) -> str:
            name = found[1]
            if name not in self._in_path:
                raise OpenApiFault(
                    f"the path has {{{name}}}, and there is no parameter of it", where, mend="declare it: in: path"
                )
            used.append(name)
            return f"{{{self._in_path[name]}}}"

        made = re.sub(r"\{([^{}/]+)\}", renamed, template)
        for name in self._in_path:
            if used.count(name) != 1:
                raise OpenApiFault(f"the path names the parameter {name!r} {used.count(name)} times", where, mend="name it once")
        return made

    def body(self, node: Json, path: Path) -> Body:
        """The body, as one argument or as its fields."""
        body, where = resolved(self._document, node, path)
        content = body.get("content")
        kinds = [str(kind) for kind in content] if isinstance(content, dict) else []
        kind = next((one for one in kinds if media_type(one) == "application/json"), None) or next(filter(is_json, kinds), None)
        kind = kind or next((one for one in kinds if media_type(one) in {FORM_TYPE, "text/plain"}), None)
        if kind is None or not isinstance(content, dict):
            said = ", ".join(kinds[:5]) or "nothing"
            raise OpenApiFault(f"a body is sent as JSON, as a form or as text, and this one is {said}", (*where, "content"))
        inner = content[kind]
        schema = inner.get("schema", {}) if isinstance(inner, dict) else {}
        here: Path = (*where, "content", kind, "schema")
        required = body.get("required") is True
        fields = self._fields(schema, here, required=required)
        if fields is not None:
            return Body(fields=fields, content_type=kind, required=required)
        argument = self._argument(BODY, BODY, path)
        self._properties[argument] = self._schemas.add(schema, here)
        if required:
            self._required.append(argument)
        return Body(whole=argument, content_type=kind, required=required)

    def _fields(self, schema: Json, path: Path, *, required: bool) -> tuple[tuple[str, str], ...] | None:
        """The fields of a plain object as arguments; None if the body is to be one argument."""
        if not isinstance(schema, dict):
            return None
        plain, where = resolved(self._document, schema, path) if schema.keys() == {"$ref"} else (schema, path)
        known = plain.get("properties")
        if plain.get("type") != "object" or not isinstance(known, dict) or not known or plain.keys() & _BEYOND_FIELDS:
            return None
        if plain.get("additionalProperties") not in {None, False} or plain.get("nullable") is True:
            return None
        needed = plain.get("required", [])
        if (needed and not required) or not isinstance(needed, list):
            # Without a body nothing is missing, with one something may be: fields alone cannot say that.
            return None
        named = {name: re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64] for name in known}
        if len(set(named.values()) | self._properties.keys()) != len(named) + len(self._properties):
            return None
        shown = [name for name in known if not (isinstance(known[name], dict) and known[name].get("readOnly") is True)]
        for name in shown:
            self._properties[named[name]] = self._schemas.add(known[name], (*where, "properties", name))
            if name in needed:
                self._required.append(named[name])
        return tuple((name, named[name]) for name in shown)
