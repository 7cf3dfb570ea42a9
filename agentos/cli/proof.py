"""`agentos audit checkpoint | prove | verify | verify-proof | keys | rotate-key`: what shows that the log is what it was."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, UsageError
from agentos.cli.command import call, confirm, emit, emit_json, emit_table, mark, say
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples

MAX_FILE: Final = 64 * 1024 * 1024
"""Largest file read, in bytes."""


class Format(StrEnum):
    """How an answer is printed."""

    TEXT = "text"
    JSON = "json"


class Keys(StrEnum):
    """How keys are printed."""

    TABLE = "table"
    JSON = "json"
    VKEY = "vkey"


def register(group: typer.Typer) -> None:
    """Add the verbs to the group `audit`."""
    group.command(
        "checkpoint",
        epilog=examples("agentos audit checkpoint", "agentos audit checkpoint --now > checkpoint.note"),
    )(checkpoint)
    group.command(
        "prove",
        epilog=examples(
            "agentos audit prove 's-0k3v9q2m1x8h4t7r5w#12' > proof.json",
            "agentos audit prove --withhold 's-0k3v9q2m1x8h4t7r5w#12' > header.json",
        ),
    )(prove)
    group.command(
        "verify",
        epilog=examples(
            "agentos audit verify", "agentos audit verify --since 7d", "agentos audit verify --since checkpoint.note"
        ),
    )(verify)
    group.command("verify-proof", epilog=examples("agentos audit verify-proof proof.json --trust runtime.pub"))(verify_proof)
    group.command("keys", epilog=examples("agentos audit keys", "agentos audit keys -o vkey | tail -1 > runtime.vkey"))(keys)
    group.command("rotate-key", epilog=examples("agentos audit rotate-key"))(rotate_key)


def checkpoint(
    now: Annotated[bool, typer.Option("--now", help="make one of this moment first")] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="how to print")] = Format.TEXT,
) -> None:
    """Print the last signed checkpoint of the log.

    It is a signed note (c2sp.org/signed-note), byte for byte: keep it, or have it witnessed, outside of this machine.
    """
    answer = call("audit.checkpoint", {"now": now})
    if output is Format.JSON:
        emit_json(answer)
    else:
        # Bytes: not one of them may depend on the terminal's encoding.
        typer.echo(answer["note"].encode(), nl=False)


def prove(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="its id, or SESSION#NUMBER", show_default=False)],
    withhold: Annotated[bool, typer.Option("--withhold", help="leave the payload out: the header alone")] = False,
) -> None:
    """Print a proof that an event is in the signed log.

    It is a JSON object that verify-proof checks without any runtime.
    """
    answer = call("audit.prove", {"event": event, "withhold": withhold})
    if answer["withheld"] and not withhold:
        say("the payload was erased: the proof is of the header")
    emit(json.dumps(answer["proof"], ensure_ascii=False, indent=2))


def verify(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="only what came behind: a checkpoint's number, a file with one, or a time (7d, 2026-11-21T08:30:00Z)",
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="how to print")] = Format.TEXT,
) -> None:
    """Read the log again and compare it with every checkpoint.

    Exit code 1: something was edited, dropped, added or moved; the first wrong event is named.
    """
    report = _run(None if since is None else _since(since))
    if output is Format.JSON:
        emit_json(report)
    else:
        for line in lines_of(report):
            emit(line)
    if not report["ok"]:
        raise typer.Exit(1)


def verify_proof(
    proof: Annotated[Path, typer.Argument(metavar="FILE", help="the proof", show_default=False)],
    trust: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the runtime's public key or verifier key, from outside the proof")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="how to print")] = Format.TEXT,
) -> None:
    """Check the proof of an event, offline.

    Needs no runtime. Exit code 1: it does not hold.
    """
    from agentos.audit.proof import verify_proof as check

    if trust is None:
        raise UsageError(
            "--trust is missing: the key must come from outside the proof",
            mend="get it from the runtime's operator (agentos evidence key -o runtime.pub), then --trust runtime.pub",
        )
    answer = check(_read(proof), _read(trust)).to_dict()
    if output is Format.JSON:
        emit_json(answer)
    else:
        for line in proven_lines(answer):
            emit(line)
    if not answer["ok"]:
        raise typer.Exit(1)


def keys(output: Annotated[Keys, typer.Option("--output", "-o", help="how to print")] = Keys.TABLE) -> None:
    """List the keys that signed checkpoints, oldest first.

    With -o vkey each as a verifier key of a signed note, which any tool for such notes takes.
    """
    answer = call("audit.keys", {})
    match output:
        case Keys.JSON:
            emit_json(answer)
        case Keys.VKEY:
            for key in answer["keys"]:
                emit(key["verifier"])
        case Keys.TABLE:
            rows = [[key["key"], key["from"] or "the beginning", key["until"] or "now"] for key in answer["keys"]]
            emit_table(["key", "from", "until"], rows)


def rotate_key(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Replace the signing key by a new one.

    The old one vouches for it, so that who trusts the old key can go on checking; its private half is gone.
    """
    if not yes and not confirm("Replace the key that signs checkpoints and evidence of the whole fleet?"):
        raise UsageError("nothing was changed", mend="say that you mean it: agentos audit rotate-key --yes")
    answer = call("audit.rotate", {})
    say(f"the signing key is now {answer['new']}, vouched for by {answer['old']}")
    say("next: agentos evidence key -o runtime.pub, and hand it to your auditors")


def lines_of(report: Json) -> list[str]:
    """The outcome of a verification for people."""
    good, bad = mark(True), mark(False)
    lines = [plain(f"{one['check']}: {one['where']}: {one['message']}") for one in report["findings"]]
    lines = [f"{bad} {line}" for line in lines]
    read = f"{count(report['events'], 'event')} of tenant {report['tenant']}"
    from_ = f"behind checkpoint {report['since']}" if report["since"] else "from the beginning"
    what = f"{read}, {from_}, against {count(report['checkpoints'], 'checkpoint')}"
    if not report["ok"]:
        return [*lines, plain(f"NOT verified: {count(len(report['findings']), 'finding')} in {what}")]
    newer = f" ({count(report['unsigned'], 'event')} not signed yet)" if report["unsigned"] else ""
    return [f"{good} {plain(f'verified: {what}{newer}')}"]


def proven_lines(answer: Json) -> list[str]:
    """The outcome of checking a proof for people."""
    lines = [f"{mark(check['ok'])} {check['name']:<10} {check['says']}" for check in answer["checks"]]
    if not answer["ok"]:
        return [*lines, plain(f"NOT proven: {answer['fault']}")]
    event, point = answer["event"], answer["checkpoint"]
    lines.append(
        plain(f"proven: event {event['seq']} of {event['session']}: {event['type']} by {event['actor']} at {event['time']}")
    )
    if event["withheld"]:
        lines.append("its payload is not in the file, and was not checked")
    lines.append(plain(f"under checkpoint {point['number']} of {point['origin']}, {point['time']}"))
    return lines


def _run(since: str | None) -> Json:
    """Start a verification and follow it to its end; how far it is goes to standard error, where that is a terminal."""
    answer = call("audit.verify", {} if since is None else {"since": since})
    told = sys.stderr.isatty()
    while not answer["done"]:
        if told:
            typer.echo(f"\r{answer['read']:,} of {answer['total']:,} events", err=True, nl=False)
        answer = call("audit.verify", {"run": answer["run"]})
    if told:
        typer.echo("\r\x1b[K", err=True, nl=False)
    return answer["report"]


def _since(text: str) -> str:
    """What `--since` says: the note in a file of that name, else the text itself."""
    path = Path(text)
    if not path.is_file():
        return text
    try:
        return _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("the file holds no checkpoint", where=text) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE + 1)
    except OSError as error:
        raise AgentOSError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
