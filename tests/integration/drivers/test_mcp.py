"""The MCP driver with real servers: one that we did not write, one that misbehaves, one of an older protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.canonical import Json, canonical, digest
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import ToolEffect
from agentos.drivers.adapters import mcp
from agentos.drivers.adapters.mcp import McpDriver
from agentos.drivers.adapters.mcp_link import MAX_MESSAGE
from agentos.drivers.port import CallContext, ToolSpec
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.profile import Isolation, Mount, standard

HERE = Path(__file__).parent
NOTHING: dict[str, Json] = {"type": "object", "properties": {}}
CONVERT_TIME: dict[str, Json] = {
    "type": "object",
    "properties": {
        "source_timezone": {
            "description": "Source IANA timezone name (e.g., 'America/New_York', 'Europe/London'). "
            "Use 'Etc/UTC' as local timezone if no source timezone provided by the user.",
            "title": "Source Timezone",
            "type": "string",
        },
        "time": {"description": "Time to convert in 24-hour format (HH:MM)", "title": "Time", "type": "string"},
        "target_timezone": {
            "description": "Target IANA timezone name (e.g., 'Asia/Tokyo', 'America/San_Francisco'). "
            "Use 'Etc/UTC' as local timezone if no target timezone provided by the user.",
            "title": "Target Timezone",
            "type": "string",
        },
    },
    "required": ["source_timezone", "time", "target_timezone"],
    "title": "convert_timeArguments",
}
MADRID_TO_TOKYO = {"source_timezone": "Europe/Madrid", "time": "10:30", "target_timezone": "Asia/Tokyo"}


@pytest.fixture(params=[Isolation.UNSAFE_NONE, Isolation.BUBBLEWRAP], ids=str)
def isolation(request: pytest.FixtureRequest) -> Isolation:
    found: Isolation = request.param
    return found


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[McpDriver]:
    made = McpDriver(HostSandboxes(tmp_path / "home"))
    yield made
    await made.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for name in ("workspace", "seen"):
        (tmp_path / name).mkdir()
    # Whoever the sandbox makes of the server writes here.
    (tmp_path / "seen").chmod(0o777)
    return tmp_path / "workspace"


@pytest.fixture
def where(workspace: Path, isolation: Isolation) -> CallContext:
    """The call, in a place where the servers beside this file are, and a folder for them to write in."""
    log = str(seen(workspace))
    mounts = (Mount(str(HERE), str(HERE)), Mount(log, log, write=True)) if isolation is Isolation.BUBBLEWRAP else ()
    profile = replace(standard(), isolation=isolation, mounts=mounts)
    return CallContext("default", "s-1", "call-1-1", workspace, profile)


def seen(workspace: Path) -> Path:
    return workspace.parent / "seen"


def time_tool(**changes: Json) -> ToolSpec:
    return ToolSpec(
        name="convert-time",
        description="",
        effect=ToolEffect.READ,
        idempotent=True,
        input_schema=changes.get("schema", CONVERT_TIME),
        driver={
            "mcp": {
                "server": {"command": changes.get("command", ["mcp-server-time"])},
                "tool": changes.get("tool", "convert_time"),
            }
        },
    )


def odd(
    tool: str,
    workspace: Path,
    schema: dict[str, Json] | None = None,
    *,
    effect: ToolEffect = ToolEffect.EXTERNAL,
    timeout_ms: int = 30_000,
    server: str = "odd_server.py",
    **more: Json,
) -> ToolSpec:
    """A tool of one of the servers beside this file; the odd one notes its calls in a folder beside the workspace."""
    command = [sys.executable, str(HERE / server), str(seen(workspace) / "log")]
    offered = {"type": "object", "properties": {}, "title": f"{tool}Arguments"} if server == "odd_server.py" else NOTHING
    return ToolSpec(
        name=tool.replace("_", "-"),
        description="",
        effect=effect,
        idempotent=False,
        input_schema={**offered, **(schema or {})},
        driver={"mcp": {"server": {"command": command, "env": more.pop("env", {})}, "tool": tool, **more}},
        timeout_ms=timeout_ms,
    )


ECHO = {"properties": {"text": {"title": "Text", "type": "string"}}, "required": ["text"]}
LARGE = {"properties": {"size": {"title": "Size", "type": "integer"}}, "required": ["size"]}
SHOW = {"properties": {"path": {"title": "Path", "type": "string"}}, "required": ["path"]}


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process does; the test's own time-out is the bound."""
    while not holds():
        await asyncio.sleep(0.01)


def log_of(workspace: Path) -> list[str]:
    log = seen(workspace) / "log"
    return log.read_text().splitlines() if log.exists() else []


def servers(workspace: Path) -> set[str]:
    """The marks of the servers that were called."""
    return {line.split()[1] for line in log_of(workspace)}


def processes(workspace: Path) -> list[int]:
    """All processes of this host that the servers of the test are, or have started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(seen(workspace)).encode() in words:
                found.append(int(entry.name))
    return found


async def test_a_real_server(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """A server from the package index, found beside Python, answers in text and in data, and stays warm for the next call."""
    first = await driver.call(time_tool(), MADRID_TO_TOKYO, where)
    assert json.loads(first.content)["time_difference"] in ("+7.0h", "+8.0h")
    assert first.data["target"]["timezone"] == "Asia/Tokyo"
    assert not first.is_error
    failed = await driver.call(time_tool(), {**MADRID_TO_TOKYO, "time": "99:99"}, where)
    assert failed.is_error
    assert "Invalid time" in failed.content
    assert len(driver._servers) == 1
    canonical(first.to_dict())


async def test_another_real_server(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """The fetch server starts in the scrubbed environment and offers its tool; another schema is refused, unsent."""
    tool = replace(time_tool(command=["mcp-server-fetch"], tool="fetch"), effect=ToolEffect.EXTERNAL)
    with pytest.raises(DriverError, match="the schema of 'fetch' is not the declared one"):
        await driver.call(tool, {"url": "http://127.0.0.1:9/"}, where)


async def test_a_changed_schema_is_noticed(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """A tool whose schema is not the declared one is not called; the error has both digests and says what to do."""
    with pytest.raises(DriverError) as caught:
        await driver.call(time_tool(schema={**CONVERT_TIME, "title": "other"}), MADRID_TO_TOKYO, where)
    assert caught.value.message.count("sha256:") == 2
    assert caught.value.mend == "the tool's schema has changed since it was declared: review it and update inputSchema"
    with pytest.raises(DriverError, match="has no tool 'convert'") as caught:
        await driver.call(time_tool(tool="convert"), MADRID_TO_TOKYO, where)
    assert caught.value.mend == "it offers: convert_time, get_current_time; update `tool` of the declaration"
    assert not isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program-anywhere"], "no program 'no-such-program-anywhere'"),
        (["./run.sh"], "is a relative path"),
        (["/no/such/program"], "cannot be started|no program"),
        (["/etc/passwd"], "cannot be started|no program"),
        ([sys.executable, "-c", "import sys; sys.exit('I give up')"], "does not speak the protocol; its last words: I give up"),
        ([sys.executable, "-c", "print('hello')"], "does not speak the protocol"),
    ],
)
async def test_a_server_that_does_not_start(driver: McpDriver, where: CallContext, command: list[str], words: str) -> None:
    """What cannot be started, or is no server, surely did nothing, and the error says what it said."""
    with pytest.raises(DriverError, match=words) as caught:
        await driver.call(time_tool(command=command), MADRID_TO_TOKYO, where)
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_a_program_in_the_workspace_is_not_run(tmp_path: Path, workspace: Path, where: CallContext) -> None:
    """Relative entries of PATH do not count: the agent could have written what they lead to."""
    (workspace / "mine").write_text("#!/bin/sh\ntouch ran\n")
    (workspace / "mine").chmod(0o755)
    driver = McpDriver(HostSandboxes(tmp_path / "home"), environ={"PATH": ":.:"})
    with pytest.raises(DriverError, match="no program 'mine'"):
        await driver.call(time_tool(command=["mine"]), {}, where)
    assert not (workspace / "ran").exists()


async def test_the_environment_is_scrubbed(
    driver: McpDriver, tmp_path: Path, workspace: Path, where: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server sees where it is and who it is, and what its declaration adds; its folder is the workspace."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    result = await driver.call(odd("environment", workspace, env={"MAIL_BOX": "in"}), {}, where)
    told = json.loads(result.content)
    there = HostSandboxes(tmp_path / "home").workspace(where.profile, workspace)
    assert told["cwd"] == there
    assert set(told["env"]) - {"LC_CTYPE", "PWD", "USER", "LOGNAME"} == {"PATH", "HOME", "LANG", "TZ", "MAIL_BOX"}
    assert told["env"]["HOME"] == there
    assert told["env"]["TZ"] == mcp.DEFAULT_TIMEZONE
    assert "canary" not in result.content


async def test_a_crash_in_the_middle_of_a_call(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """A server that dies in a call leaves the outcome unknown, unless its tool only reads; the next call starts a new one."""
    with pytest.raises(OutcomeUnknown, match=r"ended in the middle of the call; its last words: .*the disk is on fire"):
        await driver.call(odd("crash", workspace), {}, where)
    with pytest.raises(DriverError) as caught:
        await driver.call(odd("crash", workspace, effect=ToolEffect.READ), {}, where)
    assert not isinstance(caught.value, OutcomeUnknown)
    result = await driver.call(odd("echo", workspace, ECHO), {"text": "again"}, where)
    assert result.content == "again"
    assert len(servers(workspace)) == 3


async def test_killed_from_outside(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """A server that somebody kills in a call leaves the outcome unknown."""
    call = asyncio.create_task(driver.call(odd("hang", workspace), {}, where))
    await until(lambda: bool(log_of(workspace)))
    for pid in processes(workspace):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    with pytest.raises(OutcomeUnknown, match="ended in the middle of the call"):
        await call


async def test_a_hanging_call(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """At the deadline the caller is answered, and the server with all it started is killed."""
    await driver.call(odd("echo", workspace, ECHO), {"text": "warm"}, where)
    with pytest.raises(OutcomeUnknown, match="did not answer within 1500 ms"):
        await driver.call(odd("hang_with_child", workspace, timeout_ms=1500), {}, where)
    await until(lambda: not processes(workspace))
    with pytest.raises(DriverError) as caught:
        await driver.call(odd("hang", workspace, effect=ToolEffect.READ, timeout_ms=3000), {}, where)
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_a_server_that_is_slow_to_start(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """A server that does not come up within the deadline surely did not act, and is killed."""
    command: list[Json] = [sys.executable, "-c", "import time; time.sleep(600)", str(seen(workspace))]
    server: dict[str, Json] = {"command": command}
    tool = replace(odd("hang", workspace, timeout_ms=1000), driver={"mcp": {"server": server, "tool": "hang"}})
    with pytest.raises(DriverError, match="did not start within 1 s") as caught:
        await driver.call(tool, {}, where)
    assert not isinstance(caught.value, OutcomeUnknown)
    await driver.close()
    assert not processes(workspace)


async def test_cancelling_stops_the_work(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """A cancelled call ends at once, and its server is gone; the session can go on with a new one."""
    call = asyncio.create_task(driver.call(odd("hang", workspace), {}, where))
    await until(lambda: bool(log_of(workspace)))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not processes(workspace))
    assert (await driver.call(odd("echo", workspace, ECHO), {"text": "on"}, where)).content == "on"


async def test_calls_from_many_tasks(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """Calls of one session from many tasks share one server, each with its own answer; sessions do not share."""
    tool = odd("echo", workspace, ECHO)
    texts = [f"text {number}" for number in range(20)]
    results = await asyncio.gather(*(driver.call(tool, {"text": text}, where) for text in texts))
    assert [result.content for result in results] == texts
    await driver.call(tool, {"text": "other"}, replace(where, session="s-2"))
    assert len(servers(workspace)) == 2


async def test_calls_that_come_at_once_are_made_at_once(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """Two calls of a tool that answers only when both are there: each has its answer, from one server."""
    tool = odd("meet", workspace, ECHO)
    results = await asyncio.gather(*(driver.call(tool, {"text": text}, where) for text in ("one", "two")))
    assert [result.content for result in results] == ["one", "two"]
    assert len(servers(workspace)) == 1


async def test_a_server_that_dies_takes_all_its_calls_with_it(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """One call crashes it while another one waits: of neither can anybody tell what came of it; the next has a new server."""
    hang = asyncio.create_task(driver.call(odd("hang", workspace), {}, where))
    await until(lambda: bool(log_of(workspace)))
    with pytest.raises(OutcomeUnknown):
        await driver.call(odd("crash", workspace), {}, where)
    with pytest.raises(OutcomeUnknown):
        await hang
    assert (await driver.call(odd("echo", workspace, ECHO), {"text": "on"}, where)).content == "on"


async def test_release(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """Releasing a session stops its servers and no other's, in a call or not; a release of nothing is nothing."""
    tool = odd("echo", workspace, ECHO)
    await driver.call(tool, {"text": "one"}, where)
    first = set(processes(workspace))
    await driver.call(tool, {"text": "two"}, replace(where, session="s-2"))
    both = set(processes(workspace))
    assert first < both
    await driver.release("s-1")
    assert set(processes(workspace)) == both - first
    call = asyncio.create_task(driver.call(odd("hang", workspace), {}, replace(where, session="s-2")))
    await until(lambda: len(log_of(workspace)) == 3)
    await driver.release("s-2")
    with pytest.raises(OutcomeUnknown):
        await call
    assert not processes(workspace)
    await driver.release("s-3")


async def test_a_failure_of_the_tool(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """What the tool reports is a result that says so; a call that the server does not take likewise."""
    failed = await driver.call(odd("fail", workspace), {}, where)
    assert failed.is_error
    assert "no such mailbox" in failed.content


async def test_asking_back_is_refused(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """Sampling, elicitation and roots are refused, in the new protocol and in the old one."""
    new = await driver.call(odd("ask", workspace), {}, where)
    assert new.is_error
    assert "the server refused the call" in new.content
    old = await driver.call(odd("ask", workspace, server="old_server.py"), {}, where)
    assert set(json.loads(old.content)) == {"sampling/createMessage", "elicitation/create", "roots/list"}
    assert "granted" not in old.content


async def test_noise_is_passed_over(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """Lines that are not JSON-RPC do not disturb the call."""
    result = await driver.call(odd("noise", workspace, server="old_server.py"), {}, where)
    assert result.content == "after the noise"


async def test_an_endless_line(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """A server that sends a message without end is stopped at the bound."""
    with pytest.raises(OutcomeUnknown, match=f"more than {MAX_MESSAGE} bytes"):
        await driver.call(odd("flood", workspace, server="old_server.py"), {}, where)


class Memory:
    """Keeps outputs, and takes one word out of them."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def clean(self, tenant: str, session: str, data: bytes) -> bytes:
        return data.replace(b"canary", b"[masked]")

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        assert (tenant, session) == ("default", "s-1")
        self.kept[digest(data)] = data
        return digest(data)


async def test_a_large_result_is_cut(tmp_path: Path, workspace: Path, where: CallContext) -> None:
    """Text above the bound is cut, structured data above it is dropped; both are told, and both are kept without credentials."""
    outputs = Memory()
    driver = McpDriver(HostSandboxes(tmp_path / "home"), outputs)
    result = await driver.call(odd("large", workspace, LARGE), {"size": 30_000}, where)
    assert (len(result.content), len(result.data["result"])) == (30_000, 30_000)
    assert outputs.kept == {}
    result = await driver.call(replace(odd("large", workspace, LARGE), output_bytes=2048), {"size": 30_000}, where)
    await driver.close()
    assert result.data is None
    assert len(result.content.encode()) <= 2048
    text, cut, dropped = result.content.split("\n")
    assert set(text) == {"x"}
    assert {one.rpartition(" ")[2].rstrip("]") for one in (cut, dropped)} == set(outputs.kept)
    assert [len(one) for one in outputs.kept.values()] == [30_013, 30_000]


async def test_a_picture_is_described(driver: McpDriver, workspace: Path, where: CallContext) -> None:
    """Content that is not text becomes a note with its type, size and digest."""
    result = await driver.call(odd("picture", workspace), {}, where)
    assert result.content == f"[image, image/png: 9 bytes, {digest(bytes([0x89]) + b'PNG fake')}]"


async def test_workspace_arguments(driver: McpDriver, tmp_path: Path, workspace: Path, where: CallContext) -> None:
    """Arguments that name files become absolute paths inside; what leads out is refused before the server hears of it."""
    (workspace / "a.txt").write_text("inside")
    (workspace / "link").symlink_to("/etc")
    top = HostSandboxes(tmp_path / "home").workspace(where.profile, workspace)
    tool = odd("show", workspace, SHOW, workspaceArgs=["path", "absent"])
    assert (await driver.call(tool, {"path": "a.txt"}, where)).content == f"{top}/a.txt: inside"
    for path in ("/etc/passwd", "../secret", "link/passwd", 3):
        with pytest.raises(DriverError):
            await driver.call(tool, {"path": path}, where)
