"""What a tool's process changes in the workspace is a change of its call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.canonical import Json
from agentos.abi.syscall import ToolEffect
from agentos.drivers.port import CallContext, ToolSpec
from agentos.drivers.tracked import Tracking, can_write
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.versions import Place
from agentos.sandbox.profile import Access, Isolation, standard

PLACE = Place("default", "session", "s-1")


class At:
    """A clock that stands."""

    def now_ms(self) -> int:
        return 1_700_000_000_000


def tool(**driver: Json) -> ToolSpec:
    return ToolSpec("run", "", ToolEffect.READ, False, {}, driver or {"exec": {"command": "true"}})


def same(content: bytes) -> bytes:
    return content


class Desk:
    """A session whose tools write by themselves."""

    def __init__(self, top: Path) -> None:
        self.root = top / "workspace"
        self.root.mkdir()
        self.versions = SqliteVersions(top / "versions", At())
        self.tracking = Tracking(self.versions)

    def context(self, call: str) -> CallContext:
        return CallContext("default", "s-1", call, self.root, agent="triage", decided=(7, "sha256:7"))

    async def run(self, call: str, act: Callable[[], object], mask: Callable[[bytes], bytes] = same) -> int | None:
        await self.tracking.before(tool(), self.context(call), mask)
        act()
        return await self.tracking.after(tool(), self.context(call), mask)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_call_s_change(desk: Desk) -> None:
    """What was there before the call is not its change; what it did is, under its decision. No change is no number."""
    (desk.root / "in").write_text("x")
    assert await desk.run("c-1", lambda: (desk.root / "a").write_text("1")) == 1
    (desk.root / "by itself").write_text("x")
    assert await desk.run("c-2", (desk.root / "a").unlink) == 3
    assert await desk.run("c-3", lambda: None) is None
    found = desk.versions.log(PLACE)
    assert [(change.author.actor, change.author.call, change.op) for change in found] == [
        ("agent/triage", "c-2", "remove"),
        ("system/found", "", "found"),
        ("agent/triage", "c-1", "write"),
        ("system/begin", "", "begin"),
    ]
    assert found[0].author.decision == (7, "sha256:7")


async def test_calls_at_the_same_time_name_each_other(desk: Desk) -> None:
    """What two calls did while both were at work cannot be told apart, and the change says so; a call alone names nobody."""
    first, second = desk.context("c-1"), desk.context("c-2")
    await desk.tracking.before(tool(), first, same)
    await desk.tracking.before(tool(), second, same)
    (desk.root / "a").write_text("1")
    number = await desk.tracking.after(tool(), first, same)
    (desk.root / "b").write_text("1")
    later = await desk.tracking.after(tool(), second, same)
    assert (number, later) == (1, 2)
    assert [change.author.note for change in desk.versions.log(PLACE)[:2]] == [
        "at work at the same time: c-1",
        "at work at the same time: c-2",
    ]
    assert await desk.run("c-3", (desk.root / "a").unlink) == 3
    assert desk.versions.change(PLACE, 3).author.note == ""


async def test_masked_before_it_is_kept(desk: Desk) -> None:
    """A leased value that a process wrote is in no file and no version afterwards, nor one that it left there before."""

    def mask(content: bytes) -> bytes:
        return content.replace(b"hunter2", b"[masked]")

    await desk.run("c-1", lambda: None, mask)
    (desk.root / "left").write_text("hunter2")
    assert await desk.run("c-2", lambda: (desk.root / "a").write_text("x hunter2"), mask) == 2
    assert ((desk.root / "left").read_text(), (desk.root / "a").read_text()) == ("[masked]", "x [masked]")


async def test_only_where_a_process_can_write(desk: Desk) -> None:
    """Other drivers, and processes that see the workspace read-only, cost no look; one that nothing sets apart may write."""
    context = desk.context("c-1")
    away = tool(mcp={"server": {"url": "https://mcp.example"}, "tool": "t"})
    for other in (tool(builtin={"primitive": "write"}), tool(http={"url": "x"}), away):
        assert not can_write(other, context)
        await desk.tracking.before(other, context, same)
        assert await desk.tracking.after(other, context, same) is None
    assert can_write(tool(mcp={"server": {"command": ["x"]}, "tool": "t"}), context)
    read_only = replace(context, profile=replace(standard(), workspace=Access.READ))
    assert not can_write(tool(), read_only)
    assert can_write(tool(), replace(read_only, profile=replace(read_only.profile, isolation=Isolation.UNSAFE_NONE)))
    assert desk.versions.log(PLACE) == ()


async def test_whoever_stops_waiting_does_not_stop_the_record(desk: Desk) -> None:
    """A call that is cancelled while its changes are recorded has them recorded all the same."""
    started, may_go = threading.Event(), threading.Event()

    def mask(content: bytes) -> bytes:
        if content == b"1":
            started.set()
            may_go.wait()
        return content

    await desk.tracking.before(tool(), desk.context("c-1"), same)
    (desk.root / "a").write_text("1")
    after = asyncio.create_task(desk.tracking.after(tool(), desk.context("c-1"), mask))
    await asyncio.to_thread(started.wait)
    after.cancel()
    with pytest.raises(asyncio.CancelledError):
        await after
    may_go.set()
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(desk.versions.log, PLACE, "a"):
            await asyncio.sleep(0)
    assert desk.versions.log(PLACE)[0].author.call == "c-1"


async def test_an_ended_session_holds_nothing_open(desk: Desk) -> None:
    """Its file is closed once the session is over, unless a call is still at work."""
    await desk.tracking.before(tool(), desk.context("c-1"), same)
    desk.tracking.ended("default", "s-1")
    assert PLACE in desk.versions._open
    await desk.tracking.after(tool(), desk.context("c-1"), same)
    desk.tracking.ended("default", "s-1")
    assert PLACE not in desk.versions._open
