"""`agentos locks`: which session holds what, who waits for it, and taking a lock from one that will not let go."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Facts, call, emit, emit_table, say, show
from agentos.cli.render.text import clock, plain
from agentos.cli.verb import Group, examples, with_root_options

EXAMPLES = examples("agentos locks", "agentos locks -o json", "agentos locks break ledger --reason 'its session hangs'")


class Locks(Group):
    """A group that is a verb by itself as well, and so takes the root options."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own parameters, and the root options."""
        return with_root_options(super().get_params(ctx), ctx)


group = typer.Typer(rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="locks")


@group.callback(cls=Locks, invoke_without_command=True, epilog=EXAMPLES)
def locks(
    context: typer.Context,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """List the tenant's locks: holder, token, lease, and who waits, in the order in which they get it.

    Below the table: who waits for whom; people who are to approve something are among them, and sessions that begin later.
    """
    if context.invoked_subcommand is not None:
        return
    answer = call("lock.list", {})
    show(answer, output, lambda: _print(answer))


@group.command("break", epilog=examples("agentos locks break ledger --reason 'its session hangs'"))
def break_(
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="the resource, as `agentos locks` names it")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the tenant's audit chain")],
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Take a lock from the session that holds it; the next one that waits gets it.

    The session is not stopped: its token counts for nothing from now on, and whoever checks tokens refuses it.
    """
    answer = call("lock.break", {"resource": resource, "reason": reason})

    def told() -> None:
        held = f"held by {plain(answer['session'])} with token {answer['token']}" if "session" in answer else "unreadable"
        say(f"{plain(resource)} was {held}; it is free now")

    show(answer, output, told)


def _print(answer: Json) -> None:
    rows = [
        [
            plain(one["resource"]),
            plain(one.get("session", "-")),
            plain(one.get("agent", "-")),
            one.get("token", "-"),
            clock(one["since"]) if "since" in one else "-",
            ("over: " if one["expired"] else "") + clock(one["expires"]) if "expires" in one else "-",
            ", ".join(f"{plain(waiter['session'])} ({plain(waiter['agent'])})" for waiter in one["waiters"]) or "-",
        ]
        for one in answer["locks"]
    ]
    headers = ["resource", "held by", "agent", "token", "since", "until", "waiters"]
    emit_table(headers, rows, shrink=("resource",), empty="nothing is locked")
    for number, wait in enumerate(answer["waits"]):
        if not number:
            emit("")
        emit(f"{plain(wait['waiter'])} waits for {plain(wait['holder'])} ({plain(wait['reason'])})")
