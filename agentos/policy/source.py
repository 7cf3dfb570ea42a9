"""Finding a place in Rego source: OPA's syntax tree tells no lines, so the text of a path is looked up, comments left out.

Where a rule begins and ends is told from the text as well: a rule begins with its name, outside of all brackets and strings, and
the syntax tree says which names come in which order.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from agentos.abi.canonical import Json

_BARE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_RULE: Final = frozenset({"package", "import", "else", "if", "contains", "some", "every", "not", "with", "as", "in"})

_STRING: Final = r"\"(?:[^\"\\\n]|\\.)*\"|`[^`]*`"
_COMPUTED: Final = rf"\s*\[(?:{_STRING}|[^\[\]\"`]|\[(?:{_STRING}|[^\[\]\"`])*\])*\]"
"""A step that is known only at run time: anything in brackets, one pair of brackets within included."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line and a column, both from 1; the column counts characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Span:
    """Where a rule stands: its first character, and the line before the next rule's comments begin (or of the last code)."""

    start: Place
    end: int

    def __contains__(self, line: object) -> bool:
        return isinstance(line, int) and self.start.line <= line <= self.end


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment: where its `#` stands and the text behind it."""

    line: int
    column: int
    text: str


class Source:
    """The text of one module with its comments blanked, to be searched."""

    def __init__(self, text: str, tree: Json) -> None:
        self.comments = [_comment(item) for item in tree.get("comments", [])]
        lines = text.split("\n")
        for comment in self.comments:
            # OPA counts columns in bytes; what stands before the `#` is cut there.
            before = lines[comment.line - 1].encode()[: comment.column - 1]
            lines[comment.line - 1] = before.decode(errors="ignore")
        self.lines = lines
        self._text = "\n".join(lines)
        self._names = [str(rule["head"]["ref"][0]["value"]) for rule in tree.get("rules", [])]

    def places(self, pattern: str, within: Span | None = None) -> Iterator[Place]:
        """Where a regular expression matches, in order: its group `at` if it has one, else its beginning."""
        for found in re.finditer(pattern, self._text, re.MULTILINE):
            place = self._place(found.start("at") if "at" in found.re.groupindex else found.start())
            if within is None or place.line in within:
                yield place

    def path(self, head: str, steps: Sequence[str | int | None], within: Span | None = None) -> list[Place]:
        """Where a reference begins with `head` and these steps, written with dots or in brackets; the place is the last step's.

        None stands for a step that is computed. Nothing is found: the beginning of `within`, else the top of the file.
        """
        pattern = rf"(?<![\w.\"`]){re.escape(head)}" + "".join(map(_step, steps[:-1]))
        if steps and steps[-1] is not None:
            pattern += rf"(?:\s*\.\s*|\s*\[\s*)(?P<at>[\"`]?{re.escape(str(steps[-1]))}[\"`]?)(?!\w)"
        else:
            pattern += rf"(?P<at>{_COMPUTED})" if steps else r"(?!\w)"
        return list(self.places(pattern, within)) or [within.start if within else Place(1, 1)]

    def first(self, pattern: str, within: Span | None = None) -> Place:
        """The first match, else the beginning of `within`, else the top of the file."""
        return next(self.places(pattern, within), within.start if within else Place(1, 1))

    def block_above(self, line: int) -> list[Comment]:
        """The comments that stand directly above a line, without a gap, in order."""
        by_line = {comment.line: comment for comment in self.comments if not self.lines[comment.line - 1].strip()}
        block: list[Comment] = []
        while (comment := by_line.get(line - 1)) is not None:
            block.append(comment)
            line -= 1
        return block[::-1]

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Where each rule of the tree stands, in its order. A rule that is not found takes the place of the one before it."""
        starts = _aligned(list(self._statements()), self._names)
        spans = []
        for number, start in enumerate(starts):
            after = next((later.line for later in starts[number + 1 :] if later.line > start.line), len(self.lines) + 1)
            end = after - 1
            while end > start.line and not self.lines[end - 1].strip():
                end -= 1
            spans.append(Span(start, end))
        return tuple(spans)

    def _statements(self) -> Iterator[tuple[Place, str]]:
        """Every name that begins a line outside of brackets and strings; a `default` is known by the name behind it."""
        for line, column, word in _words(self._text):
            rest = self.lines[line - 1][column - 1 + len(word) :].lstrip() if word == "default" else ""
            named = _BARE.match(rest)
            name = named.group() if named else word
            if name not in _NO_RULE:
                yield Place(line, column), name

    def _place(self, at: int) -> Place:
        before = self._text[:at]
        return Place(before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1)


def _aligned(found: Sequence[tuple[Place, str]], names: Sequence[str]) -> list[Place]:
    """The place of each rule: the next statement of its name, those at the margin first (where formatted Rego has them all)."""
    margin = [one for one in found if one[0].column == 1]
    for candidates in (margin, found):
        places = _matched(candidates, names)
        if None not in places:
            break
    known = Place(1, 1)
    filled = []
    for place in places:
        known = place or known
        filled.append(known)
    return filled


def _matched(candidates: Sequence[tuple[Place, str]], names: Sequence[str]) -> list[Place | None]:
    left = iter(candidates)
    return [next((place for place, word in left if word == name), None) for name in names]


_TOKEN: Final = re.compile(
    r"(?P<raw>\$?`[^`]*`)|(?P<template>\$\")|(?P<string>\"(?:[^\"\\\n]|\\.)*\")"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<line>\n[ \t]*)"
)


def _words(text: str) -> Iterator[tuple[int, int, str]]:
    """Line, column and name of every name that begins a line at no depth."""
    depth = line = at = 0
    text = "\n" + text
    while (found := _TOKEN.search(text, at)) is not None:
        at = found.end()
        line += found.group().count("\n")
        match found.lastgroup:
            case "open":
                depth += 1
            case "close":
                depth -= 1
            case "template":
                at = _after_template(text, at)
            case "line" if depth == 0 and (word := _BARE.match(text, at)) is not None:
                yield line, at - text.rfind("\n", 0, at), word.group()
            case _:
                pass


def _after_template(text: str, at: int) -> int:
    """The end of a template string, `$"… {expression} …"`, whose expressions may hold strings in turn."""
    depth = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and depth == 0:
            at += 1
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
        elif char == '"' and depth <= 0:
            return at + 1
        elif char == '"':
            end = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"").match(text, at)
            at = end.end() - 1 if end else at
        at += 1
    return at


def _comment(item: Json) -> Comment:
    text = base64.b64decode(item["Text"]).decode("utf-8", errors="replace")
    return Comment(item["Location"]["row"], item["Location"]["col"], text)


def _step(step: str | int | None) -> str:
    if step is None:
        return _COMPUTED
    bracket = rf"\s*\[\s*[\"`]?{re.escape(str(step))}[\"`]?\s*\]"
    return rf"(?:\s*\.\s*{step}|{bracket})" if isinstance(step, str) and _BARE.fullmatch(step) else bracket
