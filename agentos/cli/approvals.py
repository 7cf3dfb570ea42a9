"""`agentos approvals list|approve|deny`: calls that wait for a person."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from agentos.abi.event import rfc3339
from agentos.cli.command import Output, call, emit_json, emit_table, emit_yaml, say

group = typer.Typer(no_args_is_help=True, help="calls that wait for a person", rich_markup_mode=None)

Reason = Annotated[str, typer.Option("--reason", help="why; stands in the log beside your name")]
Session = Annotated[str, typer.Argument(help="the session that waits")]
CallId = Annotated[str | None, typer.Option("--call", help="refuse unless it is this call that waits")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="approvals")


@group.command("list", epilog="Examples: agentos approvals list; agentos approvals list --all -o json")
def list_(
    everything: Annotated[bool, typer.Option("--all", "-a", help="answered ones too")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json, yaml or name")] = Output.TABLE,
) -> None:
    """What waits, oldest first: the exact call that would run, and the rule that asks."""
    rows = call("approval.list", {"all": everything})
    match output:
        case Output.JSON:
            emit_json(rows)
        case Output.YAML:
            emit_yaml(rows)
        case Output.NAME:
            for row in rows:
                typer.echo(row["session"])
        case _:
            table = [
                (
                    row["session"],
                    row["call"],
                    row["state"],
                    row["tool"],
                    _short(json.dumps(row["args"], ensure_ascii=False)),
                    "; ".join(row["reasons"]),
                    rfc3339(row["asked_ms"]),
                )
                for row in rows
            ]
            emit_table(("session", "call", "state", "tool", "arguments", "why", "asked"), table)
            if not rows:
                say("nothing waits")


@group.command(epilog="Example: agentos approvals approve s-0k3v9… --reason 'read it, may go out'")
def approve(session: Session, reason: Reason, call_id: CallId = None) -> None:
    """Say yes: exactly the call that waits is decided again and then runs. Its arguments cannot have changed."""
    _answer("approval.approve", session, reason, call_id)
    say(f"approved; session {session} goes on")


@group.command(epilog="Example: agentos approvals deny s-0k3v9… --reason 'not to customers'")
def deny(session: Session, reason: Reason, call_id: CallId = None) -> None:
    """Say no: the model is told so, with your reason, and the session goes on."""
    _answer("approval.deny", session, reason, call_id)
    say(f"refused; session {session} goes on")


def _answer(verb: str, session: str, reason: str, call_id: str | None) -> None:
    params = {"session": session, "reason": reason}
    if call_id is not None:
        params["call"] = call_id
    call(verb, params)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
