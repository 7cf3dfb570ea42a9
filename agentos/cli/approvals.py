"""`agentos approvals list|approve|deny`: calls that wait for people."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict, UsageError
from agentos.abi.event import rfc3339
from agentos.cli.command import Output, call, confirm, emit_table, interactive, paint, say, show
from agentos.cli.plan import show_plan
from agentos.cli.render.text import ARGS, WHOLE, arguments, clock, plain, safe_json
from agentos.cli.verb import examples
from agentos.registry.plan import Plan

group = typer.Typer(
    no_args_is_help=True,
    help="Calls that wait for people: list, approve, deny.",
    epilog=examples("agentos approvals list"),
    rich_markup_mode=None,
)


class For(StrEnum):
    """What a yes covers."""

    ONCE = "once"
    SESSION = "session"
    STANDING = "standing"


Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the log beside your name")]
Session = Annotated[str, typer.Argument(metavar="SESSION", help="the session that waits")]
CallId = Annotated[str | None, typer.Option("--call", metavar="CALL", help="refuse unless it is this call that waits")]
Digest = Annotated[
    str | None,
    typer.Option(
        "--digest", metavar="SHA256", help="refuse unless it waits with these arguments, as the list shows their digest"
    ),
]

_UNITS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
SHOWN: Final = len("sha256:") + 12
"""Characters of a digest that tell it apart for people."""

_SIGNS: Final = {"+": "green", "-": "red", "@": "cyan"}

_STEPS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="approvals")


@group.command(
    "list", epilog=examples("agentos approvals list", "agentos approvals list -o yaml", "agentos approvals list --all -o json")
)
def list_(
    everything: Annotated[bool, typer.Option("--all", "-a", help="answered ones too")] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="how to print; yaml and json show the whole call")
    ] = Output.TABLE,
) -> None:
    """List what waits, oldest first: the call, the rule that asks, how long it waits, how many have approved."""
    rows = call("approval.list", {"all": everything})
    show(rows, output, lambda: _table(rows, wide=output is Output.WIDE), name="session")


def _table(rows: list[dict[str, Json]], *, wide: bool) -> None:
    headers = ["session", "state", "tool", "arguments", "why", "asked", "expires", "approvers"]
    headers += ["agent", "call", "digest", "answer"] if wide else []
    now = int(time.time() * 1000)
    cells = [_row(row, wide, now) for row in rows]
    emit_table(headers, cells, shrink=() if wide else ("arguments", "why"), empty="nothing waits")
    for row in (row for row in rows if "diff" in row):
        say(f"{row['session']} proposes:")
        _difference(row)
    waiting = [row["session"] for row in rows if row["state"] == "waiting"]
    if waiting:
        say("to read it whole: agentos approvals list -o yaml")
        say(f"next: agentos approvals approve {waiting[0]} --reason '…' (or deny)")


def _row(row: dict[str, Json], wide: bool, now_ms: int) -> list[str]:
    ends = row["expires_ms"]
    cells = [
        row["session"],
        row["state"],
        row["tool"],
        arguments(row["args"], WHOLE if wide else ARGS),
        "; ".join(row["reasons"]),
        clock(rfc3339(row["asked_ms"])),
        ahead(ends - now_ms) if row["state"] == "waiting" and ends is not None else "-",
        f"{row['given']} of {row['needed']}",
    ]
    if wide:
        said = [f"{one['by']}: {'' if one['granted'] else 'no, '}{one['reason']}" for one in row["answers"]]
        cells += [row["agent"], row["call"], row["args_digest"], "; ".join(said) or "-"]
    return cells


def ahead(ms: int) -> str:
    """How far ahead a moment is, in its largest unit, rounded down: `in 23 h`; `over` for what has passed."""
    seconds = ms // 1000
    return next((f"in {seconds // size} {unit}" for size, unit in _STEPS if seconds >= size), "over")


@group.command(
    epilog=examples(
        "agentos approvals approve SESSION --reason 'read it, may go out'",
        "agentos approvals approve SESSION --reason 'their usual replies' --for session --max-uses 5 --valid 30m",
        "agentos approvals approve SESSION --reason 'as every month' --for standing --valid 90d --yes",
        "agentos approvals approve SESSION --reason 'as I read it' --call CALL --digest SHA256",
    )
)
def approve(
    session: Session,
    reason: Reason,
    for_: Annotated[
        For, typer.Option("--for", help="this call, later ones that the same rules ask for, or a ToolGrant for calls like it")
    ] = For.ONCE,
    max_uses: Annotated[
        int | None, typer.Option("--max-uses", min=1, metavar="NUMBER", help="how many calls it covers; 10 unless it is for one")
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option("--valid", metavar="DURATION", help="how long it counts, such as 10m or 2h; a standing one 30d by default"),
    ] = None,
    call_id: CallId = None,
    digest: Digest = None,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="let a standing grant leave open the arguments that the call did not give")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask; a standing approval widens permission")] = False,
) -> int:
    """Say yes to the call that waits.

    Prints the call, unless --call and --digest say which was read; exactly that one is decided again and then runs, and nothing
    is recorded if another waits by then. A standing approval makes a ToolGrant as well, held to the arguments of this call: it
    shows the grant and asks first, and takes the right to apply.
    """
    params: dict[str, Json] = {"session": session, "reason": reason, "scope": str(for_)}
    if valid is not None:
        params["valid_ms"] = duration(valid)
    if max_uses is not None:
        params["max_uses"] = max_uses
    if allow_open:
        params["allow_open"] = True
    read, waiting = _read(session, call_id, digest)
    params |= read
    if for_ is For.STANDING:
        return _standing(params, yes=yes)
    call("approval.approve", params)
    missing = waiting.get("needed", 1) - waiting.get("given", 0) - 1
    if missing > 0:
        say(f"approved, {waiting['given'] + 1} of {waiting['needed']}: somebody else has to approve it too")
    else:
        say(f"approved; the session goes on: agentos wait {session}")
    return 0


def _read(session: str, call_id: str | None, digest: str | None) -> tuple[dict[str, Json], dict[str, Json]]:
    """What the answer is for, `{call, digest}`, and the row of what waits; the call is printed unless both are given.

    What was printed is what is sent, so that the runtime refuses the answer when the session has moved on. Raises Conflict
    when nothing waits.
    """
    rows = call("approval.list", {"all": False})
    row = next((row for row in rows if row["session"] == session), None)
    if call_id is not None and digest is not None:
        return {"call": call_id, "digest": digest}, row or {}
    if row is None:
        state = call("session.get", {"session": session})["state"]
        raise Conflict(f"session {plain(session)} does not wait for an approval: it is {state}")
    say(f"call {plain(row['call'])} of agent {plain(row['agent'])}: {plain(row['tool'])}")
    # What is proposed for a file is told by its difference, which the person is asked about.
    shown = {key: value for key, value in row["args"].items() if key != "content"} if "diff" in row else row["args"]
    for line in safe_json(shown).splitlines():
        say(f"  {line}")
    _difference(row)
    for why in row["reasons"]:
        say(f"  why: {plain(why)}")
    say(f"  {row['args_digest'][:SHOWN]}…")
    return {"call": call_id or row["call"], "digest": digest or row["args_digest"]}, row


def _difference(row: dict[str, Json]) -> None:
    """What a proposed change of a file comes to, where that is what waits."""
    for line in row["diff"].splitlines() if "diff" in row else ():
        text = plain(line.expandtabs())
        say(f"  {paint(text, err=True, fg=_SIGNS[line[:1]]) if line[:1] in _SIGNS else text}")


def _standing(params: dict[str, Json], *, yes: bool) -> int:
    """Show what grant the yes makes, ask, and say it of exactly that."""
    shown = call("approval.approve", {**params, "dry_run": True})
    plan = Plan.from_dict(shown["plan"])
    show_plan(plan, shown)
    if shown["open"]:
        say(f"the call did not give these arguments, and the grant leaves them open: {plain(', '.join(shown['open']))}")
    if not yes:
        if not interactive():
            raise UsageError(
                "a standing approval widens permission, and nobody can be asked here; nothing was changed",
                mend="read the grant above, then add --yes",
            )
        if not confirm("Approve this call, and permit calls like it from now on?"):
            say("nothing was changed")
            return 1
    exactly = {"until_ms": shown["until_ms"], "expect": plan.digest}
    done = call("approval.approve", {**params, **exactly})
    name = done["grant"]["metadata"]["name"]
    number = done["revision"]["revision"] if done["revision"] is not None else plan.base_revision
    say(f"approved, and granted with revision {number}; to take it back: agentos delete toolgrant {name}")
    return 0


def duration(text: str) -> int:
    """`10m`, `2h`, `7d` (units s, m, h, d) in milliseconds. Raises UsageError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no duration", mend="write 90s, 10m, 2h or 7d")
    return int(found[1]) * _UNITS[found[2]]


@group.command(epilog=examples("agentos approvals deny SESSION --reason 'not to customers'"))
def deny(session: Session, reason: Reason, call_id: CallId = None, digest: Digest = None) -> None:
    """Say no to the call that waits.

    Prints the call, unless --call and --digest say which was read. The model is told so, with your reason, and the session goes
    on.
    """
    read, _ = _read(session, call_id, digest)
    call("approval.deny", {"session": session, "reason": reason, **read})
    say(f"refused; the session goes on: agentos wait {session}")
