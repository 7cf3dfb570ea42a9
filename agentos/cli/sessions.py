"""`agentos ps`, `logs`, `wait` and `cancel`: what runs, what it does, and stopping it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.event import rfc3339
from agentos.cli.command import Facts, Output, call, emit, emit_table, say, show, with_client
from agentos.cli.family import came_from, tree
from agentos.cli.follow import begins, follow, lines, pages, show_end
from agentos.cli.render.text import WHOLE, clock, short
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client

GOAL: Final = 60
"""Most characters of a goal in the table."""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog=examples("agentos ps", "agentos ps --all -o wide", "agentos ps --all -o json"))(ps)
    app.command(epilog=examples("agentos logs SESSION", "agentos logs SESSION --follow", "agentos logs SESSION -o json"))(logs)
    app.command(epilog=examples("agentos wait SESSION"))(wait)
    app.command(epilog=examples("agentos cancel SESSION --reason 'wrong folder'"))(cancel)


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="ended sessions too")] = False,
    as_tree: Annotated[bool, typer.Option("--tree", help="whoever was delegated to below its parent")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="NUMBER", help="at most so many, newest first")] = 100,
    output: Annotated[Output, typer.Option("--output", "-o", help="how to print")] = Output.TABLE,
) -> None:
    """List the tenant's sessions that have not ended, newest first.

    A session that others were delegated to has them in the column PARENT, or below it with --tree.
    """
    rows = call("session.list", {"all": everything, "limit": limit})
    wide = output is Output.WIDE
    parents = not wide and not as_tree and any(row["origin"] == "delegated" for row in rows)
    headers = ["session", "agent", "state", "calls", "denied", "tokens", "created"]
    headers += ["from", "actor", "revision", "goal"] if wide else ["parent", "goal"] if parents else ["goal"]
    empty = (
        "no session was ever started: agentos run AGENT GOAL" if everything else "nothing runs; ended sessions: agentos ps --all"
    )

    def table() -> None:
        placed = tree(rows) if as_tree else [(0, row) for row in rows]
        cells = [_row(row, depth, wide=wide, parents=parents) for depth, row in placed]
        emit_table(headers, cells, shrink=() if wide else ("goal", "agent"), empty=empty)

    show(rows, output, table, name="id")


def _row(row: Json, depth: int, *, wide: bool, parents: bool) -> list[object]:
    cells = [
        "  " * depth + row["id"],
        row["agent"],
        _state(row, wide),
        row["calls"],
        row["denied"],
        row["input_tokens"] + row["output_tokens"],
        clock(rfc3339(row["created_ms"])),
    ]
    if wide:
        return [*cells, came_from(row), row["actor"], row["config_revision"], short(row["goal"], WHOLE)]
    parent = [row["parent"] if row["origin"] == "delegated" else "-"] if parents else []
    return [*cells, *parent, short(row["goal"], GOAL)]


def _state(row: Json, wide: bool) -> str:
    """The state; of a deferred session what it waits for: in the narrow table the first thing, and how many more there are."""
    if "frozen" in row:
        return "frozen" if row["state"] == "running" else f"{row['state']}, frozen"
    if row["state"] != "deferred":
        return str(row["state"])
    waits = row["deferred"]
    if wide:
        return f"deferred: {begins(waits)}"
    times = [f"until {clock(rfc3339(waits['not_before']))}"] if "not_before" in waits else []
    named = [f"after {name}" for name in (*waits.get("after", ()), *waits.get("after_any", ()))]
    first, *more = [*times, *named]
    return f"deferred {first}{f' +{len(more)}' if more else ''}"


def logs(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="the session")],
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="go on until the session ends")] = False,
    output: Annotated[Facts, typer.Option("--output", "-o", help="lines (table), or the events themselves")] = Facts.TABLE,
) -> None:
    """Print what a session did, event by event, from the log itself."""
    if follow_ and output is not Facts.TABLE:
        raise UsageError("--follow prints lines", mend=f"leave out -o {output}, or wait first: agentos wait {session}")

    async def work(client: Client) -> None:
        if follow_:
            await follow(client, session, through_waits=True)
            return
        kept: list[Json] = []
        async for events, _ in pages(client, session):
            if output is not Facts.TABLE:
                kept += events
                continue
            for event in events:
                for text in lines(event):
                    emit(text)
        show(kept, output, lambda: None)

    with_client(work)


def wait(session: Annotated[str, typer.Argument(metavar="SESSION", help="the session")]) -> int:
    """Block until a session ends, waits for a person, or is paused.

    Exit codes: 0 finished, 1 failed or cancelled, 3 halted by policy, 5 waits for approval or is paused.
    """

    async def work(client: Client) -> Json:
        await follow(client, session, tell=lambda _: None)
        return await client.call("session.get", {"session": session})

    return show_end(with_client(work))


def cancel(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="the session")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the log")] = "cancelled by hand",
) -> None:
    """Stop a session for good.

    A tool that is acting is stopped; if its outcome cannot be known, the log says so.
    """
    call("session.cancel", {"session": session, "reason": reason})
    say(f"session {session} is cancelled")
