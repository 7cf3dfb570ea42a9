"""What every verb needs: who asks and where, one call to the runtime, and how answers are printed.

Data goes to standard output, everything else (progress, hints, questions) to standard error. Colour only on a terminal and
without NO_COLOR; no question is asked off a terminal.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import IdentityError
from agentos.cli.render.text import plain, safe_json, table

if TYPE_CHECKING:
    from agentos.control.client import Client

T = TypeVar("T")


class Output(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Facts(StrEnum):
    """How one thing is printed that has no name of its own."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


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

    def choose(self, name: str, value: str | Path | None) -> None:
        """Set one attribute from what was typed; a path is made absolute, with `~` spelled out."""
        setattr(self, name, value.expanduser().absolute() if isinstance(value, Path) else value)


settings = Settings()


def open_client() -> Awaitable[Client]:
    """Connect to the runtime as the chosen principal. Raises Unavailable or IdentityError."""
    from agentos.control.client import find_identity, find_server
    from agentos.control.client import open_client as connect

    # The server first: without a runtime, the way to start one is more use than the absence of an identity.
    server = find_server(settings.home, settings.server)
    if settings.identity is None and settings.principal is not None:
        require_identity(settings.principal)
    identity = find_identity(settings.home, settings.identity, settings.principal)
    return connect(server, identity, tenant=settings.tenant)


def require_identity(principal: str) -> None:
    """Raises IdentityError, naming the principals there are, when `--as` names one whose identity is not in the home."""
    folder = settings.home / "identities"
    names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
    if principal not in names:
        there = f"identities here: {', '.join(names)}; " if names else ""
        raise IdentityError(
            f"no identity of principal {principal} in {folder}",
            mend=f"{there}make one: agentos principal create {principal} --role ROLE, or name its file with --identity",
        )


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
    emit(safe_json(value))


def emit_yaml(value: Json) -> None:
    """`value` as YAML on standard output; with escapes for every character beyond ASCII if one of them is not printable."""
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    if not text.replace("\n", "").isprintable():
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=120)
    emit(text.rstrip())


def show(value: Json, output: StrEnum, table: Callable[[], object], *, name: str = "name") -> None:
    """`value` as `-o` says: as JSON, as YAML, the field `name` of each of its rows, or whatever `table` prints."""
    match str(output):
        case "json":
            emit_json(value)
        case "yaml":
            emit_yaml(value)
        case "name":
            for row in value:
                emit(plain(str(row[name])))
        case _:
            table()


def emit_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, shrink: Sequence[str] = (), empty: str = "nothing found"
) -> None:
    """Aligned columns on standard output; `empty` on standard error where there is no row.

    On a terminal, the columns named in `shrink` are cut until the table fits; in a pipe or a file nothing is.
    """
    if not rows:
        say(empty)
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    emit("\n".join(table(headers, rows, shrink=shrink, columns=columns)))


def colour(stream_is_err: bool = False) -> bool:
    """Whether colour is wanted on standard output (or standard error)."""
    stream = sys.stderr if stream_is_err else sys.stdout
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, *, err: bool = False, **style: Json) -> str:
    """`text` in the style that `typer.style` takes, where colour is wanted; `err`: it goes to standard error."""
    return typer.style(text, **style) if colour(err) else text


def mark(ok: bool | None) -> str:
    """How a check came out: held, not held, not made."""
    if ok is None:
        return "–"  # noqa: RUF001 - a dash, as it is printed
    return paint("✓", fg="green") if ok else paint("✗", fg="red")


def interactive() -> bool:
    """Whether somebody sits at the terminal who can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask for a typed `yes`. Off a terminal the answer is no; the caller then names `--yes`."""
    if not interactive():
        return False
    typer.echo(f"{question} Only 'yes' is accepted: ", err=True, nl=False)
    return sys.stdin.readline().strip() == "yes"
