"""Two runtimes with two homes on one account of somebody else's server: one serves, and whoever stood still lets go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_runtime import Cli

from agentos.eventlog.adapters.credentials import create_seed, write_seed
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, ServerConfig, User


class Random:
    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """How a runtime gets at the server: words for `agentos up`."""
    runtime, creds = create_seed(Random()), tmp_path / "runtime.nk"
    write_seed(creds, runtime)
    server = NatsServer(tmp_path / "theirs", ServerConfig((Account("SHARED", (User(runtime.public_key),)),)), random=Random())
    asyncio.run(server.start())
    yield "--nats", server.url, "--creds", str(creds)
    asyncio.run(server.stop())


def ends(pid: int) -> bool:
    """Whether a process ends within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_one_account_takes_one_runtime(cli: Cli, tmp_path: Path, place: tuple[str, ...]) -> None:
    """While the first one answers a second is refused. Once it stands still another takes over; it wakes up, and ends."""
    other = Cli(tmp_path / "other")
    cli("up", "--detach", *place)
    first = cli.runtime_pid()
    try:
        assert "another runtime serves this account" in other("up", "--detach", *place, expect=4).err
        os.kill(first, signal.SIGSTOP)
        other("up", "--detach", *place)
        os.kill(first, signal.SIGCONT)
        assert ends(first)
        assert "a newer runtime serves this account" in (cli.home / "log" / "runtime.log").read_text()
        assert Path(f"/proc/{other.runtime_pid()}").exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGCONT)
        other("down", expect=None)
