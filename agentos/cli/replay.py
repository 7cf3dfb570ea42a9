"""`agentos session replay` and `diff`: a session gone through again, and compared with another one, from the log alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, NotFound, UsageError
from agentos.abi.event import Event
from agentos.cli.command import Facts, emit, paint, show, with_client
from agentos.cli.render.text import ARGS, arguments, count, plain, short
from agentos.cli.session import Shape, group, history
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client

DIFFERENT = 2
"""Exit code when something differs."""


def register(_app: typer.Typer) -> None:
    """Add the verbs to the group `session`."""
    group.command(
        epilog=examples(
            "agentos session replay SESSION",
            "agentos session replay SESSION --to 42",
            "agentos session replay SESSION --pack p.zip",
        )
    )(replay)
    group.command(epilog=examples("agentos session diff SESSION OTHER", "agentos session diff SESSION OTHER -o json"))(diff)


def replay(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="the session")],
    to: Annotated[int | None, typer.Option("--to", min=1, metavar="SEQ", help="only up to this event")] = None,
    pack: Annotated[
        Path | None, typer.Option("--pack", metavar="FILE", help="from an evidence pack, without any runtime")
    ] = None,
    output: Shape = Facts.TABLE,
) -> int:
    """Go through a session again from its log, with no model and no tool called.

    The harness proposes anew; every answer comes from the log, and every proposal must be the recorded one. The state that is
    reached must be, byte for byte, the recorded one. A pack is taken as it is: verify it first, agentos evidence verify.
    Exit codes: 0 the same, 2 it went another way.
    """
    from agentos.boot.system import LoopSpawner
    from agentos.kernel.replay import read_history, read_told
    from agentos.kernel.replay import replay as again

    events = read_history(session, _packed(pack, session)) if pack is not None else read_told(session, _logged(session))
    if to is not None and to > len(events):
        raise UsageError(f"session {session} has {count(len(events), 'event')}, none with number {to}")
    found = asyncio.run(again(events[:to], LoopSpawner())).to_dict()
    show(found, output, lambda: _replayed(found))
    return 0 if found["same"] else DIFFERENT


def _logged(session: str) -> list[Json]:
    async def work(client: Client) -> list[Json]:
        return await history(client, session)

    return with_client(work)


def _packed(path: Path, session: str) -> list[bytes]:
    from agentos.audit.layout import MAX_PACK, events_member, unzip_members

    try:
        with path.open("rb") as file:
            members = unzip_members(file.read(MAX_PACK + 1))
    except OSError as error:
        raise AgentOSError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    lines = members.get(events_member(session))
    if lines is None:
        there = [name.split("/")[1].removesuffix(".jsonl") for name in members if name.startswith("events/")]
        raise NotFound(
            f"no session {session} in the pack", where=str(path), mend=f"sessions in it: {', '.join(there[:10]) or 'none'}"
        )
    return lines.splitlines()


def _replayed(found: Json) -> None:
    words = (("events", "event"), ("model_calls", "model call"), ("tool_calls", "tool call"), ("harnesses", "harness start"))
    gone = ", ".join(count(found[key], noun) for key, noun in words)
    if found["same"]:
        emit(f"{paint('same', fg='green')}: {gone}; no model and no tool was called")
        emit(f"state {found['state']}")
        return
    emit(f"{paint('different', fg='red', bold=True)} at event #{found['difference']['seq']}, behind {gone}")
    emit(f"- {plain(short(found['difference']['recorded'], 200))}")
    emit(f"+ {plain(short(found['difference']['replayed'], 200))}")


def diff(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="one session")],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="the other one")],
    output: Shape = Facts.TABLE,
) -> int:
    """Compare two sessions: the first event that differs, the tool calls, labels, spend.

    Ids, times and durations do not count; calls are matched by their order, tool and arguments.
    Exit codes: 0 no difference, 2 they differ.
    """
    from agentos.projections.difference import difference

    async def work(client: Client) -> list[list[Json]]:
        return [await history(client, name) for name in (session, other)]

    one, two = with_client(work)
    found = difference([Event.from_dict(event) for event in one], [Event.from_dict(event) for event in two])
    show(found, output, lambda: _differing(found))
    return 0 if found["same"] else DIFFERENT


def _differing(found: Json) -> None:
    for mark, side in (("---", found["a"]), ("+++", found["b"])):
        emit(
            f"{mark} {side['session']}  {side['agent']}  {side['state']}  {count(side['events'], 'event')}, "
            f"{count(side['tool_calls'], 'tool call')}, {count(side['tokens'], 'token')}"
        )
    if found["same"]:
        emit("no difference")
        return
    if found["first"] is not None:
        emit(f"@@ event #{found['first']['seq']} @@")
        _pair(*(_event(found["first"][side]) for side in ("a", "b")))
    for row in found["calls"]:
        if row["change"] == "changed":
            emit(f"@@ {plain(row['a']['tool'])}: other {', '.join(row['differs'])} @@")
        else:
            emit(f"@@ {plain((row['a'] or row['b'])['tool'])}: {row['change']} @@")
        _pair(*(_call(row[side]) for side in ("a", "b")))
    removed, added = (", ".join(found["labels"][word]) for word in ("removed", "added"))
    if removed or added:
        emit("@@ labels @@")
        _pair(removed, added)


def _pair(one: str, other: str) -> None:
    if one:
        emit(paint(f"- {one}", fg="red"))
    if other:
        emit(paint(f"+ {other}", fg="green"))


def _event(event: Json) -> str:
    if event is None:
        return "(it ends before)"
    data = event["data"]
    about = {key: data[key] for key in ("tool", "args", "goal", "agent", "result", "reason", "error") if key in data}
    return plain(f"{event['type']} {arguments(about, 2 * ARGS)}")


def _call(call: Json) -> str:
    if call is None:
        return ""
    effect = call["decision"] or "refused"
    rules = f" ({', '.join(call['rules'])})" if effect not in {"allow", "refused"} else ""
    told = f": {short(plain(call['told']), ARGS)}" if call["told"] else ""
    return f"{plain(call['tool'])}({arguments(call['args'])}) {effect}{plain(rules)}, {call['outcome']}{told}"
