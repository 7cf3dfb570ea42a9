"""`agentos trigger`: what starts runs by itself, when it does so next, what came of it; firing one by hand, switching it off."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.cli.command import Facts, call, emit, emit_table, say, show
from agentos.cli.render.text import clock, plain
from agentos.cli.verb import examples

FAILED: Final = 1

group = typer.Typer(
    help="What starts runs by itself: list, fire, pause and resume triggers.",
    no_args_is_help=True,
    epilog=examples("agentos trigger list --next 3", "agentos trigger fire NAME"),
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="the trigger")]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the tenant's audit chain")]
How = Annotated[Facts, typer.Option("--output", "-o", help="how to print")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="trigger")


@group.command("list", epilog=examples("agentos trigger list", "agentos trigger list --next 3", "agentos trigger list -o json"))
def list_(
    upcoming: Annotated[
        int, typer.Option("--next", metavar="N", min=0, max=100, help="times that come next of each schedule")
    ] = 1,
    output: How = Facts.TABLE,
) -> None:
    """List the triggers of the tenant, the runtime's own work of the tenant default among them.

    Times are UTC. `missed` are times of a schedule at which no runtime was there, and which were not made up for.
    """
    answer = call("trigger.list", {"next": upcoming})
    show(answer, output, lambda: _print(answer["triggers"]))


@group.command("show", epilog=examples("agentos trigger show digest", "agentos trigger show digest --next 10 -o json"))
def show_(
    name: Name,
    upcoming: Annotated[int, typer.Option("--next", metavar="N", min=0, max=100, help="times that come next")] = 5,
    output: How = Facts.TABLE,
) -> None:
    """Tell all about one trigger: what it waits for, when it fires next, what came of the last firing, its newest runs."""
    answer = call("trigger.get", {"name": name, "next": upcoming})
    show(answer, output, lambda: _print_one(answer))


@group.command(
    "fire",
    epilog=examples(
        "agentos trigger fire digest",
        "agentos trigger fire digest --payload order.json --content-type application/json",
        "agentos trigger fire digest --id 2026-11-21",
    ),
)
def fire(
    name: Name,
    payload: Annotated[Path | None, typer.Option("--payload", metavar="FILE", help="becomes input/payload of the run")] = None,
    content_type: Annotated[str | None, typer.Option("--content-type", metavar="TYPE", help="what the payload is")] = None,
    which: Annotated[str | None, typer.Option("--id", metavar="TEXT", help="firing the same id again starts nothing")] = None,
    output: How = Facts.TABLE,
) -> None:
    """Fire a trigger now, also one that is paused; you are the one who starts the run. What overlaps is as declared."""
    params: dict[str, Json] = {"name": name, "id": which, "content_type": content_type}
    if payload is not None:
        try:
            params["payload"] = base64.b64encode(payload.read_bytes()).decode()
        except OSError as error:
            raise UsageError(f"--payload {payload}: {error.strerror}") from error
    answer = call("trigger.fire", {key: value for key, value in params.items() if value is not None})

    def told() -> None:
        session = f" session {plain(answer['session'])}" if answer["session"] else ""
        again = " (by the same firing before)" if answer["again"] else ""
        say(f"trigger {plain(name)}: {plain(answer['outcome'])}{session}{again}{_because(answer['why'])}")

    show(answer, output, told)
    if answer["outcome"] == "failed":
        raise typer.Exit(FAILED)


@group.command("pause", epilog=examples("agentos trigger pause digest --reason 'nobody reads it in August'"))
def pause(name: Name, reason: Why, output: How = Facts.TABLE) -> None:
    """Have a trigger fire no more until it is resumed, also after a restart. Runs that it has started go on."""
    answer = call("trigger.pause", {"name": name, "reason": reason})
    show(answer, output, lambda: say(f"trigger {plain(name)} is paused"))


@group.command("resume", epilog=examples("agentos trigger resume digest --reason 'back'"))
def resume(name: Name, reason: Why, output: How = Facts.TABLE) -> None:
    """Have a trigger fire again. What it would have had meanwhile is not made up for."""
    answer = call("trigger.resume", {"name": name, "reason": reason})
    show(answer, output, lambda: say(f"trigger {plain(name)} fires again"))


@group.command("reset", epilog=examples("agentos trigger reset digest"))
def reset(name: Name, output: How = Facts.TABLE) -> None:
    """Begin the record of a trigger anew, for instance one that cannot be read. What it has started is read from the log."""
    answer = call("trigger.reset", {"name": name})
    show(answer, output, lambda: say(f"the record of trigger {plain(name)} begins anew"))


def _because(why: str) -> str:
    return f": {plain(why)}" if why else ""


def _print(rows: list[Json]) -> None:
    table = [
        [
            plain(row["name"]),
            plain(row["agent"] or f"({row['daemon']})"),
            _waits_for(row),
            "paused" if row["paused"] else ", ".join(clock(time) for time in row["next"]) or "-",
            "unreadable" if row.get("unreadable") else _last(row["last"], row),
            row.get("started", "-"),
            row.get("skipped", "-"),
            row.get("missed", "-"),
        ]
        for row in rows
    ]
    headers = ["trigger", "agent", "on", "next", "last", "started", "skipped", "missed"]
    emit_table(headers, table, shrink=("on",), empty="nothing is declared that fires")


def _waits_for(row: Json) -> str:
    on = row["on"]
    match row["kind"]:
        case "cron":
            return plain(f"{on['schedule']} {on['timeZone']}")
        case "webhook":
            return plain(f"webhook {on['path']}")
        case "workspace":
            return plain(f"{on['space']}: {on['glob']}")
        case "run":
            return plain(f"end of {', '.join(on['agents'])} ({', '.join(on['outcomes'])})")
        case kind:
            return plain(f"{kind} {on['name']}")


def _last(last: Json, row: Json) -> str:
    if row["at_work"]:
        return "at work"
    return f"{plain(last['outcome'])} {clock(last['at'])}" if last else "-"


def _print_one(row: Json) -> None:
    emit(f"trigger  {plain(row['name'])}{' (built in)' if row['built_in'] else ''}{' PAUSED' if row['paused'] else ''}")
    emit(f"starts   {plain(row['agent'] or 'the daemon ' + str(row['daemon']))}")
    if row["goal"]:
        emit(f"goal     {plain(row['goal'])}")
    if row["labels"]:
        emit(f"labels   {plain(', '.join(row['labels']))}")
    emit(f"on       {_waits_for(row)}")
    if row["kind"] == "cron":
        emit(f"missed   {plain(row['on']['missed'])}")
    emit(f"overlap  {plain(row['overlap'])}")
    for index, time in enumerate(row["next"]):
        emit(f"{'' if index else 'next':8} {clock(time)}")
    if row.get("unreadable"):
        emit("record   cannot be read: agentos trigger reset begins it anew")
        return
    emit(
        f"so far   {row['started']} started, {row['skipped']} skipped, {row['failed']} failed, {row['missed']} missed, "
        f"{row['open']} under way"
    )
    if row["last"]:
        session = f" session {plain(row['last']['session'])}" if row["last"]["session"] else ""
        emit(f"last     {_last(row['last'], row)}{session}{_because(row['last']['why'])}")
    for index, run in enumerate(row["runs"]):
        said = f"{plain(run['session'])} {plain(run['state'])} {clock(run['created'])} {plain(run['firing'])}"
        emit(f"{'' if index else 'runs':8} {said}")
