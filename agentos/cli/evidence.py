"""`agentos evidence`: export a signed pack of what happened, fetch the public key, verify a pack without any runtime."""

from __future__ import annotations

import base64
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, UsageError
from agentos.audit.layout import MAX_PACK
from agentos.audit.verify import Report, verify_pack
from agentos.cli.command import call, emit, emit_json, mark, say
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples


class Format(StrEnum):
    """How the report is printed."""

    TEXT = "text"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the group `evidence`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Export what happened as a signed pack; verify one anywhere.",
        epilog=examples("agentos evidence verify pack.zip --trust runtime.pub"),
    )
    group.command(
        "export",
        epilog=examples(
            "agentos evidence export -o pack.zip",
            "agentos evidence export --since 7d -o week.zip",
            "agentos evidence export --withhold tool=send-mail --withhold tool=model-call",
        ),
    )(export)
    group.command("key", epilog=examples("agentos evidence key -o runtime.pub"))(key)
    group.command("verify", epilog=examples("agentos evidence verify pack.zip --trust runtime.pub"))(verify)
    app.add_typer(group, name="evidence")


def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="the file to write")] = Path("pack.zip"),
    session: Annotated[
        list[str] | None, typer.Option("--session", metavar="SESSION", help="only this session (may be repeated)")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="only sessions that did something since: 2h, 7d ago, or 2026-11-21T08:30:00Z"),
    ] = None,
    withhold: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help="keep payloads back: all, SESSION[,SESSION…] or tool=NAME (may be repeated)"),
    ] = None,
) -> None:
    """Write a signed evidence pack.

    It holds whole sessions, the declarations they ran under, and the principals that acted. Of a payload that is kept back the
    header is in the pack: who, what, under which rules, with what outcome. What a model said is of the tool model-call.
    """
    params: dict[str, Json] = {}
    if session:
        params["sessions"] = list(session)
    if since is not None:
        params["since"] = since
    if withhold:
        params["withhold"] = list(withhold)
    answer = call("evidence.export", params)
    write_whole(output, base64.b64decode(answer["pack"], validate=True))
    say(f"wrote {output}: {count(answer['sessions'], 'session')}, {count(answer['events'], 'event')}, {answer['bytes']:,} bytes")
    for text, kept in answer["withheld"].items():
        say(f"withheld for {text}: {count(kept, 'payload')}")
        if not kept:
            say(f"warning: nothing in the pack is kept back for {plain(text)}; is that its name?")
    say(f"signed by {answer['key']}")
    say(f"next: agentos evidence key -o runtime.pub; agentos evidence verify {output} --trust runtime.pub")


def key(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="the file to write; default: standard output")
    ] = None,
) -> None:
    """Fetch the public key that verifies the packs of this runtime.

    Give it to the auditor once, apart from the packs.
    """
    answer = call("evidence.key", {})
    if output is None:
        emit(answer["pem"].rstrip("\n"))
    else:
        write_whole(output, answer["pem"].encode("ascii"), mode=0o644)
        say(f"wrote {output}: {answer['key']}")


def verify(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="the pack", show_default=False)],
    trust: Annotated[Path | None, typer.Option(metavar="FILE", help="the runtime's public key, from outside the pack")] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="how to print")] = Format.TEXT,
) -> None:
    """Check a pack, offline: nothing edited or dropped, every act authorised.

    Needs no runtime. Exit code 1: it does not hold, each fault named.
    """
    if trust is None:
        raise UsageError(
            "--trust is missing: whoever changes a pack can also put another key into it, so the key must come from outside",
            mend="get the key from the runtime's operator (agentos evidence key -o runtime.pub), then --trust runtime.pub",
        )
    report = verify_pack(_read(pack), _read(trust))
    if output is Format.JSON:
        emit_json(report.to_dict())
    else:
        for line in lines_of(report):
            emit(line)
    if not report.ok:
        raise typer.Exit(1)


def lines_of(report: Report) -> list[str]:
    """The report for people: each check by name, then each fault, then the verdict."""
    gaps: dict[str, list[str]] = {}
    for one in report.not_made:
        gaps.setdefault(one.check, []).append(f"{count(one.events, 'event')}: {one.reason}")
    unseen = {name: f" (not made whole for {'; '.join(told)})" for name, told in gaps.items()}
    lines = [f"{mark(check.ok)} {check.name:<10} {check.says}{unseen.get(check.name, '')}" for check in report.checks]
    lines += [plain(f"  {fault.check}: {fault.where}: {fault.message}") for fault in report.faults]
    what = f"{count(report.sessions, 'session')}, {count(report.events, 'event')} of tenant {report.tenant or '?'}"
    absent = ", ".join(f"{number} {reason}" for reason, number in report.absent.items() if number)
    what += f", {count(sum(report.absent.values()), 'payload')} not in the pack ({absent})" if absent else ""
    made = f"exported {report.exported_at} by {report.exporter}, key {report.key}"
    lines.append(
        plain(f"verified: {what}, {made}" if report.ok else f"NOT verified: {count(len(report.faults), 'fault')} in {what}")
    )
    return lines


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all, for its owner alone: a pack holds payloads. Raises AgentOSError where it cannot be."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise AgentOSError(f"the file cannot be written: {error.strerror}", where=str(path)) from error
    made = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        made.chmod(mode)
        made.replace(path)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise AgentOSError(f"the file cannot be written: {error.strerror}", where=str(path)) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # One byte more than any pack has is enough to be refused.
            return file.read(MAX_PACK + 1)
    except OSError as error:
        raise AgentOSError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
