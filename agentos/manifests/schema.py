"""The schemas of the kinds: what a document must look like, what its fields default to, and what its author probably meant.

`schemas/v1/<kind>.json` is the authority, read by `jsonschema` (2020-12). Sound documents, which are nearly all, are
recognised by predicates compiled from the same files; only what they do not accept is handed to `jsonschema`, whose errors
become problems with words of our own. A test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Final

from agentos.abi.assets import asset
from agentos.abi.canonical import Json
from agentos.abi.resource import KINDS
from agentos.manifests.accept import Accepts, compile_schema
from agentos.manifests.fault import Problem

FILES: Final[Mapping[str, str]] = {
    "Tenant": "tenant",
    "PriorityClass": "priority-class",
    "Model": "model",
    "ModelClass": "model-class",
    "Sandbox": "sandbox",
    "Secret": "secret",
    "Tool": "tool",
    "Agent": "agent",
    "ToolGrant": "tool-grant",
    "Trigger": "trigger",
    "Policy": "policy",
}
"""The schema file of each kind, without `.json`."""

LATER: Final = ("Program", "Surface")
"""Kinds of the design that nothing interprets yet."""


def schema_names() -> list[str]:
    """The names of all published schemas, sorted: `agent`, `common`, … (those of kinds and of output)."""
    return sorted(path.stem for path in (asset("schemas") / "v1").glob("*.json"))


@cache
def read_schema(name: str) -> dict[str, Json]:
    """The schema file `schemas/v1/<name>.json` as it stands. Raises FileNotFoundError."""
    body: dict[str, Json] = json.loads((asset("schemas") / "v1" / f"{name}.json").read_bytes())
    return body


@cache
def flat_schema(name: str) -> dict[str, Json]:
    """The schema `name` with every reference to another part replaced by that part; what stands beside a `$ref` wins."""
    flat: dict[str, Json] = _flatten(read_schema(name), name)
    return flat


def _flatten(node: Json, home: str) -> Json:
    if isinstance(node, list):
        return [_flatten(item, home) for item in node]
    if not isinstance(node, dict):
        return node
    target = node.get("$ref")
    if not isinstance(target, str):
        return {key: value if key in _NOT_SCHEMAS else _flatten(value, home) for key, value in node.items()}
    file, _, pointer = target.partition("#")
    name = file.removesuffix(".json") or home
    part: Json = read_schema(name)
    for step in pointer.split("/")[1:]:
        part = part[step]
    merged = {**part, **{key: value for key, value in node.items() if key != "$ref"}}
    merged.pop("$schema", None)
    flat: dict[str, Json] = _flatten(merged, name)
    return flat


_NOT_SCHEMAS: Final = frozenset({"default", "examples", "const", "enum", "required"})
"""Keywords that hold values, which are never looked into."""


@cache
def _accepts(name: str) -> Accepts:
    return compile_schema(flat_schema(name))


def check(name: str, value: Json) -> list[Problem]:
    """Everything that schema `name` has against `value`, in document order; empty when there is nothing."""
    if _accepts(name)(value):
        return []
    from agentos.manifests.explanation import problems

    return problems(flat_schema(name), value)


def fill(name: str, value: Json) -> Json:
    """A copy of `value`, which schema `name` accepts, with the defaults filled in. Filling it again changes nothing."""
    return _fill(flat_schema(name), value)


def _fill(schema: Mapping[str, Json], value: Json) -> Json:
    if isinstance(value, dict):
        return _fill_object(schema, value)
    if isinstance(value, list):
        items = schema.get("items", _OPEN)
        return [_fill(items, item) for item in value]
    if isinstance(value, float) and value.is_integer() and schema.get("type") == "integer":
        # JSON Schema counts 4.0 as an integer; nothing behind this line should have to.
        return int(value)
    return value


_OPEN: Final[dict[str, Json]] = {}


def _fill_object(schema: Mapping[str, Json], value: dict[str, Json]) -> dict[str, Json]:
    known = schema.get("properties", _OPEN)
    rest = schema.get("additionalProperties")
    others = rest if isinstance(rest, dict) else _OPEN
    full: dict[str, Json] = {}
    for key, part in known.items():
        if key in value:
            full[key] = _fill(part, value[key])
        elif "default" in part:
            full[key] = _fill(part, part["default"])
    for key, item in value.items():
        if key not in known:
            full[key] = _fill(others, item)
    return full


def kind_of(name: str) -> str | None:
    """The kind that `name` means, whatever its case, number or dashes: `tool-grants` is `ToolGrant`."""
    plain = name.lower().replace("-", "").replace("_", "")
    for kind in KINDS:
        one = kind.lower()
        if plain in {one, one + "s", one + "es", one.removesuffix("y") + "ies"}:
            return kind
    return None
