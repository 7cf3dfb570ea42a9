"""Words and columns for people: text that cannot drive the terminal, tables that fit it, times, counts, arguments.

Everything here is pure: the width of the terminal is handed in, None where nobody looks.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from agentos.abi.canonical import Json

NARROWEST: Final = 16
"""Columns that a shrunk column keeps."""

ARGS: Final = 72
"""Most characters of a call's arguments in one line; `-o json` has them all."""

WHOLE: Final = 2000
"""Most of them in the wide form."""

_BARE: Final = re.compile(r"[\w./:@*+?&%-][\w./:@*+?&%=-]*")
"""A text that is unmistakable without quotes."""


def plain(text: str) -> str:
    """`text` on one line with its control characters escaped, so that a tool's output cannot drive the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def safe_json(value: Json) -> str:
    """`value` as indented JSON in which every character that is not printable is written as an escape of JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char == "\n" or char.isprintable() else json.dumps(char)[1:-1] for char in text)


def width(text: str) -> int:
    """Columns that `text` takes on a terminal: two for a wide character, none for one that combines."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def short(text: str, most: int) -> str:
    """`text` cut to `most` columns, with an ellipsis where something is missing."""
    if width(text) <= most:
        return text
    kept, used = [], 1
    for char in text:
        used += width(char)
        if used > most:
            break
        kept.append(char)
    return "".join(kept) + "…"


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, shrink: Sequence[str] = (), columns: int | None = None
) -> list[str]:
    """Aligned lines, upper-case headers, two spaces between. Where they are wider than `columns`, those of `shrink` are cut."""
    cells = [[header.upper() for header in headers], *[[plain(str(cell)) for cell in row] for row in rows]]
    widths = [max(width(row[place]) for row in cells) for place in range(len(headers))]
    cut = [place for place, header in enumerate(headers) if header in shrink]
    if columns is not None and cut:
        _fit(widths, cut, columns - 2 * (len(headers) - 1))
    return ["  ".join(_pad(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in cells]


def _fit(widths: list[int], cut: Sequence[int], room: int) -> None:
    """Take from the widest of `cut` until all fit into `room`, or none can give more."""
    while sum(widths) > room:
        place = max(cut, key=lambda one: widths[one])
        if widths[place] <= NARROWEST:
            return
        widths[place] -= 1


def _pad(cell: str, wide: int) -> str:
    text = short(cell, wide)
    return text + " " * (wide - width(text))


def clock(time: str) -> str:
    """`2026-11-21T08:30:00.125Z` to the second, as it is read: `2026-11-21 08:30:00Z`."""
    return f"{time[:10]} {time[11:19]}Z" if time.endswith("Z") and len(time) >= 20 else time


def count(number: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def arguments(args: Json, most: int = ARGS) -> str:
    """The arguments of a call on one line, the short ones first, so that a path is not hidden behind a content.

    Arguments that were no object (of a refused call) are shown as the text that they are.
    """
    if not isinstance(args, dict):
        return short(plain(_value(args)), most)
    pairs = {name: _value(value) for name, value in args.items()}
    ordered = sorted(pairs.items(), key=lambda pair: (len(pair[1]), pair[0]))
    return short(plain(", ".join(f"{name}={value}" for name, value in ordered)), most)


def _value(value: Json) -> str:
    bare = isinstance(value, str) and _BARE.fullmatch(value)
    return value if bare else json.dumps(value, ensure_ascii=False)


def because(rules: Sequence[str], reasons: Sequence[str]) -> list[str]:
    """Why a decision fell, one reason a line. A decision does not say which of several rules gave which reason."""
    if len(rules) <= 1:
        return [": ".join([*rules, reason]) for reason in reasons]
    return [f"{', '.join(rules)}:", *(f"  {reason}" for reason in reasons)]
