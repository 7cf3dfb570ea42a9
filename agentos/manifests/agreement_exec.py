"""What an exec tool and its command have to agree on: a program that nobody chooses, words that are arguments, one place each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers.words import CALL_KEY, words
from agentos.files.confine import split
from agentos.manifests.fault import Path, Problem, shown
from agentos.manifests.tool_argument import argument_named

_HERE: Final[Path] = ("spec", "driver", "exec")


def check_exec(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of an exec tool, whose spec this is, beside those of its inputSchema."""
    declared = spec["driver"]["exec"]
    yield from _command(spec, declared["command"])
    if "stdin" in declared:
        yield from argument_named(spec, declared["stdin"], (*_HERE, "stdin"))
    if "folder" in declared:
        try:
            split(declared["folder"])
        except DriverError as error:
            yield Problem("tool.folder", (*_HERE, "folder"), error.message, "name a folder of the workspace, such as repo")
    if CALL_KEY in declared.get("env", {}):
        message = f"{CALL_KEY} is set by the runtime, to the key of the call"
        yield Problem("tool.environment", (*_HERE, "env", CALL_KEY), message, "remove it", at="key")


def _command(spec: Mapping[str, Json], command: Json) -> Iterator[Problem]:
    path = (*_HERE, "command")
    if not isinstance(command[0], str):
        message = "the first word is the program, and that is never for a caller to choose"
        yield Problem("tool.command", (*path, 0), message, "write the name of a program, or its absolute path")
        return
    if "/" in command[0] and not command[0].startswith("/"):
        message = f"{shown(command[0])} is a relative path, and would lead into the workspace"
        yield Problem("tool.command", (*path, 0), message, "name a program on PATH, or write its absolute path")
    for index, word in enumerate(command):
        if isinstance(word, str):
            try:
                words(["program", word], {})
            except DriverError as error:
                yield Problem("tool.command", (*path, index), error.message, "write another word")
        else:
            yield from _word(spec, word, (*path, index))


def _word(spec: Mapping[str, Json], word: Mapping[str, Json], path: Path) -> Iterator[Problem]:
    name = word["arg"]
    missing = list(argument_named(spec, name, (*path, "arg")))
    yield from missing
    if not missing and _types(spec, name) == {"object"}:
        message = f"argument {shown(name)} is an object, and cannot be a word"
        yield Problem("tool.argument", (*path, "arg"), message, "give it on standard input: `stdin`")


def _types(spec: Mapping[str, Json], name: str) -> set[str]:
    """The types that the schema of an argument names; empty if it names none."""
    known = spec.get("inputSchema", {}).get("properties", {})
    own = known.get(name) if isinstance(known, dict) else None
    said = own.get("type") if isinstance(own, dict) else None
    return {said} if isinstance(said, str) else set(said) if isinstance(said, list) else set()
