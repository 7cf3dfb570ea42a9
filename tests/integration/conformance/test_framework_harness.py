"""The harness that is made of an agent framework, as a process: it keeps to the ABI, and one process serves many sessions."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from agentos.abi import rpc
from agentos.boot.harness_check import check_harness
from agentos.conformance import Case, Verdict, all_cases

HARNESS = Path(__file__).parents[3] / "examples" / "framework-harness" / "harness.py"
COMMAND = (sys.executable, "-I", str(HARNESS))


ALWAYS: Final = frozenset({"reuse", "cancel", "apart.network", "apart.home"})
"""Groups of which every case is tried, and cases: what has most to do with the framework."""


def some_cases() -> list[Case]:
    """The first case of each group, and all of some: loading the framework takes the better part of a second each time."""
    first = {case.group: case for case in reversed(all_cases())}
    return [case for case in all_cases() if case is first[case.group] or {case.group, case.id} & ALWAYS]


@pytest.mark.timeout(300)
def test_it_passes_cases_of_every_group() -> None:
    """In the sandbox of this host; nothing is left untried. `agentos harness check` tries all of them, as its README says."""
    report = check_harness(COMMAND, some_cases(), apart=True, patience=110)
    assert [(one.case.id, one.why) for one in report.outcomes if one.verdict is not Verdict.PASSED] == []
    assert report.sound


class Pipe:
    """The kernel's end of the pipe to one process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def say(self, frame: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(frame)
        await self.process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        frame: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return frame

    async def begin(self, session: str, pending: list[dict[str, Any]]) -> dict[str, Any]:
        """Greet it, answer its question for the view; return what it asks then."""
        told = {"abi": rpc.ABI, "session": session, "concurrent": True, "reuse": True}
        await self.say(rpc.request(0, "initialize", told))
        greeting = await self.hear()
        assert (greeting["id"], greeting["result"]["abi"], greeting["result"]["reuse"]) == (0, rpc.ABI, True)
        asked = await self.hear()
        assert asked["method"] == "session.view"
        view = {"session": session, "agent": "a", "goal": session, "pending": pending, "final": None}
        await self.say(rpc.response(asked["id"], view))
        return await self.hear()


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    """A harness that awaits its `initialize`."""
    process = await asyncio.create_subprocess_exec(*COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    try:
        yield Pipe(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        assert await process.wait() == 0


async def test_one_process_serves_sessions_one_after_the_other(pipe: Pipe) -> None:
    """One is parked, one called off while the model is asked, one finished; an answer that comes late is passed over."""
    call = {"call": "c1", "tool": "read", "args": {"path": "x"}}
    parked = await pipe.begin("s-1", [call])
    assert (parked["method"], parked["params"]) == ("tool.call", call)
    await pipe.say(rpc.error(parked["id"], rpc.PARKED, "it waits"))
    assert (await pipe.hear())["method"] == "left"
    asking = await pipe.begin("s-2", [])
    assert asking["method"] == "model.call"
    await pipe.say(rpc.notification("cancel", {"reason": "stop"}))
    assert (await pipe.hear())["method"] == "left"
    again = await pipe.begin("s-3", [])
    late = {"content": [{"type": "text", "text": "of another session"}], "stop_reason": "end_turn"}
    await pipe.say(rpc.response(asking["id"], late))
    await pipe.say(rpc.response(again["id"], {**late, "content": [{"type": "text", "text": "done"}]}))
    finish = await pipe.hear()
    assert (finish["method"], finish["params"]) == ("finish", {"result": "done"})
    await pipe.say(rpc.error(finish["id"], rpc.ENDED, "it is over"))
    assert (await pipe.hear())["method"] == "left"
