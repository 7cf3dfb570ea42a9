"""Predicates compiled from a JSON Schema, for the quick yes: they never accept what the schema refuses.

They may refuse what the schema accepts: a keyword that is not known here makes a predicate that accepts nothing, and the
caller asks `jsonschema`. So a new keyword in a schema costs time, never correctness.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from agentos.abi.canonical import Json

Accepts = Callable[[Json], bool]

_IGNORED: Final = frozenset({"$schema", "$defs", "title", "description", "default", "examples"})
"""Keywords that say nothing about validity, besides `x-…`."""


def compile_schema(schema: Json) -> Accepts:
    """A predicate that is true only for values that `schema` (without `$ref`) accepts."""
    if schema is True:
        return _anything
    if not isinstance(schema, Mapping):
        return _nothing
    checks = []
    for keyword, argument in schema.items():
        if keyword in _IGNORED or keyword.startswith("x-"):
            continue
        maker = _MAKERS.get(keyword)
        if maker is None:
            return _nothing
        checks.append(maker(argument, schema))
    checks = [check for check in checks if check is not _anything]
    if not checks:
        return _anything
    if len(checks) == 1:
        return checks[0]
    return lambda value: all([check(value) for check in checks])  # noqa: C419 - a list of two or three is quicker than a generator


def _anything(_value: Json) -> bool:
    return True


def _nothing(_value: Json) -> bool:
    return False


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _type(names: Json, _schema: Mapping[str, Json]) -> Accepts:
    wanted = frozenset(kind for name in ([names] if isinstance(names, str) else names) for kind in _TYPES[name])
    return lambda value: type(value) in wanted


def _const(wanted: Json, _schema: Mapping[str, Json]) -> Accepts:
    # Texts only: Python holds 1, 1.0 and True equal, JSON Schema does not.
    return (lambda value: value == wanted) if type(wanted) is str else _nothing


def _enum(words: list[Json], _schema: Mapping[str, Json]) -> Accepts:
    # Texts and whole numbers, each with its type: Python holds 1, 1.0 and True equal.
    wanted = frozenset((type(word), word) for word in words if type(word) in {str, int})
    return lambda value: type(value) in {str, int} and (type(value), value) in wanted


def _pattern(pattern: str, _schema: Mapping[str, Json]) -> Accepts:
    search = compile_pattern(pattern).search
    return lambda value: type(value) is not str or search(value) is not None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of a schema as ECMA-262 reads it: `$` is the end of the text, not a line end before it."""
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") and not pattern.endswith(r"\$") else pattern)


def _length(measured: type[str | list[Json] | dict[str, Json]], *, least: bool) -> Callable[[int, Mapping[str, Json]], Accepts]:
    def make(bound: int, _schema: Mapping[str, Json]) -> Accepts:
        if least:
            return lambda value: not isinstance(value, measured) or len(value) >= bound
        return lambda value: not isinstance(value, measured) or len(value) <= bound

    return make


def _minimum(bound: float, _schema: Mapping[str, Json]) -> Accepts:
    return lambda value: type(value) not in {int, float} or value >= bound


def _maximum(bound: float, _schema: Mapping[str, Json]) -> Accepts:
    return lambda value: type(value) not in {int, float} or value <= bound


def _required(keys: list[str], _schema: Mapping[str, Json]) -> Accepts:
    wanted = frozenset(keys)
    return lambda value: type(value) is not dict or wanted <= value.keys()


def _items(schema: Json, _schema: Mapping[str, Json]) -> Accepts:
    accepts = compile_schema(schema)
    return lambda value: type(value) is not list or all(map(accepts, value))


def _properties(known: Mapping[str, Json], schema: Mapping[str, Json]) -> Accepts:
    """`properties` and `additionalProperties` in one pass over the keys."""
    parts = {key: compile_schema(part) for key, part in known.items()}
    others = compile_schema(schema.get("additionalProperties", True))

    def accepts(value: Json) -> bool:
        if type(value) is not dict:
            return True
        return all(parts.get(key, others)(item) for key, item in value.items())

    return accepts


def _additional(_others: Json, schema: Mapping[str, Json]) -> Accepts:
    return _anything if "properties" in schema else _properties({}, schema)


def _property_names(schema: Json, _schema: Mapping[str, Json]) -> Accepts:
    accepts = compile_schema(schema)
    return lambda value: type(value) is not dict or all(map(accepts, value))


def _unique(wanted: bool, _schema: Mapping[str, Json]) -> Accepts:
    if not wanted:
        return _anything

    # Lists of texts only; 1 and true, equal to Python, are left to jsonschema.
    return lambda value: (
        type(value) is not list or (all(type(item) is str for item in value) and len(frozenset(value)) == len(value))
    )


def _one_of(branches: list[Json], _schema: Mapping[str, Json]) -> Accepts:
    """Exactly one branch. Only branches that ask for keys are known: a predicate that refuses too much must not be counted."""
    if any(branch.keys() != {"required"} for branch in branches):
        return _nothing
    accepts = [compile_schema(branch) for branch in branches]
    return lambda value: sum(branch(value) for branch in accepts) == 1


_MAKERS: Final[dict[str, Callable[[Json, Mapping[str, Json]], Accepts]]] = {
    "type": _type,
    "const": _const,
    "enum": _enum,
    "pattern": _pattern,
    "minLength": _length(str, least=True),
    "maxLength": _length(str, least=False),
    "minItems": _length(list, least=True),
    "maxItems": _length(list, least=False),
    "minProperties": _length(dict, least=True),
    "maxProperties": _length(dict, least=False),
    "minimum": _minimum,
    "maximum": _maximum,
    "required": _required,
    "items": _items,
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": _property_names,
    "uniqueItems": _unique,
    "oneOf": _one_of,
}
