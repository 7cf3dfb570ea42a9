"""What the gate and the model are told of tools."""

from __future__ import annotations

import difflib

from agentos.abi.canonical import Json
from agentos.abi.syscall import ToolEffect
from agentos.drivers.port import ToolSpec
from agentos.kernel.port import Configuration


def repeatable(tool: ToolSpec) -> bool:
    return tool.idempotent or tool.effect is ToolEffect.READ


def commutes(tool: ToolSpec | None) -> bool:
    """Whether a call of it may act beside others of its turn: it says so, and does nothing but read."""
    return tool is not None and tool.commutes and tool.effect is ToolEffect.READ


def offer(tool: ToolSpec) -> dict[str, Json]:
    """A tool as the model is told of it."""
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}


def unknown_tool(name: str, configuration: Configuration) -> str:
    near = difflib.get_close_matches(name[:128], configuration.tools, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no tool is called {name[:128]!r}{hint}"
