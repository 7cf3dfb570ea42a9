"""`agentos run`: give an agent a goal and, if wanted, files; follow it to its end."""

from __future__ import annotations

import asyncio
import base64
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.event import parse_rfc3339
from agentos.cli.approvals import duration
from agentos.cli.command import emit, emit_json, emit_yaml, open_client, say, settings
from agentos.cli.follow import begins, follow, show_end
from agentos.cli.render.text import plain
from agentos.cli.session import meant
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client

CHUNK = 768 * 1024


class Form(StrEnum):
    """What is printed of the session."""

    NAME = "name"
    JSON = "json"
    YAML = "yaml"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog=examples(
            "agentos run hello world --wait",
            "agentos run triage 'triage the inbox' --input ./inbox --wait",
            "agentos run clerk 'answer them' --input ./desk --label internal --input-label mail=untrusted --input-label crm=pii",
            "agentos run triage 'sort last year' --priority batch --deadline 8h",
            "agentos run report 'sum it up' --after SESSION --wait",
            "agentos run triage 'sort the night' --not-before 2026-11-22T06:00:00Z",
            "session=$(agentos run hello world) && agentos wait $session",
        )
    )(run)


def run(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="the agent")],
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="what it is to do, in words")],
    input_: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="PATH", help="a file or folder that is copied into the workspace as input/"),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="LABEL", help="a data class or trust label that the session carries from its first event"
        ),
    ] = None,
    input_label: Annotated[
        list[str] | None,
        typer.Option(
            "--input-label",
            metavar="[PATH=]LABEL",
            help="a label of the input, or of a file or folder in it; the session carries it once it has read there",
        ),
    ] = None,
    data_subject: Annotated[
        str | None,
        typer.Option("--data-subject", metavar="ID", help="whom the session is about; all of theirs can be erased together"),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option("--priority", metavar="CLASS", help="the PriorityClass of its turns, such as interactive or batch"),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="DURATION", help="when it is due, such as 10m; of one agent's turns the earliest first"
        ),
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option("--after", metavar="SESSION", help="begin once that session has finished; if it ends otherwise, fail"),
    ] = None,
    after_any: Annotated[
        list[str] | None,
        typer.Option("--after-any", metavar="SESSION", help="begin once that session has ended, however"),
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option("--not-before", metavar="TIME", help="begin no sooner: 2026-11-22T06:00:00Z, or 30m from now"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="follow the session to its end, on standard error")] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="what to print of the session; name: its id")] = Form.NAME,
) -> int:
    """Start a session of an agent; print its id.

    A session that is to begin later is created now, with its input, and holds nothing until then; --deadline counts from now.
    Without a running runtime, one is started for as long as this command runs, which then waits.
    Exit codes with --wait: 0 finished, 1 failed or cancelled, 3 halted by policy, 5 waits for approval.
    """
    params: dict[str, Json] = {"agent": agent, "goal": goal}
    if label:
        params["labels"] = label
    if data_subject is not None:
        params["subject"] = data_subject
    if priority is not None:
        params["priority"] = priority
    if deadline is not None:
        params["due_in_ms"] = duration(deadline)
    if after:
        params["after"] = after
    if after_any:
        params["after_any"] = after_any
    if not_before is not None:
        params |= _time(not_before)
    if input_label:
        if input_ is None:
            raise UsageError("--input-label labels the input, and there is none", mend="give --input, or use --label")
        params["file_labels"] = _places(input_label)
    return asyncio.run(_run(params, input_, wait, output))


def _time(text: str) -> dict[str, Json]:
    """The parameter for a time: one with a date, or so long from now. Raises UsageError."""
    if "-" not in text:
        return {"begin_in_ms": duration(text)}
    try:
        return {"not_before_ms": parse_rfc3339(text)}
    except ValueError as error:
        raise UsageError(f"--not-before: {error}", mend="write 2026-11-22T06:00:00Z, or 30m for a time from now") from error


def _places(words: list[str]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for word in words:
        place, _, name = word.rpartition("=")
        places.setdefault(place or ".", []).append(name)
    return places


async def _run(params: dict[str, Json], source: Path | None, wait: bool, output: Form) -> int:
    from agentos.boot.home import Home

    if settings.server is None and Home(settings.home).owner() is None:
        from agentos.boot.runtime import open_runtime

        say(f"no runtime runs on {settings.home}: starting one for this run")
        async with open_runtime(Home(settings.home)):
            return await _start(params, source, True, output, stays=False)
    return await _start(params, source, wait, output)


async def _start(params: dict[str, Json], source: Path | None, wait: bool, output: Form, *, stays: bool = True) -> int:
    client = await open_client()
    try:
        if source is not None:
            params["upload"] = await _upload(client, source)
        session = await _create(client, params)
        name = session["session"]
        if not wait:
            _show(session, output)
            if session["state"] == "deferred":
                say(f"deferred: it begins {begins(session['deferred'])}")
            say(f"next: agentos logs {name} --follow")
            return 0
        await follow(client, name, tell=(lambda _: None) if output in {Form.JSON, Form.YAML} else say, err=True)
        session = await client.call("session.get", {"session": name})
        _show(session, output)
        code = show_end(session)
        if stays and session["state"] != "waiting":
            say(f"next: agentos audit query --session {name}")
        return code
    finally:
        await client.close()


async def _create(client: Client, params: dict[str, Json]) -> Json:
    """Start the session. Raises NotFound, naming the session to begin after that was probably meant."""
    try:
        return await client.call("session.create", params)
    except NotFound as error:
        for named in (*params.get("after", ()), *params.get("after_any", ())):
            error = await meant(client, named, error)
        raise error from None


async def _upload(client: Client, source: Path) -> str:
    from agentos.kernel.workspace import pack

    archive, left = pack(source)
    for name in left:
        say(f"left out: {plain(name)} (a link or no regular file)")
    upload: Json = None
    for start in range(0, max(len(archive), 1), CHUNK):
        part: dict[str, Json] = {"data": base64.b64encode(archive[start : start + CHUNK]).decode("ascii")}
        if upload is not None:
            part["upload"] = upload
        upload = (await client.call("session.upload", part))["upload"]
    return str(upload)


def _show(session: Json, output: Form) -> None:
    match output:
        case Form.JSON:
            emit_json(session)
        case Form.YAML:
            emit_yaml(session)
        case _:
            emit(str(session["session"]))
