"""`agentos sched simulate`: a workload on a virtual clock, by the code that schedules for real. Needs no running system."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, ManifestError
from agentos.cli.command import emit, emit_json, emit_table, say
from agentos.cli.render.text import count
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.scheduler.report import Report
    from agentos.scheduler.simulate import Run
    from agentos.scheduler.workload import Workload

group = typer.Typer(
    no_args_is_help=True,
    help="Try how turns are scheduled.",
    epilog=examples("agentos sched simulate examples/contention/workload.yaml"),
)


class Format(StrEnum):
    """How the report is printed."""

    TABLE = "table"
    JSON = "json"


class Scheduler(StrEnum):
    """Who schedules: ours, or one of those that it is compared with."""

    FAIR = "fair"
    FIFO = "fifo"
    ROUND_ROBIN = "round-robin"


def register(app: typer.Typer) -> None:
    """Add the group `sched`."""
    group.command(
        epilog=examples(
            "agentos sched simulate examples/contention/workload.yaml",
            "agentos sched simulate examples/contention/workload.yaml --scheduler fifo -o json",
            "agentos sched simulate examples/contention/workload.yaml --rows rows.jsonl",
        )
    )(simulate)
    app.add_typer(group, name="sched")


def simulate(
    workload: Annotated[Path, typer.Argument(metavar="WORKLOAD", help="the YAML file that says who wants what")],
    scheduler: Annotated[Scheduler, typer.Option("--scheduler", help="who schedules")] = Scheduler.FAIR,
    rows: Annotated[
        Path | None, typer.Option("--rows", metavar="FILE", help="write every turn here, as JSON lines: who got what, and when")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="how to print")] = Format.TABLE,
) -> None:
    """Run a workload on a virtual clock.

    Prints shares deserved and received, waits, inversions and overdrafts. Needs no runtime.
    """
    from agentos.scheduler.report import report
    from agentos.scheduler.simulate import simulate as run_it

    run = run_it(load_workload(workload), str(scheduler))
    if rows is not None:
        _write_rows(rows, run)
    shown = report(run)
    if output is Format.JSON:
        emit_json(shown.to_dict())
    else:
        _print(shown)


def load_workload(path: Path) -> Workload:
    """The workload of a YAML file. Raises ManifestError with `file:line:column` and a mend for whatever is wrong with it."""
    from agentos.manifests.compose import DEFAULT_LIMITS, compose
    from agentos.manifests.gather import Unreadable, read_text
    from agentos.manifests.position import Mark, Text, find
    from agentos.scheduler.workload import read_workload

    try:
        text = Text(str(path), read_text(path, DEFAULT_LIMITS))
    except Unreadable as error:
        raise ManifestError(error.message, where=str(path), mend=error.mend) from error

    def wrong(mark: Mark, message: str, mend: str | None) -> ManifestError:
        return ManifestError(message, where=f"{text.name}:{mark[0]}:{mark[1]}", mend=mend or None)

    reading = compose(text)
    for flaw in reading.flaws:
        raise wrong(flaw.mark, flaw.message, flaw.mend)
    documents = [one for one in reading.documents if one.value is not None]
    if len(documents) != 1:
        told = f"a workload is one document, found {len(documents)}"
        raise ManifestError(told, where=text.name, mend="it has seconds, endpoints, classes and agents")
    try:
        return read_workload(documents[0].value)
    except ManifestError as error:
        fault = error.faults[0]
        steps = fault["path"]
        assert isinstance(steps, tuple)  # noqa: S101 - of our own making
        mark = find(documents[0].mark, steps, key=fault["at"] == "key")
        raise wrong(mark, error.message, error.mend) from error


def _write_rows(path: Path, run: Run) -> None:
    from agentos.scheduler.report import row_to_dict

    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row_to_dict(row), separators=(",", ":")) + "\n" for row in run.rows)
    except OSError as error:
        raise AgentOSError(f"the rows cannot be written: {error.strerror}", where=str(path)) from error
    say(f"{count(len(run.rows), 'row')} written")


def _print(shown: Report) -> None:
    shares = [
        [one.endpoint, one.priority, "/".join(one.path), one.weight, f"{one.deserved:,.0f}", f"{one.received:,}"]
        for one in shown.shares
        if len(one.path) < 3
    ]
    emit_table(["endpoint", "class", "share", "weight", "deserved", "received"], shares, shrink=["share", "class", "endpoint"])
    emit("")
    fairness = [
        [
            one.endpoint,
            one.priority,
            "/".join(one.parent) or "(tenants)",
            one.siblings,
            f"{one.jain:.4f}",
            "-" if one.worst is None else f"{one.worst:.4f}",
            f"{one.lag:,.0f}",
            f"{one.bound:,.0f}",
        ]
        for one in shown.fairness
    ]
    titles = ["endpoint", "class", "siblings of", "n", "jain", "worst", "lag", "bound"]
    emit_table(titles, fairness, shrink=["siblings of", "class"], empty="no siblings that always had work")
    emit("")
    waits = [
        [one.endpoint, one.priority, one.turns, one.left, _s(one.p50), _s(one.p95), _s(one.p99), _s(one.longest), one.stopped]
        for one in shown.waits
    ]
    emit_table(["endpoint", "class", "turns", "left", "p50 s", "p95 s", "p99 s", "most s", "stopped"], waits)
    emit("")
    late = sum(one.late for one in shown.waits)
    lines: list[tuple[str, Json]] = [
        ("turns", f"{shown.came:,} came, {shown.ended:,} ended, {shown.left:,} left, {shown.refused:,} refused by a budget"),
        ("jain", f"{shown.jain:.4f}, the least of any siblings"),
        ("inversions", f"{shown.inversions.count:,}"),
        ("", f"{_s(shown.inversions.longest_ms)} s: the longest wait while a lower class ran"),
        ("", f"{_s(shown.inversions.longest_turn_ms)} s: the longest turn of a lower class"),
        ("budgets", f"{count(len(shown.budgets), 'budget')}, {shown.overdrafts} exceeded"),
        ("late", f"{late:,} behind their deadline"),
    ]
    for name, told in lines:
        emit(f"{name:<11} {told}")


def _s(ms: int) -> str:
    return f"{ms / 1000:,.1f}"
