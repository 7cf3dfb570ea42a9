"""The errors of `jsonschema`, said in our words: what was expected, what was found, and what its author probably meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError, validators

from agentos.abi.canonical import Json, canonical
from agentos.manifests.accept import compile_pattern
from agentos.manifests.fault import Path, Problem, closest, listed, shown


def _pattern(_validator: Any, pattern: str, instance: Json, _schema: Json) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not compile_pattern(pattern).search(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@cache
def _validator_class() -> Any:
    extend: Any = validators.extend
    return extend(Draft202012Validator, {"pattern": _pattern})


def problems(schema: Mapping[str, Json], value: Json) -> list[Problem]:
    """What `schema` has against `value`, in the order of the document's paths, each thing once."""
    found: dict[tuple[Path, str, str], Problem] = {}
    for error in _validator_class()(schema).iter_errors(value):
        for problem in _explain(error):
            found.setdefault((problem.path, problem.code, problem.message), problem)
    return list(found.values())


def _explain(error: ValidationError) -> Iterator[Problem]:
    path: Path = tuple(error.absolute_path)
    if "propertyNames" in error.absolute_schema_path:
        expected = error.schema.get("x-agentos-expect", "another key") if isinstance(error.schema, dict) else "another key"
        yield Problem(
            "manifest.pattern", (*path, str(error.instance)), f"expected {expected}, got {shown(error.instance)}", at="key"
        )
        return
    say = _SAY.get(str(error.validator))
    if say is None:
        yield Problem("manifest.invalid", path, error.message)
    else:
        yield from say(path, error.validator_value, error.instance, error.schema)


_NOUNS: Final = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}
_TRUE: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_SUFFIXED: Final = re.compile(r"([0-9][0-9_]*)\s*([kKmM]?)")


def _type(path: Path, wanted: Json, value: Json, schema: Any) -> Iterator[Problem]:
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    expected = listed((_NOUNS[name] for name in names), "or")
    got = "nothing" if value is None else shown(value)
    yield Problem("manifest.type", path, f"expected {expected}, got {got}", _mend_type(names, value, schema))


def _mend_type(names: list[str], value: Json, schema: Mapping[str, Json]) -> str:
    if value is None:
        example = schema.get("examples") or ["…"]
        return f"write a value, such as {_example(example[0])}, or remove the key"
    if "string" in names and isinstance(value, (bool, int, float)):
        return f"put it in quotes to make it text: {shown(str(value) if not isinstance(value, bool) else str(value).lower())}"
    if isinstance(value, str):
        return _mend_text(names, value, schema)
    if "array" in names and not isinstance(value, (list, dict)):
        return f"write [{shown(value)}]"
    example = schema.get("examples")
    return f"for example {_example(example[0])}" if example else ""


def _mend_text(names: list[str], value: str, schema: Mapping[str, Json]) -> str:
    if "boolean" in names and value.lower() in _TRUE | {"true": "true", "false": "false"}:
        return f"write {_TRUE.get(value.lower(), value.lower())}"
    number = _SUFFIXED.fullmatch(value.strip())
    if "integer" in names and number:
        factor = {"": 1, "k": 1000, "m": 1_000_000}[number.group(2).lower()]
        return f"write {int(number.group(1).replace('_', '')) * factor}"
    if "array" in names:
        return f"write [{value}]" if re.fullmatch(r"[\w./-]+", value) else "write a list: one `- ` per line"
    example = schema.get("examples")
    return f"for example {_example(example[0])}" if example else ""


def _example(value: Json) -> str:
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./:@-]+", value) else shown(value)
    text = canonical(value).decode()
    return text if len(text) <= 120 else shown(value)


def _required(path: Path, wanted: list[str], value: Json, schema: Any) -> Iterator[Problem]:
    known = schema.get("properties", {})
    for key in wanted:
        if key not in value:
            example = known.get(key, {}).get("examples")
            mend = (
                f"add `{key}: {_example(example[0])}`"
                if example and not isinstance(example[0], (dict, list))
                else f"add `{key}:`"
            )
            unknown = [other for other in value if other not in known]
            meant = closest(key, unknown)
            if meant is not None:
                # The misspelt key is reported where it stands; saying that its right spelling is missing would say it twice.
                continue
            yield Problem("manifest.required", path, f"field `{key}` is missing", mend, at="key")


def _additional(path: Path, allowed: Json, value: Json, schema: Any) -> Iterator[Problem]:
    if allowed is not False:
        return
    known = schema.get("properties", {})
    later = schema.get("x-agentos-later", ())
    for key in value:
        if key in known:
            continue
        if key in later:
            yield Problem("manifest.unsupported", (*path, key), f"field `{key}` is not supported yet", "remove it", at="key")
            continue
        meant = closest(key, [name for name in known if name not in value])
        mend = f"did you mean `{meant}`?" if meant else f"known here: {listed(known)}"
        yield Problem("manifest.unknown-field", (*path, key), f"unknown field {shown(key)}", mend, at="key")


def _enum(path: Path, words: list[Json], value: Json, _schema: Any) -> Iterator[Problem]:
    choices = [str(word) for word in words]
    meant = closest(value, choices) if isinstance(value, str) else None
    mend = f"did you mean {meant}?" if meant else f"write {choices[0]}" if len(choices) == 1 else ""
    yield Problem("manifest.enum", path, f"expected {listed(choices, 'or')}, got {shown(value)}", mend)


def _const(path: Path, wanted: Json, value: Json, _schema: Any) -> Iterator[Problem]:
    yield Problem("manifest.enum", path, f"expected {_example(wanted)}, got {shown(value)}", f"write {_example(wanted)}")


def _match(path: Path, pattern: str, value: Json, schema: Any) -> Iterator[Problem]:
    expected = schema.get("x-agentos-expect", f"text that matches {pattern}")
    meant = _as_name(value) if pattern == "^[a-z][a-z0-9-]{0,62}$" else None
    yield Problem("manifest.pattern", path, f"expected {expected}, got {shown(value)}", f"write {meant}" if meant else "")


def _as_name(value: str) -> str | None:
    """The name that is nearest to `value`, if any is."""
    plain = re.sub(r"[^a-z0-9]+", "-", value.strip().lower()).strip("-")
    return plain if re.fullmatch(r"[a-z][a-z0-9-]{0,62}", plain) else None


def _bound(word: str, what: str) -> Callable[[Path, Json, Json, Any], Iterator[Problem]]:
    def say(path: Path, bound: Json, value: Json, schema: Any) -> Iterator[Problem]:
        amount = f"{bound} {what}".strip() if bound != 1 else f"1 {what.removesuffix('s')}".strip()
        size = shown(value) if not what else str(len(value))
        if isinstance(value, (str, list, dict)) and not value:
            example = schema.get("examples")
            yield Problem(
                "manifest.range", path, "this must not be empty", f"for example {_example(example[0])}" if example else ""
            )
        else:
            yield Problem("manifest.range", path, f"expected {word} {amount}, got {size}", f"write {bound}" if not what else "")

    return say


def _unique(path: Path, _wanted: Json, value: list[Json], _schema: Any) -> Iterator[Problem]:
    seen: dict[bytes, int] = {}
    for index, item in enumerate(value):
        form = canonical(item)
        if form in seen:
            yield Problem(
                "manifest.unique",
                (*path, index),
                f"{shown(item)} stands twice in this list (first as number {seen[form] + 1})",
                "remove one of the two",
            )
        else:
            seen[form] = index


def _one_of(path: Path, branches: list[Json], value: Json, schema: Any) -> Iterator[Problem]:
    """`oneOf` is only used to ask for exactly one of several keys."""
    if not isinstance(value, dict):
        return
    keys = [key for branch in branches for key in branch["required"]]
    given = [key for key in keys if key in value]
    if given:
        yield Problem(
            "manifest.one-of",
            path,
            f"only one of {listed(keys)} may be given, found {listed(given)}",
            "keep one of them",
            at="key",
        )
        return
    known, later = schema.get("properties", {}), schema.get("x-agentos-later", ())
    if not any(key in later or closest(key, keys) for key in value if key not in known):
        yield Problem("manifest.one-of", path, f"one of {listed(keys, 'or')} must be given", f"add `{keys[0]}:`", at="key")


_SAY: Final[dict[str, Callable[[Path, Any, Json, Any], Iterator[Problem]]]] = {
    "type": _type,
    "required": _required,
    "additionalProperties": _additional,
    "enum": _enum,
    "const": _const,
    "pattern": _match,
    "minimum": _bound("at least", ""),
    "maximum": _bound("at most", ""),
    "minLength": _bound("at least", "characters"),
    "maxLength": _bound("at most", "characters"),
    "minItems": _bound("at least", "entries"),
    "maxItems": _bound("at most", "entries"),
    "minProperties": _bound("at least", "keys"),
    "maxProperties": _bound("at most", "keys"),
    "uniqueItems": _unique,
    "oneOf": _one_of,
}
