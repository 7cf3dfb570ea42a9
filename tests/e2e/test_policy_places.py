"""Where OPA decides is the operator's choice, and no place lets a call through while it cannot decide."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e_runtime import ROOT, Cli, mask
from syrupy.assertion import SnapshotAssertion

sys.path.insert(0, str(ROOT / "tests" / "parity"))

from opa_server import TOKEN, OperatorsServer
from pki import Pki

from agentos.policy.adapters.bundle_file import read_bundle

STEPS = 200
"""Calls of one turn, the most there can be: enough that a server that comes back finds some of them still to be asked."""

SERVER = '''
import socket
import sys
from pathlib import Path
from mcp.server import MCPServer

server = MCPServer("steps")
folder = Path(sys.argv[1])

@server.tool()
async def step(number: int) -> str:
    """Write the number down; at number 2 say so, and go on when told to."""
    with (folder / "ledger").open("a") as file:
        file.write(f"{number}\\n")
    if number == 2:
        with socket.socket(socket.AF_UNIX) as test:
            test.connect(str(folder / "go"))
            test.recv(2)
    return f"step {number}"

server.run("stdio")
'''

MANIFEST = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: walking}}
spec:
  provider: scripted
  scripted:
    play:
      name: walking
      rules:
        - id: walk
          when: "not results"
          for_each: "range({steps})"
          call: [{{tool: step, args: {{number: "{{{{ item }}}}"}}}}]
        - id: done
          when: "true"
          say: "walked {{{{ results | ok | length }}}}"
---
apiVersion: agentos/v1
kind: Sandbox
metadata: {{name: steps}}
spec: {{mounts: [{{path: {steps_folder}, at: /steps, write: true}}]}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: step}}
spec:
  description: Take a step.
  effect: external
  sandbox: steps
  inputSchema: {schema}
  driver:
    mcp:
      tool: step
      server: {{command: {command}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: walker}}
spec:
  instructions: Walk.
  model: walking
  tools: [step]
  budget: {{calls: {budget}}}
  governance: {{owner: tests, purpose: walking, risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: walking}}
# Each number is a question of its own: no kept answer hides that the server is gone.
spec: {{agents: [walker], tools: [step], args: {{number: {{minimum: 0}}}}}}
"""

SCHEMA = {
    "properties": {"number": {"title": "Number", "type": "integer"}},
    "required": ["number"],
    "title": "stepArguments",
    "type": "object",
}

POLICY = """apiVersion: agentos/v1
kind: Policy
metadata: {{name: curfew}}
spec:
  rego: |
    # METADATA
    # title: Curfew
    # description: Nothing is written.
    # schemas:
    #   - input: schema["policy-input"]
    package agentos.syscall.rules.curfew

    # METADATA
    # title: No writing
    # description: Nothing is written.
    results contains {{"rule": "curfew.writing", "effect": "deny", "reason": "{reason}"}} if {{
      {condition}
    }}
"""


class Walk:
    """An agent that takes many steps in one turn, and waits in the third until the test lets it go on."""

    def __init__(self, folder: Path) -> None:
        self.manifest = folder / "walk.yaml"
        steps = folder / "steps"
        steps.mkdir()
        self.ledger = steps / "ledger"
        self._listener = socket.socket(socket.AF_UNIX)
        opened = os.open(steps, os.O_PATH)
        try:
            self._listener.bind(f"/proc/self/fd/{opened}/go")  # the address of a socket takes no long path
        finally:
            os.close(opened)
        for shared in (steps, steps / "go"):
            shared.chmod(0o777)  # the session is another user
        self._listener.listen()
        self._listener.settimeout(60)
        (steps / "steps.py").write_text(SERVER)
        command = json.dumps([sys.executable, "/steps/steps.py", "/steps"])
        schema, place = json.dumps(SCHEMA), json.dumps(str(steps))
        self.manifest.write_text(
            MANIFEST.format(steps=STEPS, budget=STEPS + 10, schema=schema, command=command, steps_folder=place)
        )

    @contextmanager
    def in_the_third_step(self) -> Iterator[None]:
        """What is done in the block happens while the third step is under way."""
        step, _ = self._listener.accept()
        with step:
            yield
            step.sendall(b"go")

    def outcome(self, cli: Cli, session: str) -> tuple[list[str], list[str]]:
        """The rule of each decided step, and the reasons of the denied; every allowed step happened once, and no other did."""
        events = cli("logs", session, "-o", "json").json
        decided = [one["data"] for one in events if one["type"] == "agentos.syscall.decided" and one["data"]["tool"] == "step"]
        allowed = [str(one["args"]["number"]) for one in decided if one["decision"]["effect"] == "allow"]
        assert self.ledger.read_text().split() == allowed
        assert len(decided) == STEPS
        reasons = [one["decision"]["reasons"][0] for one in decided if one["decision"]["effect"] == "deny"]
        return [one["decision"]["rules"][0] for one in decided], reasons

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """See `Walk`."""
    made = Walk(tmp_path)
    yield made
    made.close()


def engines_of(pid: int) -> list[int]:
    """The OPA servers that a runtime has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"--server" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_managed_server_killed_in_a_run_denies_until_it_is_back(cli: Cli, walk: Walk) -> None:
    """`kill -9` in mid-run: what is asked meanwhile is denied with the reason, and the same run then goes on to its end."""
    cli("up", "--detach", "--policy", "managed")
    assert "(managed server)" in cli("status", "-o", "json").json["policy"]
    cli("apply", str(walk.manifest), "--yes", "--allow-widen")
    session = cli("run", "walker", "walk").out.strip()
    with walk.in_the_third_step():
        for pid in engines_of(cli.runtime_pid()):
            os.kill(pid, signal.SIGKILL)
    assert cli("wait", session).code == 0
    rules, reasons = walk.outcome(cli, session)
    assert rules[0] == rules[-1] == "grants.allowed"
    assert rules[3] == "policy.failed"
    assert "policy server" in reasons[0]
    assert all("policy server" in reason for reason in reasons)


def test_a_killed_runtime_leaves_no_policy_server(cli: Cli) -> None:
    """Not after `kill -9` either; and no token stands in what others can read of the servers or in the log."""
    cli("up", "--detach", "--policy", "managed")
    pids = engines_of(cli.runtime_pid())
    assert pids
    watched = [os.pidfd_open(pid) for pid in pids]
    for pid in pids:
        assert b"token" not in Path(f"/proc/{pid}/environ").read_bytes().lower()
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0").count(b"token") == 1  # --authentication token
    os.kill(cli.runtime_pid(), signal.SIGKILL)
    for descriptor in watched:
        with os.fdopen(descriptor) as process:
            asyncio.run(_readable(process.fileno()))
    assert not any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in pids)


async def _readable(descriptor: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    async with asyncio.timeout(20):
        await ended.wait()
    loop.remove_reader(descriptor)


def state(pid: int) -> str:
    """The letter of a process's state; `Z` for one that has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        return


@pytest.fixture
def bundles(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of bundles, and the url of a web server over it."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class Theirs(OperatorsServer):
    """An OPA server that polls a web server for the bundle of the default tenant, and asks who we are."""

    def configure(self, url: str, *words: str) -> None:
        """Say what it polls and how it is started."""
        polling = {"min_delay_seconds": 1, "max_delay_seconds": 1}
        config: dict[str, Any] = {
            "services": {"runtime": {"url": url}},
            "bundles": {"default": {"service": "runtime", "resource": "default.tar.gz", "polling": polling}},
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        (self.folder / "authz.rego").write_text(
            f'package system.authz\n\ndefault allow := false\n\nallow if input.identity == "{TOKEN}"\n'
        )
        self._words = words

    def start(self) -> None:
        """Start it, and return when it accepts."""
        self.run("--config-file", "config.json", *self._words)
        asyncio.run(self.listening())


@pytest.fixture
def theirs(tmp_path: Path, bundles: tuple[Path, str]) -> Iterator[Theirs]:
    """A server with a token."""
    server = Theirs(tmp_path / "theirs")
    server.configure(bundles[1], "--authentication", "token", "--authorization", "basic", "authz.rego")
    server.start()
    yield server
    server.stop()


def up_remote(cli: Cli, server: Theirs, folder: Path) -> None:
    """A runtime whose policy is decided by `server`."""
    words = ["--policy", "remote", "--policy-url", server.url, "--policy-bundles", str(folder)]
    cli("up", "--detach", *words, "--policy-token-file", str(server.token_file))


def test_a_remote_server_decides(
    cli: Cli, theirs: Theirs, bundles: tuple[Path, str], tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """Apply, run and status as ever; a policy changes what the next run may, and a wrong one changes nothing."""
    up_remote(cli, theirs, bundles[0])
    cli("apply", "examples/01-hello", "--yes", "--allow-widen")
    assert cli("run", "hello", "you", "--wait").code == 0
    said = cli("status").out + cli("policy", "status").out
    assert f"opa 1.20.2 (remote, {theirs.url})" in said
    assert TOKEN not in said + (cli.home / "log" / "runtime.log").read_text()

    policy = tmp_path / "curfew.yaml"
    policy.write_text(POLICY.format(reason="there is a curfew", condition='input.syscall.tool == "write-greeting"'))
    cli("apply", str(policy), "--yes", "--allow-widen")
    session = cli("run", "hello", "you", "--wait", expect=None).out.strip().splitlines()[0]
    assert "there is a curfew" in cli("logs", session).out

    policy.write_text(POLICY.format(reason="wrong", condition="nosuch(input.syscall.tool)"))
    before = (bundles[0] / "default.tar.gz").read_bytes()
    refused = cli("apply", str(policy), "--yes", "--allow-widen", expect=None)
    assert refused.code == 1
    assert "nosuch" in refused.err
    policy.write_text(POLICY.format(reason="an owner is needed", condition='input.syscall.tool == "x"'))
    cli("plan", str(policy), expect=2)
    cli("apply", str(policy), "--yes", "--allow-widen", "--dry-run")
    assert (bundles[0] / "default.tar.gz").read_bytes() == before
    session = cli("run", "hello", "you", "--wait", expect=None).out.strip().splitlines()[0]
    assert "there is a curfew" in cli("logs", session).out

    # What `pull` writes is what the server has: brought there by hand, it would decide.
    cli("policy", "pull", "-o", str(tmp_path / "pulled.tar.gz"))
    pulled, published = read_bundle((tmp_path / "pulled.tar.gz").read_bytes(), ""), read_bundle(before, "")
    assert pulled.revision == published.revision

    tenant = tmp_path / "tenant.yaml"
    tenant.write_text("apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {}\n")
    told = cli("apply", str(tenant), "--yes", "--allow-widen", expect=64).err
    assert mask(told.replace(str(theirs.port), "PORT"), tmp_path) == snapshot


def test_a_remote_server_killed_in_a_run_denies_until_it_is_back(
    cli: Cli, theirs: Theirs, bundles: tuple[Path, str], walk: Walk
) -> None:
    """While it is away every syscall is denied and status says why; the same run goes on when it is there again."""
    up_remote(cli, theirs, bundles[0])
    cli("apply", str(walk.manifest), "--yes", "--allow-widen")
    session = cli("run", "walker", "walk").out.strip()
    with walk.in_the_third_step():
        theirs.stop()
    theirs.start()
    assert cli("wait", session).code == 0
    rules, reasons = walk.outcome(cli, session)
    assert rules[0] == rules[-1] == "grants.allowed"
    assert rules[3] == "policy.failed"
    assert all("the policy server does" in reason for reason in reasons)

    theirs.stop()
    session = cli("run", "walker", "again", "--wait", expect=None).out.strip().splitlines()[0]
    assert "does not answer" in cli("logs", session).out
    assert "does not answer" in cli("status").err


def test_a_runtime_that_starts_before_its_policy_server(cli: Cli, theirs: Theirs, bundles: tuple[Path, str]) -> None:
    """It stands and denies; once the server is there it decides, without a restart."""
    theirs.stop()
    up_remote(cli, theirs, bundles[0])
    assert "does not answer" in cli("apply", "examples/01-hello", "--yes", "--allow-widen", expect=3).err
    theirs.start()
    deadline = time.monotonic() + 20
    while cli("apply", "examples/01-hello", "--yes", "--allow-widen", expect=None).code == 3:
        assert time.monotonic() < deadline
    assert cli("run", "hello", "you", "--wait").code == 0


def test_a_remote_server_that_asks_for_certificates(cli: Cli, bundles: tuple[Path, str], tmp_path: Path) -> None:
    """With mutual TLS, and the bundles in the home, where they are the owner's."""
    pki = Pki(tmp_path)
    server = Theirs(
        tmp_path / "theirs",
        scheme="https",
        arguments=[
            *("--tls-cert-file", str(pki.server[0]), "--tls-private-key-file", str(pki.server[1])),
            *("--tls-ca-cert-file", str(pki.ca)),
        ],
    )
    server.configure(bundles[1], "--authentication", "tls")
    server.start()
    try:
        words = ["--policy", "remote", "--policy-url", server.url, "--policy-bundles", str(bundles[0])]
        words += ["--policy-cert", str(pki.client[0]), "--policy-key", str(pki.client[1]), "--policy-ca", str(pki.ca)]
        cli("up", "--detach", *words)
        cli("apply", "examples/01-hello", "--yes", "--allow-widen")
        assert cli("run", "hello", "you", "--wait").code == 0
        cli("down")
    finally:
        server.stop()


def test_what_is_wrong_with_a_remote_server_is_said(cli: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Each mistake of the command line with its mend, before anything is started."""
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    certificate = tmp_path / "cert.pem"
    certificate.write_text("none")
    remote = ("--policy", "remote")
    said = []
    for words in (
        remote,
        ("--policy-url", "https://opa"),
        (*remote, "--policy-url", "opa:8181"),
        (*remote, "--policy-url", "http://opa.example:8181"),
        (*remote, "--policy-url", "https://al:secret@opa.example"),
        (*remote, "--policy-url", "http://localhost:1", "--policy-token-file", str(token)),
        (*remote, "--policy-url", "http://localhost:1", "--policy-token-file", str(tmp_path / "none")),
        (*remote, "--policy-url", "https://localhost:1", "--policy-cert", str(certificate)),
        (*remote, "--policy-url", "http://localhost:1", "--policy-ca", str(certificate)),
        (*remote, "--policy-url", "https://localhost:1", "--policy-ca", str(certificate)),
    ):
        for detach in ((), ("--detach",)):
            done = cli("up", *words, *detach, expect=None)
            assert done.code in {1, 64}, done
            assert "secret" not in done.err
        said.append(f"{done.code}: {done.err}")
    assert not (cli.home / "lock").exists()
    assert mask("".join(said), tmp_path) == snapshot
