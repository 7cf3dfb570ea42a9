"""Whether the input schema of a tool is a JSON Schema that can be applied to every call, without fetching anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from agentos.abi.canonical import Json, canonical
from agentos.drivers.bounded import matcher
from agentos.drivers.openapi import arguments as operation_arguments
from agentos.manifests.fault import Path, Problem, shown

_TYPES: Final = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_DRAFTS: Final = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-07/schema#",
    }
)
"""Drafts that calls can be checked by."""


def check_input_schema(schema: Mapping[str, Json], path: Path) -> list[Problem]:
    """What is wrong with `schema`, which stands at `path` of its document."""
    if _plain(schema):
        return []
    draft = schema.get("$schema")
    if draft is not None and draft not in _DRAFTS:
        return [
            Problem(
                "tool.schema",
                (*path, "$schema"),
                f"the draft {shown(draft)} is not known",
                "leave $schema out, or name draft 2020-12",
            )
        ]
    found = list(_against_meta_schema(schema, path))
    # Only a schema that has the right form can be walked.
    return found or list(_walk(schema, schema, path))


def _against_meta_schema(schema: Mapping[str, Json], path: Path) -> Iterator[Problem]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    draft: Any = validator_for(schema, default=Draft202012Validator)
    for error in draft(draft.META_SCHEMA).iter_errors(schema):
        deepest = (
            max(error.context, key=lambda inner: len(inner.absolute_path), default=error) if error.validator == "anyOf" else error
        )
        where = tuple(deepest.absolute_path)
        word = str(where[-1]) if where else "this"
        yield Problem(
            "tool.schema",
            (*path, *where),
            f"not a JSON Schema: {_reason(deepest, word)}",
            "see json-schema.org for what may stand here",
        )


def _reason(error: Any, word: str) -> str:
    value = shown(error.instance)
    if error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
        return f"expected {wanted}, got {value}"
    if error.validator == "enum":
        return f"{value} is not one of {', '.join(map(str, error.validator_value))}"
    return f"{value} may not stand in `{word}`"


_SCHEMAS_IN_MAP: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_SCHEMAS_IN_LIST: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMA: Final = frozenset(
    {
        "items",
        "additionalProperties",
        "propertyNames",
        "contains",
        "not",
        "if",
        "then",
        "else",
        "unevaluatedProperties",
        "unevaluatedItems",
    }
)


def _walk(schema: Json, root: Mapping[str, Json], path: Path) -> Iterator[Problem]:
    """What the meta-schema says nothing about: references that lead nowhere or elsewhere, expressions that do not compile."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        here = (*path, key)
        if key in {"$ref", "$dynamicRef"}:
            yield from _check_reference(value, root, here)
        elif key == "pattern":
            yield from _check_expression(value, here)
        elif key == "unevaluatedProperties" and "patternProperties" in canonical(root).decode():
            message = "unevaluatedProperties beside patternProperties is not known here"
            yield Problem("tool.schema", here, message, "write additionalProperties")
        elif key in _SCHEMA:
            yield from _walk(value, root, here)
        elif key in _SCHEMAS_IN_MAP and isinstance(value, dict):
            for name, part in value.items():
                if key == "patternProperties":
                    yield from _check_expression(name, (*here, name))
                yield from _walk(part, root, (*here, name))
        elif key in _SCHEMAS_IN_LIST and isinstance(value, list):
            for index, part in enumerate(value):
                yield from _walk(part, root, (*here, index))


def _check_reference(target: Json, root: Mapping[str, Json], path: Path) -> Iterator[Problem]:
    if not isinstance(target, str) or not target.startswith("#"):
        yield Problem(
            "tool.schema",
            path,
            f"the reference {shown(target)} leads out of this schema, and nothing is fetched",
            "copy the part into $defs",
        )
        return
    part: Json = root
    for step in target[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        else:
            yield Problem("tool.schema", path, f"the reference {shown(target)} leads nowhere", "define it under $defs")
            return
    if len(target) > 1 and not target.startswith("#/"):
        yield Problem("tool.schema", path, f"the reference {shown(target)} is not a pointer", "write #/$defs/NAME")


def _check_expression(pattern: Json, path: Path) -> Iterator[Problem]:
    try:
        matcher(str(pattern))
    except ValueError as error:
        yield Problem(
            "tool.schema",
            path,
            f"{shown(pattern)} is not a regular expression: {error}",
            "escape what is meant literally with \\; look-around and references back are not known here",
        )


def _plain(schema: Json) -> bool:
    """Whether `schema` uses only the commonest keywords, each in its right form: a quick yes for nearly all tools."""
    if schema is True or schema is False:
        return True
    return isinstance(schema, dict) and all(_plain_keyword(key, value) for key, value in schema.items())


def _plain_keyword(key: str, value: Json) -> bool:
    form = _FORMS.get(key)
    return form is not None and form(value)


def _names(value: Json) -> bool:
    return type(value) is list and all(type(item) is str for item in value) and len(set(value)) == len(value)


_FORMS: Final[Mapping[str, Callable[[Json], bool]]] = {
    "type": lambda value: type(value) is str and value in _TYPES,
    "properties": lambda value: type(value) is dict and all(map(_plain, value.values())),
    "items": _plain,
    "additionalProperties": _plain,
    "required": _names,
    "default": lambda _: True,
    "enum": lambda value: type(value) is list,
    "examples": lambda value: type(value) is list,
    **dict.fromkeys(("title", "description", "format"), lambda value: type(value) is str),
    **dict.fromkeys(("minimum", "maximum"), lambda value: type(value) is int),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), lambda value: type(value) is int and value >= 0),
}


def arguments(tool: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The arguments of a Tool's spec by name, with the schema of each; None when any name may be given."""
    driver = tool.get("driver")
    if isinstance(driver, dict) and isinstance(driver.get("builtin"), dict):
        return PRIMITIVES.get(str(driver["builtin"].get("primitive")))
    if isinstance(driver, dict) and isinstance(driver.get("delegate"), dict):
        return DELEGATED
    if isinstance(driver, dict) and isinstance(driver.get("http"), dict) and "openapi" in driver["http"]:
        return operation_arguments(driver["http"])
    schema = tool.get("inputSchema")
    if not isinstance(schema, dict):
        return None
    known = schema.get("properties", {})
    composed = schema.keys() & {"allOf", "anyOf", "oneOf", "$ref", "patternProperties", "if", "dependentSchemas"}
    if composed or not isinstance(known, dict) or (not known and schema.get("additionalProperties", True) is not False):
        return None
    return known


_TEXT: Final[Mapping[str, Json]] = {"type": "string"}
DELEGATED: Final[Mapping[str, Json]] = {
    **dict.fromkeys(("agent", "goal"), _TEXT),
    **{name: {"type": "array"} for name in ("tasks", "inputs", "tools")},
    **{name: {"type": "object"} for name in ("events", "budget")},
}
"""The arguments of a tool that delegates."""

PRIMITIVES: Final[Mapping[str, Mapping[str, Json]]] = {
    "read": {"path": _TEXT},
    "write": {"path": _TEXT, "content": _TEXT, "expected": _TEXT},
    "propose": {"path": _TEXT, "content": _TEXT, "expected": _TEXT},
    "search": {"pattern": _TEXT, "path": _TEXT},
    "list": {"path": _TEXT},
    "declassify": {"labels": {"type": "array"}, "reason": _TEXT},
    "lock": {"resource": _TEXT, "waitSeconds": {"type": "integer"}, "leaseSeconds": {"type": "integer"}},
    "unlock": {"resource": _TEXT, "token": {"type": "integer"}},
    "wait": {"signal": _TEXT, "timeoutSeconds": {"type": "integer"}},
    "signal": {"session": _TEXT, "agent": _TEXT, "triggers": {"const": True}, "name": _TEXT, "data": _TEXT},
    "fire": {"signal": _TEXT, "data": _TEXT},
}
"""The arguments of each builtin primitive."""
