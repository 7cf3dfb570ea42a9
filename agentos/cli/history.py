"""`agentos history` and `agentos rollback`: what was applied, by whom and why, and the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.cli.apply import DESTROY, DRY_RUN, FORM, REASON, WIDEN, YES, settle, unchanged
from agentos.cli.command import Output, call, emit, emit_json, emit_table, emit_yaml
from agentos.cli.plan import Form, ask_plan, show_plan
from agentos.cli.render.text import clock
from agentos.cli.verb import examples
from agentos.registry.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the verbs `history` and `rollback`."""
    app.command(
        "history",
        help="List the revisions, newest first: when, who, why, what changed.",
        epilog=examples("agentos history", "agentos history -n 5 -o json"),
    )(_history)
    app.command(
        "rollback",
        help="Make a new revision that equals an earlier one. Shows the plan and asks, as apply does.",
        epilog=examples("agentos rollback --to 3 --reason 'the new grant was too wide'", "agentos rollback --to 0 --dry-run"),
    )(_rollback)


def _history(
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="at most so many; all when left out")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="how to print")] = Output.TABLE,
) -> None:
    params: dict[str, Json] = {} if limit is None else {"limit": limit}
    rows = call("registry.history", params)["revisions"]
    if output is Output.JSON:
        emit_json(rows)
    elif output is Output.YAML:
        emit_yaml(rows)
    elif output is Output.NAME:
        for row in rows:
            emit(str(row["revision"]))
    else:
        wide = output is Output.WIDE
        headers = ["revision", "time", "actor", "changes", "reason", *(["tree", "plan"] if wide else [])]
        emit_table(
            headers, [_row(row, wide) for row in rows], shrink=() if wide else ("reason",), empty="nothing was applied yet"
        )


def _row(row: dict[str, Json], wide: bool) -> list[object]:
    counts = row["counts"]
    changes = f"+{counts['create']} ~{counts['update']} -{counts['delete']}" + (f" !{counts['widen']}" if counts["widen"] else "")
    more = [row.get("tree", "-"), row["plan"]] if wide else []
    return [row["revision"], clock(row["time"]), row["actor"], changes, row["reason"] or "-", *more]


def _rollback(
    to: Annotated[int, typer.Option("--to", min=0, metavar="REVISION", help="the revision to go back to")],
    yes: YES = False,
    allow_destroy: DESTROY = False,
    allow_widen: WIDEN = False,
    dry_run: DRY_RUN = False,
    reason: REASON = "",
    output: FORM = Form.TEXT,
) -> int:
    answer = ask_plan({"to": to})
    plan = Plan.from_dict(answer["plan"])
    show_plan(plan, answer, form=output)
    if not plan.changes:
        return unchanged(plan, output)
    params: dict[str, Json] = {"to": to, "expect": plan.digest, **({"reason": reason} if reason else {})}
    allowed = {"allow_destroy": allow_destroy, "allow_widen": allow_widen}
    return settle("registry.rollback", params, plan, answer, allowed, yes=yes, dry_run=dry_run, form=output)
