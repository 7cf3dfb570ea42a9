"""Whether a text can be an RE2 regular expression or a glob, told without the engine that will run it.

Grants are matched by OPA, whose expressions are RE2. Python's `re` stands in for the check; what the two spell differently is
translated or refused first. A pattern that passes here may still be refused by OPA; one that is refused here surely would be.
See https://github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

_LOOK_AROUND: Final = re.compile(r"\(\?(=|!|<=|<!|>|#|\(|P=|P>)")
_BACK_REFERENCE: Final = re.compile(r"[1-9]")
_REPEAT: Final = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")
_FLAGS: Final = re.compile(r"\(\?[imsU-]+\)")
_PROPERTY: Final = re.compile(r"\\[pP](\{\^?\w+\}|\w)")
_POSIX_CLASS: Final = re.compile(r"\[:\^?\w+:\]")
_MOST_REPEATS: Final = 1000
"""RE2 refuses to repeat more often."""


def refused_pattern(pattern: str) -> str | None:
    """Why RE2 would refuse `pattern`, as a clause; None if it seems sound."""
    if "\\Q" in pattern:
        return None
    bare, escapes = _without_escapes(pattern)
    if bare is None:
        return "it ends in a single backslash"
    for escape in escapes:
        if _BACK_REFERENCE.match(escape):
            return f"RE2 has no back-references (\\{escape})"
        if escape == "Z":
            return "RE2 spells the end of the text \\z, not \\Z"
    if _LOOK_AROUND.search(bare):
        return "RE2 has no look-around, no conditions and no comments"
    if any(int(number) > _MOST_REPEATS for found in _REPEAT.findall(bare) for number in found if number):
        return f"RE2 repeats at most {_MOST_REPEATS} times"
    return _refused_by_python(pattern)


def _without_escapes(pattern: str) -> tuple[str | None, list[str]]:
    """`pattern` with each escaped character and each class made neutral, and the characters that were escaped outside classes."""
    neutral, escapes = "", []
    place, in_class = 0, False
    while place < len(pattern):
        char = pattern[place]
        if char == "\\":
            if place + 1 == len(pattern):
                return None, []
            if not in_class:
                escapes.append(pattern[place + 1])
            place, char = place + 1, "."
        elif in_class:
            in_class, char = char != "]", "."
        elif char == "[":
            in_class, char = True, "."
            if pattern[place + 1 : place + 2] in {"]", "^"}:
                place += 2 if pattern[place + 1 : place + 3] == "^]" else 1
        neutral += char
        place += 1
    return neutral, escapes


def _refused_by_python(pattern: str) -> str | None:
    plain = _POSIX_CLASS.sub("a", _PROPERTY.sub(r"\\w", _FLAGS.sub("", pattern))).replace("\\z", "\\Z").replace("\\C", ".")
    plain = re.sub(r"\\x\{[0-9a-fA-F]+\}", "x", plain).replace("(?<", "(?P<").replace("(?U", "(?i")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(plain)
    except re.error as error:
        return str(error.msg)
    except (RecursionError, OverflowError):
        return "it is nested too deeply"
    return None


def refused_glob(glob: str) -> str | None:
    """Why OPA's `glob.match` would refuse `glob`, as a clause; None if it seems sound."""
    brackets = braces = 0
    escaped = False
    for char in glob:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif brackets:
            brackets = 0 if char == "]" else 1
        elif char == "[":
            brackets = 1
        elif char in "{}":
            braces += 1 if char == "{" else -1
            if braces < 0:
                return "a } without its {"
    if escaped:
        return "it ends in a single backslash"
    if brackets or braces:
        return "a bracket is not closed"
    return None
