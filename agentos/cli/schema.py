"""`agentos schema`: the published schemas, for editors and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, UsageError
from agentos.cli.command import Output, emit, emit_json, emit_table, emit_yaml, say
from agentos.cli.verb import examples


def register(app: typer.Typer) -> None:
    """Add the verbs `schema list` and `schema export`."""
    group = typer.Typer(
        no_args_is_help=True, help="The published JSON Schemas (2020-12): list, export.", epilog=examples("agentos schema list")
    )
    group.command(
        "list", help="List the schemas: name and title.", epilog=examples("agentos schema list", "agentos schema list -o name")
    )(_list)
    group.command(
        "export",
        help="Print one schema, or write all of them into a folder.",
        epilog=examples("agentos schema export agent", "agentos schema export --dir .schemas"),
    )(_export)
    app.add_typer(group, name="schema")


def _list(
    output: Annotated[Output, typer.Option("--output", "-o", help="how to print")] = Output.TABLE,
) -> None:
    from agentos.manifests.schema import read_schema, schema_names

    rows: list[Json] = [
        {"name": name, "title": schema.get("title", ""), "description": schema.get("description", "")}
        for name in schema_names()
        for schema in [read_schema(name)]
    ]
    match output:
        case Output.JSON:
            emit_json(rows)
        case Output.YAML:
            emit_yaml(rows)
        case Output.NAME:
            for row in rows:
                emit(row["name"])
        case _:
            columns = ("name", "title", "description") if output is Output.WIDE else ("name", "title")
            emit_table(columns, [[row[column] for column in columns] for row in rows])


def _export(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="a kind or the name of a schema; without it, all")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="write files into this folder")] = None,
) -> None:
    from agentos.abi.assets import asset
    from agentos.manifests.schema import schema_names

    names = schema_names() if kind is None else [_name(kind)]
    source = asset("schemas") / "v1"
    if folder is None:
        if kind is None:
            raise UsageError("all schemas do not fit on one page", mend="name a KIND to print it, or a folder with --dir")
        emit((source / f"{names[0]}.json").read_text(encoding="utf-8").rstrip())
        return
    # A schema refers to parts in `common` and `play`, so these go with it.
    wanted = sorted({*names, *(["common", "play"] if kind else [])})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            (folder / f"{name}.json").write_bytes((source / f"{name}.json").read_bytes())
    except OSError as error:
        raise AgentOSError(f"the schemas cannot be written: {error.strerror or error}", where=str(folder)) from error
    say(f"{len(wanted)} schemas written; first line of a manifest: # yaml-language-server: $schema={folder}/manifest.json")


def _name(text: str) -> str:
    from agentos.manifests.fault import closest
    from agentos.manifests.schema import FILES, kind_of, schema_names

    kind = kind_of(text)
    name = FILES[kind] if kind else text.removesuffix(".json").lower()
    if name not in schema_names():
        meant = closest(name, schema_names())
        raise UsageError(f"there is no schema {text!r}", mend=f"did you mean {meant}?" if meant else "see agentos schema list")
    return name
