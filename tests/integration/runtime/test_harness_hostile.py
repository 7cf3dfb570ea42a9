"""Harnesses that do what no harness may do: each is stopped, its session's log says so, and others of the tenant go on."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from house import WORKER, Door, documents

from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import SandboxUnavailable

GREETS = """
import json, os, socket, subprocess, sys, time

def say(frame):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **frame}) + "\\n")
    sys.stdout.flush()

sys.stdin.readline()
say({"id": 0, "result": {"abi": "agentos/v1"}})
"""

FINISHES = """
say({"id": 1, "method": "finish", "params": {"result": "done"}})
sys.stdin.readline()
"""


def hostile(name: str, *command: str) -> list[dict[str, Any]]:
    """An agent of this name that is driven by a program."""
    worker = next(one for one in documents(WORKER) if one["kind"] == "Agent")
    worker["metadata"]["name"] = name
    worker["spec"]["harness"] = {"command": list(command)}
    grant = next(one for one in documents(WORKER) if one["kind"] == "ToolGrant")
    grant["metadata"]["name"] = f"{name}-writes"
    grant["spec"]["agents"] = [name]
    return [worker, grant]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", GREETS + code)


SOCKETS = {
    "internet": "socket.socket()",
    "of the sixth version": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "hypervisor": "socket.socket(40, socket.SOCK_STREAM)",
    "a name": "socket.getaddrinfo('example.com', 443)",
    "in a thread": "import threading; threading.Thread(target=socket.socket).start(); time.sleep(60)",
}
HOMES = {
    "its home": "open(os.path.expanduser('~/.ssh/id_rsa')).read()",
    "a listing": "os.listdir(os.environ['HOME'])",
    "of root": "os.listdir('/root')",
    "of everybody": "os.listdir('/home')",
    "passwords": "open('/etc/shadow').read()",
    "a child": "subprocess.run(['cat', os.path.expanduser('~/.netrc')])",
}


@pytest.mark.parametrize(
    ("reason", "deed"),
    [*(("network", code) for code in SOCKETS.values()), *(("home", code) for code in HOMES.values())],
    ids=[*SOCKETS, *HOMES],
)
async def test_who_reaches_out_is_stopped(door: Door, reason: str, deed: str) -> None:
    """The process is killed, so it never finishes; the session fails, and the event behind it all says why."""
    await door.apply(*documents(WORKER), *hostile("spy", *python(f"{deed}\ntime.sleep(60)\n{FINISHES}")))
    bad, good = await door.run("spy"), await door.run("worker")
    ended = await door.until(bad)
    assert (ended["state"], ended["error"]["code"], ended["stopped"]["reason"]) == ("failed", "harness", reason)
    assert (await door.types(bad))[-2:] == ["harness.stopped", "session.failed"]
    assert (await door.until(good))["state"] == "finished"


async def test_the_home_of_the_runtime_is_a_trap(door: Door) -> None:
    """Where the runtime keeps its keys a harness finds files of the same names, and opens none of them twice."""
    home = door.runtime.home.root
    await door.apply(*documents(WORKER), *hostile("spy", "cat", str(home / "identities" / "operator.json")))
    ended = await door.until(await door.run("spy"))
    assert ended["stopped"]["reason"] == "home"


async def test_who_goes_on_after_the_end_is_stopped(door: Door) -> None:
    """What is written behind `finish` is not acted on. The session stays finished, and its log says who went on."""
    call = {"call": "step-1", "tool": "write", "args": {"path": "a", "content": "x"}}
    goes_on = f"say({{'id': 2, 'method': 'tool.call', 'params': {call}}})"
    await door.apply(*documents(WORKER), *hostile("late", *python(FINISHES + goes_on)))
    session = await door.run("late")
    ended = await door.until(session)
    assert (ended["state"], ended["result"]) == ("finished", "done")
    position = 0
    while (types := await door.types(session))[-1] != "harness.stopped":
        more = await door("session.events", session=session, seq=len(types), position=position, wait_ms=10_000)
        position = more["position"]
    assert types[-2:] == ["session.finished", "harness.stopped"]
    found = await door("session.get", session=session)
    assert (found["state"], found["stopped"]["reason"], found["stopped"]["after"]) == ("finished", "after-finish", "finished")
    assert await door.decisions(session) == []


async def test_a_fork_bomb_is_its_own_problem(door: Door) -> None:
    """Who multiplies is bounded by its place and stands back on the processor: sessions beside it come to their end."""
    bomb = """
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
    await door.apply(*documents(WORKER), *hostile("bomb", *python(bomb)))
    bad = await door.run("bomb")
    good = [await door.run("worker") for _ in range(3)]
    for session in good:
        ended = await door.until(session)
        assert ended["state"] == "finished", ended
    await door("session.cancel", session=bad, reason="enough")
    assert (await door.until(bad))["state"] == "cancelled"


async def test_what_programs_do_when_they_start_is_no_misdeed(door: Door) -> None:
    """Shells and interpreters look at their environment, make pairs of sockets, and ask for the name of their user."""
    quiet = """
import asyncio, pwd, site, tempfile
async def main():
    await (await asyncio.create_subprocess_exec("sh", "-c", "id; ls /; stat ~ /root; :", stdout=subprocess.DEVNULL)).wait()
asyncio.run(main())
pwd.getpwuid(os.getuid())
tempfile.TemporaryFile()
try:
    socket.socket(socket.AF_UNIX)
except OSError:
    pass
"""
    await door.apply(*documents(WORKER), *hostile("quiet", sys.executable, "-c", GREETS + quiet + FINISHES))
    ended = await door.until(await door.run("quiet"))
    assert (ended["state"], ended.get("stopped")) == ("finished", None)


async def test_without_sandboxes_the_built_in_loop_alone_runs(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the host can set nothing apart that is said in `status`, and no program of somebody else's is started."""

    def refused(*_: object) -> None:
        raise SandboxUnavailable("there is no bubblewrap")

    monkeypatch.setattr(HostSandboxes, "place", refused)
    await door.apply(*documents(WORKER), *hostile("other", *python(FINISHES)))
    assert (await door.until(await door.run("worker")))["state"] == "finished"
    ended = await door.until(await door.run("other"))
    assert (ended["state"], ended["error"]["code"]) == ("failed", "harness")
    said = [one for one in (await door("runtime.status"))["warnings"] if one.startswith("harness: ")]
    assert len(said) == 1
    assert "there is no bubblewrap" in said[0]
