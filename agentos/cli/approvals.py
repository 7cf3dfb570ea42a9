"""`agentos approvals list|approve|deny`: calls that wait for a person."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.event import rfc3339
from agentos.cli.command import Output, call, emit, emit_json, emit_table, emit_yaml, say
from agentos.cli.render.text import ARGS, WHOLE, arguments, clock
from agentos.cli.verb import examples

group = typer.Typer(
    no_args_is_help=True,
    help="Calls that wait for a person: list, approve, deny.",
    epilog=examples("agentos approvals list"),
    rich_markup_mode=None,
)

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the log beside your name")]
Session = Annotated[str, typer.Argument(metavar="SESSION", help="the session that waits")]
CallId = Annotated[str | None, typer.Option("--call", metavar="CALL", help="refuse unless it is this call that waits")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="approvals")


@group.command(
    "list", epilog=examples("agentos approvals list", "agentos approvals list -o yaml", "agentos approvals list --all -o json")
)
def list_(
    everything: Annotated[bool, typer.Option("--all", "-a", help="answered ones too")] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="how to print; yaml and json show the whole call")
    ] = Output.TABLE,
) -> None:
    """List what waits, oldest first: the call and the rule that asks."""
    rows = call("approval.list", {"all": everything})
    match output:
        case Output.JSON:
            emit_json(rows)
        case Output.YAML:
            emit_yaml(rows)
        case Output.NAME:
            for row in rows:
                emit(row["session"])
        case _:
            wide = output is Output.WIDE
            headers = ("session", "state", "tool", "arguments", "why", "asked", *(("agent", "call", "answer") if wide else ()))
            emit_table(
                headers, [_row(row, wide) for row in rows], shrink=() if wide else ("arguments", "why"), empty="nothing waits"
            )
            waiting = [row["session"] for row in rows if row["state"] == "waiting"]
            if waiting:
                say("to read it whole: agentos approvals list -o yaml")
                say(f"next: agentos approvals approve {waiting[0]} --reason '…' (or deny)")


def _row(row: dict[str, Json], wide: bool) -> list[str]:
    cells = [
        row["session"],
        row["state"],
        row["tool"],
        arguments(row["args"], WHOLE if wide else ARGS),
        "; ".join(row["reasons"]),
        clock(rfc3339(row["asked_ms"])),
    ]
    if wide:
        cells += [row["agent"], row["call"], ": ".join(part for part in (row["by"], row["reason"]) if part) or "-"]
    return cells


@group.command(epilog=examples("agentos approvals approve SESSION --reason 'read it, may go out'"))
def approve(session: Session, reason: Reason, call_id: CallId = None) -> None:
    """Say yes to the call that waits.

    Exactly that call is decided again and then runs; its arguments cannot have changed.
    """
    _answer("approval.approve", session, reason, call_id)
    say(f"approved; the session goes on: agentos wait {session}")


@group.command(epilog=examples("agentos approvals deny SESSION --reason 'not to customers'"))
def deny(session: Session, reason: Reason, call_id: CallId = None) -> None:
    """Say no to the call that waits.

    The model is told so, with your reason, and the session goes on.
    """
    _answer("approval.deny", session, reason, call_id)
    say(f"refused; the session goes on: agentos wait {session}")


def _answer(verb: str, session: str, reason: str, call_id: str | None) -> None:
    params = {"session": session, "reason": reason}
    if call_id is not None:
        params["call"] = call_id
    call(verb, params)
