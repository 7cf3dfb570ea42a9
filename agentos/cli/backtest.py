"""`agentos policy backtest` and `suggest`: other rules tried on what really happened, and a grant drafted from denials."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Facts, emit, emit_table, emit_yaml, say, show, with_client
from agentos.cli.rego import read_modules
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.audit.backtest import Report
    from agentos.cli.proposal import Deciders
    from agentos.control.client import Client
    from agentos.projections.question import Recorded

SHOWN: Final = 20
"""Flips, and decisions that could not be tried, that are listed one by one; the counts cover all."""


class Mode(StrEnum):
    """The mode in which the proposed rules are tried."""

    ENFORCE = "enforce"
    WARN = "warn"
    DRYRUN = "dryrun"


def register(group: typer.Typer) -> None:
    """Add the verbs to `agentos policy`."""
    group.command(
        epilog=examples(
            "agentos policy backtest stricter/",
            "agentos policy backtest stricter/ --since 30d --agent triage -o json",
            "agentos policy backtest watched/ --mode enforce --tool write",
        )
    )(backtest)
    group.command(epilog=examples("agentos policy suggest s-0k3v9…", "agentos policy suggest s-0k3v9… > grant.yaml"))(suggest)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which decisions are tried: not older than `since` (ms), about this agent and this tool (None: any)."""

    since: int
    agent: str | None
    tool: str | None

    def takes(self, item: Recorded) -> bool:
        asked = item.question
        return self.agent in (None, asked["agent"]["name"]) and self.tool in (None, asked["syscall"]["tool"])


def backtest(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="the proposed Rego; a package replaces the one in force")
    ],
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="RFC 3339, or back from now: 30d, 2h")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="only calls of this agent")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="NAME", help="only calls of this tool")] = None,
    mode: Annotated[Mode | None, typer.Option("--mode", help="the mode of the proposed rules; default: as in force")] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Try other policies on what was recorded.

    Every recorded call and change is decided again. Exit code 2: some would have been decided otherwise.
    """
    from agentos.audit.backtest import Report
    from agentos.audit.query import parse_moment
    from agentos.cli.proposal import Deciders, Proposal

    proposal = Proposal(read_modules(paths), str(mode) if mode is not None else None)
    wanted = _Wanted(parse_moment(since, now_ms=_now_ms()) if since is not None else 0, agent, tool)
    report = Report(keep=SHOWN if output is Facts.TABLE else None)

    async def work(client: Client) -> None:
        for line in proposal.said(await client.call("policy.facts", {})):
            say(line)
        deciders = Deciders(client, proposal)
        try:
            # A change of the registry is of no agent and of no tool.
            if "admission" in proposal.targets and agent is None and tool is None:
                await _admissions(client, deciders, wanted, report)
            if "syscall" in proposal.targets:
                await _syscalls(client, deciders, wanted, report)
        finally:
            deciders.close()

    with_client(work)
    show(report.to_dict(), output, lambda: _show(report))
    say(_summary(report))
    return 2 if report.flipped else 0


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


async def _admissions(client: Client, deciders: Deciders, wanted: _Wanted, report: Report) -> None:
    from agentos.audit.backtest import Admission, admit_again
    from agentos.cli.past import changes

    async for item in changes(client, wanted.since):
        if isinstance(item, Admission):
            # What decided about a change was the policy in force before it.
            await admit_again(item, (await deciders.of(item.revision - 1)).admit, report)
        else:
            report.leave(item)


async def _syscalls(client: Client, deciders: Deciders, wanted: _Wanted, report: Report) -> None:
    from agentos.audit.backtest import try_again
    from agentos.audit.history import Undecidable
    from agentos.cli.past import decisions

    with _progress() as progress:
        async for items in decisions(client, wanted.since, progress):
            by_revision: dict[int, list[Recorded]] = {}
            for item in items:
                if isinstance(item, Undecidable):
                    report.leave(item)
                elif wanted.takes(item):
                    by_revision.setdefault(item.question["config_revision"], []).append(item)
            for revision, those in sorted(by_revision.items()):
                await try_again(those, (await deciders.of(revision)).decide_syscall, report)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("events", total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)


def _show(report: Report) -> None:
    if report.flipped:
        emit_table(("flip", "rule", "agent", "tool", "count"), report.counts())
        emit("")
        for flip in report.flips:
            why = plain("; ".join(flip.reasons))[:160]
            emit(f"{flip.decision} {plain(flip.call)}  {flip.before} → {flip.after}  {plain(flip.tool)}: {why}")
        _more(report.flipped - len(report.flips))
    if report.undecidable:
        emit("")
        emit_table(("undecidable because", "count"), report.reasons())
        emit("")
        for _, one in report.left:
            emit(f"{one.decision} {plain(one.call)}  {plain(one.reason)}")
        _more(report.undecidable - len(report.left))


def _more(number: int) -> None:
    if number:
        emit(f"… {number} more (-o json shows all)")


def _summary(report: Report) -> str:
    tried = [count(report.decided, "call")]
    if report.admitted:
        tried.append(count(report.admitted, "change"))
    left = f", {report.undecidable} undecidable" if report.undecidable else ""
    return f"{' and '.join(tried)} tried again: {count(report.flipped, 'flip')}{left}"


def suggest(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="the session whose denials are read")],
) -> int:
    """Draft grants from the denials of a session.

    Narrow ToolGrants as YAML, from what grants alone denied. Nothing is applied.
    """
    from agentos.audit.suggest import suggest as draft

    async def work(client: Client) -> Json:
        return await client.call("policy.recorded", {"sessions": [session]})

    grants = draft(with_client(work)["decisions"], name=f"draft-{session}", now_ms=_now_ms())
    if not grants:
        say("no call of this session was denied for want of a grant alone")
        return 0
    for place, grant in enumerate(grants):
        if place:
            emit("---")
        emit_yaml(grant)
    say("a draft: an injected call among the denials would be granted too; read it, narrow it, then agentos plan")
    return 0
