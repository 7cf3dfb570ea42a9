"""`agentos tool import`: Tools of the operations of an OpenAPI file. Needs no running system and changes nothing."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.errors import DriverError, ManifestError, UsageError
from agentos.cli.command import emit, emit_json, emit_yaml, say
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples

STDIN = "-"


class Format(StrEnum):
    """How manifests are printed."""

    YAML = "yaml"
    JSON = "json"


group = typer.Typer(
    help="Tools from what others describe: import the operations of an OpenAPI file.",
    no_args_is_help=True,
    epilog=examples("agentos tool import openapi.yaml --operation listOrders"),
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="tool")


@group.command(
    "import",
    epilog=examples(
        "agentos tool import openapi.yaml --operation listOrders --operation getOrder > tools.yaml",
        "agentos tool import openapi.json --url https://api.acme.example/v2 --prefix acme --secret acme",
        "agentos tool import - -o json < openapi.json",
    ),
)
def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="an OpenAPI document (3.0 or 3.1), YAML or JSON; - reads standard input")
    ],
    operations: Annotated[
        list[str] | None, typer.Option("--operation", metavar="ID", help="an operationId, or 'METHOD /path'; without it, all")
    ] = None,
    url: Annotated[
        str, typer.Option("--url", metavar="BASE", help="the base address (default: the document's first server)")
    ] = "",
    prefix: Annotated[str, typer.Option("--prefix", metavar="NAME", help="what the names of the tools begin with")] = "",
    secret: Annotated[
        str, typer.Option("--secret", metavar="NAME", help="the Secret for the headers by which the API lets anybody in")
    ] = "",
    private: Annotated[
        list[str] | None, typer.Option("--private", metavar="CIDR", help="a private network that the address may lead to")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="yaml or json")] = Format.YAML,
) -> None:
    """Print a Tool for each operation of an OpenAPI file, to be read and applied.

    A request that only reads has the effect read, any other external. What comes back is labelled untrusted. Operations that
    cannot be tools are named on standard error. Nobody may call the tools until a ToolGrant says so.
    """
    from agentos.manifests.openapi_import import LIMITS, Wishes, import_tools, read_document

    try:
        data = sys.stdin.buffer.read(LIMITS.size + 1) if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{plain(file)}: {(error.strerror or 'it cannot be read').lower()}") from error
    wishes = Wishes(tuple(operations or ()), url, prefix, secret, tuple(private or ()))
    try:
        imported = import_tools(read_document(file, data), wishes)
    except DriverError as error:
        raise ManifestError(error.message, where=error.where or file, mend=error.mend) from error
    for line in imported.left_out:
        say(f"left out: {plain(line)}")
    for line in imported.notes:
        say(f"note: {plain(line)}")
    if not imported.tools:
        raise ManifestError("no operation of the document can be a tool", where=file, mend="name one with --operation to see why")
    if output is Format.JSON:
        emit_json(imported.tools)
        return
    for index, tool in enumerate(imported.tools):
        if index:
            emit("---")
        emit_yaml(tool)
    say(f"{count(len(imported.tools), 'tool')}; next: read them, write a ToolGrant, and agentos apply")
