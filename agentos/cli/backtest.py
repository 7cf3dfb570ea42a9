"""`agentos policy backtest` and `suggest`: other rules tried on what really happened, and a grant drafted from denials."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Facts, emit, emit_json, emit_table, emit_yaml, say, with_client
from agentos.cli.rego import read_modules
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.abi.decision import Decision
    from agentos.audit.backtest import Report
    from agentos.control.client import Client
    from agentos.policy.port import Module

PAGE: Final = 50
"""Sessions asked for at one time."""

MOST_SESSIONS: Final = 10_000
SHOWN: Final = 20
"""Flips that are listed one by one; the counts cover all."""

Decide = Callable[[Mapping[str, Json]], Awaitable["Decision"]]


def register(group: typer.Typer) -> None:
    """Add the verbs to `agentos policy`."""
    group.command(
        epilog=examples(
            "agentos policy backtest stricter/", "agentos policy backtest stricter/ --since 30d --agent triage -o json"
        )
    )(backtest)
    group.command(epilog=examples("agentos policy suggest s-0k3v9…", "agentos policy suggest s-0k3v9… > grant.yaml"))(suggest)


def backtest(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="the proposed Rego; a package replaces the one in force")
    ],
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="RFC 3339, or back from now: 30d, 2h")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="only decisions about this agent")] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Try other policies on what was recorded.

    Every recorded syscall is decided again. Exit code 2: some would have been decided otherwise.
    """
    from agentos.audit.backtest import Report

    proposed = read_modules(paths)
    report = Report()

    async def work(client: Client) -> None:
        deciders: dict[int, Decide] = {}
        async for decisions in _history(client, since, agent):
            await _again(client, proposed, decisions, deciders, report)

    with_client(work)
    if output is Facts.TABLE:
        _show(report)
    else:
        body: Json = {"decided": report.decided, "flips": [flip.to_dict() for flip in report.flips]}
        (emit_json if output is Facts.JSON else emit_yaml)(body)
    say(f"{count(report.decided, 'decision')} tried again: {count(len(report.flips), 'flip')}")
    return 2 if report.flips else 0


async def _history(client: Client, since: str | None, agent: str | None) -> AsyncIterator[list[Json]]:
    from agentos.audit.query import parse_moment

    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    oldest = parse_moment(since, now_ms=now_ms) if since is not None else 0
    rows = await client.call("session.list", {"all": True, "limit": MOST_SESSIONS})
    wanted = [row["id"] for row in reversed(rows) if row["updated_ms"] >= oldest and agent in (None, row["agent"])]
    for start in range(0, len(wanted), PAGE):
        if sys.stderr.isatty():
            typer.echo(f"\r{start} of {len(wanted)} sessions", err=True, nl=False)
        answer = await client.call("policy.recorded", {"sessions": wanted[start : start + PAGE]}, within=120)
        yield [item for item in answer["decisions"] if item["question"]["now"] >= oldest]
    if sys.stderr.isatty():
        typer.echo("\r" + " " * 40 + "\r", err=True, nl=False)


async def _again(
    client: Client, proposed: Sequence[Module], decisions: Sequence[Json], deciders: dict[int, Decide], report: Report
) -> None:
    from agentos.audit.backtest import try_again

    for revision in sorted({item["question"]["config_revision"] for item in decisions}):
        if revision not in deciders:
            deciders[revision] = await _decider(client, revision, proposed)
        mine = [item for item in decisions if item["question"]["config_revision"] == revision]
        await try_again(mine, deciders[revision], report)


async def _decider(client: Client, revision: int, proposed: Sequence[Module]) -> Decide:
    """The policy of that revision, its packages replaced by the proposed ones of the same name."""
    from agentos.policy import syntax
    from agentos.policy.adapters.embedded import EmbeddedFactory
    from agentos.policy.adapters.opa import parse
    from agentos.policy.bundle import is_test
    from agentos.policy.decide import Decider
    from agentos.policy.port import Module

    facts = await client.call("policy.facts", {"revision": revision})
    fresh = [module for module in proposed if not is_test(module)]
    replaced = {syntax.package(parse(module)) for module in fresh}
    kept = [Module(item["path"], item["source"]) for item in facts["modules"]]
    kept = [module for module in kept if syntax.package(parse(module)) not in replaced]
    decider = await Decider.load(EmbeddedFactory(), [*kept, *fresh], facts["data"], decision_seconds=5.0)
    return decider.decide_syscall


def _show(report: Report) -> None:
    if not report.flips:
        return
    emit_table(("flip", "rule", "agent", "tool", "count"), report.counts())
    emit("")
    for flip in report.flips[:SHOWN]:
        emit(f"{flip.session} {flip.call}  {flip.before} → {flip.after}  {flip.tool}: {plain('; '.join(flip.reasons))[:160]}")
    if len(report.flips) > SHOWN:
        emit(f"… {len(report.flips) - SHOWN} more (-o json shows all)")


def suggest(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="the session whose denials are read")],
) -> int:
    """Draft a grant from the denials of a session.

    A narrow ToolGrant as YAML, from what grants alone denied. Nothing is applied.
    """
    from agentos.audit.backtest import suggest as draft

    async def work(client: Client) -> Json:
        return await client.call("policy.recorded", {"sessions": [session]})

    grant = draft(with_client(work)["decisions"], name=f"draft-{session}")
    if grant is None:
        say("no call of this session was denied for want of a grant alone")
        return 0
    emit_yaml(grant)
    say("a draft: an injected call among the denials would be granted too; read it, narrow it, then agentos plan")
    return 0
