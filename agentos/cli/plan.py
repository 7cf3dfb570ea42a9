"""`agentos plan`: what would change, field by field. Changes nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError
from agentos.cli.command import call, colour, emit, emit_json, say
from agentos.cli.declared import Declared, read_declarations
from agentos.cli.render.plan_text import render_plan
from agentos.cli.render.text import plain
from agentos.cli.verb import examples
from agentos.registry.plan import Plan

NO_CHANGE, CHANGES = 0, 2


class Form(StrEnum):
    """How a plan is printed: every field, one line for each resource, or for programs."""

    TEXT = "text"
    BRIEF = "brief"
    JSON = "json"


PATHS = Annotated[list[str] | None, typer.Argument(metavar="PATH", help="files and folders of manifests; - reads standard input")]
FILES = Annotated[
    list[str] | None, typer.Option("--filename", "-f", metavar="PATH", help="the same as PATH, as other tools spell it")
]
PRUNE = Annotated[
    str | None,
    typer.Option("--prune", metavar="SELECTOR", help="delete what carries these labels (key=value,...) and is not declared"),
]


def register(app: typer.Typer) -> None:
    """Add the verb `plan`."""
    app.command(
        "plan",
        help="Show what apply would change, field by field. Changes nothing. Exit code 0: no change, 2: changes.",
        epilog=examples(
            "agentos plan examples/01-hello",
            "agentos plan examples/01-hello -o json",
            "agentos plan . --prune team=support -o triage.plan",
            "agentos apply --plan triage.plan",
        ),
    )(_plan)


def _plan(
    paths: PATHS = None,
    files: FILES = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            "--out",
            metavar="FILE",
            help="save the plan for apply --plan FILE; text, brief or json: as --format",
        ),
    ] = None,
    prune: PRUNE = None,
    format_: Annotated[Form, typer.Option("--format", help="how to print the plan")] = Form.TEXT,
) -> int:
    paths = [*(paths or []), *(files or [])]
    # Who types `-o json` wants JSON, not a file of that name; `-o ./json` is the file.
    format_, file = (Form(output), None) if output in set(Form) else (format_, Path(output) if output else None)
    declared = read_declarations(paths)
    answer = ask_plan({"manifests": declared.manifests, **({"prune": prune} if prune else {})})
    plan = Plan.from_dict(answer["plan"])
    if file is not None:
        save_plan(plan, file)
    if format_ is Form.JSON:
        emit_json(answer)
    else:
        show_plan(plan, answer, declared, form=format_)
    if not plan.changes:
        return NO_CHANGE
    _hint(answer, file, paths)
    return CHANGES


def ask_plan(params: dict[str, Json]) -> dict[str, Json]:
    """The runtime's proposal for `params` of `registry.plan`."""
    answer: dict[str, Json] = call("registry.plan", params)
    return answer


def show_plan(plan: Plan, answer: Mapping[str, Json], declared: Declared | None = None, *, form: Form = Form.TEXT) -> None:
    """The plan on standard output; what policy says to it, with the place in the file, on standard error.

    Where standard output is for programs (`Form.JSON`), the plan goes to standard error too, in its brief form.
    """
    aside = form is Form.JSON
    positions = declared.positions if declared else None
    text = render_plan(plan, colour=colour(aside), positions=positions, brief=form is not Form.TEXT)
    (say if aside else emit)(text)
    for line in admission_lines(plan, answer.get("admission", {}), declared):
        say(plain(line))


def admission_lines(plan: Plan, admission: Mapping[str, Json], declared: Declared | None) -> Sequence[str]:
    """What the admission policy says against a plan, one line each: refusals, then what it would say once enforced."""
    lines = []
    for said in admission.values():
        if said["effect"] != "allow":
            rules = ", ".join(said["rules"])
            lines += [f"{place_of(reason, plan, declared)}policy refuses: {rules}: {reason}" for reason in said["reasons"]]
        for seen in said.get("observed", []):
            rule, reason = seen.get("rule", ""), seen.get("reason", "")
            lines.append(f"{place_of(reason, plan, declared)}policy warns ({seen.get('mode', 'warn')}): {rule}: {reason}")
    return lines


def place_of(reason: str, plan: Plan, declared: Declared | None) -> str:
    """`file:line:column: ` of the one declaration that `reason` speaks of, empty when that is not clear."""
    if declared is None:
        return ""
    keys = [change.key for change in plan.changes]
    words = set(reason.replace("/", " ").replace('"', " ").replace("'", " ").replace(",", " ").replace(":", " ").split())
    named = [key for key in keys if str(key) in reason] or [key for key in keys if key.name in words]
    one = named[0] if len(named) == 1 else keys[0] if len(keys) == 1 else None
    position = declared.positions.get(str(one)) if one is not None else None
    return f"{position}: " if position else ""


def save_plan(plan: Plan, file: Path) -> None:
    """Write `plan` to `file`. Raises AgentOSError when it cannot be written."""
    try:
        file.write_text(json.dumps(plan.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise AgentOSError(f"the plan cannot be saved: {error.strerror}", where=str(file)) from error


def loud_flags(words: Sequence[str]) -> list[str]:
    """The flags for words such as `allow_destroy`."""
    return [f"--{word.replace('_', '-')}" for word in words]


def _hint(answer: Mapping[str, Json], file: Path | None, paths: Sequence[str]) -> None:
    what = ["--plan", str(file)] if file is not None else list(paths)
    say(f"next: agentos apply {plain(shlex.join([*what, *loud_flags(answer['needs'])]))}")
