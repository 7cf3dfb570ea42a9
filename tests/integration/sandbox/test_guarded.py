"""Guarded processes: a pipe and nothing else. Who makes a socket is killed; who opens what looks like a home is told of."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from agentos.drivers.process import Child
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import Launch
from agentos.sandbox.profile import Access, Mount, standard

KILLED = 128 + 31


async def ran(home: Path, *command: str, mounts: tuple[Mount, ...] = ()) -> tuple[int, str, list[str]]:
    """Exit code, output, and what was told."""
    told: list[str] = []
    profile = replace(standard("guarded"), workspace=Access.NONE, mounts=mounts)
    async with AsyncExitStack() as stack:
        launch = Launch(command, profile, Path("/nowhere"), "default/s-1", guard=told.append)
        child = Child(await stack.enter_async_context(HostSandboxes(home).place(launch)))
        ended = await child.run()
    return ended.code, ended.output.decode(), told


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"])
async def test_who_makes_a_socket_is_killed(tmp_path: Path, family: str) -> None:
    """Of any family that leads somewhere."""
    code = f"import socket; socket.socket(socket.{family}, socket.SOCK_RAW if '{family}' == 'AF_PACKET' else 5); print('made')"
    assert await ran(tmp_path, sys.executable, "-I", "-S", "-c", code) == (KILLED, "", [])


async def test_pairs_of_sockets_stay_and_lead_nowhere(tmp_path: Path) -> None:
    """Event loops wake themselves with one; the rest of unix sockets is refused, and nobody is killed for it."""
    code = """
import socket
one, two = socket.socketpair()
one.send(b"x")
print(two.recv(1))
for name, act in {
    "socket": lambda: socket.socket(socket.AF_UNIX),
    "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "connect": lambda: one.connect("/run/x"),
    "bind": lambda: one.bind("/tmp/x"),
    "sendto": lambda: one.sendto(b"x", "/run/x"),
}.items():
    try:
        act()
    except PermissionError:
        print(name)
"""
    code_and_output = await ran(tmp_path, sys.executable, "-I", "-S", "-c", code)
    assert code_and_output == (0, "b'x'\nsocket\ndatagrams\nconnect\nbind\nsendto\n", [])


async def test_a_home_is_told_and_holds_nothing(tmp_path: Path) -> None:
    """The runtime's own, at its own path, and the process's."""
    (tmp_path / "identities").mkdir()
    (tmp_path / "identities" / "operator.json").write_text("seed")
    path = str(tmp_path.resolve() / "identities" / "operator.json")
    code, output, told = await ran(tmp_path, "sh", "-c", f"cat {path} $HOME/.netrc")
    assert (code, output, told) == (0, "nothing of worth\n" * 2, [path, "/home/agent/.netrc"])


async def test_it_cannot_be_written(tmp_path: Path) -> None:
    """A trap serves one process after the other, so none leaves anything in it."""
    code, output, told = await ran(tmp_path, "sh", "-c", "echo x > $HOME/.netrc; mkdir $HOME/a; rm $HOME/.netrc; echo done")
    assert (code, output, told) == (0, "done\n", [])


async def test_what_is_mounted_in_a_home_is_there(tmp_path: Path) -> None:
    """An operator may show it a folder at a path below one, and that is no trap."""
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "a").write_text("hello")
    mounts = (Mount(str(shown.resolve()), "/home/ann/project"), Mount(str(shown.resolve() / "a"), "/root/b"))
    code, output, told = await ran(tmp_path / "home", "cat", "/home/ann/project/a", "/root/b", mounts=mounts)
    assert (code, output, told) == (0, "hellohello", [])


async def test_others_have_no_traps(tmp_path: Path) -> None:
    """Processes of tools find no home at all, and may make sockets, in a network of their own."""
    code = "import os, socket; socket.socket(); print([path for path in ('/home', '/etc/shadow') if os.path.exists(path)])"
    launch = Launch((sys.executable, "-I", "-c", code), standard(), tmp_path, "default/s-1")
    async with AsyncExitStack() as stack:
        ended = await Child(await stack.enter_async_context(HostSandboxes(None).place(launch))).run()
    assert (ended.output, ended.code) == (b"[]\n", 0)
