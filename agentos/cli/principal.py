"""`agentos principal create|list|revoke`: who may act at all, and in which roles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentos.cli.command import Output, call, emit, emit_json, emit_table, emit_yaml, say, settings
from agentos.cli.render.text import clock
from agentos.cli.verb import examples

group = typer.Typer(
    no_args_is_help=True,
    help="Who may act, and in which roles: create, list, revoke.",
    epilog=examples("agentos principal list"),
    rich_markup_mode=None,
)

ROLES_HELP = "operator, compliance, auditor, approver or publisher; repeat for several"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="principal")


@group.command(
    epilog=examples(
        "agentos principal create ann --role approver", "agentos principal create ops --role operator --role auditor --for acme"
    )
)
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="name of the new principal; never given out again after a revocation")
    ],
    role: Annotated[list[str], typer.Option("--role", "-r", metavar="ROLE", help=ROLES_HELP)],
    tenant: Annotated[str, typer.Option("--for", metavar="TENANT", help="the tenant it belongs to; * for the whole fleet")] = "*",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="identity file to write (default: in the home)")
    ] = None,
) -> None:
    """Make a principal and the file with its key.

    The secret half is made here and written to the file; the runtime learns the public half only.
    """
    from agentos.boot.system import SystemRandom
    from agentos.control.identity import Identity
    from agentos.eventlog.adapters.credentials import create_seed

    path = (out or settings.home / "identities" / f"{name}.json").absolute()
    key = create_seed(SystemRandom())
    made = call("principal.create", {"name": name, "roles": role, "tenant": tenant, "public_key": key.public_key})
    Identity(name, tenant, key.seed).save(path)
    say(f"principal {name} ({', '.join(made['roles'])}; tenant {tenant}) created; its identity is {path}")
    if made.get("user"):
        say("add this user to the account on your NATS server:")
        say(f"  {made['user']}")
    say(f"next: agentos --as {name} status" if out is None else f"next: agentos --identity {path} status")


@group.command("list", epilog=examples("agentos principal list", "agentos principal list -o json"))
def list_(
    output: Annotated[Output, typer.Option("--output", "-o", help="how to print")] = Output.TABLE,
) -> None:
    """Every principal there ever was, the revoked ones too."""
    found = call("principal.list", {})
    match output:
        case Output.JSON:
            emit_json(found)
        case Output.YAML:
            emit_yaml(found)
        case Output.NAME:
            for item in found:
                emit(item["name"])
        case _:
            rows = [
                (
                    item["name"],
                    item["tenant"],
                    ",".join(item["roles"]),
                    clock(item["created"]["time"]),
                    item["created"]["by"],
                    f"{clock(item['revoked']['time'])} by {item['revoked']['by']}" if item["revoked"] else "-",
                    *([item["public_key"]] if output is Output.WIDE else []),
                )
                for item in found
            ]
            headers = ("name", "tenant", "roles", "created", "by", "revoked")
            emit_table((*headers, "public key") if output is Output.WIDE else headers, rows)


@group.command(epilog=examples("agentos principal revoke alice --reason 'left the company'"))
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the principal")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the log")],
) -> None:
    """End a principal for good.

    Its connections are closed at once; its name is never given out again.
    """
    call("principal.revoke", {"name": name, "reason": reason})
    say(f"principal {name} is revoked")
