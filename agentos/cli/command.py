"""What every verb needs: who asks and where, one call to the runtime, and how answers are printed.

Data goes to standard output, everything else (progress, hints, questions) to standard error. Colour only on a terminal and
without NO_COLOR; no question is asked off a terminal.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from agentos.abi.canonical import Json

if TYPE_CHECKING:
    from agentos.control.client import Client

T = TypeVar("T")


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(slots=True)
class Settings:
    """Where the runtime is and who asks; set once from the root options before any verb runs."""

    home: Path = Path("~/.agentos")
    """The runtime's folder: `AGENTOS_HOME`, default `~/.agentos`."""
    server: str | None = None
    """URL of the runtime's NATS server; None: the runtime of `home`."""
    identity: Path | None = None
    """Identity file; None: the operator's in `home`."""
    principal: str | None = None
    """Name of an identity in `home`/identities to act as; None: `operator`."""
    tenant: str | None = None
    """The tenant to act on; None: the principal's own, or `default`."""


settings = Settings()


def open_client() -> Awaitable[Client]:
    """Connect to the runtime as the chosen principal. Raises Unavailable or IdentityError."""
    from agentos.control.client import find_identity, find_server
    from agentos.control.client import open_client as connect

    identity = find_identity(settings.home, settings.identity, settings.principal)
    return connect(find_server(settings.home, settings.server), identity, tenant=settings.tenant)


def with_client(work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a connected client and disconnect after it."""

    async def main() -> T:
        client = await open_client()
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(main())


def call(verb: str, params: dict[str, Json]) -> Json:
    """Ask the runtime once. Raises the AgentOSError that the runtime answered with."""
    return with_client(lambda client: client.call(verb, params))


def say(text: str = "") -> None:
    """A line for people, on standard error."""
    typer.echo(text, err=True)


def emit(text: str) -> None:
    """Data, on standard output."""
    typer.echo(text)


def emit_json(value: Json) -> None:
    """`value` as indented JSON on standard output."""
    emit(json.dumps(value, indent=2, ensure_ascii=False))


def emit_yaml(value: Json) -> None:
    """`value` as YAML on standard output."""
    import yaml

    emit(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip())


def emit_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns, upper-case headers, two spaces between; control characters are shown escaped."""
    cells = [[header.upper() for header in headers], *[[plain(str(cell)) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    for row in cells:
        emit("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def plain(text: str) -> str:
    """`text` on one line with its control characters escaped, so that a tool's output cannot drive the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def colour(stream_is_err: bool = False) -> bool:
    """Whether colour is wanted on standard output (or standard error)."""
    stream = sys.stderr if stream_is_err else sys.stdout
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, *, err: bool = False, **style: Json) -> str:
    """`text` in the style that `typer.style` takes, where colour is wanted; `err`: it goes to standard error."""
    return typer.style(text, **style) if colour(err) else text


def interactive() -> bool:
    """Whether somebody sits at the terminal who can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask for a typed `yes`. Off a terminal the answer is no; the caller then names `--yes`."""
    if not interactive():
        return False
    typer.echo(f"{question} Only 'yes' is accepted: ", err=True, nl=False)
    return sys.stdin.readline().strip() == "yes"
