"""`agentos session fork`: go on from any point of a session, in a new one, under the declarations of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.cli.approvals import duration
from agentos.cli.command import Facts, emit, say, show, with_client
from agentos.cli.render.text import plain
from agentos.cli.session import Session, Shape, ask, group
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client


def register(_app: typer.Typer) -> None:
    """Add the verb to the group `session`."""
    group.command(
        epilog=examples(
            "agentos session fork SESSION --at 12",
            "agentos session fork SESSION --at 12 --agent careful --reason 'without the outbox'",
            "fork=$(agentos session fork SESSION --at 12) && agentos wait $fork && agentos session diff SESSION $fork",
        )
    )(fork)


def fork(
    session: Session,
    at: Annotated[
        str, typer.Option("--at", metavar="EVENT", help="the event to go on behind: its number, or its id (agentos logs)")
    ],
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="the agent that goes on (default: the session's own)")
    ] = None,
    goal: Annotated[
        str | None, typer.Option("--goal", metavar="TEXT", help="what it is to do instead of what the session was to do")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="why; stands in the fork's log")] = None,
    priority: Annotated[
        str | None,
        typer.Option("--priority", metavar="CLASS", help="the PriorityClass of its turns (default: as before)"),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="DURATION", help="when it is due, such as 10m (default: as before)"),
    ] = None,
    output: Shape = Facts.TABLE,
) -> None:
    """Go on from a point of a session in a new one; print its id.

    The fork knows all that the session knew after that event, and has used what it had used. It runs under the declarations that
    are in force now. Calls that were done are not repeated; one that was under way counts as unknown. What waited for a person is
    decided anew: nobody's yes goes over. The session itself is not touched, be it running or over. The fork's files are a copy
    of the session's as they are now.
    """
    told = {"agent": agent, "goal": goal, "reason": reason, "priority": priority}
    params: dict[str, Json] = {"at": at, **{key: value for key, value in told.items() if value is not None}}
    if deadline is not None:
        params["due_in_ms"] = duration(deadline)

    async def work(client: Client) -> Json:
        return await ask(client, "session.fork", session, **params)

    body = with_client(work)
    show(body, output, lambda: _forked(body))


def _forked(body: Json) -> None:
    emit(body["session"])
    source = body["forked"]
    say(f"goes on behind #{source['seq']} of {source['session']}, as {plain(body['agent'])}")
    say(f"its files were {source['workspace']}: files have no versions yet")
    say(f"next: agentos logs {body['session']} --follow")
