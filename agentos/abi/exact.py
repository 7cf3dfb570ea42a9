"""Reading bytes that must already be canonical: one pass in C for what nearly all events are, the careful way for the rest.

`read_exact(data)` is `parse_strict(data)` where `canonical` of that gives `data` again, and refuses all else. A long session is
read event by event before it goes on, so this is where its resume spends its time. The quick way rests on the comparison: what
was said twice in an object, or was written or ordered otherwise, does not come out the same. What the comparison cannot see is
left to the careful way: floats, long numbers, characters beyond the basic plane (their order as keys), and deep nesting.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from agentos.abi.canonical import MAX_DEPTH, Json, NotCanonical, canonical, parse_strict

_BEYOND: Final = re.compile(rb"[\xf0-\xf4]")
"""How UTF-8 begins a character beyond the basic plane."""

_SAFE_DIGITS: Final = 15
"""So many digits are never beyond 2^53."""


def read_exact(data: bytes) -> Json:
    """The value of canonical JSON. Raises NotCanonical for whatever is not, or not canonical, JSON."""
    shallow = data.count(b"{") + data.count(b"[") <= MAX_DEPTH
    if shallow and (data.isascii() or _BEYOND.search(data) is None):
        try:
            value, _ = _READER.raw_decode(data.decode("utf-8"))
            if _WRITER.encode(value).encode("utf-8") == data:
                return value
        except (_Careful, ValueError):  # whatever is wrong with it, the careful way says what
            pass
    value = parse_strict(data)
    if canonical(value) != data:
        raise NotCanonical("the bytes are JSON, but not in its canonical form")
    return value


class _Careful(Exception):
    """A number that the quick way may not judge."""


def _whole(text: str) -> int:
    if len(text) > _SAFE_DIGITS:
        raise _Careful
    return int(text)


def _other(_: str) -> NoReturn:
    raise _Careful


_READER: Final = json.JSONDecoder(parse_int=_whole, parse_float=_other, parse_constant=_other)
_WRITER: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)
