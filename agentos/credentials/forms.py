"""Forms: what a value looks like where somebody has written it down in another way, and which values can be told from other text.

A text is looked at in *views* (`agentos.credentials.views`): as it is and with its escapes undone, and then squeezed: in lower
case, without white space, quotes and the like. So a form stands for many ways of writing: hexadecimal in either case, with or
without colons; base64 of either alphabet, with or without padding, in lines of any length. Base64 and base32 of a longer text
that has the value in it are found at each alignment. What no form stands for: compressed, encrypted or twice encoded values.

A form is searched for by a few pieces of it, its anchors, and what is found is extended as far as it agrees. So a value of which
the end was cut off is found as well.
"""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agentos.credentials.views import squeeze

SHORTEST: Final = 8
"""Fewest characters of a value. A shorter one occurs by chance, so it could only be masked at the price of ordinary text."""

FEWEST: Final = 4
"""Fewest different characters of a value, for the same reason."""

LONGEST: Final = 64 * 1024
"""Most bytes of a value."""

_SURE: Final = 6
"""Fewest squeezed bytes that are searched for in squeezed text; a value with fewer is searched for as it is."""

_PART: Final = 12
"""Fewest bytes of a form that count as a part of it, and the width of anchors of forms that are no plain text."""

_MOST_PART: Final = 256
"""Most bytes of a form that have to be there before it counts as a part."""

_LINE: Final = 16
"""Fewest squeezed bytes of a line, or of a text in JSON, that is a value of its own."""

_MOST_PARTS: Final = 256
"""Most such lines and texts of one value."""


def weak(value: str) -> str | None:
    """Why `value` cannot be leased, as it could not be told from other text; None if it can."""
    if len(value) < SHORTEST or len(set(value)) < FEWEST:
        # Which of the two it is would tell something of it.
        return f"it could not be masked: a value has at least {SHORTEST} characters, {FEWEST} of them different"
    if len(value.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"it has more than {LONGEST} bytes"
    return None


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a value: `body`, squeezed, unless `exact`. `least` bytes of it in a row count as it.

    `wide`: whether the character before the body, and the one behind it, carry bits of the value too.
    """

    body: bytes
    least: int
    anchors: tuple[tuple[int, bytes], ...]
    """Pieces to search for, each with where it stands in the body."""
    wide: tuple[bool, bool] = (False, False)
    exact: bool = False


def forms(value: str) -> tuple[Form, ...]:
    """All forms of a value, each once."""
    found: dict[tuple[bytes, bool], Form] = {}
    for form in _forms(value):
        found.setdefault((form.body, form.exact), form)
    return tuple(found.values())


def _forms(value: str) -> Iterator[Form]:
    raw = value.encode("utf-8", "surrogatepass")
    yield from _plain(raw, 16)
    for part in _parts(value):
        yield from _plain(part.encode("utf-8", "surrogatepass"), 2)
    yield from _plain(value[::-1].encode("utf-8", "surrogatepass"), 3)
    yield from _plain(codecs.encode(value, "rot13").encode("utf-8", "surrogatepass"), 2)
    if not value.isascii():
        for coding in ("utf-16-le", "utf-16-be"):
            yield from _plain(value.encode(coding, "surrogatepass"), 2)
    yield _encoded(raw.hex().encode(), 3)
    yield _encoded(b"".join(b"0x%02x" % byte for byte in raw), 1)
    for before in range(3):
        yield _encoded(_core(raw, before, base64.b64encode, 6), 3, _edges(raw, before, 6))
    for before in range(5):
        yield _encoded(_core(raw, before, base64.b32encode, 5), 1, _edges(raw, before, 5))


def _plain(raw: bytes, most: int) -> Iterator[Form]:
    body = squeeze(raw)
    if len(body) < _SURE:
        yield Form(raw, len(raw), ((0, raw),), exact=True)
        return
    least = min(len(body), max(_PART, min(len(body) // 3, _MOST_PART)))
    yield Form(body, least, tuple(_anchors(body, SHORTEST, most)))


def _encoded(text: bytes, most: int, wide: tuple[bool, bool] = (False, False)) -> Form:
    body = squeeze(text)
    least = min(len(body), max(_PART, min(len(body) // 3, _MOST_PART)))
    return Form(body, least, tuple(_anchors(body, _PART, most)), wide)


def _core(raw: bytes, before: int, encode: Callable[[bytes], bytes], bits: int) -> bytes:
    """The characters of base 64 or 32 that `raw` alone decides when it stands behind `before` other bytes."""
    return encode(b"\0" * before + raw)[-(-before * 8 // bits) : (before + len(raw)) * 8 // bits]


def _edges(raw: bytes, before: int, bits: int) -> tuple[bool, bool]:
    """Whether the characters of `_core` have neighbours that it decides in part."""
    return before * 8 % bits != 0, (before + len(raw)) * 8 % bits != 0


def _anchors(body: bytes, width: int, most: int) -> Iterator[tuple[int, bytes]]:
    """At most `most` pieces, spread evenly from the first to the last; one where there is no room for two."""
    width = min(width, len(body))
    count = 1 if most == 1 else max(2, min(most, len(body) // width))
    if len(body) == width:
        count = 1
    for number in range(count):
        at = 0 if count == 1 else number * (len(body) - width) // (count - 1)
        yield at, body[at : at + width]


def _parts(value: str) -> Iterator[str]:
    """Lines of a value of several, and texts of one that is JSON: whoever reads a key file shows these, one by one."""
    parts = [line.strip() for line in value.splitlines()] if len(value.splitlines()) > 1 else []
    if value.lstrip().startswith("{"):
        # What only looks like JSON has no texts.
        with suppress(ValueError, RecursionError):
            parts += [line for text in _texts(json.loads(value)) for line in text.splitlines()]
    for part in parts[:_MOST_PARTS]:
        # The first and last lines of key files are the same everywhere.
        if not part.startswith("-----") and len(squeeze(part.encode("utf-8", "surrogatepass"))) >= _LINE and not weak(part):
            yield part


def _texts(body: object) -> Iterator[str]:
    if isinstance(body, str):
        yield body
    elif isinstance(body, dict):
        for item in body.values():
            yield from _texts(item)
    elif isinstance(body, list):
        for item in body:
            yield from _texts(item)
