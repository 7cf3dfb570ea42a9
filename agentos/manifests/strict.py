"""What libyaml reads although YAML 1.2 refuses it, or reads as something else: told from the text around an event.

Each function gives (what is wrong, how to mend it), or None. Found with the YAML test suite; what is left there (some flow
collections and quoted texts that are indented too little) is read as any author would mean it.
"""

from __future__ import annotations

import re
from typing import Any, Final

Slip = tuple[str, str]

ODD_QUESTION: Final = re.compile(r"\?\S")
"""Without this nowhere in a text, no key in it needs `question`."""

_HALF_LINE: Final = re.compile(r"[\n\r][ \t]+\Z")
_AFTER_ANCHOR: Final = frozenset(" \t\r\n,]}")


def completed(content: str) -> str:
    """`content` with its last line ended if that is blank: libyaml drops such a line from a block of text."""
    return content + "\n" if _HALF_LINE.search(content) else content


def comment(content: str, event: Any) -> Slip | None:
    """A `#` right behind quotes or a bracket: no comment in YAML 1.2."""
    end = event.end_mark.index
    if content[end : end + 1] == "#" and content[end - 1 : end] in {'"', "'", "]", "}"}:
        return "a comment right behind a value", "put a space before the #"
    return None


def anchor(content: str, event: Any) -> Slip | None:
    """An anchor or alias whose name libyaml cuts short."""
    after = event.start_mark.index + 1 + len(event.anchor)
    following = content[after : after + 1]
    if following and following not in _AFTER_ANCHOR and content[after - len(event.anchor) : after] == event.anchor:
        return f"the name of an anchor or alias goes on with {following}", "use letters, digits, - and _ in it"
    return None


def question(content: str, event: Any) -> Slip | None:
    """A key that begins with `?`: libyaml takes the sign away."""
    before = event.start_mark.index - 1
    if before >= 0 and content[before] == "?":
        return "a key that begins with ?", "put it in quotes"
    return None


def dash(text: str) -> Slip | None:
    """A lone `-` that libyaml reads as text inside brackets."""
    return ("a dash without a value", "put it in quotes to mean the sign") if text == "-" else None
