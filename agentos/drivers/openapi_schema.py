"""The schemas of an OpenAPI document as one JSON Schema (2020-12) of arguments: references in `$defs`, 3.0 put into its words.

Nothing is fetched: a reference leads to a part of the same document, or the operation is refused. What is copied is bounded in
size and depth. A schema that contains itself below a property or an element is fine, as trees are; one that refers to itself in
place says nothing, would never end, and is refused. What is only ever answered (`readOnly`) is no argument and is left out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError

Path = tuple[str | int, ...]
"""Where in a document: keys and 0-based list indices, from its root."""

MAX_NODES: Final = 20_000
"""Schemas that one operation may be made of."""

MAX_DEPTH: Final = 64
"""How deep schemas may stand in each other."""

MAX_HOPS: Final = 32
"""References that may lead to references."""


class OpenApiFault(DriverError):
    """The document does not give this operation; `path` says where in it."""

    code = "driver.openapi"

    def __init__(self, message: str, path: Path = (), *, where: str | None = None, mend: str | None = None) -> None:
        """`where` is `path` in words unless it is given, as it is of an error that crossed the wire."""
        super().__init__(message, where=where or "/".join(map(str, path)) or None, mend=mend)
        self.path = path


def pointed(document: Mapping[str, Json], reference: Json, path: Path) -> tuple[Json, Path]:
    """What `reference`, which stands at `path`, leads to, and where that is. Raises OpenApiFault."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise OpenApiFault(
            f"the reference {str(reference)[:80]!r} leads out of the document, and nothing is fetched",
            path,
            mend="put what it means below `components`",
        )
    part: Json = document
    where: list[str | int] = []
    for step in reference[2:].split("/"):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
            where.append(name)
        elif isinstance(part, list) and name.isascii() and name.isdecimal() and len(name) < 7 and int(name) < len(part):
            part = part[int(name)]
            where.append(int(name))
        else:
            raise OpenApiFault(
                f"the reference {reference[:80]!r} leads nowhere", path, mend="correct it, or define what it means"
            )
    return part, tuple(where)


def resolved(document: Mapping[str, Json], node: Json, path: Path) -> tuple[Mapping[str, Json], Path]:
    """`node`, or what it refers to, which has to be an object; and where that is."""
    for _ in range(MAX_HOPS):
        if not isinstance(node, dict):
            raise OpenApiFault("has to be an object", path)
        if "$ref" not in node:
            return node, path
        node, path = pointed(document, node["$ref"], path)
    raise OpenApiFault(f"more than {MAX_HOPS} references lead to each other", path)


_ONE: Final = frozenset(
    {
        "items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else",
        "unevaluatedItems", "unevaluatedProperties", "contentSchema",
    }
)  # fmt: skip
_SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
"""Keywords whose schemas are about the very value that the schema around them is about."""
_LEFT_OUT: Final = frozenset(
    {"discriminator", "xml", "externalDocs", "example", "examples", "$defs", "definitions", "readOnly", "writeOnly", "$comment"}
)
_REFUSED: Final = frozenset({"$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"})
_DIALECTS: Final = frozenset({"https://json-schema.org/draft/2020-12/schema", "https://spec.openapis.org/oas/3.1/dialect/base"})


class Schemas:
    """Translates the schemas of one operation; `defs` is what they share."""

    def __init__(self, document: Mapping[str, Json], *, old: bool) -> None:
        """`old`: the document is OpenAPI 3.0, whose schemas are a dialect of their own."""
        self._document = document
        self._old = old
        self._names: dict[Path, str] = {}
        self._waiting: deque[tuple[Json, Path]] = deque()
        self._in_place: dict[str, set[str]] = {}
        self._nodes = 0
        self.defs: dict[str, Json] = {}

    def add(self, node: Json, path: Path) -> Json:
        """The translation of the schema at `path`, whose references lead into `defs`. Raises OpenApiFault."""
        made = self._schema(node, path, 0, None)
        while self._waiting:
            target, where = self._waiting.popleft()
            name = self._names[where]
            self.defs[name] = self._schema(target, where, 0, name)
        self._refuse_cycles()
        return made

    def _schema(self, node: Json, path: Path, depth: int, owner: str | None) -> Json:
        """`owner`: the definition whose very value this schema is about; None below a property or an element."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise OpenApiFault(f"the arguments are made of more than {MAX_NODES} schemas", path, mend="give a smaller document")
        if depth > MAX_DEPTH:
            raise OpenApiFault(f"schemas stand more than {MAX_DEPTH} deep in each other", path)
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise OpenApiFault("a schema is an object", path)
        made: dict[str, Json] = {}
        if "$ref" in node:
            made["$ref"] = self._reference(node["$ref"], (*path, "$ref"), owner)
            if self._old:
                # In 3.0 nothing that stands beside a reference counts.
                return made
        hidden = self._answered_only(node)
        for key, value in node.items():
            here = (*path, key)
            if key in _REFUSED and isinstance(value, str):
                raise OpenApiFault(f"the keyword {key} gives a part of the document a second address", here, mend="remove it")
            if key == "$schema" and value not in _DIALECTS:
                raise OpenApiFault(f"the dialect {str(value)[:80]!r} is not known", here, mend="remove it")
            if key in {"$ref", "$schema", "nullable"} or key in _LEFT_OUT or key.startswith("x-"):
                continue
            inner = owner if key in _IN_PLACE else None
            if key in _ONE:
                made[key] = self._schema(value, here, depth + 1, inner)
            elif key in _SEVERAL and isinstance(value, list):
                made[key] = [self._schema(one, (*here, index), depth + 1, inner) for index, one in enumerate(value)]
            elif key in _NAMED and isinstance(value, dict):
                made[key] = {
                    name: self._schema(one, (*here, name), depth + 1, inner)
                    for name, one in value.items()
                    if key != "properties" or name not in hidden
                }
            elif key == "required" and isinstance(value, list):
                made[key] = [name for name in value if name not in hidden]
            else:
                made[key] = value
        return _of_today(made, node) if self._old else made

    def _answered_only(self, node: Mapping[str, Json]) -> frozenset[str]:
        known = node.get("properties")
        if not isinstance(known, dict):
            return frozenset()
        return frozenset(name for name, one in known.items() if isinstance(one, dict) and one.get("readOnly") is True)

    def _reference(self, reference: Json, path: Path, owner: str | None) -> str:
        target, where = pointed(self._document, reference, path)
        if where not in self._names:
            wanted = re.sub(r"[^A-Za-z0-9_.-]", "_", str(where[-1]))[:64] or "schema"
            name, number = wanted, 1
            while name in self._names.values():
                number += 1
                name = f"{wanted}_{number}"
            self._names[where] = name
            self._waiting.append((target, where))
        name = self._names[where]
        if owner is not None:
            self._in_place.setdefault(owner, set()).add(name)
        return f"#/$defs/{name}"

    def _refuse_cycles(self) -> None:
        """Take away, again and again, what refers in place to nothing that is left: what stays is a cycle."""
        left = {name: set(others) for name, others in self._in_place.items()}
        while True:
            ending = [name for name, others in left.items() if not others & left.keys()]
            if not ending:
                break
            for name in ending:
                del left[name]
        if left:
            name = min(left)
            where = next(path for path, known in self._names.items() if known == name)
            raise OpenApiFault(f"the schema {name} refers to itself without an end", where, mend="remove the reference")


def _of_today(made: dict[str, Json], node: Mapping[str, Json]) -> Json:
    """A schema of OpenAPI 3.0 in the words of JSON Schema 2020-12."""
    for limit, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(made.get(flag), bool) and made.pop(flag) and limit in made:
            made[flag] = made.pop(limit)
    if node.get("nullable") is not True:
        return made
    if isinstance(made.get("enum"), list) and None not in made["enum"]:
        made["enum"] = [*made["enum"], None]
    if isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        return made
    return {"anyOf": [made, {"type": "null"}]} if made.keys() & {"allOf", "anyOf", "oneOf", "enum"} else made
