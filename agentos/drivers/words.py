"""Words: from the arguments of a call to the words that a program is started with, so that no value is taken for an option.

There is no shell: a word reaches the program as it is, whatever quotes, spaces or `;` it holds. What is left to guard against is
the program's own reading of its words. A value that begins with `-` would be an option to most: it is refused unless it stands
behind a literal `--`, or is joined to its flag (`--since=-5`). What else a program reads into a value (`@file`, `+command`) is
for the `inputSchema` of the tool to exclude.

    words(["grep", "-n", "--", {"arg": "pattern"}, {"arg": "paths"}], {"pattern": "-x", "paths": ["a", "b"]})
        == ("grep", "-n", "--", "-x", "a", "b")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import DriverError

CALL_KEY: Final = "AGENTOS_CALL_KEY"
"""The variable of a process that carries the idempotency key of its call."""

MAX_WORD: Final = 128 * 1024 - 1
"""Longest word, in bytes: MAX_ARG_STRLEN of Linux, which counts the zero at the end (execve(2))."""

MAX_WORDS: Final = 8192
"""Most words: a list that expands into more is a mistake."""

MAX_TOTAL: Final = 1024 * 1024
"""Most bytes of all words together, with a zero and a pointer for each: half of what Linux takes at its usual stack limit, so
that the environment, and the words of whoever sets the process apart, have room beside them.
"""

_END_OF_OPTIONS: Final = "--"


def words(command: Sequence[Json], args: Mapping[str, Json]) -> tuple[str, ...]:
    """The words of `command` with the values of `args` put in. Raises DriverError for a value that cannot or may not stand there.

    The first word is a literal: what is started is never for a caller to choose.
    """
    if not command or not isinstance(command[0], str):
        raise DriverError("the first word of a command is its program, never an argument", mend="write the name of a program")
    found: list[str] = []
    ended = False
    for word in command:
        if isinstance(word, str):
            found.append(_sound(word, "a word of the command"))
            ended = ended or word == _END_OF_OPTIONS
        else:
            found += _of_argument(str(word["arg"]), word.get("flag"), args, behind_end=ended)
    _check_size(found)
    return tuple(found)


def standard_input(name: str | None, args: Mapping[str, Json]) -> bytes | None:
    """What is given on standard input: the text of the argument `name`, or another value as JSON; None for nothing."""
    value = None if name is None else args.get(name)
    if value is None:
        return None
    try:
        return value.encode("utf-8") if isinstance(value, str) else canonical(value)
    except (UnicodeEncodeError, NotCanonical) as error:
        raise DriverError(f"argument `{name}` is not valid Unicode") from error


def located(args: Mapping[str, Json], names: Sequence[str], resolve: Callable[[str], str]) -> dict[str, Json]:
    """`args` with those at `names`, a path or a list of paths each, made absolute by `resolve`. Raises DriverError."""
    found = dict(args)
    for name in names:
        value = found.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            found[name] = resolve(value)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            found[name] = [resolve(item) for item in value]
        else:
            raise DriverError(f"argument `{name}` must be a path in the workspace")
    return found


def _of_argument(name: str, flag: str | None, args: Mapping[str, Json], *, behind_end: bool) -> list[str]:
    value = args.get(name)
    if value is None:
        return []
    if isinstance(value, bool) and flag is not None:
        return [flag.removesuffix("=")] if value else []
    found: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        text = _sound(_text(item, name), f"argument `{name}`")
        if flag is not None and flag.endswith("="):
            found.append(flag + text)
            continue
        if text.startswith("-") and not behind_end:
            raise DriverError(
                f"argument `{name}` begins with `-`, and would be taken for an option",
                mend=f"put `./` before it if it is a file; the tool allows such values behind `{_END_OF_OPTIONS}` alone",
            )
        found += [text] if flag is None else [flag, text]
    return found


def _text(value: Json, name: str) -> str:
    """`value` as one word: a text as it is, a number or truth value as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        try:
            return canonical(value).decode()
        except NotCanonical as error:
            raise DriverError(f"argument `{name}` is no number that can be written down") from error
    raise DriverError(f"argument `{name}` cannot be a word: expected a text, a number, or a list of them")


def _sound(text: str, what: str) -> str:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        # Python would turn some of them into bytes that nobody has looked at.
        raise DriverError(f"{what} is not valid Unicode") from error
    if "\0" in text:
        raise DriverError(f"{what} holds a NUL character, which would end it early")
    if size > MAX_WORD:
        raise DriverError(f"{what} has {size} bytes, and a word has at most {MAX_WORD}", mend="give it on standard input")
    return text


def _check_size(found: Sequence[str]) -> None:
    if len(found) > MAX_WORDS:
        raise DriverError(f"the command has {len(found)} words, and at most {MAX_WORDS} can be given", mend="call it with fewer")
    total = sum(len(word.encode("utf-8")) + 9 for word in found)
    if total > MAX_TOTAL:
        raise DriverError(f"the command has {total} bytes, and at most {MAX_TOTAL} can be given", mend="call it with fewer")
