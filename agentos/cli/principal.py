"""`agentos principal create|list|revoke`: who may act at all, and in which roles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentos.cli.command import Output, call, emit_json, emit_table, emit_yaml, say, settings

group = typer.Typer(no_args_is_help=True, help="who may act: create, list and revoke principals", rich_markup_mode=None)

ROLES_HELP = "operator, compliance, auditor or approver; repeat for several"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="principal")


@group.command(
    epilog="Examples: agentos principal create ann --role approver; agentos principal create ops --role operator --for acme"
)
def create(
    name: Annotated[str, typer.Argument(help="name of the new principal; never used again after a revocation")],
    role: Annotated[list[str], typer.Option("--role", "-r", help=ROLES_HELP)],
    tenant: Annotated[str, typer.Option("--for", help="the tenant it belongs to; * for the whole fleet")] = "*",
    out: Annotated[Path | None, typer.Option("--out", help="identity file to write (default: in the home)")] = None,
) -> None:
    """Make a principal: its secret key is made here and written to a file, the runtime learns only the public half."""
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


@group.command("list", epilog="Example: agentos principal list -o json")
def list_(
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json, yaml or name")] = Output.TABLE,
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
                typer.echo(item["name"])
        case _:
            rows = [
                (
                    item["name"],
                    item["tenant"],
                    ",".join(item["roles"]),
                    item["created"]["time"],
                    item["created"]["by"],
                    f"{item['revoked']['time']} by {item['revoked']['by']}" if item["revoked"] else "",
                )
                for item in found
            ]
            emit_table(("name", "tenant", "roles", "created", "by", "revoked"), rows)


@group.command(epilog="Example: agentos principal revoke alice --reason 'left the company'")
def revoke(
    name: Annotated[str, typer.Argument(help="the principal")],
    reason: Annotated[str, typer.Option("--reason", help="why; stands in the log")],
) -> None:
    """End a principal for good: its connections are closed at once, its name is never given out again."""
    call("principal.revoke", {"name": name, "reason": reason})
    say(f"principal {name} is revoked")
