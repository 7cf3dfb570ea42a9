"""Finding a place in Rego source: OPA's syntax tree tells no lines, so the text of a path is looked up, comments left out."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json

_BARE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column, both from 1; the column counts characters."""

    line: int
    column: int


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

    def places(self, pattern: str) -> Iterator[Place]:
        """Where a regular expression matches, in order."""
        for found in re.finditer(pattern, self._text, re.MULTILINE):
            before = self._text[: found.start()]
            line = before.count("\n") + 1
            yield Place(line, found.start() - (before.rfind("\n") + 1) + 1)

    def path(self, head: str, steps: tuple[str, ...]) -> list[Place]:
        """Where a reference begins with `head` and these steps, written with dots or in brackets; else the top of the file."""
        return list(self.places(rf"(?<![\w.\"]){re.escape(head)}" + "".join(_step(step) for step in steps) + r"(?!\w)")) or [
            Place(1, 1)
        ]

    def first(self, pattern: str) -> Place:
        """The first match, else the top of the file."""
        return next(self.places(pattern), Place(1, 1))

    def block_above(self, line: int) -> list[Comment]:
        """The comments that stand directly above a line, without a gap, in order."""
        by_line = {comment.line: comment for comment in self.comments if not self.lines[comment.line - 1].strip()}
        block: list[Comment] = []
        while (comment := by_line.get(line - 1)) is not None:
            block.append(comment)
            line -= 1
        return block[::-1]


def _comment(item: Json) -> Comment:
    text = base64.b64decode(item["Text"]).decode("utf-8", errors="replace")
    return Comment(item["Location"]["row"], item["Location"]["col"], text)


def _step(step: str) -> str:
    bracket = rf"\s*\[\s*[\"`]{re.escape(step)}[\"`]\s*\]"
    return rf"(?:\s*\.\s*{step}|{bracket})" if _BARE.fullmatch(step) else bracket
