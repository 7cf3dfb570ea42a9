"""The server before the official client, in one process: questions, second rounds, and what each client may reach."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp.types as mcp
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_desk import TOOL, Runtime, done, waiting
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ToolsListChanged

from agentos.abi.canonical import Json
from agentos.gateway import Gateway, Upstream, desk
from agentos.gateway.seat import Client as Who
from agentos.gateway.server import server_of

LEGACY, MODERN = "legacy", "2026-07-28"
EITHER = pytest.mark.parametrize("mode", [LEGACY, MODERN])
ARGS: dict[str, Any] = {"path": "a"}
YES = {"approval": mcp.ElicitResult(action="accept", content={"approve": True})}


def at(gateway: Gateway, mode: str, answer: Callable[..., Any] | None = None, name: str = "editor") -> Client:
    return Client(
        server_of(gateway), mode=mode, elicitation_callback=answer, client_info=mcp.Implementation(name=name, version="1")
    )


async def yes(_: Any, params: mcp.ElicitRequestParams) -> mcp.ElicitResult:
    del params
    return mcp.ElicitResult(action="accept", content={"approve": True})


def text(result: mcp.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, mcp.TextContent)
    return block.text


async def first_round(client: Client) -> str:
    """Make the call that waits; the state that comes with the question."""
    asked = await client.session.call_tool("write", ARGS, allow_input_required=True)
    assert isinstance(asked, mcp.InputRequiredResult)
    assert asked.request_state is not None
    return asked.request_state


async def second_round(client: Client, state: str, args: dict[str, Any] = ARGS, tool: str = "write") -> Any:
    return await client.session.call_tool(tool, args, input_responses=YES, request_state=state, allow_input_required=True)


@EITHER
async def test_the_first_of_two_approvers_does_not_settle_a_call(mode: str) -> None:
    """The yes at the client is one of two: the call waits for the other person, and the client is told for how many."""
    runtime = Runtime(call=[waiting("mcp-1", needed=2)], result=lambda _: waiting("mcp-1", needed=2, given=1))
    if mode == MODERN:
        runtime.answers["result"] = [waiting("mcp-1", needed=2), waiting("mcp-1", needed=2, given=1)]
    approver = Runtime()
    async with at(Gateway(Upstream(runtime, approver), "desk"), mode, yes) as client:
        told = await client.call_tool("write", ARGS)
    assert told.is_error
    assert (told.meta or {})["agentos/state"] == "waiting"
    assert "for the approval by a person" in text(told)
    assert approver.verbs() == ["approval.approve"]


async def test_a_state_is_for_its_call_and_its_client_and_says_yes_once() -> None:
    """Sent again it gets the outcome; with other arguments, for another tool, changed, or by another client it is refused."""
    stands = {"mcp-1": waiting("mcp-1")}

    def approve(params: dict[str, Json]) -> Json:
        stands["mcp-1"] = done("mcp-1", "written")
        return {}

    numbers = iter(("mcp-1", "mcp-2"))

    def call(_: dict[str, Json]) -> Json:
        number = next(numbers)
        return stands.get(number, done(number, "written again"))

    runtime, approver = Runtime(call=call, result=lambda params: stands[params["call"]]), Runtime(approval_approve=approve)
    gateway = Gateway(Upstream(runtime, approver), "desk")
    async with at(gateway, MODERN, yes) as client, at(gateway, MODERN, yes, "other") as other:
        state = await first_round(client)
        for bad in (
            second_round(client, state, {"path": "b"}),
            second_round(client, state, tool="list"),
            second_round(client, state[:-2] + ("AA" if state[-2:] != "AA" else "BB")),
            second_round(other, state),
        ):
            with pytest.raises(MCPError) as caught:
                await bad
            assert caught.value.code == mcp.INVALID_PARAMS
        assert approver.asked == []
        assert text(await second_round(client, state)) == "written"
        assert text(await second_round(client, state)) == "written"
        assert len(approver.asked) == 1
        assert runtime.verbs().count("gateway.call") == 1
        assert text(await client.call_tool("write", ARGS)) == "written again", "the same call once more is another one"


async def test_what_was_settled_between_the_rounds_is_not_settled_twice() -> None:
    """Somebody answers in the inbox first: the second round has the outcome, says nothing, and the next call is a new one."""
    runtime = Runtime(call=[waiting("mcp-1"), done("mcp-2", "two")], result=lambda _: done("mcp-1", "one"))
    approver = Runtime()
    async with at(Gateway(Upstream(runtime, approver), "desk"), MODERN, yes) as client:
        assert text(await second_round(client, await first_round(client))) == "one"
        assert text(await client.call_tool("write", ARGS)) == "two"
    assert approver.asked == []


async def test_who_listens_is_told_of_changes_and_who_does_not_read_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stateless era listens; a client that takes no news at all keeps it from no other."""
    monkeypatch.setattr(desk, "WATCH_S", 0.01)
    monkeypatch.setattr(desk, "NEWS_S", 0.01)
    shown = dict(TOOL)
    runtime = Runtime(tools=lambda _: {"revision": 1, "tools": [dict(shown)]})
    gateway = Gateway(Upstream(runtime), "desk")

    async def deaf() -> None:
        await asyncio.Event().wait()

    async with at(gateway, MODERN) as client, client.listen(tools_list_changed=True) as heard:
        stuck = await gateway.seat("id of a client that does not read", Who("deaf", "1"), deaf)
        await stuck.tools()
        await client.list_tools()
        shown["digest"] = "sha256:b"
        async with asyncio.timeout(10):
            assert isinstance(await anext(aiter(heard)), ToolsListChanged)
