"""Canonical JSON: one value, one sequence of bytes (RFC 8785), and strict reading.

What is hashed is always the stored bytes; this module makes those bytes once, at the door. Refused: NaN and
infinities, integers beyond 2^53 (JavaScript and OPA readers would silently change them) and floats that are written
like one, lone surrogates, duplicate keys, keys that are not strings. What is written is always read back.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Final

Json = Any
"""A JSON value: None, bool, int, float, str, list or dict with string keys."""

MAX_INTEGER: Final = 2**53
"""Largest integer that every JSON reader keeps exactly (RFC 7493, section 2.2)."""

_EXPONENT_FROM: Final = 1e21
"""Where ECMAScript begins to write numbers with an exponent."""

MAX_DEPTH: Final = 200
"""Deepest nesting written or read; Python's own parser recurses."""


class NotCanonical(ValueError):
    """The value has no canonical form; the message says which part and why."""


def canonical(value: Json) -> bytes:
    """Serialise `value` per RFC 8785: sorted keys (UTF-16 order), no spaces, shortest numbers, UTF-8.

    Raises NotCanonical with the path of the first part that has no canonical form.
    """
    simple = _check(value, "$", 0)
    try:
        if simple:
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        else:
            text = _write(value)
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotCanonical(f"text is not valid Unicode: {error.reason}") from error


def digest(data: bytes) -> str:
    """SHA-256 of `data` as `sha256:<64 hex digits>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(value: Json) -> str:
    """SHA-256 of the canonical form of `value`."""
    return digest(canonical(value))


_LONGEST_INTEGER: Final = 100
"""Digits of an integer that is read at all."""


def parse_strict(data: bytes | str, *, any_integer: bool = False) -> Json:
    """Parse JSON that has one meaning only: UTF-8, no duplicate keys, no NaN, no integer beyond 2^53 (unless `any_integer`).

    Raises NotCanonical; nothing else for any input.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_constant=_refuse_constant,
            parse_int=_parse_long if any_integer else _parse_int,
            parse_float=_parse_float,
        )
    except NotCanonical:
        raise
    except UnicodeDecodeError as error:
        raise NotCanonical(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise NotCanonical(f"line {error.lineno} column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise NotCanonical("nested too deeply") from error
    if not any_integer:
        _check(value, "$", 0)
    return value


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotCanonical(f"key {key!r} stands twice in one object")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> Json:
    raise NotCanonical(f"{name} is not JSON")


def _parse_int(text: str) -> int:
    if len(text) > 17:
        raise NotCanonical(f"integer {text[:24]} is beyond 2^53: write it as a string")
    return int(text)


def _parse_long(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise NotCanonical(f"integer {text[:24]}… has {len(text)} digits")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NotCanonical(f"number {text[:24]} is too large")
    return value


def _check(value: Json, path: str, depth: int) -> bool:
    """Refuse what has no canonical form; tell whether `json.dumps` already writes RFC 8785 for it.

    Every event passes here, so the walk builds no paths; only a refusal walks again to say where.
    """
    try:
        return _simple(value, depth)
    except NotCanonical:
        _explain(value, path, depth)
        raise


def _simple(value: Json, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        # Encoding is the quickest way to find a lone surrogate.
        return value.isascii() or bool(_utf8(value))
    if kind is dict:
        if depth > MAX_DEPTH:
            raise NotCanonical
        simple = True
        for key, item in value.items():
            if type(key) is not str:
                raise NotCanonical
            if not key.isascii():
                # Code point order and UTF-16 order differ only beyond the basic plane; take the slow writer.
                _utf8(key)
                simple = False
            if not _simple(item, depth + 1):
                simple = False
        return simple
    if value is None or kind is bool or (kind is int and -MAX_INTEGER <= value <= MAX_INTEGER):
        return True
    if kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            raise NotCanonical
        simple = True
        for item in value:
            if not _simple(item, depth + 1):
                simple = False
        return simple
    if kind is float and _keeps(value):
        return False
    raise NotCanonical


def _keeps(value: float) -> bool:
    """Whether what RFC 8785 writes for `value` is read back: not so for the digits of an integer beyond 2^53."""
    return math.isfinite(value) and not MAX_INTEGER < abs(value) < _EXPONENT_FROM


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotCanonical from error


def _explain(value: Json, path: str, depth: int) -> None:
    """Raise NotCanonical for the first part of `value` that has no canonical form, saying where and why."""
    kind = type(value)
    if kind in {dict, list, tuple} and depth > MAX_DEPTH:
        raise NotCanonical(f"{path}: nested deeper than {MAX_DEPTH}")
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise NotCanonical(f"{path}: key {key!r} is not a string")
            _explain(key, path, depth)
            _explain(item, f"{path}.{key}", depth + 1)
    elif kind is list or kind is tuple:
        for item in value:
            _explain(item, f"{path}[]", depth + 1)
    elif kind is str:
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise NotCanonical(f"{path}: lone surrogate in text")
    elif kind is int:
        if abs(value) > MAX_INTEGER:
            raise NotCanonical(f"{path}: integer beyond 2^53: write it as a string")
    elif kind is float:
        if not math.isfinite(value):
            raise NotCanonical(f"{path}: {value} is not JSON")
        if not _keeps(value):
            raise NotCanonical(f"{path}: number beyond 2^53 without an exponent: write it as a string")
    elif kind is not bool and value is not None:
        raise NotCanonical(f"{path}: {kind.__name__} is not a JSON value")


def _write(value: Json) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(key)}:{_write(value[key])}" for key in keys) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_write(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """ECMAScript's Number::toString (ECMA-262, 6.1.6.1.20), which RFC 8785 prescribes.

    Python's `repr` yields the same shortest digits; only the layout differs.
    """
    if value == 0:
        return "0"
    if value < 0:
        return "-" + _number(-value)
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0)
    if whole.strip("0") == "":
        point -= len(whole) + len(fraction) - len(fraction.lstrip("0"))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    power = point - 1
    sign = "+" if power > 0 else "-"
    head = digits[0] + ("." + digits[1:] if count > 1 else "")
    return f"{head}e{sign}{abs(power)}"
