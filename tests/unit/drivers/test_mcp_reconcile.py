"""What an MCP server tells of a lost call is taken strictly: an outcome that there is, with a reason, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp_types import CallToolResult, TextContent

from agentos.abi.errors import DriverError
from agentos.abi.syscall import ToolEffect
from agentos.drivers.adapters.mcp import McpDriver
from agentos.drivers.adapters.mcp_offer import Wanted
from agentos.drivers.adapters.mcp_server import Call, ServerLost, ToolRefused
from agentos.drivers.port import CallContext, Found, Outcome, ToolSpec
from agentos.sandbox.port import Launch, Place
from agentos.sandbox.profile import Profile


class Server:
    """A server that answers `told`, or fails so, and remembers what it was asked."""

    report: Mapping[str, Any] = {}

    def __init__(self, told: Any) -> None:
        self.told = told
        self.asked: list[tuple[Call, float]] = []

    async def call(self, call: Call, timeout_s: float) -> CallToolResult:
        self.asked.append((call, timeout_s))
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def answer(text: str = "", data: Any = None, *, error: bool = False) -> CallToolResult:
    content = [TextContent(type="text", text=text)] if text else []
    return CallToolResult(content=content, structured_content=data, is_error=error)


class Elsewhere:
    """Sandboxes in which nothing is started, and whose processes would see the workspace at another path."""

    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]:
        raise AssertionError(launch.command)

    def workspace(self, profile: Profile, workspace: Path) -> str:
        return "/seen"


MCP = {"server": {"command": ["books"]}, "tool": "pay", "workspaceArgs": ["receipt"], "reconcile": "what-came-of"}
TOOL = ToolSpec("pay", "Pay.", ToolEffect.EXTERNAL, False, {"type": "object"}, {"mcp": MCP}, timeout_ms=5000)
ARGS = {"amount": 7, "receipt": "r.txt"}


async def ask(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Found | None:
    driver = McpDriver(Elsewhere())
    monkeypatch.setattr(driver, "_server", lambda tool, _context: server if tool is TOOL else None)
    return await driver.reconcile(TOOL, ARGS, CallContext("default", "s-1", "call-2-1", folder))


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (
            answer(data={"outcome": "finished", "reason": "booked", "result": "paid 7"}),
            Found(Outcome.FINISHED, "booked", "paid 7"),
        ),
        (answer('{"outcome": "finished", "reason": "booked"}'), Found(Outcome.FINISHED, "booked", "")),
        (
            answer(data={"outcome": "finished", "reason": "b", "result": {"z": 1, "a": [True]}}),
            Found(Outcome.FINISHED, "b", '{"a":[true],"z":1}'),
        ),
        (answer(data={"outcome": "failed", "reason": "no funds", "result": "x"}), Found(Outcome.FAILED, "no funds", "")),
        (answer('{"outcome": "not-run", "reason": "never seen"}'), Found(Outcome.NOT_RUN, "never seen", "")),
        (answer('{"outcome": "unknown", "reason": "no books"}'), None),
    ],
    ids=["data", "text", "a structured result", "failed has no result", "not run", "unknown"],
)
async def test_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any, found: Found | None) -> None:
    """It is asked by the key and the arguments that went out, under a key of its own; its answer is read as it stands."""
    server = Server(told)
    assert await ask(server, tmp_path, monkeypatch) == found
    sent = {"call": "s-1/call-2-1", "args": {"amount": 7, "receipt": "/seen/r.txt"}}
    assert server.asked == [(Call(Wanted("what-came-of"), sent, "s-1/call-2-1/reconcile"), 5.0)]


@pytest.mark.parametrize(
    "told",
    [
        answer("it went well"),
        answer(),
        answer('{"outcome": "finished", "reason": "b", "outcome": "failed"}'),
        answer(data=["finished"]),
        answer(data={"outcome": "finished"}),
        answer(data={"reason": "b"}),
        answer(data={"outcome": True, "reason": "b"}),
        answer(data={"outcome": "finished", "reason": None}),
        answer(data={"outcome": "Finished", "reason": "b"}),
        answer(data={"outcome": "finished", "reason": "b"}, error=True),
        answer('{"outcome": "finished", "reason": "b"', data=None),
        TimeoutError(),
        ServerLost("it died"),
        ToolRefused("no such tool"),
    ],
    ids=[
        "words",
        "nothing",
        "two outcomes",
        "a list",
        "no reason",
        "no outcome",
        "an outcome that is no text",
        "a reason that is none",
        "an outcome that there is not",
        "an error",
        "half",
        "no answer",
        "a server that dies",
        "a tool that there is not",
    ],
)
async def test_what_is_no_answer_settles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    """The outcome stays unknown: it cannot be asked, which is an error of the driver and of nothing else."""
    with pytest.raises(DriverError):
        await ask(Server(told), tmp_path, monkeypatch)
