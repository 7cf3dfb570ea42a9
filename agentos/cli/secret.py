"""`agentos secret`: where credentials are kept, and whether they are to be had. No value is ever shown."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos.cli.command import Facts, call, emit_table, say, show
from agentos.cli.render.text import plain
from agentos.cli.verb import examples

group = typer.Typer(
    no_args_is_help=True,
    help="Secrets: where credentials of tools are kept, and whether they can be fetched. No value is ever shown.",
    epilog=examples("agentos secret list", "agentos secret check github"),
    rich_markup_mode=None,
)

Shape = Annotated[Facts, typer.Option("--output", "-o", help="how to print")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="secret")


@group.command("list", epilog=examples("agentos secret list", "agentos secret list -o json"))
def list_(output: Shape = Facts.TABLE) -> None:
    """List the tenant's secrets: the kind of place they are kept in, whom they may be sent to, and how many have them now."""
    answer = call("secret.list", {})

    def table() -> None:
        rows = [
            [
                one["name"],
                one["source"],
                ", ".join(plain(host) for host in one["hosts"]) or "-",
                one["lease_seconds"],
                one["leases"],
            ]
            for one in answer["secrets"]
        ]
        emit_table(["name", "kept in", "hosts", "lease s", "lent now"], rows, shrink=("hosts",), empty="no secrets are declared")

    show(answer, output, table)


@group.command("check", epilog=examples("agentos secret check github", "agentos secret check github -o json"))
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the secret")],
    output: Shape = Facts.TABLE,
) -> None:
    """Fetch a secret as a call would, drop it, and say whether that went well: exit code 0 if it did, 1 and why if not."""
    answer = call("secret.check", {"name": name})

    def told() -> None:
        what = "can be lent" if answer["ok"] else f"cannot be lent: {plain(answer['why'])}"
        say(f"secret {plain(answer['name'])} ({plain(answer['source'])}) {what}")

    show(answer, output, told)
    if not answer["ok"]:
        raise typer.Exit(1)
