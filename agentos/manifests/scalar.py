"""Plain scalars as YAML 1.2 (core schema, section 10.3.2) reads them, kept to values that JSON can hold.

`on`, `NO`, `12:30:00` and dates are text, unlike in YAML 1.1. What has no JSON value is refused with a sentence: infinities,
NaN, and whole numbers that other readers would silently round (beyond 2^53).
"""

from __future__ import annotations

import math
import re
from typing import Final

from agentos.abi.canonical import MAX_INTEGER, Json


class NotJson(ValueError):
    """The scalar is a number that no JSON reader keeps; the message says why."""


_WORDS: Final[dict[str, Json]] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_NUMBER_START: Final = frozenset("+-.0123456789")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL: Final = re.compile(r"0o[0-7]+", re.ASCII)
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_LONGEST_INTEGER: Final = 400
"""Digits read at all; longer ones are refused unread, since reading takes time that grows with the square."""


def resolve(text: str) -> Json:
    """The value of the plain scalar `text`. Raises NotJson for a number that JSON readers would not keep."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _OCTAL.fullmatch(text):
        return _integer(text, 8)
    if _HEX.fullmatch(text):
        return _integer(text, 16)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise NotJson("this number is too large for any reader")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise NotJson("infinity and NaN are not JSON values")
    return text


def _integer(text: str, base: int) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise NotJson("this whole number is beyond 2^53, which other readers would round")
    number = int(text, base) if base == 10 else int(text[2:], base)
    if abs(number) > MAX_INTEGER:
        raise NotJson("this whole number is beyond 2^53, which other readers would round")
    return number
