"""`agentos validate`: every fault of the declarations in one go. Needs no running system and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.cli.command import colour, emit, emit_json, say
from agentos.cli.render.text import count
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.manifests import Fault, Finding, Loaded
    from agentos.policy.port import Module

CLEAN, FAULTS = 0, 1


class Format(StrEnum):
    """How faults are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def register(app: typer.Typer) -> None:
    """Add the verb `validate`."""
    app.command(
        "validate",
        help="Check declarations: every fault, its place and its mend. Needs no running system. Exit code 1: faults.",
        epilog=examples(
            "agentos validate examples programs", "agentos validate -f - < agents.yaml", "agentos validate . -o github"
        ),
    )(_validate)


def _validate(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="files and folders of manifests; - reads standard input")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--filename", "-f", metavar="PATH", help="the same as PATH, as other tools spell it")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="text, json for editors and CI, github for annotations")] = (
        Format.TEXT
    ),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show the line at fault also off a terminal")] = False,
) -> None:
    given = [*(paths or []), *(files or [])]
    if not given:
        raise UsageError("nothing to read", mend="name files or folders of manifests, or - for standard input")
    loaded = load_checked(given)
    if output is Format.JSON:
        emit_json(_report(loaded))
    elif output is Format.GITHUB:
        for fault in loaded.faults:
            emit(_annotation(fault))
    else:
        for fault in loaded.faults:
            emit(_text(fault, excerpt=verbose or sys.stdout.isatty(), coloured=colour()))
    say(_summary(loaded))
    raise typer.Exit(FAULTS if loaded.faults else CLEAN)


def load_checked(paths: Sequence[str]) -> Loaded:
    """Load `paths` with every check there is: schemas, references, the Rego of policies, the expressions of plays."""
    from agentos.manifests import load

    return load(paths, stdin=sys.stdin.buffer, check_policies=_check_policies, check_play=_check_play)


def _check_policies(modules: Sequence[Module], target: str) -> Sequence[Finding]:
    # Imported where it is needed: OPA takes a while to load, and most sets hold no policy.
    from agentos.policy.lint import lint

    return lint(modules, target=target)


def _check_play(play: Json) -> list[tuple[tuple[str | int, ...], str]]:
    from agentos.drivers.adapters.play import check_play

    return check_play(play)


def _report(loaded: Loaded) -> dict[str, Json]:
    """The shape of `schemas/v1/validate-output.json`."""
    return {
        "version": 1,
        "ok": not loaded.faults,
        "files": loaded.files,
        "resources": len(loaded.resources),
        "faults": [fault.to_dict() for fault in loaded.faults],
    }


def _text(fault: Fault, *, excerpt: bool, coloured: bool) -> str:
    line = str(fault)
    if coloured:
        place, rest = line.split(": ", 1)
        line = f"{typer.style(place, bold=True)}: {rest}"
    if not excerpt or not fault.excerpt:
        return line
    source, carets = fault.excerpt.split("\n")
    return f"{line}\n{source}\n{typer.style(carets, fg='red') if coloured else carets}"


def _annotation(fault: Fault) -> str:
    """A workflow command of GitHub Actions, which shows the fault beside the line of the change."""
    place = f"file={_property(fault.file)},line={max(fault.line, 1)},col={max(fault.column, 1)}"
    return f"::error {place},title={_property(fault.code)}::{_data(str(fault))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _summary(loaded: Loaded) -> str:
    sound = count(len(loaded.resources), "declaration")
    if not loaded.faults:
        return f"{sound} in {count(loaded.files, 'file')}: clean"
    broken = len({fault.file for fault in loaded.faults})
    return f"{count(len(loaded.faults), 'fault')} in {count(broken, 'file')}; {sound} without a fault"
