"""`agentos session files`: what a session left in its workspace."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.cli.command import Facts, emit, emit_table, say, show, with_client
from agentos.cli.render.text import plain
from agentos.cli.session import Session, ask, group
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client


def register(app: typer.Typer) -> None:
    """Add the verb to the group of `agentos session`, which `cli.session` registers."""
    group.command(
        "files",
        epilog=examples(
            "agentos session files SESSION",
            "agentos session files SESSION output/report.md",
            "agentos session files SESSION output/chart.png > chart.png",
        ),
    )(files)


def files(
    session: Session,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="print this file, as it is")] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print the list")] = Facts.TABLE,
) -> None:
    """List the files of a session's workspace, or print one of them.

    On a terminal a file cannot drive it: characters that are not printable are escaped.
    """
    if path is None:
        body = with_client(lambda client: ask(client, "session.files", session))
        rows = [[one["bytes"], one["path"]] for one in body["files"]]
        show(body["files"], output, lambda: emit_table(["bytes", "path"], rows, empty="the workspace is empty"))
        if body["more"]:
            say(f"there are more; these are the first {len(rows)}")
        return

    async def work(client: Client) -> None:
        offset, more = 0, True
        while more:
            part = await ask(client, "session.files", session, path=path, offset=offset)
            data = base64.b64decode(part["data"])
            print_bytes(data)
            offset, more = offset + len(data), part["more"] and bool(data)

    with_client(work)


def print_bytes(data: bytes) -> None:
    """A part of a file on standard output: as it is, but escaped on a terminal, which it cannot drive."""
    if sys.stdout.isatty():
        for line in data.decode("utf-8", errors="replace").removesuffix("\n").split("\n"):
            emit(plain(line.expandtabs()))
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
