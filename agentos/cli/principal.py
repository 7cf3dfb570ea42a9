"""`agentos principal create|list|rotate|revoke`: who may act at all, and in which roles."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.errors import Conflict, IdentityError, NotFound, Unavailable
from agentos.cli.command import Output, call, emit, emit_json, emit_table, emit_yaml, say, settings
from agentos.cli.render.text import clock
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.identity import Identity

group = typer.Typer(
    no_args_is_help=True,
    help="Who may act, and in which roles: create, list, rotate, revoke.",
    epilog=examples("agentos principal list"),
    rich_markup_mode=None,
)

ROLES_HELP = "operator, compliance, auditor, approver, agent or publisher; repeat for several"


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
                    clock(item["rotated"]) if item["rotated"] else "-",
                    f"{clock(item['revoked']['time'])} by {item['revoked']['by']}" if item["revoked"] else "-",
                    *([item["public_key"]] if output is Output.WIDE else []),
                )
                for item in found
            ]
            headers = ("name", "tenant", "roles", "created", "by", "rotated", "revoked")
            emit_table((*headers, "public key") if output is Output.WIDE else headers, rows)


@group.command(
    epilog=examples(
        "agentos principal rotate ann --reason 'laptop lost'", "agentos principal rotate shop --reason yearly --out shop.json"
    )
)
def rotate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the principal")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the log")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="identity file to replace or write (default: in the home)")
    ] = None,
) -> None:
    """Give a principal another key.

    Name, roles and history stay. The key before is dead at once, and connections that it opened are closed. The new one stands in
    FILE.new until the runtime has it, so it is never lost: after an interruption the same command goes on.
    """
    from agentos.control.client import find_identity
    from agentos.eventlog.adapters.credentials import parse_seed

    listed = {item["name"]: item for item in call("principal.list", {})}
    if name not in listed:
        raise NotFound(f"there is no principal {name}", mend="agentos principal list shows them")
    mine = find_identity(settings.home, settings.identity, settings.principal).principal == name
    path = out or (settings.identity if mine and settings.identity else settings.home / "identities" / f"{name}.json")
    path = path.absolute()
    fresh = _fresh(path.with_name(f"{path.name}.new"), name, listed[name]["tenant"])
    user = None
    try:
        public_key = parse_seed(fresh.seed).public_key
        user = call("principal.rotate", {"name": name, "public_key": public_key, "reason": reason})["user"]
    except (Conflict, IdentityError, Unavailable):
        # An earlier run was interrupted after the runtime had the key; or it is our own key that is dead now, and so is the
        # connection that the answer would have come by.
        if not _opens(fresh):
            raise
    path.with_name(f"{path.name}.new").replace(path)
    say(f"principal {name} has another key; its identity is {path}")
    if user:
        say("until this user replaces the one on your NATS server, the key before still opens it:")
        say(f"  {user}")


def _fresh(path: Path, name: str, tenant: str) -> Identity:
    """The identity that waits in `path` since an earlier run, or a new one, which is written there."""
    from agentos.boot.system import SystemRandom
    from agentos.control.identity import Identity, load_identity
    from agentos.eventlog.adapters.credentials import create_seed

    if path.exists():
        return load_identity(path)
    made = Identity(name, tenant, create_seed(SystemRandom()).seed)
    made.save(path)
    return made


def _opens(identity: Identity) -> bool:
    """Whether the runtime knows the key of `identity`. Raises Unavailable when nobody can tell."""
    from agentos.control.client import find_server, open_client

    async def ask() -> bool:
        try:
            client = await open_client(find_server(settings.home, settings.server), identity)
        except IdentityError:
            return False
        try:
            await client.call("runtime.status", {})
        except IdentityError:
            return False
        finally:
            await client.close()
        return True

    return asyncio.run(ask())


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
