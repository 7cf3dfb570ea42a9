"""The MCP gateway before the protocol's own tools: the inspector's command line, and every scenario of the conformance suite.

    python tests/conformance/mcp_gateway.py [--report FILE] [--only SCENARIO] [--verbose]

What is needed of npm (the inspector, two releases of the suite, a Node that is new enough) is installed at exact versions into a
folder of the user's cache. A real runtime is started on a home of its own. The inspector starts `agentos mcp serve` itself. For
the suite, which can bring no token and whose tools have names that no Tool may have, the same application stands behind a layer
that adds the token and turns `_` in names of tools into `-`; each scenario meets a gateway, and so a session, of its own.

A scenario that fails has to be in `mcp_baseline.yaml`, with the reason. One that is there and passes is a fault too. Exit code 1
if anything is not as it is written there.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
import yaml
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentos.control.client import Client, find_identity, find_server, open_client
from agentos.gateway import Gateway, Upstream
from agentos.gateway.http import application
from agentos.gateway.server import server_of

HERE: Final = Path(__file__).resolve().parent
AGENTOS: Final = Path(sys.executable).with_name("agentos")
TOKEN: Final = "conformance-conformance-conformance"
AGENT, CLIENT, APPROVER = "suite", "suite-client", "suite-approver"

NODE: Final = {"node": "22.23.3"}
TOOLS: Final = {
    "@modelcontextprotocol/inspector": "2.12.0",
    "suite-2025": "npm:@modelcontextprotocol/conformance@0.1.16",
    "suite-2026": "npm:@modelcontextprotocol/conformance@0.2.0-alpha.12",
}
INSPECTOR: Final = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
SUITES: Final = (
    ("suite-2025", ()),
    ("suite-2026", ("--spec-version", "2025-11-25")),
    ("suite-2026", ("--spec-version", "2026-07-28")),
)
_SCENARIO: Final = re.compile(r"^\s+- ([a-z0-9-]+) \[([^\]]*)\]", re.MULTILINE)
_NAME: Final = re.compile(r"\btest_[a-z_0-9]+")
_OURS: Final = re.compile(rb'(?<=")test-[a-z0-9-]+')


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one scenario went: `key` is `suite/version/scenario`."""

    key: str
    passed: bool
    told: str


def installed() -> tuple[Path, Path]:
    """The folder with the packages, and the Node to run them with."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    pins = json.dumps([NODE, TOOLS], sort_keys=True)
    folder = cache / "agentos" / f"mcp-conformance-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"
    node = folder / "node_modules" / "node" / "bin" / "node"
    done = folder / ".done"
    if done.exists():
        return folder, node
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is needed, to install the inspector and the suite")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for packages, more in ((NODE, ()), (TOOLS, ("--ignore-scripts",))):
        words = [f"{name}@{version}" for name, version in packages.items()]
        environment = {**os.environ, "PATH": f"{node.parent}:{os.environ['PATH']}"}
        (folder / "package.json").touch()
        if not (folder / "package.json").read_text():
            (folder / "package.json").write_text('{"private": true}\n')
        command = [npm, "install", "--save-exact", "--no-audit", "--no-fund", *more, *words]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    done.touch()
    return folder, node


def agentos(home: Path, *words: str) -> None:
    """One command on `home`."""
    subprocess.run([AGENTOS, "--home", home, *words], check=True, stdout=subprocess.DEVNULL)


# --- the inspector ------------------------------------------------------------------------------------------------------------


def inspect(folder: Path, node: Path, home: Path) -> list[Outcome]:
    """List, call, be denied, be told to wait: over a pipe that the inspector opens itself."""
    config = home.parent / "inspector.json"
    serve = {"command": str(AGENTOS), "args": ["--home", str(home), "--as", CLIENT, "mcp", "serve", "--agent", AGENT]}
    config.write_text(json.dumps({"mcpServers": {"agentos": serve}}))
    asked = (
        ("list", ("tools/list",), 0, '"name": "test-simple-text"'),
        ("list --strict", ("tools/list", "--strict"), 0, '"readOnlyHint": true'),
        ("call", ("tools/call", "--tool-name", "test-simple-text"), 0, "simple text response"),
        ("denied", ("tools/call", "--tool-name", "test-denied"), 5, "denied by policy (grants.none)"),
        ("waits", ("tools/call", "--tool-name", "test-elicitation", "--tool-arg", "message=x"), 5, "agentos approvals approve"),
    )
    found = []
    for name, words, code, text in asked:
        command = [node, folder / INSPECTOR, "--cli", "--config", config, "--server", "agentos", "--method", *words]
        done = subprocess.run(
            command,
            env={**os.environ, "MCP_INSPECTOR_SECRET_STORE": "memory"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        good = done.returncode == code and text in done.stdout
        found.append(Outcome(f"inspector/{name}", good, f"exit {done.returncode}"))
        if not good:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    return found


# --- the suite ----------------------------------------------------------------------------------------------------------------


class Renamed:
    """The application, for a client that has no token, and whose tools are called `test_x` where ours are `test-x`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        ours = _NAME.sub(lambda found: found[0].replace("_", "-"), body.decode()).encode()
        headers = [(key, value.replace(b"_", b"-") if key == b"mcp-name" else value) for key, value in scope["headers"]]
        first: list[Message] = [{"type": "http.request", "body": ours, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        async def theirs(message: Message) -> None:
            if "body" in message:
                message = {**message, "body": _OURS.sub(lambda found: found[0].replace(b"-", b"_"), message["body"])}
            await send(message)

        # Names keep their length both ways.
        await self._app({**scope, "headers": [*headers, (b"authorization", f"Bearer {TOKEN}".encode())]}, replay, theirs)


@asynccontextmanager
async def served(client: Client, approver: Client) -> AsyncIterator[str]:
    """A gateway of its own at a free port; its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        gateway = Gateway(Upstream(client, approver), AGENT)
        app = Renamed(application(server_of(gateway), gateway, TOKEN, port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            yield f"http://127.0.0.1:{port}/mcp"
            server.should_exit = True


async def scenario(
    node: Path, program: Path, name: str, words: Sequence[str], url: str, cwd: Path, options: argparse.Namespace
) -> tuple[bool, str]:
    """Run one scenario: whether all its checks passed, and how many did."""
    process = await asyncio.create_subprocess_exec(
        *map(str, (node, program, "server", "--url", url, "--scenario", name, *words)),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90):
        out, _ = await process.communicate()
    if options.verbose and process.returncode:
        print(out.decode(), file=sys.stderr)
    counts = re.search(r"Passed: (\d+)/(\d+), (\d+) failed, (\d+) warnings", out.decode())
    if counts is None:
        return False, out.decode()[-300:].strip()
    # A scenario of which nothing could be checked has shown nothing.
    return process.returncode == 0 and counts[3] == "0" and counts[
        1
    ] != "0", f"{counts[1]} of {counts[2]} checks, {counts[4]} warnings"


def scenarios(node: Path, program: Path, version: str | None) -> list[str]:
    """The suite's scenarios for servers, of `version` where the suite knows versions; extensions are another contract."""
    told = subprocess.run([node, program, "list", "--server"], capture_output=True, text=True, check=True).stdout
    return [name for name, versions in _SCENARIO.findall(told) if version is None or version in versions.split(",")]


async def suites(folder: Path, node: Path, home: Path, work: Path, options: argparse.Namespace) -> list[Outcome]:
    """All scenarios of all suites."""
    url = find_server(home, None)
    client = await open_client(url, find_identity(home, None, CLIENT))
    approver = await open_client(url, find_identity(home, None, APPROVER))
    found = []
    for suite, words in SUITES:
        program = folder / "node_modules" / suite / "dist" / "index.js"
        version = words[1] if words else None
        names = scenarios(node, program, version)
        for name in [name for name in names if options.only in {None, name}]:
            async with served(client, approver) as address:
                passed, told = await scenario(node, program, name, words, address, work, options)
            found.append(Outcome(f"{suite}/{version or 'all'}/{name}", passed, told))
            print(f"{'passed' if passed else 'failed'}  {found[-1].key}  {told}", flush=True)
    await client.close()
    await approver.close()
    return found


def judge(outcomes: Sequence[Outcome], baseline: Mapping[str, str]) -> list[str]:
    """What is not as it is written in the baseline, whose keys are names of scenarios."""
    wrong = []
    for one in outcomes:
        reason = baseline.get(one.key.rpartition("/")[2]) if not one.key.startswith("inspector/") else None
        if one.passed and reason is not None:
            wrong.append(f"{one.key} passes, and the baseline says: {reason}")
        if not one.passed and reason is None:
            wrong.append(f"{one.key} fails: {one.told}")
    known = {one.key.rpartition("/")[2] for one in outcomes}
    wrong += [f"the baseline names {name}, which no suite has" for name in baseline if name not in known]
    return wrong


def main() -> int:
    """Run everything; print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=Path, help="write the outcomes there, as JSON")
    parser.add_argument("--only", help="this scenario alone; the baseline is not judged then")
    parser.add_argument("--verbose", action="store_true", help="print what a scenario says that fails")
    options = parser.parse_args()
    report: Path | None = options.report
    folder, node = installed()
    baseline: dict[str, Any] = yaml.safe_load((HERE / "mcp_baseline.yaml").read_text()) or {}
    with tempfile.TemporaryDirectory(prefix="agentos-mcp-") as made:
        home = Path(made) / "home"
        agentos(home, "up", "--detach")
        try:
            agentos(home, "apply", str(HERE / "mcp_gateway.yaml"), "--yes", "--allow-widen")
            agentos(home, "principal", "create", CLIENT, "--role", "agent", "--for", "default")
            agentos(home, "principal", "create", APPROVER, "--role", "approver", "--for", "default")
            outcomes = inspect(folder, node, home)
            for one in outcomes:
                print(f"{'passed' if one.passed else 'failed'}  {one.key}  {one.told}", flush=True)
            outcomes += asyncio.run(suites(folder, node, home, Path(made), options))
        finally:
            agentos(home, "down")
    if report is not None:
        report.write_text(json.dumps([[one.key, one.passed, one.told] for one in outcomes], indent=1) + "\n")
    wrong = judge(outcomes, baseline) if options.only is None else []
    print("\n".join([f"{sum(one.passed for one in outcomes)} of {len(outcomes)} passed, the others as written", *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
