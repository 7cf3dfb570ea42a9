"""The runtime's life: one per home, started and stopped cleanly, and every mishap said."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys

from e2e_runtime import Cli, mask
from syrupy.assertion import SnapshotAssertion


def test_up_status_down(cli: Cli, snapshot: SnapshotAssertion) -> None:
    """What an operator reads from the first start to the stop."""
    done = cli("up", "--detach")
    text = done.err + cli("status").out + cli("down").err
    # The first checkpoint is made about now, perhaps before the question and perhaps after it.
    text = re.sub(r"\d+ messages, \d+ bytes", "COUNT messages, SIZE bytes", text)
    text = re.sub(r"(?m)^CKPT .*$", "CKPT COUNT SIZE POSITIONS", text)
    assert mask(text, cli.home) == snapshot


def test_a_second_up_on_the_same_home_is_told_who_runs(up: Cli) -> None:
    """Exit 4 with the pid, and the first goes on."""
    pid = up.runtime_pid()
    assert f"pid {pid}" in up("up", "--detach", expect=4).err
    assert f"pid {pid}" in up("up", expect=4).err
    up("status")


def test_a_killed_runtime_leaves_nothing_in_the_way(up: Cli) -> None:
    """After SIGKILL the stale files stop nobody, and the server died with its runtime."""
    pid, server = up.runtime_pid(), int((up.home / "nats" / "nats.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    up("up", "--detach")
    assert up.runtime_pid() != pid
    assert int((up.home / "nats" / "nats.pid").read_text()) != server


def test_a_taken_port_is_said(cli: Cli) -> None:
    """The error names the port; nothing is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in cli("up", "--detach", "--port", str(port), expect=1).err
    assert "no runtime runs" in cli("down").err


def test_without_a_runtime_every_question_says_how_to_start_one(cli: Cli) -> None:
    """An absent runtime is one line and a mend, never a traceback."""
    for words in (("ps",), ("status",), ("get", "agent"), ("approvals", "list")):
        done = cli(*words, expect=1)
        assert "agentos up" in done.err
        assert "Traceback" not in done.err


def test_secrets_are_for_the_owner_only(up: Cli) -> None:
    """Keys, identities, the server's configuration and the read models are 0600 below folders of 0700."""
    assert stat.S_IMODE(up.home.stat().st_mode) == 0o700
    for folder in ("keys", "identities", "nats", "read"):
        for path in (up.home / folder).rglob("*"):
            # The server writes its ports file (a port, no secret) and its streams itself; the folder around them is closed.
            if path.is_file() and path.suffix not in {".pub", ".ports"} and "jetstream" not in path.parts:
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_run_without_a_runtime_starts_one_for_the_run(cli: Cli) -> None:
    """The declarations of an earlier runtime are there, the session ends, and nothing runs afterwards."""
    cli("up", "--detach")
    cli("apply", "examples/01-hello", "--yes", "--allow-widen")
    cli("down")
    done = cli("run", "hello", "say hello")
    assert "starting one for this run" in done.err
    assert "finished" in done.err
    assert done.out.startswith("s-")
    assert "no runtime runs" in cli("down").err


def test_without_a_policy_engine_everything_is_denied(cli: Cli) -> None:
    """The runtime stands, every command is denied, and the denial says how to get an engine."""
    code = "import sys; sys.modules['opa_bindings'] = None; from agentos.cli.main import run; run()"
    runtime = subprocess.Popen([sys.executable, "-c", code, "up"], env=cli.environment(), stderr=subprocess.PIPE, text=True)
    assert runtime.stderr is not None
    with runtime.stderr:
        while "ready in" not in runtime.stderr.readline():
            assert runtime.poll() is None
        done = cli("apply", "examples/01-hello", "--yes", "--allow-widen", expect=3)
        assert "opa-golib-python-bindings" in done.err
        cli("down")
    assert runtime.wait(timeout=30) == 0
