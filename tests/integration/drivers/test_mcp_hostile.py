"""Hostile MCP servers: whatever they do, a call ends by its deadline, with an error that says what is known; nothing is left."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import ToolEffect
from agentos.drivers.adapters.mcp import McpDriver
from agentos.drivers.adapters.mcp_link import MAX_MESSAGE
from agentos.drivers.port import CallContext, ToolSpec
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.profile import Isolation, Mount, Profile, standard

HERE = Path(__file__).parent
DEADLINE_MS = 4000


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


def seen(workspace: Path) -> Path:
    return workspace.parent / "seen"


def sandbox(workspace: Path, isolation: Isolation) -> Profile:
    mounts = (Mount(str(HERE), str(HERE)), Mount(str(seen(workspace)), str(seen(workspace)), write=True))
    return replace(standard(), isolation=isolation, mounts=mounts if isolation is Isolation.BUBBLEWRAP else ())


def context(workspace: Path, isolation: Isolation) -> CallContext:
    return CallContext("default", "s-1", "call-1-1", workspace, sandbox(workspace, isolation))


def tool(workspace: Path, how: str, *, effect: ToolEffect = ToolEffect.EXTERNAL, **more: Json) -> ToolSpec:
    command = [sys.executable, "-u", str(HERE / "hostile_server.py"), str(seen(workspace) / "log"), how]
    schema: dict[str, Json] = {"type": "object", "properties": {}}
    mcp = {"server": {"command": command}, "tool": "go", **more}
    return ToolSpec("go", "", effect, False, schema, {"mcp": mcp}, labels=("untrusted",), timeout_ms=DEADLINE_MS)


def processes(workspace: Path) -> list[str]:
    """The command lines of all processes that the servers of the test are, or have left behind, on this host."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(seen(workspace)).encode() in words:
                found.append(words.decode("utf-8", "replace"))
    return found


async def until_gone(workspace: Path) -> None:
    """Wait until nothing of the servers is there; the test's own time-out is the bound."""
    while processes(workspace):
        await asyncio.sleep(0.01)


BEFORE = [
    ("deaf", "did not start within"),
    ("silent", "did not start within"),
    ("leaves", "does not speak the protocol"),
    ("old_as_time", "does not speak the protocol"),
    ("greets_with_noise", "messages that are no answer"),
    ("list_silent", "did not say within"),
    ("list_endless", "on more than 50 pages"),
    ("list_long", "lists more than 2000 tools"),
    ("list_double", "twice"),
    ("list_nonsense", "did not list its tools"),
    ("list_error", "did not list its tools: not today"),
    ("list_instructions", "has no tool 'go'"),
    ("list_not_plain", "not plain JSON"),
]


@pytest.mark.parametrize(("how", "words"), BEFORE, ids=[how for how, _ in BEFORE])
async def test_before_the_call(driver: McpDriver, workspace: Path, isolation: Isolation, how: str, words: str) -> None:
    """A server that goes wrong before the call was sent has surely not acted: a plain error, and the server is gone."""
    with pytest.raises(DriverError, match=words) as caught:
        await driver.call(tool(workspace, how), {}, context(workspace, isolation))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert not (seen(workspace) / "log").exists()
    if how == "list_instructions":
        assert caught.value.mend == "it offers: none; update `tool` of the declaration"
    await driver.close()
    await until_gone(workspace)


DURING = [
    ("flood_notifications", "messages that are no answer"),
    ("flood_answers", "messages that are no answer"),
    ("flood_noise", "messages that are no answer"),
    ("flood_requests", "asked back more than 100 times"),
    ("flood_line", f"more than {MAX_MESSAGE} bytes"),
    ("flood_stderr", "wrote more than"),
    ("large_frame", f"more than {MAX_MESSAGE} bytes"),
    ("other_id", "did not answer within"),
    ("no_id", "did not answer within"),
    ("batch", "did not answer within"),
    ("no_version", "did not answer within"),
    ("broken_text", "did not answer within"),
    ("deep", "did not answer within"),
    ("half", "did not answer within"),
    ("no_content", "gave an answer that is not valid"),
    ("grandchild", "ended in the middle of the call"),
    ("closes", "ended in the middle of the call|did not answer within"),
]


@pytest.mark.parametrize(("how", "words"), DURING, ids=[how for how, _ in DURING])
async def test_in_the_middle_of_the_call(driver: McpDriver, workspace: Path, isolation: Isolation, how: str, words: str) -> None:
    """A server that goes wrong once it was called may have acted: nobody knows, unless its tool only reads; it is gone."""
    with pytest.raises(OutcomeUnknown, match=words) as caught:
        await driver.call(tool(workspace, how), {}, context(workspace, isolation))
    assert caught.value.acted["sandbox"]["isolation"] == isolation
    with pytest.raises(DriverError, match=words) as caught_too:
        await driver.call(tool(workspace, how, effect=ToolEffect.READ), {}, context(workspace, isolation))
    assert not isinstance(caught_too.value, OutcomeUnknown)
    assert (seen(workspace) / "log").read_text() == "called\n" * 2
    await driver.close()
    if how != "grandchild" or isolation is not Isolation.UNSAFE_NONE:
        await until_gone(workspace)
        return
    for words_of in processes(workspace):  # without a sandbox, what leaves its session behind is out of reach
        assert "time.sleep(600)" in words_of


@pytest.mark.parametrize(
    "how", ["flood_notifications", "flood_requests", "flood_noise", "flood_stderr", "slow_pattern", "deep_data"]
)
async def test_the_loop_goes_on(driver: McpDriver, workspace: Path, isolation: Isolation, how: str) -> None:
    """While a server floods, or answers with what takes for ever to look at, everybody else has their turn."""
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.005)
            turns += 1

    task = asyncio.create_task(beside())
    try:
        await driver.call(tool(workspace, how), {}, context(workspace, isolation))
    except OutcomeUnknown:
        assert how.startswith("flood_")
    finally:
        task.cancel()
    assert turns > 5


@pytest.mark.parametrize("how", ["description_changes", "annotations_change"])
async def test_a_pin_holds(driver: McpDriver, workspace: Path, isolation: Isolation, how: str) -> None:
    """A pinned tool is called while the server offers exactly what was read; the refusal tells the digest to approve."""
    where = context(workspace, isolation)
    with pytest.raises(DriverError, match=r"is not what was approved: pinned sha256:0+, offered sha256:") as caught:
        await driver.call(tool(workspace, how, pin="sha256:" + "0" * 64), {}, where)
    assert not caught.value.retryable
    assert not (seen(workspace) / "log").exists()
    pin = caught.value.message.rpartition(" ")[2]
    assert (await driver.call(tool(workspace, how, pin=pin), {}, where)).content == f"went, {how}"
    with pytest.raises(DriverError, match=f"pinned {pin}, offered sha256:"):
        await driver.call(tool(workspace, how, pin=pin), {}, where)
    assert (seen(workspace) / "log").read_text() == "called\n"


async def test_a_schema_that_changes_between_calls(driver: McpDriver, workspace: Path, isolation: Isolation) -> None:
    """The schema is compared before each call, told of a change or not."""
    where = context(workspace, isolation)
    assert (await driver.call(tool(workspace, "schema_changes"), {}, where)).content == "went, schema_changes"
    with pytest.raises(DriverError, match="the schema of 'go' is not the declared one"):
        await driver.call(tool(workspace, "schema_changes"), {}, where)
    for _ in range(2):
        assert (await driver.call(tool(workspace, "changing"), {}, where)).content == "went, changing"


async def test_two_answers(driver: McpDriver, workspace: Path, isolation: Isolation) -> None:
    """The first answer counts; the second one answers nothing, the next call neither."""
    where = context(workspace, isolation)
    for _ in range(2):
        assert (await driver.call(tool(workspace, "twice"), {}, where)).content == "first"


async def test_what_cannot_be_looked_at_is_dropped(driver: McpDriver, workspace: Path, isolation: Isolation) -> None:
    """A pattern of the server that never ends is not run, since its outputSchema is not believed."""
    result = await driver.call(tool(workspace, "slow_pattern"), {}, context(workspace, isolation))
    assert result.content == "matched?"
    assert result.data == {"x": "a" * 40 + "!"}


async def test_nothing_of_what_it_says_is_logged(
    driver: McpDriver, workspace: Path, isolation: Isolation, caplog: pytest.LogCaptureFixture
) -> None:
    """What a server writes reaches the log of the runtime at no level, its standard error and its nonsense among it."""
    caplog.set_level(logging.DEBUG)
    where = context(workspace, isolation)
    hows: Sequence[str] = ("tells", "no_content", "broken_text", "list_nonsense")
    for how in hows:
        declared = tool(workspace, how)
        declared.driver["mcp"]["server"]["env"] = {"KEY": "canary-77d1"}
        with pytest.raises(DriverError) as caught:
            await driver.call(replace(declared, timeout_ms=2000), {}, where)
        assert ("canary-77d1" in caught.value.message) == (how == "tells")
    for word in ("canary-77d1", "the key is", "words", "none of your business"):
        assert word not in caplog.text
