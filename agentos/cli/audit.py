"""`agentos audit`: ask the record which syscalls were made and how they were decided; rebuild what answers; prove it whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.cli import erasure, proof
from agentos.cli.command import Facts, Output, call, emit, emit_json, emit_table, emit_yaml, say, show
from agentos.cli.render.text import ARGS, WHOLE, arguments, clock, count, plain
from agentos.cli.verb import examples

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets read the wide ones alike


class Format(StrEnum):
    """How the rows are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


class Model(StrEnum):
    """Read models."""

    INDEX = "index"
    TEXT = "text"


class Effect(StrEnum):
    """Decisions that can be asked for."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"
    HALT = "halt"


def register(app: typer.Typer) -> None:
    """Add the group `audit`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Ask what was done and by whom; prove that the record was not changed.",
        epilog=examples("agentos audit query --effect deny", "agentos audit verify"),
    )
    group.command(
        "query",
        epilog=examples(
            "agentos audit query --effect deny",
            "agentos audit query --since 2h --agent triage --tool write -o wide",
            "agentos audit query --session SESSION -o csv > calls.csv",
        ),
    )(query)
    group.command(
        "search",
        epilog=examples(
            "agentos audit search invoice 4711",
            "agentos audit search 'to the customer' --agent triage --since 7d",
            "agentos audit search --raw 'refund NOT (refused OR denied)' -o json",
        ),
    )(search)
    group.command("rebuild", epilog=examples("agentos audit rebuild", "agentos audit rebuild --model text -o json"))(rebuild)
    proof.register(group)
    erasure.register(group)
    app.add_typer(group, name="audit")


def query(
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="from this time on: 15m, 2h, 7d ago, or 2026-11-21T08:30:00Z")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="before this time, written as for --since")] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="calls of this agent")] = None,
    tool: Annotated[str | None, typer.Option(metavar="NAME", help="calls of this tool (model-call: of the model)")] = None,
    effect: Annotated[Effect | None, typer.Option(help="the decision; ask: every call that a person was asked about")] = None,
    session: Annotated[str | None, typer.Option(metavar="SESSION", help="calls of this session")] = None,
    rule: Annotated[str | None, typer.Option(metavar="RULE", help="calls for which this rule fired")] = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="on behalf of, or answered by, this principal")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="NUMBER", help="the newest so many")] = 1000,
    output: Annotated[Format, typer.Option("--output", "-o", help="how to print")] = Format.TABLE,
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
        case Format.YAML:
            emit_yaml(rows)
        case Format.TABLE | Format.WIDE:
            _table(rows, wide=output is Format.WIDE, one_session=session is not None)
    for line in remarks(answer):
        say(line)


def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS…", help="all must stand in the text of one event; inv* for beginnings")
    ],
    session: Annotated[str | None, typer.Option(metavar="SESSION", help="texts of this session")] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="texts of this agent's sessions")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="from this time on: 15m, 2h, 7d ago, or 2026-11-21T08:30:00Z")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="NUMBER", help="the newest so many")] = 20,
    raw: Annotated[
        bool, typer.Option("--raw", help="the words are a query of SQLite's FTS5: OR, NOT, NEAR(), parentheses")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="how to print")] = Output.TABLE,
) -> None:
    """Find words in goals, arguments, results, replies and reasons, newest first.

    Sessions whose payloads were erased are not found.
    """
    given = {"session": session, "agent": agent, "since": since}
    params: dict[str, Json] = {name: value for name, value in given.items() if value is not None}
    answer = call("audit.search", params | {"words": list(words), "limit": limit, "raw": raw})
    rows = answer["rows"]
    wide = output is Output.WIDE

    def table() -> None:
        headers = ["time", "session", *(["agent", "call", "event"] if wide else []), "where", "text"]
        cells = [_hit(row, wide) for row in rows]
        emit_table(headers, cells, shrink=() if wide else ("text",), empty="nothing was said with these words")

    show(rows, output, table, name="session")
    for line in remarks(answer):
        say(line)


def _hit(row: dict[str, Json], wide: bool) -> list[str]:
    more = [str(row["agent"]), str(row["call"] or "-"), str(row["seq"])] if wide else []
    snippet = " ".join(str(row["snippet"]).split())
    return [str(row["time"]) if wide else clock(row["time"]), str(row["session"]), *more, str(row["kind"]), snippet]


def rebuild(
    model: Annotated[Model | None, typer.Option(help="only this one; both by default")] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Throw the read models away and make them again from the log; say whether they are what they were.

    Exit codes: 0 the same, 1 something in the log could not be read, 2 a read model was not what the log says.
    """
    answer = call("audit.rebuild", {} if model is None else {"model": str(model)})
    show(answer, output, lambda: None)
    if output is Facts.TABLE:
        events = sum(answer["positions"].values())
        say(f"rebuilt from {count(events, 'event')}, {count(len(answer['faults']), 'fault')}")
        for one in answer["models"]:
            say(f"{one['model']}: {one['after']}, {_compared(one)}")
        for fault in answer["faults"]:
            emit(plain(f"{fault['stream']}:{fault['position']}: {fault['session']}: {fault['kind']}: {fault['error']}"))
    if answer["faults"]:
        raise typer.Exit(1)
    if any(one["same"] is False or one["before"] is None for one in answer["models"]):
        raise typer.Exit(2)


def _compared(one: dict[str, Json]) -> str:
    if one["before"] is None:
        return "and could not be read before"
    if one["same"] is None:
        return f"before {one['before']}; the log grew meanwhile"
    return "as before" if one["same"] else f"but was {one['before']}"


def remarks(answer: Json) -> list[str]:
    """What somebody who reads the rows must know besides: lines for standard error."""
    lines = []
    if answer["more"]:
        lines.append(f"there are older rows than these {len(answer['rows'])}: narrow the question or raise --limit")
    if answer["behind"]:
        lines.append(f"the read model is {count(sum(answer['behind'].values()), 'event')} behind the log: ask again in a moment")
    if answer["faults"]:
        lines.append(f"{count(answer['faults'], 'event')} could not be taken in: see agentos audit rebuild")
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


def _table(rows: Sequence[dict[str, Json]], *, wide: bool, one_session: bool) -> None:
    """The rows for people. Columns that would say the same in every line (the session that was asked for) are left out."""
    answered = any(row["approval_by"] for row in rows)
    hidden = set() if wide else {*(("session", "agent") if one_session else ()), *(() if answered else ("by",)), *_WIDE_ONLY}
    headers = [header for header in _COLUMNS if header not in hidden]
    cells = [{header: cell(row, wide) for header, cell in _COLUMNS.items()} for row in rows]
    shrink = () if wide else ("arguments", "rules", "by", "agent", "tool")
    emit_table(
        headers, [[line[header] for header in headers] for line in cells], shrink=shrink, empty="no syscall answers to that"
    )


def _decision(row: dict[str, Json], wide: bool) -> str:
    """`allow`, `deny`, `ask`; that a person was asked; and, where it is not what follows anyway, what came of it."""
    text = f"{row['decision'] or row['outcome']}"
    if row["asked"] and row["decision"] != "ask":
        text += " (asked)"
    follows = {"allow": "finished", "deny": "denied"}.get(row["decision"], row["outcome"])
    return text if wide or row["outcome"] == follows else f"{text}, {row['outcome']}"


_COLUMNS: Final[Mapping[str, Callable[[dict[str, Json], bool], str]]] = {
    "time": lambda row, wide: str(row["time"]) if wide else clock(row["time"]),
    "session": lambda row, _: str(row["session"]),
    "agent": lambda row, _: str(row["agent"]),
    "tool": lambda row, _: str(row["tool"]),
    "decision": _decision,
    "outcome": lambda row, _: str(row["outcome"]),
    "rules": lambda row, _: ",".join(row["rules"]) or "-",
    "by": lambda row, _: str(row["approval_by"] or "-"),
    "arguments": lambda row, wide: arguments(row["args"], WHOLE if wide else ARGS) or "-",
    "call": lambda row, _: str(row["call"]),
    "revision": lambda row, _: str(row["config_revision"]),
    "reasons": lambda row, _: "; ".join(row["reasons"]) or "-",
}
_WIDE_ONLY: Final = frozenset({"outcome", "call", "revision", "reasons"})
