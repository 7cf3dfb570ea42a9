"""`agentos ps`, `logs`, `wait` and `cancel`: what runs, what it does, and stopping it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.event import rfc3339
from agentos.cli.command import Output, call, emit_json, emit_table, emit_yaml, say, with_client
from agentos.cli.follow import follow, show_end

if TYPE_CHECKING:
    from agentos.control.client import Client


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog="Examples: agentos ps; agentos ps --all -o json")(ps)
    app.command(epilog="Examples: agentos logs s-0k3v9…; agentos logs s-0k3v9… -f; agentos logs s-0k3v9… -o json")(logs)
    app.command(epilog="Example: agentos wait s-0k3v9…")(wait)
    app.command(epilog="Example: agentos cancel s-0k3v9… --reason 'wrong folder'")(cancel)


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="ended sessions too")] = False,
    limit: Annotated[int, typer.Option("--limit", help="at most so many, newest first")] = 100,
    output: Annotated[Output, typer.Option("--output", "-o", help="table, wide, json, yaml or name")] = Output.TABLE,
) -> None:
    """The tenant's sessions, newest first."""
    rows = call("session.list", {"all": everything, "limit": limit})
    match output:
        case Output.JSON:
            emit_json(rows)
        case Output.YAML:
            emit_yaml(rows)
        case Output.NAME:
            for row in rows:
                typer.echo(row["id"])
        case _:
            wide = output is Output.WIDE
            headers = ["session", "agent", "state", "calls", "denied", "tokens", "created"]
            table = [_row(row, wide) for row in rows]
            emit_table([*headers, "actor", "revision", "goal"] if wide else headers, table)
            if not rows and not everything:
                say("nothing runs; ended sessions: agentos ps --all")


def _row(row: Json, wide: bool) -> list[object]:
    cells = [
        row["id"],
        row["agent"],
        row["state"],
        row["calls"],
        row["denied"],
        row["input_tokens"] + row["output_tokens"],
        rfc3339(row["created_ms"]),
    ]
    return [*cells, row["actor"], row["config_revision"], row["goal"]] if wide else cells


def logs(
    session: Annotated[str, typer.Argument(help="the session")],
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="go on until the session ends")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="table (lines) or json (events)")] = Output.TABLE,
) -> None:
    """What a session did, event by event, from the log itself."""
    if output is Output.JSON:
        emit_json(call("session.events", {"session": session})["events"])
        return

    async def work(client: Client) -> None:
        if follow_:
            await follow(client, session, through_waits=True)
        else:
            from agentos.cli.follow import lines

            for event in (await client.call("session.events", {"session": session}))["events"]:
                for text in lines(event):
                    typer.echo(text)

    with_client(work)


def wait(session: Annotated[str, typer.Argument(help="the session")]) -> int:
    """Block until a session ends or waits for a person. Exit codes: 0 finished, 1 failed, 3 halted by policy, 5 waits."""

    async def work(client: Client) -> Json:
        await follow(client, session, quiet=True)
        return await client.call("session.get", {"session": session})

    return show_end(with_client(work))


def cancel(
    session: Annotated[str, typer.Argument(help="the session")],
    reason: Annotated[str, typer.Option("--reason", help="why; stands in the log")] = "cancelled by hand",
) -> None:
    """Stop a session for good. A tool that is acting is stopped; if its outcome cannot be known, the log says so."""
    call("session.cancel", {"session": session, "reason": reason})
    say(f"session {session} is cancelled")
