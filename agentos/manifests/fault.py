"""A fault: one thing that is wrong with a declaration, said so that its author can mend it.

Checks yield a `Problem` (a path into the document); the loader, which knows the file, turns it into a `Fault`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Final, Literal

from agentos.abi.canonical import Json

Path = tuple[str | int, ...]
"""Where in a document: keys and 0-based list indices, from the root."""

LONGEST_SHOWN: Final = 60
"""Characters of a value that a message quotes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at `path` of some document. `at` says what the caret points at: the value there, or its key."""

    code: str
    path: Path
    message: str
    mend: str = ""
    at: Literal["value", "key"] = "value"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as printed and as in `schemas/v1/fault.json`.

    `line` and `column` count from 1, in characters; 0 means that there is no position. `kind`, `name`, `path`, `mend` and
    `excerpt` are empty where they are not known or not needed.
    """

    code: str
    file: str
    line: int
    column: int
    kind: str
    name: str
    path: str
    message: str
    mend: str = ""
    excerpt: str = ""

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape; `text` is the whole fault on one line."""
        return {**asdict(self), "text": str(self)}

    def __str__(self) -> str:
        """`file:line:col: kind/name: spec.path: what is wrong; how to mend it`, on one line."""
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        named = f"{self.kind.lower()}/{self.name}" if self.kind and self.name else self.kind.lower()
        said = f"{self.message}; {self.mend}" if self.mend else self.message
        return printable(": ".join(part for part in (where, named, self.path, said) if part))


def order(fault: Fault) -> tuple[str, int, int, str, str]:
    """The sort key of faults: file, line, column, then code and message."""
    return (fault.file, fault.line, fault.column, fault.code, fault.message)


def dotted(path: Path) -> str:
    """`spec.tools[2]` for `("spec", "tools", 2)`; a key that is no plain word is quoted in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and all(char.isalnum() or char in "_-/" for char in part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def shown(value: Json) -> str:
    """`value` as a message quotes it: JSON, on one line, shortened."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        value = value[: LONGEST_SHOWN - 1] + "…"
    return printable(json.dumps(value, ensure_ascii=False))


def printable(text: str) -> str:
    """`text` without anything that a terminal would act upon: control, direction and other unprintable characters become `·`."""
    return text if text.isascii() and text.isprintable() else "".join(char if char.isprintable() else "·" for char in text)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` was probably meant to be."""
    choices = {choice.lower(): choice for choice in sorted(known, reverse=True)}
    found = get_close_matches(word.lower(), choices, n=1, cutoff=0.6)
    return choices[found[0]] if found else None


def listed(words: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"
