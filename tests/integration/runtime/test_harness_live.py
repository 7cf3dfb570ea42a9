"""Agents driven by programs of somebody else's, on a whole runtime: the gate decides as ever, and the place holds them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from house import WORKER, Door, documents

from agentos.abi.errors import AgentOSError
from agentos.boot import harness_place
from agentos.boot.system import ProcessHarness

EXAMPLE = Path(__file__).parents[3] / "examples" / "foreign-harness"


def driven_by(*command: str, **more: Any) -> list[dict[str, Any]]:
    """The worker with this harness, in a Sandbox that has the program mounted."""
    manifests = documents(WORKER)
    worker = next(one for one in manifests if one["kind"] == "Agent")
    worker["spec"]["harness"] = {"command": list(command), "sandbox": "brain"}
    spec = {"workspace": "write", "network": {"allow": [{"host": "example.com"}]}, **more}
    return [*manifests, {"apiVersion": "agentos/v1", "kind": "Sandbox", "metadata": {"name": "brain"}, "spec": spec}]


async def test_a_shell_script_drives_a_session(door: Door) -> None:
    """The example in shell and awk, in its place: three files are written by the tool, and each call was decided."""
    await door.apply(*driven_by("sh", "/opt/loop.sh", mounts=[{"path": str(EXAMPLE / "loop.sh"), "at": "/opt/loop.sh"}]))
    session = await door.run(goal="the goal")
    ended = await door.until(session)
    assert (ended["state"], ended["result"], ended["calls"]) == ("finished", "3 of 3", 3)
    assert [decision[:2] for decision in await door.decisions(session)].count(("write", "allow")) == 3


LOOKS = """
import json, os, sys

def sees(path):
    try:
        return bool(os.listdir(path))
    except OSError:
        return False

json.loads(sys.stdin.readline())
print(json.dumps({"jsonrpc": "2.0", "id": 0, "result": {"abi": "agentos/v1"}}), flush=True)
seen = [path for path in ("/workspace", "/run/secrets", "/mnt", "/srv", "/opt") if sees(path)]
seen += sorted(set(os.environ) & {"AGENTOS_HOME", "SSH_AUTH_SOCK", "HTTP_PROXY"})
print(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "finish", "params": {"result": " ".join(seen)}}), flush=True)
sys.stdin.readline()
"""


async def test_it_has_the_pipe_and_nothing_else(door: Door) -> None:
    """No workspace, no secrets, no way out, though its Sandbox declares them, and nothing of the runtime's environment."""
    await door.apply(*driven_by(sys.executable, "-I", "-c", LOOKS))
    ended = await door.until(await door.run())
    assert (ended["state"], ended["result"]) == ("finished", "")


@pytest.mark.parametrize(
    ("command", "more", "words"),
    [
        (("no-such-program",), {}, "no program"),
        (("true",), {}, "without finishing"),
        (("sh", "-c", "echo hello; sleep 60"), {}, "not JSON"),
        (("sh",), {"isolation": "unsafe-none"}, "isolates nothing"),
    ],
)
async def test_a_harness_that_does_not_work_fails_its_session(
    door: Door, command: tuple[str, ...], more: dict[str, Any], words: str
) -> None:
    """The end of the session says why."""
    manifests = driven_by(*command, **more)
    if more:
        manifests[-1]["spec"] = more
    await door.apply(*manifests)
    ended = await door.until(await door.run())
    assert (ended["state"], ended["error"]["code"]) == ("failed", "harness")
    assert words in ended["error"]["message"]


async def test_what_is_named_has_to_be_there(door: Door) -> None:
    """A harness in a sandbox that nobody declares is no declaration, and taking that sandbox away is refused as well."""
    manifests = driven_by("sh", "/opt/loop.sh")
    with pytest.raises(AgentOSError, match="brain"):
        await door.apply(*manifests[:-1])


async def test_a_place_is_left_with_its_harness(tmp_path: Path) -> None:
    """Stopped, nothing of it is left, also when it would not go."""
    from agentos.sandbox.adapters.chooser import HostSandboxes

    spawner = harness_place.PlacedSpawner(HostSandboxes(tmp_path))
    process = await spawner.start("default/s-1", ("sh", "-c", "echo ready; trap '' TERM; while :; do sleep 1; done"), None)
    assert isinstance(process, ProcessHarness)
    assert await process.read_frame() == b"ready"
    assert (await process.stop()).code not in {0, None}
