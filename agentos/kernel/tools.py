"""What the gate and the model are told of tools."""

from __future__ import annotations

import difflib

from agentos.abi.canonical import Json, digest_of
from agentos.abi.errors import Conflict
from agentos.abi.syscall import Syscall, ToolEffect
from agentos.drivers.port import ToolSpec
from agentos.kernel.port import Configuration
from agentos.projections.session import SessionState


def repeatable(tool: ToolSpec) -> bool:
    return tool.idempotent or tool.effect is ToolEffect.READ


def commutes(tool: ToolSpec | None) -> bool:
    """Whether a call of it may act beside others of its turn: it says so, and does nothing but read."""
    return tool is not None and tool.commutes and tool.effect is ToolEffect.READ


def offer(tool: ToolSpec) -> dict[str, Json]:
    """A tool as the model is told of it."""
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}


def digest_of_offer(tool: ToolSpec) -> str:
    """`sha256:…` of what a client outside is told of a tool: whoever has read one description calls no other tool by it."""
    told = offer(tool)
    return digest_of(told if tool.output_schema is None else {**told, "output_schema": dict(tool.output_schema)})


def offered(state: SessionState, configuration: Configuration) -> list[ToolSpec]:
    """The tools that a client which drives the session is told of: those of its agent, in the agent's order."""
    agent = configuration.agents.get(state.agent)
    return [configuration.tools[name] for name in (agent.tools if agent is not None else ()) if name in configuration.tools]


def callable_tool(state: SessionState, configuration: Configuration, name: str) -> ToolSpec | None:
    """The tool that a call of the session names; None for what is none of its own to a client outside."""
    tool = configuration.tools.get(name)
    return tool if state.served is None or tool in offered(state, configuration) else None


def require_unchanged(state: SessionState, configuration: Configuration, syscall: Syscall, seen: Json) -> None:
    """Raise Conflict where a client outside calls a tool by an offer (`seen`, its digest) that is not today's.

    A call that is in the log already is decided anew under what is in force, whatever was seen.
    """
    if seen is None or state.served is None or syscall.call in state.calls:
        return
    tool = callable_tool(state, configuration, syscall.tool)
    if tool is not None and seen != digest_of_offer(tool):
        raise Conflict(f"tool {tool.name} has changed since it was listed", mend="list the tools again")


def unknown_tool(state: SessionState, name: str, configuration: Configuration) -> str:
    """Why there is no such tool. A client outside is told nothing of those that are not its own."""
    if state.served is not None:
        return f"no tool of this session is called {name[:128]!r}"
    near = difflib.get_close_matches(name[:128], configuration.tools, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no tool is called {name[:128]!r}{hint}"
