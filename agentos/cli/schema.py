"""`agentos schema`: the published schemas, for editors and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.errors import AgentOSError, UsageError
from agentos.cli.command import emit, say


def register(app: typer.Typer) -> None:
    """Add the verbs `schema list` and `schema export`."""
    group = typer.Typer(no_args_is_help=True, help="The published JSON Schemas (2020-12).")
    group.command("list", help="List the schemas: name and title.")(_list)
    group.command(
        "export",
        help="Print one schema, or write all of them into a folder.",
        epilog="Examples: agentos schema export agent; agentos schema export --dir .schemas",
    )(_export)
    app.add_typer(group, name="schema")


def _list() -> None:
    from agentos.manifests.schema import read_schema, schema_names

    names = schema_names()
    width = max(map(len, names))
    for name in names:
        emit(f"{name.ljust(width)}  {read_schema(name).get('title', '')}".rstrip())


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
