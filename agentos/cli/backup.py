"""`agentos backup create | show | restore | config`, and `agentos restore`: what outlives the machine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError
from agentos.cli.command import Facts, emit_table, paint, say, settings, show, with_client
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples


def _restore_examples(verb: str) -> str:
    return examples(
        f"agentos {verb} agentos-20261121T083000Z.tar --home ~/agentos-new --keys /safe/keys",
        f"agentos {verb} agentos-20261121T083000Z.tar --home ~/agentos-new --trust runtime.pub",
    )


def register(app: typer.Typer) -> None:
    """Add the group `backup`, and `restore`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Save the log of the whole fleet in one file; bring it back; replicate the read models.",
        epilog=examples("agentos backup create --to /mnt/backups", "agentos backup show agentos-20261121T083000Z.tar"),
    )
    group.command(
        "create",
        epilog=examples("agentos backup create", "agentos backup create --to /mnt/backups -o json"),
    )(create)
    group.command("show", epilog=examples("agentos backup show agentos-20261121T083000Z.tar --trust runtime.pub"))(show_backup)
    group.command("restore", epilog=_restore_examples("backup restore"))(restore)
    group.command(
        "config",
        epilog=examples(
            "agentos backup config --replica file:///mnt/replica",
            "agentos backup config --replica s3://bucket/agentos; agentos up --litestream ~/.agentos/litestream.yml",
        ),
    )(config)
    app.add_typer(group, name="backup")
    app.command(epilog=_restore_examples("restore"))(restore)


def create(
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="PATH", help="file to write, or folder, on the runtime's host; default: backups in its home"
        ),
    ] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Save every tenant's log and the registry's in one signed file, while the runtime runs.

    The folder must be there, belong to the user that the runtime runs as, and be writable by nobody else; nothing is replaced.
    Not in it: keys, identities, workspaces, read models, snapshots, locks, batches. Keep a copy of the folder keys apart: without
    it payloads stay sealed.
    """
    params: dict[str, Json] = {} if to is None else {"to": str(to.expanduser().absolute())}
    answer = with_client(lambda client: _made(client, params))
    show(answer, output, lambda: emit_table(("what", "value"), _rows(answer)))
    for warning in answer["warnings"]:
        say(f"{paint('warning', err=True, fg='yellow')}: {plain(warning)}")
    if output is Facts.TABLE:
        say(f"next: agentos backup show {plain(answer['file'])}; keep a copy of {settings.home}/keys somewhere else")


async def _made(client: Json, params: dict[str, Json]) -> Json:
    """Ask until the backup is there; how far it is stands on the terminal."""
    answer = await client.call("backup.create", params)
    seen = sys.stderr.isatty()
    try:
        while not answer["done"]:
            if seen:
                done = f"{count(answer['streams'], 'stream')}, {answer['bytes'] / 1e6:.1f} MB, {answer['doing']}"
                typer.echo(f"\r\x1b[K{plain(done)}", err=True, nl=False)
            answer = await client.call("backup.create", {"run": answer["run"]})
    finally:
        if seen:
            typer.echo("\r\x1b[K", err=True, nl=False)
    return answer["report"]


def show_backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the backup", show_default=False)],
    trust: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the runtime's public key, from outside the backup: check the signature")
    ] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Show what a backup holds, and check every byte of it. Needs no runtime.

    Exit code 1: it was cut, changed, or is not signed by the trusted key.
    """
    from agentos.boot.backup_file import open_backup

    try:
        with file.open("rb") as opened:
            backup = open_backup(opened)
            if trust is not None:
                backup.require_signed(backup.keys(_trust(trust)))
            backup.check()
    except OSError as error:
        raise AgentOSError(f"the backup cannot be read: {error.strerror}", where=str(file)) from error
    manifest = backup.manifest
    logs = [
        {
            "tenant": log.tenant,
            "stream": one.name,
            "messages": one.messages,
            "first": one.first,
            "last": one.last,
            "bytes": one.size,
        }
        for log in manifest.logs
        for one in log.streams
    ]
    facts: dict[str, Json] = {
        "file": str(file),
        "created_at": manifest.created_at,
        "by": manifest.by,
        "version": manifest.version,
        "key": manifest.key,
        "signature": "good" if trust is not None else "not checked",
        "tenants": list(manifest.tenants),
        "streams": logs,
    }

    def table() -> None:
        emit_table(("tenant", "stream", "messages", "first", "last", "bytes"), [tuple(row.values()) for row in logs])
        say(f"made {manifest.created_at} by {plain(manifest.by)}, agentos {plain(manifest.version)}, key {plain(manifest.key)}")
        say(
            "every digest is right; "
            + ("signed by the trusted key" if trust else "signature not checked: add --trust runtime.pub")
        )

    show(facts, output, table)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the backup", show_default=False)],
    keys: Annotated[Path | None, typer.Option(metavar="DIR", help="the folder keys of the old home, or a copy of it")] = None,
    trust: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the old runtime's public key, from outside the backup")
    ] = None,
    tombstones: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a newer backup: what was erased by then is erased here too")
    ] = None,
    litestream: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the old litestream.yml: bring back the read models too")
    ] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Make a new home (--home) from a backup, proven by its signed checkpoints. Needs no runtime.

    All or nothing: the home is there when all of it holds, else exit code 1 and nothing is left.
    """
    from agentos.boot.restore import Restoring, Wanted
    from agentos.boot.system import SystemRandom, SystemTimer

    wanted = Wanted(
        backup=file,
        home=settings.home,
        trust=None if trust is None else _trust(trust),
        keys=None if keys is None else keys.expanduser().absolute(),
        tombstones=tombstones,
        litestream=litestream,
    )
    told = say if sys.stderr.isatty() else lambda _: None
    done = asyncio.run(Restoring(wanted, SystemTimer(), SystemRandom(), told).run()).to_dict()
    show(done, output, lambda: emit_table(("what", "value"), _rows(done)))
    for warning in done["warnings"]:
        say(f"{paint('warning', err=True, fg='yellow')}: {plain(warning)}")
    if output is Facts.TABLE:
        say(f"next: put your identity file into {settings.home}/identities; agentos up --detach --home {settings.home}")


def config(
    replica: Annotated[
        str, typer.Option("--replica", metavar="URL", help="where to: file:///path or s3://bucket/prefix", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="the file to write; default: litestream.yml in the home")
    ] = None,
) -> None:
    """Write a litestream.yml (mode 0600) for the read models that hold no payload.

    S3 credentials are named as environment variables and never written.
    """
    from agentos.boot.home import Home
    from agentos.boot.litestream import write_config

    path = (output or settings.home / "litestream.yml").expanduser().absolute()
    names = write_config(path, Home(settings.home), replica)
    say(f"wrote {path}: {count(len(names), 'database')}")
    say(f"next: agentos up --litestream {path}")


def _rows(report: Json) -> list[tuple[str, str]]:
    """A report as rows; what is said apart is left out."""

    def text(value: Json) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)

    return [(key.replace("_", " "), plain(text(value))) for key, value in report.items() if key != "warnings"]


def _trust(path: Path) -> Json:
    from agentos.audit.trust import load_trust

    try:
        with path.open("rb") as file:
            return load_trust(file.read(65_536))
    except OSError as error:
        raise AgentOSError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
