"""`agentos audit erase | hold | release | holds | retire`: what may go, what must stay, and on what basis."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, EvidenceError, UsageError, error_from_dict
from agentos.cli.command import call, confirm, emit_json, emit_table, say, with_client
from agentos.cli.render.text import clock, count, plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client

PACK_BYTES: Final = 48 * 1024 * 1024
"""Stored bytes that one pack is made of at most, if its sessions are not larger each."""

PACK_SESSIONS: Final = 2000

SHOWN: Final = 20
"""Sessions that a plan lists."""

PATIENCE_S: Final = 600.0
"""Seconds that the runtime may take to look through a month, or to drop it."""


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


Basis = Annotated[str, typer.Option("--basis", metavar="TEXT", help="on what basis; stands in the audit chain beside your name")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the audit chain beside your name")]
Cancel = Annotated[
    bool, typer.Option("--cancel-running", help="cancel those that are not over first, in your name; it is recorded")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
Overrule = Annotated[
    bool, typer.Option("--overrule-retention", help="although the declared retention has not passed; it is recorded")
]
Shape = Annotated[Format, typer.Option("--output", "-o", help="how to print")]


def register(group: typer.Typer) -> None:
    """Add the verbs to the group `audit`."""
    group.command(
        "erase",
        epilog=examples(
            "agentos audit erase --session SESSION --basis 'request 17 of 2026-11-21'",
            "agentos audit erase --data-subject customer-4711 --basis 'GDPR Art. 17, request 17' --yes",
        ),
    )(erase)
    group.command(
        "hold",
        epilog=examples(
            "agentos audit hold --session SESSION --reason 'case 12 C 345/26'",
            "agentos audit hold --agent payments --reason 'inquiry of the supervisor'",
        ),
    )(hold)
    group.command("release", epilog=examples("agentos audit release HOLD --reason 'case closed'"))(release)
    group.command("holds", epilog=examples("agentos audit holds", "agentos audit holds -o json"))(holds)
    group.command(
        "retire",
        epilog=examples("agentos audit retire 202505 --to /mnt/archive --basis 'retention of 183 days has passed'"),
    )(retire)


def erase(
    basis: Basis,
    session: Annotated[
        list[str] | None, typer.Option("--session", metavar="SESSION", help="this session (may be repeated)")
    ] = None,
    data_subject: Annotated[
        str | None, typer.Option("--data-subject", metavar="ID", help="all sessions that were run with this --data-subject")
    ] = None,
    overrule_retention: Overrule = False,
    cancel_running: Cancel = False,
    yes: Yes = False,
    output: Shape = Format.TABLE,
) -> None:
    """Erase the payload of sessions for good.

    It cannot be read any more, in whatever copy of the log. Goals, arguments, results and workspaces are gone; who did what, when
    and under which rules stays, and the log still verifies. A plan is shown first. Refused: a session that is not over (but for
    --cancel-running), one under a legal hold, one whose agent's retention has not passed.
    """
    if bool(session) == (data_subject is not None):
        raise UsageError("say what to erase: --session, or --data-subject")
    wanted: dict[str, Json] = {"sessions": list(session)} if session else {"subject": data_subject}
    means: dict[str, Json] = {"overrule": overrule_retention, "cancel": cancel_running}
    plan = call("audit.erasure", {**wanted, **means})
    if plan["already"] and not plan["sessions"]:
        if output is Format.JSON:
            emit_json(plan)
        say(f"nothing to do: {count(len(plan['already']), 'session')} erased before")
        return
    if output is Format.TABLE:
        _show(plan)
    _require(plan, overrule=False)
    what = f"{count(len(plan['sessions']), 'session')} of {', '.join(plan['agents']) or 'no agent'}"
    if not yes and not confirm(f"Erase the payload of {what} for good? No backup brings it back."):
        raise UsageError("nothing was erased", mend="say that you mean it: --yes")
    seen = [one["session"] for one in plan["sessions"]]
    done = call("audit.erase", {**wanted, **means, "basis": basis, "seen": seen})
    if output is Format.JSON:
        emit_json(done)
    say(f"erased {count(len(done['sessions']), 'session')}, {count(done['events'], 'event')}; the log still verifies")
    say("copies that left the runtime (evidence packs, terminals, mail) are yours to find; next: agentos audit verify")


def hold(
    reason: Reason,
    session: Annotated[str | None, typer.Option("--session", metavar="SESSION", help="this session")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="AGENT", help="all sessions of this agent")] = None,
    period: Annotated[
        str | None, typer.Option("--period", metavar="PERIOD", help="all sessions that began in this month: 202611")
    ] = None,
    output: Shape = Format.TABLE,
) -> None:
    """Put sessions under a legal hold.

    It blocks erase and retire, whatever else is asked, until it is released.
    """
    named = {"session": session, "agent": agent, "period": period}
    target: dict[str, Json] = {kind: name for kind, name in named.items() if name is not None}
    if len(target) != 1:
        raise UsageError("say what to hold: one of --session, --agent, --period")
    made = call("audit.hold", {**target, "reason": reason})
    if output is Format.JSON:
        emit_json(made)
    say(f"hold {made['hold']} on {_what(made)}; next: agentos audit release {made['hold']} --reason '…'")


def release(
    hold: Annotated[str, typer.Argument(metavar="HOLD", help="the hold, as agentos audit holds lists it", show_default=False)],
    reason: Reason,
    output: Shape = Format.TABLE,
) -> None:
    """End a legal hold."""
    was = call("audit.release", {"hold": hold, "reason": reason})
    if output is Format.JSON:
        emit_json(was)
    say(f"{_what(was)} is not under hold {hold} any more")


def holds(output: Shape = Format.TABLE) -> None:
    """List the legal holds in force, oldest first."""
    found = call("audit.holds", {})
    if output is Format.JSON:
        emit_json(found)
        return
    rows = [[one["hold"], _what(one), plain(one["reason"]), one["by"], clock(one["since"])] for one in found]
    emit_table(["hold", "on", "reason", "by", "since"], rows, shrink=["reason"], empty="there is no hold")


def retire(
    period: Annotated[str, typer.Argument(metavar="PERIOD", help="the month, UTC: 202505", show_default=False)],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="folder for the evidence packs, on this machine")],
    basis: Basis,
    overrule_retention: Overrule = False,
    yes: Yes = False,
    output: Shape = Format.TABLE,
) -> None:
    """Export a month, verify it, drop it from the log.

    Its sessions are written as evidence packs, and each pack is read back and verified before anything is dropped. The runtime
    drops what it has put into packs itself, whole and up to the end, and nothing else; that you keep the packs it must believe.
    They are then the only place where the month can be read. The root that each stream ended with stays under every later
    checkpoint. A crash on the way is made up for at the next start.
    """
    dropped, packs = with_client(lambda client: _retire(client, period, to, basis, overrule_retention, yes, output))
    if output is Format.JSON:
        emit_json({**dropped, "packs": packs})
    say(f"retired {period}: {count(len(dropped['sessions']), 'session')}, {count(dropped['events'], 'event')} dropped")
    say(f"keep {count(len(packs), 'pack')} in {to}; next: agentos audit verify")


async def _retire(
    client: Client, period: str, to: Path, basis: str, overrule: bool, yes: bool, output: Format
) -> tuple[Json, list[Json]]:
    plan = await client.call("audit.retirement", {"period": period}, within=PATIENCE_S)
    if output is Format.TABLE:
        _show(plan)
    _require(plan, overrule=overrule)
    what = f"{count(len(plan['sessions']), 'session')} of {period}"
    if not yes and not confirm(f"Export {what} to {to} and drop the month from the log for good?"):
        raise UsageError("nothing was retired", mend="say that you mean it: --yes")
    _make(to)
    trust = (await client.call("evidence.key", {}))["pem"].encode()
    packs: list[Json] = []
    for sessions in _portions(plan["sessions"]):
        packs += await _export(client, period, to, sessions, trust, len(packs) + 1)
    _settle(to)
    for pack in packs:
        _require_kept(pack)
    params: dict[str, Json] = {"period": period, "basis": basis, "overrule": overrule}
    told = [{"digest": pack["digest"], "sessions": pack["sessions"]} for pack in packs]
    dropped = await client.call("audit.retire", {**params, "packs": told}, within=PATIENCE_S)
    return dropped, [{"file": pack["file"], "digest": pack["digest"]} for pack in packs]


def _portions(sessions: Sequence[Json]) -> Iterator[list[str]]:
    """The sessions in portions that a pack holds."""
    portion: list[str] = []
    size = 0
    for one in sessions:
        if portion and (size + one["bytes"] > PACK_BYTES or len(portion) == PACK_SESSIONS):
            yield portion
            portion, size = [], 0
        portion.append(one["session"])
        size += one["bytes"]
    if portion:
        yield portion


async def _export(client: Client, period: str, to: Path, sessions: list[str], trust: bytes, number: int) -> list[Json]:
    """Export, verify and write the pack of `sessions`, or the packs of its halves where one cannot hold them."""
    from agentos.cli.evidence import write_whole

    try:
        answer = await client.call("evidence.export", {"sessions": list(sessions)}, within=PATIENCE_S)
    except EvidenceError:
        if len(sessions) == 1:
            raise
        half = len(sessions) // 2
        first = await _export(client, period, to, sessions[:half], trust, number)
        return first + await _export(client, period, to, sessions[half:], trust, number + len(first))
    pack = base64.b64decode(answer["pack"], validate=True)
    _check(pack, trust, sessions)
    path = to / f"agentos-{period}-{number:04}.zip"
    if path.exists():
        raise Conflict("the file is there already", where=str(path), mend="name another folder: --to")
    write_whole(path, pack)
    say(f"wrote and verified {path}: {count(len(sessions), 'session')}, {len(pack):,} bytes")
    return [{"file": str(path), "digest": _digest(pack), "sessions": list(sessions)}]


def _check(pack: bytes, trust: bytes, sessions: Sequence[str]) -> None:
    """The pack verifies and holds what was asked for. Raises EvidenceError."""
    from agentos.audit.verify import verify_pack

    report = verify_pack(pack, trust)
    if not report.ok or report.sessions != len(sessions):
        fault = report.faults[0] if report.faults else None
        why = f"{fault.where}: {fault.message}" if fault is not None else f"it holds {report.sessions} sessions"
        raise EvidenceError(f"the exported pack does not verify, so nothing is dropped: {why}")


def _require_kept(pack: Json) -> None:
    """The file holds what was verified, byte for byte. Raises AgentOSError, EvidenceError."""
    try:
        data = Path(pack["file"]).read_bytes()
    except OSError as error:
        raise AgentOSError(f"the pack cannot be read again: {error.strerror}", where=pack["file"]) from error
    if _digest(data) != pack["digest"]:
        raise EvidenceError("the file does not hold what was exported, so nothing is dropped", where=pack["file"])


def _digest(pack: bytes) -> str:
    return f"sha256:{hashlib.sha256(pack).hexdigest()}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise AgentOSError(f"the folder cannot be made: {error.strerror}", where=str(folder)) from error


def _settle(folder: Path) -> None:
    """What was written into `folder` is on the disk, its name too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _require(plan: Json, *, overrule: bool) -> None:
    """Raises what the runtime would refuse with."""
    if plan["refused"] is not None and not (overrule and plan["overrule_helps"]):
        raise error_from_dict(plan["refused"])


def _show(plan: Json) -> None:
    """A plan, on standard output."""
    shown = plan["sessions"][:SHOWN]
    rows = [
        [
            one["session"],
            one["agent"] or "-",
            str(one["events"]),
            clock(one["ended"]) if one["ended"] else "not over",
            f"until {clock(one['kept_until'])}" if one["kept_until"] else "passed" if one["retention_days"] else "none",
            ", ".join(one["holds"]) or "-",
        ]
        for one in shown
    ]
    emit_table(["session", "agent", "events", "ended", "retention", "holds"], rows)
    left = len(plan["sessions"]) - len(shown)
    if left:
        say(f"… and {count(left, 'session')} more")


def _what(hold: Json) -> str:
    return next(f"{kind} {hold[kind]}" for kind in ("session", "agent", "period") if kind in hold)
