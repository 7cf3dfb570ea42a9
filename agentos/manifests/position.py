"""Where each part of a document stands in its file.

While a document is composed, a tree of marks grows beside its value: one mark per node, holding the marks of what is inside.
A `Text` is the file that marks point into; together they give the line and column of any path, and the excerpt that a fault
shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from agentos.manifests.fault import Path, printable

Mark = tuple[int, int, int, Any]
"""A node: line, column (both from 1), column after its end (0: it goes on to the next line or has no width), and what is inside.

Inside a mapping: `{key: (key's Mark, value's Mark)}`. Inside a sequence: a list of Marks. Otherwise None. Plain tuples, as
1,000 manifests have 50,000 of them.
"""

LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What the YAML parser counts as the end of a line."""

WIDEST_EXCERPT: Final = 160


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file: `line` and `column` count from 1, in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Text:
    """A file that was read: its name in messages, and its content."""

    name: str
    content: str

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends; `lines[0]` is line 1."""
        return LINE_BREAK.split(self.content)

    def line(self, number: int) -> str:
        """Line `number`, counted from 1; empty beyond the end."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def excerpt(self, mark: Mark) -> str:
        """The line of `mark` and carets below its width, both with a margin for the line number."""
        line, column, end, _ = mark
        source = self.line(line).replace("\t", " ")
        if not source.strip():
            return ""
        start = column - 1
        width = max(1, (end or len(source) + 1) - column)
        if start > WIDEST_EXCERPT // 2:
            cut = start - WIDEST_EXCERPT // 4
            source, start = "…" + source[cut + 1 :], start - cut
        if len(source) > WIDEST_EXCERPT:
            source = source[: WIDEST_EXCERPT - 1] + "…"
        width = max(1, min(width, len(source) - start))
        return f"{line:5} | {printable(source)}\n      | {' ' * start}{'^' * width}"


def find(root: Mark, path: Path, *, key: bool = False) -> Mark:
    """The mark of the value at `path`, or of its key; of the nearest part above when there is nothing at `path`.

    Where the last step found is the value of a key and the path goes on, the key's mark is given: it names what lacks the rest.
    """
    mark, key_mark = root, root
    for part in path:
        inside = mark[3]
        if isinstance(inside, dict) and part in inside:
            key_mark, mark = inside[part]
        elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
            mark = key_mark = inside[part]
        else:
            return key_mark
    return key_mark if key else mark
