"""Containers on a host without a working engine: nothing is started in a weaker way. (Tests of real containers need a daemon.)"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_run import run

from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import SandboxUnavailable
from agentos.sandbox.profile import Isolation, standard

CONTAINED = replace(standard("contained"), isolation=Isolation.CONTAINER, image="debian:12-slim")


async def test_without_an_engine_nothing_is_started(tmp_path: Path) -> None:
    """Where there is no engine, the call fails and says what to install."""
    with pytest.raises(SandboxUnavailable, match="no podman or docker") as refused:
        await run(HostSandboxes(None, {"PATH": str(tmp_path)}), tmp_path, ("true",), CONTAINED)
    assert "install" in str(refused.value.mend)


async def test_without_its_daemon_nothing_is_started(tmp_path: Path) -> None:
    """Where the engine's client reaches no daemon, the call fails with what the client said."""
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    client.chmod(0o755)
    with pytest.raises(SandboxUnavailable, match="docker does not answer: Cannot connect") as refused:
        await run(HostSandboxes(None, {"PATH": str(tmp_path)}), tmp_path, ("true",), replace(CONTAINED, engine="docker"))
    assert "daemon" in str(refused.value.mend)


async def test_a_container_is_removed_however_it_ends(tmp_path: Path) -> None:
    """The client is given the words of `run`, and the container of that name is removed when its place is left."""
    told = tmp_path / "told"
    client = tmp_path / "podman"
    show = f'for word in "$@"; do case "$word" in /proc/self/fd/*) cat "$word" >> {told};; esac; done'
    client.write_text(f'#!/bin/sh\necho "$@" >> {told}\n{show}\nexit 0\n')
    client.chmod(0o755)
    sandboxes = HostSandboxes(None, {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    (tmp_path / "workspace").mkdir()
    ended = await run(sandboxes, tmp_path / "workspace", ("ls",), CONTAINED, env={"TOKEN": "hunter2"})
    assert ended.code == 0
    version, started, *rest = told.read_text().splitlines()
    name = started.split("--name ")[1].split()[0]
    assert version == "version"
    assert started.startswith("run --rm")
    assert "hunter2" not in started
    assert "TOKEN=hunter2" in rest
    assert rest[-1] == f"rm --force --volumes {name}"
