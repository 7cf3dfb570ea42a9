"""`agentos session`: one session, looked at and steered: show, pause, resume, signal, stop, cancel, reconcile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, Denied, NotFound, UsageError
from agentos.abi.event import (
    SYSCALL_DECIDED,
    SYSCALL_FAILED,
    SYSCALL_FINISHED,
    SYSCALL_UNKNOWN,
    Event,
    parse_rfc3339,
    rfc3339,
)
from agentos.abi.syscall import MODEL_CALL, PSEUDO
from agentos.cli.command import Facts, emit, say, show, with_client
from agentos.cli.family import ENDED, children, summary
from agentos.cli.follow import ENDS, WAIT_MS, begins, lines, pages
from agentos.cli.render.text import arguments, clock, count, plain, short
from agentos.cli.sessions import cancel as cancel_session
from agentos.cli.verb import examples
from agentos.projections.forked import origin
from agentos.projections.session import Step, fold_all

if TYPE_CHECKING:
    from agentos.control.client import Client

LAST: Final = 8
"""Lines of the log that the page ends with."""

GOAL: Final = 60
"""Most characters of a child's goal on the page."""

MAX_RESULT: Final = 1024 * 1024

_OUTCOMES: Final = frozenset({SYSCALL_FINISHED, SYSCALL_FAILED, SYSCALL_UNKNOWN})

_FIRSTS: Final = {"first_token_ms": "first token", "first_tool_ms": "first tool"}

group = typer.Typer(
    no_args_is_help=True,
    help="One session: look at it, pause and resume it, settle a call that was lost.",
    epilog=examples("agentos session show SESSION", "agentos session pause SESSION --reason 'looking into it'"),
    rich_markup_mode=None,
)

Session = Annotated[str, typer.Argument(metavar="SESSION", help="the session")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the log beside your name")]
Shape = Annotated[Facts, typer.Option("--output", "-o", help="how to print")]


class Outcome(StrEnum):
    """What came of a call."""

    FINISHED = "finished"
    FAILED = "failed"
    NOT_RUN = "not-run"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group.command("cancel", epilog=examples("agentos session cancel SESSION --reason 'wrong folder'"))(cancel_session)
    app.add_typer(group, name="session")


@group.command("show", epilog=examples("agentos session show SESSION", "agentos session show SESSION -o json"))
def show_(session: Session, output: Shape = Facts.TABLE) -> None:
    """Show all about one session: where it stands, what it called, what it waits for, what it has used."""

    async def work(client: Client) -> Json:
        events = await history(client, session)
        body = await client.call("session.get", {"session": session})
        came = await client.call("session.list", {"all": True, "parent": session, "limit": 10_000})
        return page(body, events, await _limits(client, body["agent"], body["tenant"]), came)

    body = with_client(work)
    show(body, output, lambda: _page(body))


async def history(client: Client, session: str) -> list[Json]:
    """All events of a session. Raises NotFound, naming the session that was probably meant."""
    found: list[Json] = []
    try:
        async for events, _ in pages(client, session):
            found += events
    except NotFound as error:
        raise await meant(client, session, error) from error
    return found


async def ask(client: Client, verb: str, session: str, **params: Json) -> Json:
    """The answer to a verb about a session. Raises NotFound, naming the session that was probably meant."""
    try:
        return await client.call(verb, {"session": session, **params})
    except NotFound as error:
        raise await meant(client, session, error) from error


async def meant(client: Client, session: str, error: NotFound) -> NotFound:
    """`error`, naming the session that was probably meant where it says that `session` does not exist."""
    if f"no session {session}" not in error.message:
        return error
    names = [row["id"] for row in await client.call("session.list", {"all": True, "limit": 1000})]
    near = get_close_matches(session, names, n=1, cutoff=0.8)
    return NotFound(error.message, mend=f"did you mean {near[0]}? list them: agentos ps --all") if near else error


async def _limits(client: Client, agent: str, tenant: str) -> dict[str, Json]:
    """The budget that is declared for the agent now; nothing where it is not declared, or not for us to see."""
    try:
        found = await client.call("registry.get", {"kind": "Agent", "name": agent, "tenant": tenant})
    except (Denied, NotFound):
        return {}
    budget: dict[str, Json] = found["resource"]["spec"].get("budget", {})
    return budget


def page(body: dict[str, Json], events: list[Json], budget: dict[str, Json], came: list[Json]) -> dict[str, Json]:
    """The whole page: the session, and what its events add to it.

    `budget` is what its agent may use (`{calls?, tokens?}`), `came` are the rows of the sessions that came of it.
    """
    state = fold_all(Event.from_dict(event) for event in events)
    given = (state.delegated or {}).get("budget") or {}
    family = children(state.delegations, events, came)
    tools = [call for call in state.calls.values() if call.tool not in PSEUDO]
    models = [call for call in state.calls.values() if call.tool == MODEL_CALL]
    return {
        **body,
        "created": events[0]["time"],
        "updated": events[-1]["time"],
        "epoch": state.epoch,
        "outcomes": _outcomes(call.step for call in tools),
        "model_calls": _outcomes(call.step for call in models),
        "unknown": [
            {"call": call.call, "tool": call.tool, "args": dict(call.args)} for call in tools if call.step is Step.UNKNOWN
        ],
        "budget": {
            "calls": {"used": state.tool_calls, "limit": _least(budget.get("calls"), given.get("calls"))},
            "tokens": {
                "used": state.input_tokens + state.output_tokens,
                "limit": _least(budget.get("tokens"), given.get("tokens")),
            },
        },
        **_first(events),
        "last": [text for event in events[-LAST:] for text in lines(event)],
        **({"forked": origin(events[0]["data"]["forked"])} if "forked" in events[0]["data"] else {}),
        **({"parent": _parent(state.delegated)} if state.delegated is not None else {}),
        **({"firing": dict(state.firing)} if state.firing is not None else {}),
        **({"standing": dict(state.standing)} if state.standing is not None else {}),
        **({"children": family} if family else {}),
    }


def _first(events: list[Json]) -> dict[str, Json]:
    """How long after its beginning the model said its first words, and its first tool had an outcome (`first_token_ms`,
    `first_tool_ms`): hands are provisioned when they are first needed, and nobody who only thinks waits for them.
    """
    began, found = parse_rfc3339(events[0]["time"]), dict[str, Json]()
    decided: dict[str, int] = {}
    for event in events:
        data = event["data"]
        if event["type"] == SYSCALL_DECIDED and data["decision"]["effect"] == "allow":
            decided[data["call"]] = parse_rfc3339(event["time"])
        elif event["type"] in _OUTCOMES and data["tool"] not in PSEUDO:
            found.setdefault("first_tool_ms", parse_rfc3339(event["time"]) - began)
        elif "first_us" in data and "first_token_ms" not in found and data["call"] in decided:
            found["first_token_ms"] = decided[data["call"]] - began + data["first_us"] // 1000
        if len(found) == 2:
            break
    return found


def _parent(delegated: Mapping[str, Json]) -> dict[str, Json]:
    """Who delegated to it: `{session, call, tool, agent}`."""
    above = {one["session"]: one["agent"] for one in delegated.get("delegators", ())}
    known = {"session": delegated["parent"], "call": delegated["call"], "tool": delegated["tool"]}
    return known | {"agent": above.get(delegated["parent"], "")}


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _outcomes(steps: Iterable[Step]) -> dict[str, Json]:
    return dict(sorted(Counter(str(step) for step in steps).items()))


def _page(body: Json) -> None:
    emit(f"session {body['session']}  {body['state']}")
    rows: list[tuple[str, str]] = [
        ("agent", body["agent"]),
        ("goal", body["goal"]),
        ("tenant", body["tenant"]),
        ("started by", f"{body['actor']} at {clock(body['created'])}"),
        *_origin(body),
        ("last event", f"#{body['seq']} at {clock(body['updated'])}"),
        ("revision", str(body["config_revision"])),
        ("labels", ", ".join(body["labels"]) or "-"),
        ("turns", str(body["turn"])),
        *((word, f"after {body[name] / 1000:.2f} s") for name, word in _FIRSTS.items() if name in body),
        ("tool calls", _counted(body["outcomes"])),
        ("model calls", _counted(body["model_calls"])),
        ("calls used", _used(body["budget"]["calls"])),
        ("tokens used", _used(body["budget"]["tokens"])),
    ]
    if "deferred" in body:
        rows.append(("begins", begins(body["deferred"])))
    if "paused" in body:
        rows.append(
            ("paused", f"by {body['paused']['by']} at {clock(rfc3339(body['paused']['at']))}: {body['paused']['reason']}")
        )
    if "stopped" in body:
        stopped = body["stopped"]
        rows.append(("stopped", f"its harness, at {clock(rfc3339(stopped['at']))}: {stopped['message']} ({stopped['reason']})"))
    if "frozen" in body:
        frozen = body["frozen"]
        rows.append(("frozen", f"by {frozen['by']}, {frozen['freeze']}: {frozen['reason']}"))
    if "waiting_for" in body:
        asked = body["waiting_for"]
        until = clock(rfc3339(asked["expires_ms"]))
        rows.append(("waits for", f"{asked['given']} of {asked['needed']} have approved, until {until}"))
        rows.append(("", f"{asked['tool']}({arguments(asked['args'])}), call {asked['call']}"))
    rows += [("unknown", f"{one['tool']}({arguments(one['args'])}), call {one['call']}") for one in body["unknown"]]
    rows += _children(body)
    if "result" in body:
        rows.append(("result", body["result"]))
    if "error" in body:
        rows.append(("error", f"{body['error'].get('code')}: {body['error'].get('message')}"))
    for name, text in rows:
        emit(f"  {name:<12} {plain(text)}".rstrip())
    emit("  log")
    for line in body["last"]:
        emit(f"    {line}")
    _next(body)


def _children(body: Json) -> list[tuple[str, str]]:
    """Whom it has delegated to, and how many of them it waits for."""
    family = body.get("children", [])
    if not family:
        return []
    rows = [("children", summary(family))]
    rows += [("", _child(one)) for one in family]
    left = sum(one["state"] not in ENDED for one in family)
    if left and body["state"] == "running":
        rows.append(("waits for", f"{left} of its {len(family)} children"))
    return rows


def _child(one: Json) -> str:
    known = f"  {one['agent']}: {short(one['goal'], GOAL)}" if one["agent"] else ""
    return f"{one['session']}  {one['state']:<9}{known}"


def _origin(body: Json) -> list[tuple[str, str]]:
    if "parent" in body:
        above = body["parent"]
        return [("delegated by", f"{above['session']} ({above['agent']}), call {above['call']} of {above['tool']}")]
    if "firing" in body:
        return [("trigger", f"{body['firing']['trigger']}, {body['firing']['id']}")]
    if "standing" in body:
        return [("standing", f"start {body['standing']['number']}")]
    source = body.get("forked")
    if source is None:
        return []
    why = f": {source['reason']}" if "reason" in source else ""
    rows = [("forked from", f"{source['session']} #{source['seq']}{why}")]
    return [*rows, ("workspace", f"{source['workspace']}, {count(source['files'], 'file')}")]


def _next(body: Json) -> None:
    name = body["session"]
    if body["unknown"] and body["state"] in {"running", "waiting", "paused"}:
        say(f"next: agentos session reconcile {name} {plain(body['unknown'][0]['call'])} --outcome finished --reason '…'")
    elif "frozen" in body:
        say(f"next: agentos thaw {body['frozen']['freeze']} --reason '…'")
    elif body["state"] == "paused":
        say(f"next: agentos session resume {name} --reason '…'")
    elif body["state"] == "waiting":
        say(f"next: agentos approvals approve {name} --reason '…' (or deny)")


def _counted(outcomes: dict[str, Json]) -> str:
    return ", ".join(f"{number} {word}" for word, number in outcomes.items()) or "none"


def _used(budget: Json) -> str:
    return str(budget["used"]) if budget["limit"] is None else f"{budget['used']} of {budget['limit']}"


@group.command(epilog=examples("agentos session pause SESSION --reason 'looking into it'"))
def pause(session: Session, reason: Reason, output: Shape = Facts.TABLE) -> None:
    """Keep a session from making another syscall.

    A call that is under way is finished first. A paused session holds no process, and stays paused when the runtime restarts; a
    question to people stays open meanwhile.
    """
    body = with_client(lambda client: ask(client, "session.pause", session, reason=reason))
    show(body, output, lambda: say(f"session {session} is paused; next: agentos session resume {session} --reason '…'"))


@group.command(epilog=examples("agentos session resume SESSION --reason 'it may go on'"))
def resume(session: Session, reason: Reason, output: Shape = Facts.TABLE) -> None:
    """Let a paused session go on from where it was."""
    body = with_client(lambda client: ask(client, "session.resume", session, reason=reason))
    show(body, output, lambda: say(f"session {session} goes on: agentos wait {session}"))


@group.command(
    "signal",
    epilog=examples("agentos session signal SESSION go", "agentos session signal SESSION hint --data 'the file is in inbox/'"),
)
def signal_(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="the signal, such as go; stop asks the session to end")],
    data: Annotated[str | None, typer.Option("--data", metavar="TEXT", help="what it says")] = None,
    output: Shape = Facts.TABLE,
) -> None:
    """Tell a session something. Its model sees it at its next turn, or the call that waits for it gets it."""
    params: dict[str, Json] = {"name": name, **({} if data is None else {"data": data})}
    body = with_client(lambda client: ask(client, "session.signal", session, **params))
    show(body, output, lambda: say(f"session {session} is told {name}; next: agentos logs {session}"))


@group.command(epilog=examples("agentos session stop SESSION", "agentos session stop SESSION --timeout 300"))
def stop(
    session: Session,
    timeout: Annotated[int, typer.Option("--timeout", metavar="SECONDS", help="how long it may take", min=0, max=86_400)] = 30,
    output: Shape = Facts.TABLE,
) -> None:
    """Ask a session to come to an end, and cancel it if it does not in time.

    It is told the signal stop; a call that waits for another one ends at once. A session that is parked is cancelled after the
    time as well.
    """
    body = with_client(lambda client: _stop(client, session, timeout))
    show(body, output, lambda: say(f"session {session} is {body['state']}"))


async def _stop(client: Client, session: str, seconds: int) -> Json:
    events = await history(client, session)
    if events[-1]["type"] not in ENDS:
        await ask(client, "session.signal", session, name="stop")
        if not await _ended(client, session, seconds):
            try:
                await client.call("session.cancel", {"session": session, "reason": f"it did not stop within {seconds} s"})
            except Conflict:
                if not await _ended(client, session, 0):
                    raise
    return await client.call("session.get", {"session": session})


async def _ended(client: Client, session: str, seconds: int) -> bool:
    """Whether a session ends within that time."""
    try:
        async with asyncio.timeout(seconds or None):
            async for events, more in pages(client, session, wait_ms=WAIT_MS if seconds else 0):
                if any(event["type"] in ENDS for event in events):
                    return True
                if not more and not seconds:
                    return False
    except TimeoutError:
        return False
    return False


@group.command(
    epilog=examples(
        "agentos session reconcile SESSION CALL --outcome not-run --reason 'not in the outbox'",
        "agentos session reconcile SESSION CALL --outcome finished --result 'sent' --reason 'the customer has it'",
    )
)
def reconcile(
    session: Session,
    call: Annotated[str, typer.Argument(metavar="CALL", help="the call whose outcome is unknown")],
    outcome: Annotated[Outcome, typer.Option("--outcome", help="what came of it")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="how you know; the model is told it too")],
    result: Annotated[
        str | None, typer.Option("--result", metavar="TEXT", help="what the tool gave back, if it finished")
    ] = None,
    result_file: Annotated[
        Path | None, typer.Option("--result-file", metavar="FILE", help="the same, from a file in UTF-8")
    ] = None,
    output: Shape = Facts.TABLE,
) -> None:
    """Settle a call whose outcome is unknown.

    A crash hid what came of it, and it was not repeated. From now on the model is told what you found out.
    """
    if result is not None and result_file is not None:
        raise UsageError("--result and --result-file say the same thing", mend="give one of them")
    params: dict[str, Json] = {"call": call, "outcome": str(outcome), "reason": reason}
    text = _text_of(result_file) if result_file is not None else result
    if text:
        params["result"] = text
    body = with_client(lambda client: ask(client, "session.reconcile", session, **params))
    show(body, output, lambda: say(f"call {plain(call)} of session {session} is settled: {outcome}"))


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RESULT + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise AgentOSError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError("the result is not UTF-8", where=str(path)) from error
    if len(data) > MAX_RESULT:
        raise UsageError(f"the result is longer than {MAX_RESULT} bytes", where=str(path))
    return text
