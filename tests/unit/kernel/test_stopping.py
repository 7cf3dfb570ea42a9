"""Calls that are given up while they act: stopped once, said to be of unknown outcome, and never mistaken for a shutdown."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kernel_in_memory import RecordingDriver, tool

from agentos.abi.errors import OutcomeUnknown
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext, ToolSpec
from agentos.kernel.stopping import Stopping


def exec_tool() -> ToolSpec:
    return replace(tool("long"), driver={"exec": {"command": ["sleep"]}})


class World:
    def __init__(self) -> None:
        self.driver = RecordingDriver()
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self.driver.answers["long"] = self.hang
        self.stopping = Stopping(self.driver)  # type: ignore[arg-type]

    async def hang(self) -> Result:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return Result("never")

    def start(self, spec: ToolSpec) -> asyncio.Task[Any]:
        return asyncio.create_task(self.stopping.call(spec, {}, CallContext("default", "s-1", "mcp-1", Path())))


async def test_a_call_that_acts_is_stopped_for_whom_it_belongs() -> None:
    """The driver is cancelled, and the outcome is unknown; another session's call of the same name is none of its."""
    world = World()
    acting = world.start(exec_tool())
    await world.begun.wait()
    for key in (("other", "s-1", "mcp-1"), ("default", "s-2", "mcp-1"), ("default", "s-1", "mcp-2")):
        assert world.stopping.stop(*key) is False
    assert world.stopping.stop("default", "s-1", "mcp-1") is True
    with pytest.raises(OutcomeUnknown, match="given up by its client"):
        await acting
    assert world.ended.is_set()
    assert world.stopping.stop("default", "s-1", "mcp-1") is False


async def test_what_waits_for_others_is_not_stopped() -> None:
    """Primitives of the kernel end by themselves."""
    world = World()
    acting = world.start(tool("long"))
    await world.begun.wait()
    assert world.stopping.stop("default", "s-1", "mcp-1") is False
    acting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acting


async def test_a_session_that_is_stopped_is_no_call_given_up() -> None:
    """Cancelled from above, with and without a client that gave the call up at the same moment: cancelled it is."""
    for both in (False, True):
        world = World()
        acting = world.start(exec_tool())
        await world.begun.wait()
        acting.cancel()
        if both:
            world.stopping.stop("default", "s-1", "mcp-1")
        with pytest.raises(asyncio.CancelledError):
            await acting
        assert world.ended.is_set()
