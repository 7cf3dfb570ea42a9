"""Methods of the ABI that name what is to be done instead of a tool: each is a call of the agent's tool that is bound to it.

    called("lock.acquire", {"call": "step-1", "args": {"resource": "ledger"}}, agent, tools)
    # {"call": "step-1", "tool": "lock_ledger", "args": {"resource": "ledger"}}

They go through the gate as every call does, under the name that the operator gave the tool. Memory is what outlives a session:
the shared spaces of the tenant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict
from agentos.drivers.port import ToolSpec
from agentos.kernel.port import AgentSpec

_PRIMITIVES: Final = {
    "lock.acquire": ("lock", False),
    "lock.release": ("unlock", False),
    "wait": ("wait", False),
    "signal": ("signal", False),
    "memory.list": ("list", True),
    "memory.read": ("read", True),
    "memory.search": ("search", True),
    "memory.write": ("write", True),
}
"""By method: the primitive, and whether it is that of a shared space."""

METHODS: Final = frozenset({"delegate", *_PRIMITIVES})


def called(method: str, params: Mapping[str, Json], agent: AgentSpec | None, tools: Mapping[str, ToolSpec]) -> dict[str, Json]:
    """The parameters of the `tool.call` that a method of METHODS stands for. Raises Conflict unless it stands for exactly one."""
    granted = () if agent is None else agent.tools
    bound = [name for name in granted if name in tools and _does(method, tools[name])]
    wanted = params.get("tool")
    if isinstance(wanted, str):
        bound = [name for name in bound if name == wanted]
    if not bound:
        raise Conflict(f"{method}: the agent has no such tool" if wanted is None else f"{method}: no tool of that name does this")
    if len(bound) > 1:
        raise Conflict(f"{method}: name one of the tools that do this as `tool`: {', '.join(sorted(bound))}")
    return {**params, "tool": bound[0]}


def _does(method: str, tool: ToolSpec) -> bool:
    if method == "delegate":
        return "delegate" in tool.driver
    primitive, shared = _PRIMITIVES[method]
    builtin = tool.driver.get("builtin")
    return isinstance(builtin, dict) and builtin.get("primitive") == primitive and (not shared or "space" in builtin)
