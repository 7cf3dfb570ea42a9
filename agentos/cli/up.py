"""`agentos up`, `down` and `status`: the runtime's life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, Unavailable, UsageError
from agentos.cli.command import Facts, call, emit_json, emit_table, emit_yaml, paint, say, settings
from agentos.cli.verb import examples
from agentos.policy.port import Place

if TYPE_CHECKING:
    from agentos.boot.backend import External
    from agentos.boot.doors import Listen
    from agentos.boot.engines import RemotePolicy
    from agentos.boot.home import Home

START_DEADLINE: Final = 60.0
"""Seconds until `up --detach` gives up waiting; recovery of a large log takes the longest."""

STOP_DEADLINE: Final = 30.0


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        epilog=examples(
            "agentos up",
            "agentos up --detach",
            "agentos up --nats nats://10.0.0.5:4222 --creds ./runtime.creds",
            "agentos up --policy managed",
            "agentos up --litestream auto",
            "agentos up --webhooks 127.0.0.1:8080",
            "agentos up --policy remote --policy-url https://opa-{tenant}.internal:8181 --policy-token-file ./opa.token",
        )
    )(up)
    app.command(epilog=examples("agentos down"))(down)
    app.command(epilog=examples("agentos status", "agentos status -o json", "agentos status mail-sorter"))(status)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="run in the background; return when ready")] = False,
    port: Annotated[
        int, typer.Option("--port", metavar="NUMBER", help="loopback port of the embedded NATS server; 0: any free one")
    ] = 0,
    policy: Annotated[
        Place,
        typer.Option(
            "--policy", help="where OPA decides: in the process, in a server of the runtime's own, or in somebody else's"
        ),
    ] = Place.EMBEDDED,
    policy_url: Annotated[
        str | None,
        typer.Option("--policy-url", metavar="URL", help="the remote OPA server; {tenant} in it is the tenant's name"),
    ] = None,
    policy_token_file: Annotated[
        Path | None, typer.Option("--policy-token-file", metavar="FILE", help="the bearer token for it (mode 0600)")
    ] = None,
    policy_cert: Annotated[
        Path | None, typer.Option("--policy-cert", metavar="FILE", help="our certificate for it (PEM); with --policy-key")
    ] = None,
    policy_key: Annotated[
        Path | None, typer.Option("--policy-key", metavar="FILE", help="the key of --policy-cert (PEM, mode 0600)")
    ] = None,
    policy_ca: Annotated[
        Path | None, typer.Option("--policy-ca", metavar="FILE", help="who signs its certificate (PEM); else the system knows")
    ] = None,
    policy_bundles: Annotated[
        Path | None,
        typer.Option("--policy-bundles", metavar="DIR", help="where its bundles are written for it to fetch; else HOME/bundles"),
    ] = None,
    nats: Annotated[
        str | None, typer.Option("--nats", metavar="URL", help="use this NATS server instead of an embedded one")
    ] = None,
    creds: Annotated[
        Path | None, typer.Option("--creds", metavar="FILE", help="credentials for --nats: an NKey seed or .creds file")
    ] = None,
    litestream: Annotated[
        str | None,
        typer.Option(
            "--litestream", metavar="FILE|auto", help="replicate the read models by this litestream.yml; auto: the home's own"
        ),
    ] = None,
    webhooks: Annotated[
        str | None,
        typer.Option("--webhooks", metavar="HOST:PORT", help="take deliveries of webhooks here, over plain HTTP; else none"),
    ] = None,
) -> int:
    """Start the runtime on this home. The first start creates the operator's identity."""
    from agentos.boot.home import Home

    listen = _listen(webhooks)
    if (nats is None) != (creds is None):
        raise UsageError("--nats and --creds go together", mend="give both, or neither for a server of its own")
    files = {
        "--policy-token-file": policy_token_file,
        "--policy-cert": policy_cert,
        "--policy-key": policy_key,
        "--policy-ca": policy_ca,
        "--policy-bundles": policy_bundles,
    }
    remote = _remote_policy(policy, policy_url, {word: path.expanduser().absolute() for word, path in files.items() if path})
    home = Home(settings.home)
    replicated = home.root / "litestream.yml" if litestream == "auto" else litestream and Path(litestream).expanduser().absolute()
    if detach:
        words = ["--port", str(port), "--policy", str(policy)]
        if nats is not None and creds is not None:
            words += ["--nats", nats, "--creds", str(creds.absolute())]
        if remote is not None:
            words += ["--policy-url", remote.url]
            words += [word for name, path in files.items() if path for word in (name, str(path.expanduser().absolute()))]
        if replicated:
            words += ["--litestream", str(replicated)]
        if listen is not None and webhooks is not None:
            words += ["--webhooks", webhooks]
        return _detach(home, words)
    external = None
    if nats is not None and creds is not None:
        from agentos.boot.backend import External

        external = External(nats, creds)
    return asyncio.run(_foreground(home, port, policy, remote, external, replicated or None, listen))


def _listen(words: str | None) -> Listen | None:
    """Where webhooks are to be taken. Raises UsageError."""
    if words is None:
        return None
    from agentos.boot.doors import Listen

    return Listen.parse(words)


def _remote_policy(place: Place, url: str | None, files: dict[str, Path]) -> RemotePolicy | None:
    """What the words about a remote policy server come to. Raises UsageError where they contradict each other."""
    if place is not Place.REMOTE:
        odd = sorted([*(["--policy-url"] if url else []), *files])
        if odd:
            raise UsageError(f"{odd[0]} is about a remote policy server", mend="add --policy remote, or leave it out")
        return None
    if url is None:
        raise UsageError("--policy remote needs the url of the server", mend="add --policy-url https://host:port")
    if ("--policy-cert" in files) != ("--policy-key" in files):
        raise UsageError("--policy-cert and --policy-key go together", mend="give both, or neither")
    if url.startswith("http://") and {"--policy-cert", "--policy-ca"} & files.keys():
        raise UsageError(f"certificates mean nothing to {url}", mend="write https://…, or leave them out")
    from agentos.boot.engines import RemotePolicy, make_engines

    remote = RemotePolicy(
        url,
        token_file=files.get("--policy-token-file"),
        certificate=files.get("--policy-cert"),
        key=files.get("--policy-key"),
        authority=files.get("--policy-ca"),
        bundles=files.get("--policy-bundles"),
    )
    # What is wrong with it is told at once, and not in the log of a runtime that ended.
    asyncio.run(make_engines(place, remote=remote))
    return remote


async def _foreground(
    home: Home,
    port: int,
    policy: Place,
    remote: RemotePolicy | None,
    external: External | None,
    litestream: Path | None,
    webhooks: Listen | None,
) -> int:
    from agentos.eventlog.adapters import nats_import

    with nats_import.only_for(external.url if external else ""):
        from agentos.boot.runtime import open_runtime
        from agentos.boot.runtime_log import open_log
        from agentos.boot.system import settle_heap

    open_log(asyncio.get_running_loop(), sys.stderr)
    started = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with open_runtime(
        home, port=port, external=external, policy=policy, remote_policy=remote, litestream=litestream, webhooks=webhooks
    ) as runtime:
        settle_heap()
        for line in runtime.greeting():
            say(line)
        say(f"ready in {time.monotonic() - started:.2f} s; end with Ctrl-C or: agentos down")
        await runtime.run_until(stop)
    say("stopped; everything is in the log")
    return 0


def _detach(home: Home, options: list[str]) -> int:
    """Start `agentos up` as a process of its own and wait until it answers, or has ended."""
    owner = home.owner()
    if owner is not None:
        raise Conflict(
            f"a runtime (pid {owner}) already runs on {home.root}", mend="use it as it is, or end it first: agentos down"
        )
    home.prepare()
    words = [sys.executable, "-m", "agentos.cli", "--home", str(home.root), "up", *options]
    begin = home.log.stat().st_size if home.log.exists() else 0
    with home.log.open("ab") as log:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_DEADLINE
    while child.poll() is None and time.monotonic() < deadline:
        if _announced(home) == child.pid:
            say(f"{paint('running', err=True, fg='green')}: pid {child.pid}, home {home.root}, log {home.log}")
            say("next: agentos apply PATH; agentos run AGENT 'goal'; agentos down")
            return 0
        time.sleep(0.01)
    with home.log.open("rb") as log:
        log.seek(begin)
        said = log.read().decode("utf-8", "replace").strip().splitlines()
    for line in said[-12:]:
        say(f"  {line}")
    if child.poll() is None:
        child.terminate()
        raise Unavailable(f"the runtime was not ready after {START_DEADLINE:.0f} s", where=str(home.log))
    if child.returncode == 4:
        return 4
    raise AgentOSError(f"the runtime ended while starting (exit {child.returncode})", where=str(home.log))


def _announced(home: Home) -> int | None:
    try:
        return int(json.loads(home.endpoint.read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return None


def down() -> int:
    """Stop the runtime of this home. Sessions go on where they are once it is started again."""
    from agentos.boot.home import Home

    home = Home(settings.home)
    owner = home.owner()
    if owner is None:
        home.withdraw()
        say(f"no runtime runs on {home.root}")
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + STOP_DEADLINE
    while home.owner() == owner:
        if time.monotonic() > deadline:
            raise AgentOSError(
                f"the runtime (pid {owner}) has not stopped after {STOP_DEADLINE:.0f} s",
                mend=f"see {home.log}; kill -9 {owner} loses nothing that was acknowledged",
            )
        time.sleep(0.02)
    say("stopped; everything is in the log")
    return 0


def status(
    agent: Annotated[str | None, typer.Argument(metavar="AGENT", help="a standing agent, to show that one")] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Show what runs and what its guarantees rest on; or one agent.

    Exit codes: 0; with AGENT 1 if it has failed or what it requires does not run.
    """
    if agent is not None:
        from agentos.cli.supervise import show_status

        return show_status(agent, output)
    facts = call("runtime.status", {})
    match output:
        case Facts.JSON:
            emit_json(facts)
        case Facts.YAML:
            emit_yaml(facts)
        case _:
            emit_table(("what", "value"), [_fact(key, value) for key, value in facts.items() if key != "streams"])
            emit_table(_STREAM, [_stream(row) for row in facts["streams"]])
            for warning in facts["warnings"]:
                say(f"{paint('warning', err=True, fg='yellow')}: {warning}")
    return 0


_STREAM: Final = ("stream", "messages", "bytes", "positions", "replicas", "atomic", "read model", "checkpoints")


def _stream(row: dict[str, Json]) -> tuple[str, ...]:
    lags = [row["read_model_behind"], row["checkpoint_behind"]]
    numbers = [str(row["messages"]), str(row["bytes"]), f"{row['first']}-{row['last']}", str(row["replicas"])]
    late = ["" if lag is None else "up to date" if lag == 0 else f"{lag} behind" for lag in lags]
    return row["name"], *numbers, "yes" if row["atomic"] else "no", *late


def _fact(key: str, value: Json) -> tuple[str, str]:
    match key:
        case "uptime_s":
            return "uptime", f"{value} s"
        case "read_model_behind":
            return "read model", "up to date" if value == 0 else f"{value} events behind the log"
        case "checkpoint_behind":
            return "checkpoints", "up to date" if value == 0 else f"{value} events behind the log"
        case "sync_always":
            return "sync proven", "yes" if value else "no"
        case "stored":
            return "stored", f"{value['messages']} messages, {value['bytes']} bytes"
        case _:
            text = ", ".join(str(item) for item in value) or "none" if isinstance(value, list) else str(value)
            return key.replace("_", " "), text
