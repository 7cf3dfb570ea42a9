"""`agentos harness`: whether a program keeps to the syscall ABI, so that it can be the brain of an agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.errors import UsageError
from agentos.cli.command import Facts, emit_table, paint, say, show
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.conformance import Case, Outcome, Report

group = typer.Typer(
    no_args_is_help=True,
    help="Harnesses: programs that can be the brain of an agent, over the syscall ABI (docs/abi.md).",
    epilog=examples("agentos harness check --builtin", "agentos harness check sh my-harness.sh"),
    rich_markup_mode=None,
)

PATIENCE = 30.0


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="harness")


@group.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "agentos harness check --builtin",
        "agentos harness check sh my-harness.sh",
        "agentos harness check --only eof --only greeting.answers ./my-harness",
        "agentos harness check -o json python -I my_harness.py",
        "agentos harness check --list",
    ),
)
def check(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="the program and its arguments; options stand before it")
    ] = None,
    builtin: Annotated[bool, typer.Option("--builtin", help="check the built-in loop")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ID", help="only this case, or this group of cases; may be repeated")
    ] = None,
    sandbox: Annotated[
        str, typer.Option("--sandbox", metavar="KIND", help="bubblewrap, or none: with all rights of your user")
    ] = "bubblewrap",
    mount: Annotated[
        list[Path] | None,
        typer.Option(
            "--mount", metavar="PATH", exists=True, help="a file or folder that it needs too, read-only; may be repeated"
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option("--patience", min=0.5, max=600, metavar="SECONDS", help="how long it may take for one answer")
    ] = PATIENCE,
    list_: Annotated[bool, typer.Option("--list", help="list the cases, try none")] = False,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Play the kernel for a program, in scripted situations, and report what it does wrong.

    Needs no running runtime. Each case starts the program anew, in a sandbox without network, workspace and home; files among
    the words of COMMAND are there read-only. Exit codes: 0 it keeps to the ABI, 1 a case failed.
    """
    from agentos.boot.harness_check import check_harness
    from agentos.conformance import all_cases

    cases = _chosen(all_cases(), only or [])
    if list_:
        rows = [{"id": case.id, "title": case.title} for case in cases]
        show(rows, output, lambda: emit_table(("case", "the harness"), [(one["id"], one["title"]) for one in rows]))
        return 0
    if bool(command) == builtin:
        raise UsageError("say which harness", mend="give a COMMAND, or --builtin")
    if sandbox not in {"bubblewrap", "none"}:
        raise UsageError(f"there is no sandbox {sandbox!r} for a check", mend="bubblewrap or none")
    if sandbox == "none":
        say("no sandbox: the program runs with all rights of your user")
    report = check_harness(command or [], cases, apart=sandbox != "none", patience=patience, mounts=mount or [])
    show(report.to_dict(), output, lambda: _told(report))
    return 0 if report.sound else 1


def _chosen(cases: tuple[Case, ...], only: list[str]) -> tuple[Case, ...]:
    from agentos.manifests.fault import closest

    known = {case.id for case in cases} | {case.group for case in cases}
    for word in only:
        if word not in known:
            meant = closest(word, sorted(known))
            raise UsageError(f"there is no case {word!r}", mend=f"did you mean {meant}?" if meant else "see --list")
    return tuple(case for case in cases if not only or case.id in only or case.group in only)


def _told(report: Report) -> None:
    groups: dict[str, list[Outcome]] = {}
    for one in report.outcomes:
        groups.setdefault(one.case.group, []).append(one)
    emit_table(
        ("cases", "passed", "of"),
        [(name, sum(one.verdict == "passed" for one in several), len(several)) for name, several in groups.items()],
    )
    for one in report.outcomes:
        if one.verdict != "passed":
            red = paint(str(one.verdict), fg="red" if one.verdict == "failed" else "yellow")
            say(f"{red} {one.case.id}: it {one.case.title}: {plain(one.why)}")
    told = report.to_dict()
    say(
        f"{told['passed']} of {count(told['passed'] + told['failed'], 'case')} passed, {told['not_tried']} not tried, "
        f"score {told['score']}, sandbox {told['sandbox']}"
    )
