"""`unsafe-none`: no sandbox, said each time; what is kept all the same."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_run import MARK, living, run, running

from agentos.abi.errors import DriverError
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import Door, Launch
from agentos.sandbox.profile import Isolation, Limits, Network, standard

BARE = replace(standard("bare"), isolation=Isolation.UNSAFE_NONE)


async def test_each_use_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process without isolation works as in a sandbox, in the workspace itself, and each is warned of."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ended = await run(
                HostSandboxes(None), tmp_path, ("sh", "-c", "pwd; id -u; echo $HOME $SECRET"), BARE, env={"SECRET": "s"}
            )
    assert ended.out == f"{tmp_path}\n{os.geteuid()}\n{tmp_path} s\n"
    assert ended.report["isolation"] == "unsafe-none"
    assert sum("unsafe-none" in record.message for record in caplog.records) == 2
    assert HostSandboxes(None).workspace(BARE, tmp_path) == os.fspath(tmp_path)


async def test_the_runtimes_variables_are_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without isolation has no variables of the runtime."""
    monkeypatch.setenv("RUNTIME_SECRET", "canary")
    assert "canary" not in (await run(HostSandboxes(None), tmp_path, ("env",), BARE)).out


async def test_it_is_killed_as_a_group(tmp_path: Path) -> None:
    """What a process without isolation started in its group is dead when its place is left."""
    launch = Launch(("sh", "-c", "sleep 600 & sleep 601 & echo on; wait"), BARE, tmp_path, "default/s-1", env=MARK)
    async with asyncio.timeout(30), running(HostSandboxes(None), launch) as (_, process):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"on\n"
        assert len(living()) >= 3
    assert living() == set()


async def test_it_is_bounded(tmp_path: Path) -> None:
    """A process without isolation has the limits of each process."""
    profile = replace(BARE, limits=Limits(file_mib=3, open_files=77))
    ended = await run(HostSandboxes(None), tmp_path, ("sh", "-c", "sleep 0.1; ulimit -f; ulimit -n"), profile)
    assert ended.out.split() == ["6144", "77"]


async def test_files_of_secrets_are_refused(tmp_path: Path) -> None:
    """A file with a secret would be anybody's to read, so there is none."""
    with pytest.raises(DriverError):
        await run(HostSandboxes(None), tmp_path, ("true",), BARE, secrets={"token": "x"})


async def test_its_way_out_is_offered(tmp_path: Path) -> None:
    """A process without isolation is told of the proxy too, at a port that is free."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    path = tmp_path / "egress.sock"
    server = await asyncio.start_unix_server(answer, path)
    try:
        profile = replace(BARE, network=Network())
        ended = await run(
            HostSandboxes(None), tmp_path, ("curl", "-s", "http://example.com/y"), profile, door=Door(path, b"AUTHORITY")
        )
    finally:
        server.close()
        await server.wait_closed()
    assert ended.out == "ok"
    assert heard[0].startswith(b"GET http://example.com/y")
