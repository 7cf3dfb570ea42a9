"""Driving a play of the quickstart over real files: the real file primitives, fixed answers for the MCP tools, no policy."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentos.abi.errors import DriverError
from agentos.abi.syscall import ToolEffect
from agentos.drivers.adapters.builtin import BuiltinDriver
from agentos.drivers.adapters.model_scripted import ScriptedProvider
from agentos.drivers.port import CallContext, ModelRequest, ModelSpec, ToolSpec

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
MOST_TURNS = 60
CONVERTED = '{"source": {"datetime": "2026-11-21T10:30:00+01:00"}, "target": {"datetime": "2026-11-21T09:30:00+00:00"}}'


@dataclass
class Told:
    """What a play did: its turns, its calls as (tool, args), what came of each, and its last words."""

    turns: int = 0
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    outcomes: list[tuple[str, bool]] = field(default_factory=list)
    last: str = ""

    def of(self, tool: str) -> list[dict[str, Any]]:
        return [args for name, args in self.calls if name == tool]


async def _perform(name: str, workspace: Path) -> Told:
    """Let a play run against `workspace` until it calls nothing. A tool that is not there answers with an error."""
    play = yaml.safe_load((QUICKSTART / "plays" / f"{name}.yaml").read_text(encoding="utf-8"))
    model, provider, driver, told = ModelSpec(name, "scripted", {"play": play}), ScriptedProvider(), BuiltinDriver(), Told()
    tools = [{"name": tool} for tool in ("list", "read", "search", "write", "convert-time", "fetch")]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "triage the inbox"}]

    async def act(tool: str, args: dict[str, Any]) -> tuple[str, bool]:
        if tool == "convert-time":
            return CONVERTED, False
        if tool not in {"list", "read", "search", "write"}:
            return "denied by policy (grants.none): no grant", True
        effect = ToolEffect.WRITE if tool == "write" else ToolEffect.READ
        try:
            result = await driver.call(
                ToolSpec(tool, tool, effect, False, {}, {"builtin": {"primitive": tool}}),
                args,
                CallContext("default", "s", "c", workspace),
            )
        except DriverError as error:
            return f"failed: {error.message}", True
        return result.content, result.is_error

    while told.turns < MOST_TURNS:
        told.turns += 1
        reply = await provider.complete(model, ModelRequest("", messages, tools))
        messages.append({"role": "assistant", "content": reply.content})
        told.last = "\n".join(str(block["text"]) for block in reply.content if block["type"] == "text")
        uses = [block for block in reply.content if block["type"] == "tool_use"]
        if not uses:
            return told
        answers = []
        for use in uses:
            content, is_error = await act(use["name"], use["input"])
            told.calls.append((use["name"], use["input"]))
            told.outcomes.append((content, is_error))
            answers.append({"type": "tool_result", "tool_use_id": use["id"], "content": content, "is_error": is_error})
        messages.append({"role": "user", "content": answers})
    raise AssertionError(f"the play {name} has not ended after {MOST_TURNS} turns")


@pytest.fixture
def perform() -> Callable[[str, Path], Awaitable[Told]]:
    """`await perform("triage", workspace)` runs that play to its end, and tells what it did."""
    return _perform


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "input").mkdir()
    return tmp_path


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    shutil.copytree(QUICKSTART / "inbox", tmp_path / "input")
    return tmp_path
