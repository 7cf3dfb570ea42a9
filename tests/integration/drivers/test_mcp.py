"""The MCP driver with real servers: one that we did not write, one that misbehaves, one of an older protocol."""

from __future__ import annotations

import asyncio
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
from agentos.drivers.adapters import mcp, mcp_process
from agentos.drivers.adapters.mcp import McpDriver
from agentos.drivers.port import CallContext, ToolSpec

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


@pytest.fixture
async def driver() -> AsyncIterator[McpDriver]:
    made = McpDriver()
    yield made
    await made.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def context(workspace: Path, session: str = "s-1") -> CallContext:
    return CallContext(tenant="default", session=session, call="call-1-1", workspace=workspace)


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
    """A tool of one of the servers beside this file; the odd one notes its calls in `log` beside the workspace."""
    command = [sys.executable, str(HERE / server), str(workspace.parent / "log")]
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
    log = workspace.parent / "log"
    return log.read_text().splitlines() if log.exists() else []


def runs(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_real_server(driver: McpDriver, workspace: Path) -> None:
    """A server from the package index, found beside Python, answers in text and in data, and stays warm for the next call."""
    first = await driver.call(time_tool(), MADRID_TO_TOKYO, context(workspace))
    assert json.loads(first.content)["time_difference"] in ("+7.0h", "+8.0h")
    assert first.data["target"]["timezone"] == "Asia/Tokyo"
    assert not first.is_error
    failed = await driver.call(time_tool(), {**MADRID_TO_TOKYO, "time": "99:99"}, context(workspace))
    assert failed.is_error
    assert "Invalid time" in failed.content
    assert len(driver._servers) == 1
    canonical(first.to_dict())


async def test_another_real_server(driver: McpDriver, workspace: Path) -> None:
    """The fetch server starts in the scrubbed environment and offers its tool; another schema is refused, unsent."""
    tool = replace(time_tool(command=["mcp-server-fetch"], tool="fetch"), effect=ToolEffect.EXTERNAL)
    with pytest.raises(DriverError, match="the schema of 'fetch' is not the declared one"):
        await driver.call(tool, {"url": "http://127.0.0.1:9/"}, context(workspace))


async def test_a_changed_schema_is_noticed(driver: McpDriver, workspace: Path) -> None:
    """A tool whose schema is not the declared one is not called; the error has both digests and says what to do."""
    with pytest.raises(DriverError) as caught:
        await driver.call(time_tool(schema={**CONVERT_TIME, "title": "other"}), MADRID_TO_TOKYO, context(workspace))
    assert caught.value.message.count("sha256:") == 2
    assert caught.value.mend == "the tool's schema has changed since it was declared: review it and update inputSchema"
    with pytest.raises(DriverError, match="has no tool 'convert'") as caught:
        await driver.call(time_tool(tool="convert"), MADRID_TO_TOKYO, context(workspace))
    assert caught.value.mend == "it offers: convert_time, get_current_time; update `tool` of the declaration"
    assert not isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program-anywhere"], "no program 'no-such-program-anywhere'"),
        (["./run.sh"], "is a relative path"),
        (["/no/such/program"], "cannot be started"),
        (["/etc/passwd"], "cannot be started"),
        ([sys.executable, "-c", "import sys; sys.exit('I give up')"], "does not speak the protocol; its last words: I give up"),
        ([sys.executable, "-c", "print('hello')"], "does not speak the protocol"),
    ],
)
async def test_a_server_that_does_not_start(driver: McpDriver, workspace: Path, command: list[str], words: str) -> None:
    """What cannot be started, or is no server, surely did nothing, and the error says what it said."""
    with pytest.raises(DriverError) as caught:
        await driver.call(time_tool(command=command), MADRID_TO_TOKYO, context(workspace))
    assert words in caught.value.message
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_a_program_in_the_workspace_is_not_run(workspace: Path) -> None:
    """Relative entries of PATH do not count: the agent could have written what they lead to."""
    (workspace / "mine").write_text("#!/bin/sh\ntouch ran\n")
    (workspace / "mine").chmod(0o755)
    driver = McpDriver({"PATH": ":.:"})
    with pytest.raises(DriverError, match="no program 'mine'"):
        await driver.call(time_tool(command=["mine"]), {}, context(workspace))
    assert not (workspace / "ran").exists()


async def test_the_environment_is_scrubbed(driver: McpDriver, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server sees five variables at most and what its declaration adds; its folder is the workspace."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    result = await driver.call(odd("environment", workspace, env={"MAIL_BOX": "in"}), {}, context(workspace))
    seen = json.loads(result.content)
    assert seen["cwd"] == str(workspace)
    assert set(seen["env"]) - {"LC_CTYPE"} == {"PATH", "HOME", "LANG", "TZ", "MAIL_BOX"}
    assert seen["env"]["HOME"] == str(workspace)
    assert seen["env"]["TZ"] == mcp.DEFAULT_TIMEZONE
    assert "canary" not in result.content


async def test_a_crash_in_the_middle_of_a_call(driver: McpDriver, workspace: Path) -> None:
    """A server that dies in a call leaves the outcome unknown, unless its tool only reads; the next call starts a new one."""
    with pytest.raises(OutcomeUnknown, match=r"ended in the middle of the call; its last words: .*the disk is on fire"):
        await driver.call(odd("crash", workspace), {}, context(workspace))
    with pytest.raises(DriverError) as caught:
        await driver.call(odd("crash", workspace, effect=ToolEffect.READ), {}, context(workspace))
    assert not isinstance(caught.value, OutcomeUnknown)
    result = await driver.call(odd("echo", workspace, ECHO), {"text": "again"}, context(workspace))
    assert result.content == "again"
    assert len({line.split()[1] for line in log_of(workspace)}) == 3


async def test_killed_from_outside(driver: McpDriver, workspace: Path) -> None:
    """A server that somebody kills in a call leaves the outcome unknown."""
    call = asyncio.create_task(driver.call(odd("hang", workspace), {}, context(workspace)))
    await until(lambda: bool(log_of(workspace)))
    os.kill(int(log_of(workspace)[0].split()[1]), 9)
    with pytest.raises(OutcomeUnknown, match="ended in the middle of the call"):
        await call


async def test_a_hanging_call(driver: McpDriver, workspace: Path) -> None:
    """At the deadline the caller is answered, and the server with all it started is killed."""
    await driver.call(odd("echo", workspace, ECHO), {"text": "warm"}, context(workspace))
    with pytest.raises(OutcomeUnknown, match="did not answer within 1500 ms"):
        await driver.call(odd("hang_with_child", workspace, timeout_ms=1500), {}, context(workspace))
    server = int(log_of(workspace)[-1].split()[1])
    child = int((workspace.parent / "log.child").read_text())
    await until(lambda: not runs(server) and not runs(child))
    with pytest.raises(DriverError) as caught:
        await driver.call(odd("hang", workspace, effect=ToolEffect.READ, timeout_ms=3000), {}, context(workspace))
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_a_server_that_is_slow_to_start(driver: McpDriver, workspace: Path) -> None:
    """A server that does not come up within the deadline surely did not act, and is killed."""
    server = {"command": ["sh", "-c", "echo $$ > pid; exec sleep 600"]}
    tool = replace(odd("hang", workspace, timeout_ms=1000), driver={"mcp": {"server": server, "tool": "hang"}})
    with pytest.raises(DriverError, match="did not start within 1 s") as caught:
        await driver.call(tool, {}, context(workspace))
    assert not isinstance(caught.value, OutcomeUnknown)
    await driver.close()
    assert not runs(int((workspace / "pid").read_text()))


async def test_cancelling_stops_the_work(driver: McpDriver, workspace: Path) -> None:
    """A cancelled call ends at once, and its server is gone; the session can go on with a new one."""
    call = asyncio.create_task(driver.call(odd("hang", workspace), {}, context(workspace)))
    await until(lambda: bool(log_of(workspace)))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    pid = int(log_of(workspace)[0].split()[1])
    await until(lambda: not runs(pid))
    assert (await driver.call(odd("echo", workspace, ECHO), {"text": "on"}, context(workspace))).content == "on"


async def test_calls_from_many_tasks(driver: McpDriver, workspace: Path) -> None:
    """Calls of one session from many tasks share one server, each with its own answer; sessions do not share."""
    tool = odd("echo", workspace, ECHO)
    texts = [f"text {number}" for number in range(20)]
    results = await asyncio.gather(*(driver.call(tool, {"text": text}, context(workspace)) for text in texts))
    assert [result.content for result in results] == texts
    await driver.call(tool, {"text": "other"}, context(workspace, "s-2"))
    assert len({line.split()[1] for line in log_of(workspace)}) == 2


async def test_calls_that_come_at_once_are_made_at_once(driver: McpDriver, workspace: Path) -> None:
    """Two calls of a tool that answers only when both are there: each has its answer, from one server."""
    tool = odd("meet", workspace, ECHO)
    results = await asyncio.gather(*(driver.call(tool, {"text": text}, context(workspace)) for text in ("one", "two")))
    assert [result.content for result in results] == ["one", "two"]
    assert len({line.split()[1] for line in log_of(workspace)}) == 1


async def test_a_server_that_dies_takes_all_its_calls_with_it(driver: McpDriver, workspace: Path) -> None:
    """One call crashes it while another one waits: of neither can anybody tell what came of it; the next has a new server."""
    hang = asyncio.create_task(driver.call(odd("hang", workspace), {}, context(workspace)))
    await until(lambda: bool(log_of(workspace)))
    with pytest.raises(OutcomeUnknown):
        await driver.call(odd("crash", workspace), {}, context(workspace))
    with pytest.raises(OutcomeUnknown):
        await hang
    assert (await driver.call(odd("echo", workspace, ECHO), {"text": "on"}, context(workspace))).content == "on"


async def test_release(driver: McpDriver, workspace: Path) -> None:
    """Releasing a session stops its servers and no other's, in a call or not; a release of nothing is nothing."""
    tool = odd("echo", workspace, ECHO)
    for session in ("s-1", "s-2"):
        await driver.call(tool, {"text": session}, context(workspace, session))
    one, two = (int(line.split()[1]) for line in log_of(workspace))
    await driver.release("s-1")
    assert not runs(one)
    assert runs(two)
    call = asyncio.create_task(driver.call(odd("hang", workspace), {}, context(workspace, "s-2")))
    await until(lambda: len(log_of(workspace)) == 3)
    await driver.release("s-2")
    with pytest.raises(OutcomeUnknown):
        await call
    assert not runs(two)
    await driver.release("s-3")


async def test_a_failure_of_the_tool(driver: McpDriver, workspace: Path) -> None:
    """What the tool reports is a result that says so; a call that the server does not take likewise."""
    failed = await driver.call(odd("fail", workspace), {}, context(workspace))
    assert failed.is_error
    assert "no such mailbox" in failed.content


async def test_asking_back_is_refused(driver: McpDriver, workspace: Path) -> None:
    """Sampling, elicitation and roots are refused, in the new protocol and in the old one."""
    new = await driver.call(odd("ask", workspace), {}, context(workspace))
    assert new.is_error
    assert "the server refused the call" in new.content
    old = await driver.call(odd("ask", workspace, server="old_server.py"), {}, context(workspace))
    assert set(json.loads(old.content)) == {"sampling/createMessage", "elicitation/create", "roots/list"}
    assert "granted" not in old.content


async def test_noise_is_passed_over(driver: McpDriver, workspace: Path) -> None:
    """Lines that are not JSON-RPC do not disturb the call."""
    result = await driver.call(odd("noise", workspace, server="old_server.py"), {}, context(workspace))
    assert result.content == "after the noise"


async def test_an_endless_line(driver: McpDriver, workspace: Path) -> None:
    """A server that sends a message without end is stopped at the bound."""
    with pytest.raises(OutcomeUnknown, match=f"more than {mcp_process.MAX_LINE} bytes"):
        await driver.call(odd("flood", workspace, server="old_server.py"), {}, context(workspace))


async def test_a_large_result_is_cut(driver: McpDriver, workspace: Path) -> None:
    """Text above the bound is cut with size and digest; structured data above it is dropped, and both are told."""
    size = mcp.MAX_RESULT + 1000
    result = await driver.call(odd("large", workspace, LARGE), {"size": size}, context(workspace))
    assert result.data is None
    assert "[its structured data was dropped: " in result.content or result.content.startswith("x")
    assert f"[cut here: the first {mcp.MAX_RESULT} of " in result.content
    assert len(result.content) < mcp.MAX_RESULT + 500


async def test_a_picture_is_described(driver: McpDriver, workspace: Path) -> None:
    """Content that is not text becomes a note with its type, size and digest."""
    result = await driver.call(odd("picture", workspace), {}, context(workspace))
    assert result.content == f"[image, image/png: 9 bytes, {digest(bytes([0x89]) + b'PNG fake')}]"


async def test_workspace_arguments(driver: McpDriver, workspace: Path) -> None:
    """Arguments that name files become absolute paths inside; what leads out is refused before the server hears of it."""
    (workspace / "a.txt").write_text("inside")
    (workspace / "link").symlink_to("/etc")
    tool = odd("show", workspace, SHOW, workspaceArgs=["path", "absent"])
    assert (await driver.call(tool, {"path": "a.txt"}, context(workspace))).content == f"{workspace / 'a.txt'}: inside"
    for path in ("/etc/passwd", "../secret", "link/passwd", 3):
        with pytest.raises(DriverError):
            await driver.call(tool, {"path": path}, context(workspace))
