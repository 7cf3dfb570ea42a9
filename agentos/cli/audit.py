"""`agentos audit`: ask the record which syscalls were made and how they were decided; rebuild the read model that answers."""

from __future__ import annotations

import csv
import io
import json
from enum import StrEnum
from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import call, emit, emit_json, emit_table, plain, say

ARGS_WIDTH: Final = 60
"""Most characters of a call's arguments in the table; `-o json` has them all."""

_HEADERS: Final = ("time", "session", "call", "agent", "tool", "decision", "outcome", "rules", "by", "args")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets read the wide ones alike


class Format(StrEnum):
    """How the rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Effect(StrEnum):
    """Decisions that can be asked for."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"
    HALT = "halt"


def register(app: typer.Typer) -> None:
    """Add the group `audit`."""
    group = typer.Typer(no_args_is_help=True, help="Ask what was done, by whom, and which rules decided it.")
    group.command("query")(query)
    group.command("rebuild")(rebuild)
    app.add_typer(group, name="audit")


def query(
    since: Annotated[str | None, typer.Option(help="from this time on: 15m, 2h, 7d ago, or 2026-11-21T08:30:00Z")] = None,
    until: Annotated[str | None, typer.Option(help="before this time, written as for --since")] = None,
    agent: Annotated[str | None, typer.Option(help="calls of this agent")] = None,
    tool: Annotated[str | None, typer.Option(help="calls of this tool (model-call: of the model)")] = None,
    effect: Annotated[Effect | None, typer.Option(help="the decision; ask: every call that a person was asked about")] = None,
    session: Annotated[str | None, typer.Option(help="calls of this session")] = None,
    rule: Annotated[str | None, typer.Option(help="calls for which this rule fired")] = None,
    actor: Annotated[str | None, typer.Option(help="on behalf of, or answered by, this principal")] = None,
    limit: Annotated[int, typer.Option(help="the newest so many")] = 1000,
    output: Annotated[Format, typer.Option("--output", "-o", help="table, json or csv")] = Format.TABLE,
) -> None:
    """List syscalls with their decision, oldest first."""
    given = {"since": since, "until": until, "agent": agent, "tool": tool, "session": session, "rule": rule, "actor": actor}
    params: dict[str, Json] = {name: value for name, value in given.items() if value is not None}
    if effect is not None:
        params["effect"] = str(effect)
    answer = call("audit.query", params | {"limit": limit})
    rows = answer["rows"]
    match output:
        case Format.JSON:
            emit_json(rows)
        case Format.CSV:
            emit(csv_of(rows).rstrip("\n"))
        case Format.TABLE:
            emit_table(_HEADERS, [_cells(row) for row in rows])
    for line in remarks(answer):
        say(line)


def rebuild() -> None:
    """Throw the read model away and read the log again."""
    answer = call("audit.rebuild", {})
    events = sum(answer["positions"].values())
    say(f"rebuilt from {events} events, {len(answer['faults'])} faults")
    for fault in answer["faults"]:
        emit(plain(f"{fault['stream']}:{fault['position']}: {fault['session']}: {fault['kind']}: {fault['error']}"))
    if answer["faults"]:
        raise typer.Exit(1)


def remarks(answer: Json) -> list[str]:
    """What somebody who reads the rows must know besides: lines for standard error."""
    lines = []
    if answer["more"]:
        lines.append(f"there are older rows than these {len(answer['rows'])}: narrow the question or raise --limit")
    if answer["behind"]:
        lines.append(f"the read model is {sum(answer['behind'].values())} events behind the log: ask again in a moment")
    if answer["faults"]:
        lines.append(f"{answer['faults']} events could not be taken in: see agentos audit rebuild")
    return lines


def csv_of(rows: list[dict[str, Json]]) -> str:
    """Rows as CSV with a header; no cell can be taken for a formula, control characters are shown escaped."""
    from agentos.audit.query import COLUMNS

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([safe_cell(row[column]) for column in COLUMNS] for row in rows)
    return text.getvalue()


def safe_cell(value: Json) -> str:
    """One CSV cell: lists and objects as JSON, nothing for null, text that a spreadsheet would compute made text by a `'`."""
    if value is None:
        return ""
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return plain(f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text)


def _cells(row: dict[str, Json]) -> tuple[str, ...]:
    args = json.dumps(row["args"], ensure_ascii=False)
    shown = args if len(args) <= ARGS_WIDTH else args[: ARGS_WIDTH - 1] + "…"
    asked = " (asked)" if row["asked"] and row["decision"] != "ask" else ""
    return (
        row["time"],
        row["session"],
        row["call"],
        row["agent"],
        row["tool"],
        f"{row['decision'] or '-'}{asked}",
        row["outcome"],
        ",".join(row["rules"]) or "-",
        row["approval_by"] or "-",
        shown,
    )
