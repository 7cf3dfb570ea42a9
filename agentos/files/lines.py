"""Lines: how two texts differ, and which version each line of a text came with. Pure, and bounded: texts come from anybody.

Finding what two texts have in common takes time that grows with both. So large ones are split first at lines that each of them
has exactly once, and where there are none, what differs is told as a whole: all old lines went, all new ones came.
"""

from __future__ import annotations

import bisect
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

MAX_TEXT: Final = 1024 * 1024
"""Bytes of a text that is compared line by line, at most."""

_MOST_PAIRS: Final = 250_000
"""Most pairs of lines that are compared with each other; larger pieces are split first."""

_MOST_SPLITS: Final = 16
"""How often pieces of pieces are split."""

Block = tuple[int, int, int, int]
"""Lines [a, b) of the old text that became lines [c, d) of the new one."""


def text_of(content: bytes) -> str | None:
    """The text that a content is; None for a binary one, or one that is too large to be compared."""
    if len(content) > MAX_TEXT or b"\0" in content:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def unified(before: str, after: str, old: str, new: str) -> str:
    """A unified diff between texts named `old` and `new`; "" where there is none. Control characters are shown escaped."""
    a, b = split(before), split(after)
    out: list[str] = []
    for group in _grouped(changed(a, b), len(a), len(b), 3):
        first, last = group[0], group[-1]
        out.append(f"@@ -{_range(first[0], last[1])} +{_range(first[2], last[3])} @@")
        at = first[0]
        for a1, a2, b1, b2 in group[1:-1]:
            out += [f" {shown(line)}" for line in a[at:a1]]
            out += [f"-{shown(line)}" for line in a[a1:a2]]
            out += [f"+{shown(line)}" for line in b[b1:b2]]
            at = a2
        out += [f" {shown(line)}" for line in a[at : last[1]]]
    return "\n".join([f"--- {old}", f"+++ {new}", *out, ""]) if out else ""


def blame(texts: Sequence[tuple[int, str]]) -> list[tuple[str, int]]:
    """The lines of the last of `texts` (oldest first, each with its number), each with the number that it came with."""
    lines: list[str] = []
    came: list[int] = []
    for number, text in texts:
        fresh = split(text)
        from_: list[int] = []
        at = 0
        for a1, a2, b1, b2 in changed(lines, fresh):
            from_ += came[at:a1]
            from_ += [number] * (b2 - b1)
            at = a2
        from_ += came[at:]
        lines, came = fresh, from_
    return [(line.removesuffix("\n"), number) for line, number in zip(lines, came, strict=True)]


def changed(a: Sequence[str], b: Sequence[str], splits: int = _MOST_SPLITS) -> list[Block]:
    """The blocks in which two lists of lines differ, in order."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    left, right = a[start : len(a) - end], b[start : len(b) - end]
    if not left or not right:
        return [(start, len(a) - end, start, len(b) - end)] if left or right else []
    if len(left) * len(right) <= _MOST_PAIRS:
        codes = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
        found = [(a1, a2, b1, b2) for tag, a1, a2, b1, b2 in codes if tag != "equal"]
    else:
        found = _by_anchors(left, right, splits)
    return [(start + a1, start + a2, start + b1, start + b2) for a1, a2, b1, b2 in found]


def _by_anchors(a: Sequence[str], b: Sequence[str], splits: int) -> list[Block]:
    """The same, piece by piece between the lines that both have once, as far as these stand in the same order."""
    anchors = _anchors(a, b) if splits else []
    if not anchors:
        return [(0, len(a), 0, len(b))]
    found: list[Block] = []
    last_a = last_b = 0
    for at_a, at_b in [*anchors, (len(a), len(b))]:
        for a1, a2, b1, b2 in changed(a[last_a:at_a], b[last_b:at_b], splits - 1):
            found.append((last_a + a1, last_a + a2, last_b + b1, last_b + b2))
        last_a, last_b = at_a + 1, at_b + 1
    return found


def _anchors(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """The longest row of lines that both have once and in the same order, as places in both."""
    count_a, count_b = Counter(a), Counter(b)
    place = {line: at for at, line in enumerate(b)}
    pairs = [(at, place[line]) for at, line in enumerate(a) if count_a[line] == 1 and count_b.get(line) == 1]
    ends: list[int] = []
    best: list[int] = []
    before: list[int] = []
    for at, (_, at_b) in enumerate(pairs):
        length = bisect.bisect_left(ends, at_b)
        before.append(best[length - 1] if length else -1)
        if length == len(ends):
            ends.append(at_b)
            best.append(at)
        else:
            ends[length], best[length] = at_b, at
    row: list[tuple[int, int]] = []
    at = best[-1] if best else -1
    while at >= 0:
        row.append(pairs[at])
        at = before[at]
    return row[::-1]


def split(text: str) -> list[str]:
    """The lines of a text with their ends: a last line without one differs from the same line with one."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def shown(line: str) -> str:
    """A line without its end, safe for a terminal; one that has no end says so."""
    body = line.removesuffix("\n")
    text = "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in body)
    return text if line.endswith("\n") else f"{text}\n\\ no newline at the end"


def _grouped(blocks: list[Block], a: int, b: int, around: int) -> Iterator[list[Block]]:
    """Blocks that stand close together, between an empty one where their surroundings begin and one where they end."""
    group: list[Block] = []
    for block in blocks:
        if group and block[0] - group[-1][1] > 2 * around:
            yield _with_ends(group, a, b, around)
            group = []
        group.append(block)
    if group:
        yield _with_ends(group, a, b, around)


def _with_ends(group: list[Block], a: int, b: int, around: int) -> list[Block]:
    first, last = group[0], group[-1]
    before = min(around, first[0])
    after = min(around, a - last[1], b - last[3])
    return [
        (first[0] - before, first[0] - before, first[2] - before, first[2] - before),
        *group,
        (last[1] + after, last[1] + after, last[3] + after, last[3] + after),
    ]


def _range(start: int, end: int) -> str:
    return f"{start + 1 if end > start else start},{end - start}"
