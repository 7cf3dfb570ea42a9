"""How a case becomes another one: by its lines, by the JSON in them, and by its bytes. Everything from one `random.Random`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 7, 2**53, 2**53 + 1, -(2**63), 10**30, 0.5, -0.0, 1e300, float("inf"), float("nan")),
    *("", " ", "a", "..", "/", "*", "\0", "\t", "\n", "é", "\U0001f600", "\ud800", "a" * 70, "sha256:" + "0" * 64),
    *([], {}, [[]], [None], {"": ""}, {"a": {}}, [1, "1"], {"__proto__": 1}),
)
"""Values that readers stumble over."""

RAW: Final = (
    *(b"NaN", b"-Infinity", b"1e999", b"00", b"1.", b"0x1", b"9007199254740993", b"'a'", b"\\ud800", b"\\u0000", b"\xff"),
    *(
        b" ",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\x00",
        b"\r\n",
        b"\n",
        b"\t",
        b"/**/",
        b",",
        b'"',
        b"{",
        b"[",
        b"}",
        b"]",
        b":",
        b"\\",
    ),
    *(b"[" * 300, b'{"a":' * 300, b"9" * 5000),
)
"""Pieces that are put among the bytes."""


def mutated(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes], longest: int) -> bytes:
    """A case that was made from `data`; `words` and `others` lend pieces."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        way = random.random()
        if way < 0.2:
            data = _lines(data, random, others)
        elif way < 0.7:
            data = _json(data, random)
        else:
            data = _bytes(data, random, words)
    return data[:longest]


def _lines(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    match random.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(random.randrange(len(lines) + 1), lines[at])
        case 2:
            with_ = random.randrange(len(lines))
            lines[at], lines[with_] = lines[with_], lines[at]
        case _:
            lines.insert(at, random.choice(random.choice(others).split(b"\n") if others else lines))
    return b"\n".join(lines)


def _json(data: bytes, random: Random) -> bytes:
    """Another value somewhere in a line that is JSON."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return _bytes(data, random, ())
    places = _places(value)
    if not places:
        lines[at] = _written(random.choice(ODD))
        return b"\n".join(lines)
    holder, key = random.choice(places)
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(("", key + "x", key.upper(), "data", "id", "kind"))] = holder.pop(key)
        case 2 if isinstance(holder, dict):
            # The same key twice has to be written by hand.
            twice = _written(key) + b":" + _written(random.choice(ODD))
            whole = _written(value)
            spot = whole.find(_written(key) + b":")
            lines[at] = whole[:spot] + twice + b"," + whole[spot:] if random.random() < 0.5 else whole[:-1] + b"," + twice + b"}"
            return b"\n".join(lines)
        case 3:
            other, from_ = random.choice(places)
            holder[key] = json.loads(json.dumps(other[from_]))
        case 4 if isinstance(holder[key], str):
            text = holder[key]
            cut = random.randrange(len(text) + 1)
            holder[key] = text[:cut] + str(random.choice(ODD)) + text[cut + random.randrange(3) :]
        case 5 if type(holder[key]) is int:
            holder[key] += random.choice((-1, 1, 2**31, 2**53, -(2**53)))
        case _:
            holder[key] = random.choice(ODD)
    lines[at] = _written(value)
    return b"\n".join(lines)


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found += [(one, key) for key in one]
            waiting += one.values()
        elif isinstance(one, list):
            found += [(one, index) for index in range(len(one))]
            waiting += one
    return found


def _bytes(data: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    match random.randrange(6):
        case 0:
            return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + random.randint(1, 16) :]
        case 2:
            return data[:at] + random.choice(RAW) + data[at:]
        case 3 if words:
            return data[:at] + random.choice(words) + data[at:]
        case 4:
            return data[:at]
        case _:
            cut = random.randrange(len(data) + 1)
            return data[:at] + data[cut : cut + random.randint(1, 64)] + data[at:]
