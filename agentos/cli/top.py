"""`agentos top`: what runs and waits on which endpoint, who deserved and received how much, who goes next and why."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Facts, call, emit, emit_table, say, show, with_client
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client

CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"
"""Empties a terminal and goes to its first line."""

RUNNING: Final = 10
"""Most turns that run which the table names of one endpoint."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=examples("agentos top", "agentos top --once", "agentos top --all -o json"))(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="print once and leave, as off a terminal")] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="the endpoints and turns of every tenant")] = False,
    interval: Annotated[float, typer.Option("--interval", "-d", min=0.2, max=3600, help="seconds between two looks")] = 2.0,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Show what the scheduler does, until you press Ctrl-C.

    Per endpoint: what runs, how many wait and for how long, what each share deserved and received, and who goes next and why.
    """
    params: dict[str, Json] = {"all": everything}
    if once or output is not Facts.TABLE or not sys.stdout.isatty():
        answer = call("sched.top", params)
        show(answer, output, lambda: _print(answer))
        return

    async def watch(client: Client) -> None:
        while True:
            answer = await client.call("sched.top", params)
            sys.stdout.write(CLEAR)
            _print(answer)
            say(f"\nevery {interval:g} s; Ctrl-C to leave")
            await asyncio.sleep(interval)

    with_client(watch)


def _print(answer: Json) -> None:
    endpoints = answer["endpoints"]
    if not endpoints:
        say("there is no endpoint: declare a Model (agentos explain model)")
        return
    for number, one in enumerate(endpoints):
        if number:
            emit("")
        emit(_headline(one))
        _queues(one)
        _running(one)
        _shares(one, answer["window_ms"])
        coming = one["next"]
        if coming is not None:
            who = coming["session"] or "/".join(coming["path"])
            emit(f"  next: {plain(who)} ({plain(coming['class'])}): {plain(coming['why'])}")


def _headline(one: Json) -> str:
    running, waiting = len(one["running"]) + one["running_others"], sum(queue["waiting"] for queue in one["queues"])
    slots = "" if one["slots"] is None else f" of {one['slots']}"
    told = [f"{running}{slots} running", f"{waiting} waiting"]
    for name in ("requests", "tokens"):
        rate = one[name]
        if rate is not None:
            told.append(f"{name} {max(0, rate['left']):,} left of {rate['per_minute']:,} a minute")
    if one["circuit"] != "closed":
        told.append(f"circuit {one['circuit']}")
    name = "places of harnesses" if one["kind"] == "harness" else f"{one['kind']} {plain(one['name'])}"
    return f"{name}: {', '.join(told)}"


def _queues(one: Json) -> None:
    rows = [
        [
            queue["class"],
            queue["waiting"],
            _seconds(queue["oldest_ms"]),
            queue["admitted"],
            _seconds(queue["p50_ms"]),
            _seconds(queue["p95_ms"]),
        ]
        for queue in one["queues"]
    ]
    if rows:
        emit_table(["  class", "waiting", "oldest s", "went out", "p50 s", "p95 s"], [[f"  {row[0]}", *row[1:]] for row in rows])


def _running(one: Json) -> None:
    rows = [
        [f"  {run['session'] or '-'}", "/".join(run["path"]), run["class"], _seconds(run["for_ms"]), f"{run['tokens']:,}"]
        for run in sorted(one["running"], key=lambda run: -run["for_ms"])
    ]
    if rows:
        # A place is not asked for so many of anything.
        wide = len(rows[0]) - (one["kind"] == "harness")
        emit_table(["  running", "of", "class", "for s", "tokens"][:wide], [row[:wide] for row in rows[:RUNNING]], shrink=["of"])
    if len(rows) > RUNNING:
        emit(f"  and {count(len(rows) - RUNNING, 'more turn')}: -o json")
    if one["running_others"]:
        emit(f"  and {count(one['running_others'], 'turn')} of other tenants")


def _shares(one: Json, window_ms: int) -> None:
    rows = [
        [
            f"  {'/'.join(share['path'])}",
            share["class"],
            share["weight"],
            share["waiting"],
            f"{share['tokens']:,}",
            f"{share['deserved_permille'] / 10:.1f}",
            f"{share['received_permille'] / 10:.1f}",
        ]
        for share in one["shares"]
    ]
    if rows:
        unit = "seconds" if one["kind"] == "harness" else "tokens"
        titles = ["  share", "class", "weight", "waiting", f"{unit} in {window_ms // 1000} s", "deserved %", "received %"]
        emit_table(titles, rows, shrink=["  share"])


def _seconds(ms: Json) -> str:
    return "-" if ms is None else f"{ms / 1000:,.1f}"
