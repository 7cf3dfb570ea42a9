"""Methods that name what is to be done stand for one tool of the agent, or are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from kernel_in_memory import Kernel
from test_hostile_harness import run

from agentos.abi.errors import Conflict
from agentos.abi.syscall import ToolEffect
from agentos.drivers.port import ToolSpec
from agentos.kernel.methods import METHODS, called
from agentos.kernel.port import AgentSpec

ARGS = {"call": "step-1", "args": {"resource": "ledger"}}


def tool(name: str, **driver: Any) -> ToolSpec:
    return ToolSpec(name, name, ToolEffect.WRITE, False, {}, driver)


TOOLS = {
    one.name: one
    for one in (
        tool("lend", builtin={"primitive": "lock"}),
        tool("read", builtin={"primitive": "read"}),
        tool("recall", builtin={"primitive": "read", "space": "notes"}),
        tool("recall_more", builtin={"primitive": "read", "space": "more"}),
        tool("hand_over", delegate={"agents": ["other"]}),
        tool("wait_here", builtin={"primitive": "wait"}),
        tool("lock", exec={"command": ["true"]}),
    )
}


def agent(*tools: str) -> AgentSpec:
    return AgentSpec("worker", "fast", "", tools, {})


@pytest.mark.parametrize(
    ("method", "stands_for"),
    [("lock.acquire", "lend"), ("memory.read", "recall"), ("delegate", "hand_over"), ("wait", "wait_here")],
)
def test_a_method_stands_for_the_tool_that_does_it(method: str, stands_for: str) -> None:
    """Found by what the tool is bound to, whatever it is called; everything else stays as it was said."""
    names = [name for name in TOOLS if name != "recall_more"]
    assert called(method, ARGS, agent(*names), TOOLS) == {**ARGS, "tool": stands_for}


def test_only_tools_of_the_agent_count() -> None:
    """What is declared, but not this agent's, is not there; nor is what is the agent's, but not declared any more."""
    for one in (agent(), agent("gone"), None):
        with pytest.raises(Conflict, match="no such tool"):
            called("lock.acquire", ARGS, one, TOOLS)


def test_files_of_the_workspace_are_no_memory() -> None:
    """They end with the session."""
    with pytest.raises(Conflict, match="no such tool"):
        called("memory.read", ARGS, agent("read"), TOOLS)


def test_of_several_one_is_named() -> None:
    """Nothing is chosen for the harness."""
    both = agent("recall", "recall_more")
    with pytest.raises(Conflict, match="recall, recall_more"):
        called("memory.read", ARGS, both, TOOLS)
    assert called("memory.read", {**ARGS, "tool": "recall_more"}, both, TOOLS)["tool"] == "recall_more"
    with pytest.raises(Conflict, match="no tool of that name"):
        called("memory.read", {**ARGS, "tool": "lend"}, agent(*TOOLS), TOOLS)


async def test_they_go_through_the_gate(kernel: Kernel) -> None:
    """The log has the call under the tool's name, after a decision of policy; without such a tool the harness is told so."""
    kernel.tools["write"] = replace(kernel.tools["write"], driver={"builtin": {"primitive": "write", "space": "notes"}})
    code = """
answers = [ask(method, call="step-1", args={"path": "a"}) for method in ("memory.write", "lock.acquire", "memory.forget")]
ask("finish", result=json.dumps(answers))
"""
    state = await run(kernel, code)
    written, locked, unknown = json.loads(state.result)
    assert written["result"]["is_error"] is False
    assert "no such tool" in locked["error"]["message"]
    assert "no method" in unknown["error"]["message"]
    assert kernel.driver.calls == [("write", {"path": "a"})]
    assert [one["syscall"]["tool"] for one in kernel.policy.asked] == ["write"]


def test_the_published_schema_lists_them() -> None:
    """The schema of these requests and the kernel name the same methods."""
    from agentos.abi.assets import asset

    schema = json.loads((asset("schemas") / "v1/abi/primitive.call.request.json").read_text())
    assert set(schema["properties"]["method"]["enum"]) == METHODS
