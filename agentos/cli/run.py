"""`agentos run`: give an agent a goal and, if wanted, files; follow it to its end."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Output, emit, emit_json, emit_yaml, open_client, say, settings
from agentos.cli.follow import follow, show_end

if TYPE_CHECKING:
    from agentos.control.client import Client

CHUNK = 768 * 1024


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Examples: agentos run triage 'triage the inbox' --input ./inbox --wait; agentos run hello 'say hello' -o json"
    )(run)


def run(
    agent: Annotated[str, typer.Argument(help="the agent")],
    goal: Annotated[str, typer.Argument(help="what it is to do, in words")],
    input_: Annotated[
        Path | None, typer.Option("--input", "-i", help="a file or folder that is copied into the workspace as input/")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="follow the session to its end")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json or yaml")] = Output.TABLE,
) -> int:
    """Start a session of AGENT. Without a running runtime, one is started for as long as this command runs.

    Exit codes with --wait: 0 finished, 1 failed or cancelled, 3 halted by policy, 5 waits for approval.
    """
    return asyncio.run(_run(agent, goal, input_, wait, output))


async def _run(agent: str, goal: str, source: Path | None, wait: bool, output: Output) -> int:
    from agentos.boot.home import Home
    from agentos.boot.runtime import open_runtime

    if settings.server is None and Home(settings.home).owner() is None:
        say(f"no runtime runs on {settings.home}: starting one for this run")
        async with open_runtime(Home(settings.home)):
            return await _start(agent, goal, source, True, output)
    return await _start(agent, goal, source, wait, output)


async def _start(agent: str, goal: str, source: Path | None, wait: bool, output: Output) -> int:
    client = await open_client()
    try:
        params: dict[str, Json] = {"agent": agent, "goal": goal}
        if source is not None:
            params["upload"] = await _upload(client, source)
        session = await client.call("session.create", params)
        name = session["session"]
        if not wait:
            _show(session, output)
            say(f"next: agentos logs {name} -f")
            return 0
        await follow(client, name, quiet=output is not Output.TABLE)
        session = await client.call("session.get", {"session": name})
        _show(session, output)
        return show_end(session)
    finally:
        await client.close()


async def _upload(client: Client, source: Path) -> str:
    from agentos.kernel.workspace import pack

    archive, left = pack(source)
    for name in left:
        say(f"left out: {name} (a link or no regular file)")
    upload: Json = None
    for start in range(0, max(len(archive), 1), CHUNK):
        part: dict[str, Json] = {"data": base64.b64encode(archive[start : start + CHUNK]).decode("ascii")}
        if upload is not None:
            part["upload"] = upload
        upload = (await client.call("session.upload", part))["upload"]
    return str(upload)


def _show(session: Json, output: Output) -> None:
    match output:
        case Output.JSON:
            emit_json(session)
        case Output.YAML:
            emit_yaml(session)
        case _:
            emit(str(session["session"]))
