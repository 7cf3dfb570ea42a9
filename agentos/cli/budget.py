"""`agentos budget`: what each account may use, has used, holds and has left."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Facts, call, emit, emit_table, say, show
from agentos.cli.render.text import plain
from agentos.cli.verb import examples

_DECIMALS: Final = {"microdollars": ("dollars", 6), "milliseconds": ("seconds", 3)}
"""Units that are declared in others: their name there, and how many digits behind the point."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples("agentos budget", "agentos budget --all --days 7", "agentos budget SESSION", "agentos budget -o json")
    )(budget)


def budget(
    sessions: Annotated[list[str] | None, typer.Argument(metavar="[SESSION]...", help="sessions to show as well")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="what was used without a limit too")] = False,
    days: Annotated[int, typer.Option("--days", min=1, max=31, help="how many UTC days, today among them")] = 1,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Show budgets: limits, used, reserved and left.

    Of the tenant, its programs and its agents, in all and by day. The table has what is limited, and all of a session that is
    named. Reserved is what calls under way may use at most. A second table says who used what: a session that is named and those
    that it delegated to, which pay from its budget too.
    """
    answer = call("budget.list", {"days": days, "sessions": list(sessions or ())})
    show(answer, output, lambda: _print(answer, everything))


def _print(answer: Json, everything: bool = True) -> None:
    rows = [
        [
            f"{one['kind']} {plain(one['name'])}",
            one["day"] or ("so far" if one["kind"] == "session" else "in all"),
            _DECIMALS.get(one["unit"], (one["unit"], 0))[0],
            *(amount(one["unit"], one[field]) for field in ("limit", "used", "reserved", "left")),
        ]
        for one in answer["accounts"]
        if everything or one["limit"] is not None or one["kind"] == "session"
    ]
    headers = ["account", "when", "unit", "limit", "used", "reserved", "left"]
    empty = f"tenant {answer['tenant']} has no budget"
    empty += "; what it has used: agentos budget --all" if answer["accounts"] else ", and has used nothing"
    trees = answer.get("trees", ())
    if rows or not trees:
        emit_table(headers, rows, shrink=["account"], empty=empty)
    for place, tree in enumerate(trees):
        _print_tree(tree, apart=bool(rows) or place > 0)


def _print_tree(tree: Json, *, apart: bool = True) -> None:
    """Who used what, each below the one that delegated to it; nothing for a session that is at work and has delegated nothing."""
    parts = tree["parts"]
    if len(parts) == 1 and not tree["over"]:
        return
    rows = [
        [
            "  " * part["depth"] + plain(part["session"]),
            plain(part["agent"]) or "-",
            _DECIMALS.get(unit, (unit, 0))[0],
            *(amount(unit, part[field].get(unit, 0)) for field in ("own", "total", "reserved")),
        ]
        for part in parts
        for unit in (sorted({*part["total"], *part["reserved"]}) or ["calls"])
    ]
    if apart:
        emit("")
    emit_table(["session", "agent", "unit", "used itself", "with all below", "reserved"], rows, shrink=["agent"])
    if not tree["whole"]:
        say(f"there are more sessions below {plain(tree['session'])}; these are the first {len(parts)}")


def amount(unit: str, value: int | None) -> str:
    """`1.5` for 1,500,000 microdollars; `-` for none."""
    if value is None:
        return "-"
    digits = _DECIMALS.get(unit, ("", 0))[1]
    whole, part = divmod(value, 10**digits)
    fraction = f"{part:0{digits}d}".rstrip("0") if digits else ""
    return f"{whole:,}.{fraction}" if fraction else f"{whole:,}"
