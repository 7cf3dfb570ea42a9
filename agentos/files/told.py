"""What is told of versions: how a path differs between two moments, and which change each line of a file came with. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentos.abi.errors import NotFound
from agentos.files import lines
from agentos.files.versions import FILE, Blame, BlamedLine, Change, Difference, NotKept, State
from agentos.files.walk import printable

Content = Callable[[str], bytes]
"""A content by its digest. Raises NotKept."""


def difference(content: Content, path: str, before: State | None, after: State | None) -> Difference:
    """How a path differs, as a unified diff where both sides are text."""
    notes = []
    if before is not None and after is not None and before.mode != after.mode and before.kind == after.kind:
        notes.append(f"mode {before.mode:04o} → {after.mode:04o}")
    sides, whole = [], True
    for state in (before, after):
        text, note = _side(content, state)
        sides.append(text)
        whole = whole and not note
        if note and note not in notes:
            notes.append(note)
    old = "/dev/null" if before is None else printable(f"a/{path}")
    new = "/dev/null" if after is None else printable(f"b/{path}")
    text = lines.unified(sides[0], sides[1], old, new) if whole else ""
    return Difference(path, before, after, text, "; ".join(notes))


def blamed(path: str, history: Sequence[tuple[int, State | None]], content: Content, change: Callable[[int], Change]) -> Blame:
    """Which change each line of a file came with; `history` is of its path, the newest first. Raises NotFound, NotKept."""
    if not history or history[0][1] is None or history[0][1].kind != FILE:
        raise NotFound("no such file", where=printable(path)[:200])
    texts: list[tuple[int, str]] = []
    note = ""
    for number, state in reversed(history):
        if state is None or state.kind != FILE:
            texts.append((number, ""))
            continue
        try:
            text = lines.text_of(content(state.digest))
        except NotKept:
            if number == history[0][0]:
                raise
            text = None
        if text is not None:
            texts.append((number, text))
        elif number == history[0][0]:
            raise NotKept("it is no text, or a very long one", where=printable(path)[:200])
        else:
            note = "some versions are no text or were not kept: their lines are told of the next one"
    found = tuple(BlamedLine(line, number) for line, number in lines.blame(texts))
    return Blame(path, found, {number: change(number) for number in sorted({line.number for line in found})}, note)


def _side(content: Content, state: State | None) -> tuple[str, str]:
    """The text of one side, and why there is none to be shown."""
    if state is None:
        return "", ""
    if state.kind != FILE:
        return (f"{state.target}\n" if state.target else ""), ""
    try:
        text = lines.text_of(content(state.digest))
    except NotKept:
        return "", "the content was not kept"
    return ("", "not shown: binary, or too large") if text is None else (text, "")
