"""JSON read by somebody else: what the product takes must be read to the very same value here, or it took what has two meanings.

Written apart from `abi.canonical` on purpose: orjson reads (strict UTF-8, no NaN, no lone surrogates, no junk behind), and a walk
through the text's own pairs refuses what orjson lets pass: a key twice, and numbers that not every reader keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson


class Ambiguous(ValueError):
    """The bytes are no JSON, or not the same JSON for everybody."""


def clean_parse(data: bytes) -> Any:
    """The one value that `data` has. Raises Ambiguous."""
    try:
        value = orjson.loads(data)
        again = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Ambiguous(str(error)) from error
    for one in _leaves(value):
        if type(one) is int and abs(one) > 2**53:
            raise Ambiguous(f"{one} is beyond 2^53")
    if not same(value, again):
        raise Ambiguous("two readers read two values")
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: `1`, `1.0` and `true` are three."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Ambiguous("a key stands twice")
    return dict(pairs)


def _leaves(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        else:
            yield one
