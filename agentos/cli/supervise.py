"""Standing agents: `agentos status AGENT`, `start`, `stop`, `restart`, `enable`, `disable`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import Denied
from agentos.cli.command import Facts, call, emit, paint, say, show, with_client
from agentos.cli.follow import lines
from agentos.cli.render.text import clock, plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client

EVENTS: Final = 10
"""Lines of its log that the page of a standing agent ends with."""

BAD: Final = frozenset({"failed", "blocked"})
"""Phases that `agentos status AGENT` ends with exit code 1 for."""

COLOURS: Final = {"active": "green", "finished": "green", "failed": "red", "blocked": "red", "stopped": "yellow"}

Agent = Annotated[str, typer.Argument(metavar="AGENT", help="a standing agent")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the tenant's audit chain")]
Shape = Annotated[Facts, typer.Option("--output", "-o", help="how to print")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog=examples("agentos start mail-sorter", "agentos start mail-sorter --reason 'the server is back'"))(start)
    app.command(epilog=examples("agentos stop mail-sorter --reason 'it sorts into the wrong folder'"))(stop)
    app.command(epilog=examples("agentos restart mail-sorter"))(restart)
    app.command(epilog=examples("agentos enable mail-sorter"))(enable)
    app.command(
        epilog=examples("agentos disable mail-sorter", "agentos disable mail-sorter --now --reason 'until the audit is over'")
    )(disable)


def start(agent: Agent, reason: Reason = "started by hand", output: Shape = Facts.TABLE) -> None:
    """Begin a standing agent that was stopped or given up.

    Its failures so far count no more. Nothing happens to a session that runs.
    """
    _switch("start", agent, reason, output)


def stop(agent: Agent, reason: Reason = "stopped by hand", output: Shape = Facts.TABLE) -> None:
    """Stop a standing agent until it is started again.

    Its session is cancelled. It stays stopped when the runtime restarts. Standing agents that require it are stopped with it, and
    begin again with it.
    """
    _switch("stop", agent, reason, output)


def restart(agent: Agent, reason: Reason = "restarted by hand", output: Shape = Facts.TABLE) -> None:
    """Cancel a standing agent's session and begin a fresh one."""
    _switch("restart", agent, reason, output)


def enable(agent: Agent, reason: Reason = "enabled by hand", output: Shape = Facts.TABLE) -> None:
    """Have a standing agent kept alive again.

    After `agentos disable`, and after `agentos stop` too.
    """
    _switch("enable", agent, reason, output)


def disable(
    agent: Agent,
    now: Annotated[bool, typer.Option("--now", help="cancel its session too")] = False,
    reason: Reason = "disabled by hand",
    output: Shape = Facts.TABLE,
) -> None:
    """Begin a standing agent no more, until `agentos enable`.

    A session that runs goes on to its end, unless `--now`. It stays disabled when the runtime restarts or the agent is applied.
    """
    _switch("disable", agent, reason, output, now=now)


def show_status(agent: str, output: Facts) -> int:
    """`agentos status AGENT`: the page of a standing agent; return the exit code, 1 for one that failed or is blocked."""

    async def work(client: Client) -> Json:
        page = await client.call("standing.get", {"agent": agent, "events": EVENTS})
        return page | {"log": await _log(client, page)}

    page = with_client(work)
    show(page, output, lambda: _print(page))
    return 1 if page["phase"] in BAD else 0


async def _log(client: Client, page: Json) -> list[str]:
    """The last lines of its session's log; none for a principal that may not read it."""
    if "position" not in page:
        return []
    params: dict[str, Json] = {"session": page["shown"], "position": page["position"]}
    try:
        answer = await client.call("session.events", params)
    except Denied:
        return ["(you may not read its log)"]
    return [text for event in answer["events"][-EVENTS:] for text in lines(event)]


def _switch(verb: str, agent: str, reason: str, output: Facts, **more: Json) -> None:
    page = call(f"standing.{verb}", {"agent": agent, "reason": reason, **more})
    show(page, output, lambda: say(f"agent {agent} is {_standing(page, err=True)}; next: agentos status {agent}"))


def _print(page: Json) -> None:
    for name, text in _facts(page):
        emit(f"{name:>10}  {text}".rstrip())
    if page["log"]:
        emit(f"{'log':>10}")
        for line in page["log"]:
            emit(f"  {line}")


def _facts(page: Json) -> Iterator[tuple[str, str]]:
    within = f"{page['limit']['within_ms'] // 1000} s"
    yield "agent", plain(page["agent"])
    yield "declared", f"revision {page['revision']}, {'enabled' if page['enabled'] else 'disabled'}, restart {page['restart']}"
    since = f", since {clock(page['since'])}" if "since" in page else ""
    yield "phase", f"{_standing(page)}{since}"
    if "session" in page:
        number = f", number {page['number']}" if page.get("number") else ""
        yield "session", f"{page['session']}, {page['state']}{number}, last event {clock(page['updated'])}"
    watchdog = "" if page["watchdog_ms"] is None else f", watchdog {page['watchdog_ms'] // 1000} s"
    yield "health", f"{'ready' if page['ready'] else 'not ready'}{watchdog}"
    failures = f", the last {page['failures']} failed" if page["failures"] else ""
    yield "starts", f"{page['starts']} of {page['limit']['starts']} in {within}{failures}"
    for word in ("requires", "after"):
        if page[word]:
            yield word, ", ".join(f"{plain(one['agent'])} ({one['phase']})" for one in page[word])
    if "next" in page:
        yield "next", f"tried again at {clock(page['next'])}"
    for place, run in enumerate(page["last"]):
        yield ("" if place else "before"), _ended(run)


def _standing(page: Json, *, err: bool = False) -> str:
    """Where it stands, and why: `stopped by principal/ann at …`, `failed: started 5 times …`."""
    phase, why = str(page["phase"]), plain(page["why"])
    colour = COLOURS.get(phase)
    painted = paint(phase, err=err, fg=colour) if colour else phase
    if why.startswith(f"{phase} "):
        return f"{painted}{why.removeprefix(phase)}"
    return f"{painted}: {why}" if why else painted


def _ended(run: Json) -> str:
    code = f" ({plain(run['code'])})" if "code" in run else ""
    by = f" by {plain(run['by'])}" if run["state"] == "cancelled" and "by" in run else ""
    return f"{run['session']} {run['state']}{code}{by} at {clock(run['ended'])}"
