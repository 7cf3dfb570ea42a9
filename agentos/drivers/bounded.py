r"""Values are held against declared schemas in bounded time.

An input or output schema is written by an operator, or copied out of a vendor's document; the value is a model's, or a server's.
Both meet in the one process that serves everybody, so a value must not be able to keep it busy. Three things could:

- Expressions. Python's engine goes back and forth: `^(\w+\s?)*$` takes it half a minute for 26 letters. Here they are matched by
  one that never goes back (Rust's, by way of pydantic). It knows no look-around and no references back: an expression that needs
  them is refused where it is declared, and met by no text where it is in force already.
- `uniqueItems` of mixed items, which jsonschema compares each with each.
- References to a part from several alternatives of that part, which double the work with each level of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from agentos.abi.canonical import Json, NotCanonical, canonical

if TYPE_CHECKING:
    from jsonschema import ValidationError

MOST_REFERENCES: Final = 2000
"""References that are followed for one value; each takes jsonschema half a millisecond."""

MOST_ERRORS: Final = 100
"""Errors among which the best one is looked for."""

_left: ContextVar[list[int]] = ContextVar("references that may still be followed")


class _TooMuch(Exception):
    """There is more to look at than may be looked at."""


def first_error(validator: Any, value: Json) -> ValidationError | None:
    """The error of `value` that says most; None if it has none. `validator` is of the class `bounded_validator()`."""
    from jsonschema import ValidationError
    from jsonschema.exceptions import best_match

    token = _left.set([MOST_REFERENCES])
    try:
        found: ValidationError | None = best_match(islice(validator.iter_errors(value), MOST_ERRORS))
    except (_TooMuch, RecursionError):
        return ValidationError("too deep, and with too many alternatives, to be checked")
    finally:
        _left.reset(token)
    return found


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether `pattern` is found anywhere in a text; `$` is its very end. Raises ValueError for what cannot be matched so."""
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)).isinstance_python
    except SchemaError as error:
        reasons = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(reasons[-1].removeprefix("error: ")) from error


def patterned(schema: Json) -> bool:
    """Whether a schema holds any text against an expression."""
    if isinstance(schema, Mapping):
        return any(
            (key == "pattern" and isinstance(part, str)) or key == "patternProperties" or patterned(part)
            for key, part in schema.items()
        )
    return isinstance(schema, list) and any(map(patterned, schema))


@cache
def bounded_validator() -> Any:
    """The validator of JSON Schema 2020-12 that `first_error` is called with."""
    from jsonschema import Draft202012Validator, validators

    extend: Any = validators.extend
    counted = {key: _counted(Draft202012Validator.VALIDATORS[key]) for key in ("$ref", "$dynamicRef")}
    named = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional}
    return extend(Draft202012Validator, {**counted, **named, "uniqueItems": _unique})


def _counted(keyword: Any) -> Any:
    def follow(validator: Any, reference: str, instance: Json, schema: Json) -> Iterator[ValidationError]:
        left = _left.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooMuch
        yield from keyword(validator, reference, instance, schema)

    return follow


def _found(pattern: str, text: str) -> bool:
    try:
        return matcher(pattern)(text)
    except ValueError:
        return False


def _pattern(_validator: Any, pattern: str, instance: Json, _schema: Json) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Json], instance: Json, _schema: Json) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, part in patterns.items():
            for name, value in instance.items():
                if _found(pattern, name):
                    yield from validator.descend(value, part, path=name, schema_path=pattern)


def _additional(validator: Any, others: Json, instance: Json, schema: Mapping[str, Json]) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [name for name in instance if name not in known and not any(_found(pattern, name) for pattern in patterns)]
    if others is False and extras:
        were = "was" if len(extras) == 1 else "were"
        named = ", ".join(map(repr, sorted(extras)))
        yield ValidationError(f"Additional properties are not allowed ({named} {were} unexpected)")
    elif others is not False:
        for name in extras:
            yield from validator.descend(instance[name], others, path=name)


def _unique(_validator: Any, wanted: bool, instance: Json, _schema: Json) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if not wanted or not isinstance(instance, list):
        return
    try:
        # Canonical forms are equal exactly where JSON Schema holds the values equal: 1 and 1.0 are, 1 and true are not.
        unique = len({canonical(item) for item in instance}) == len(instance)
    except NotCanonical:
        unique = False
    if not unique:
        yield ValidationError(f"{instance!r} has non-unique elements")
