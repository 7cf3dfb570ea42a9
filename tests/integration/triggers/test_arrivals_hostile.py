"""Spaces in which something is wrong, and agents that would go round in circles by way of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_arrivals import Place
from trigger_engine import Engine

from agentos.abi.errors import DriverError
from agentos.boot import arrivals
from agentos.boot.arrivals import Arrivals
from agentos.boot.system import SystemTimer
from agentos.drivers.adapters import space_watch
from agentos.drivers.adapters.space_arrivals import SqliteArrivals
from agentos.drivers.port import CallContext
from agentos.files.guard import Guard
from agentos.kernel.firing import Arrival
from agentos.supervisor import arriving


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(arriving, "STILL_US", 100_000)
    monkeypatch.setattr(arrivals, "SOON_S", 0.05)
    monkeypatch.setattr(arrivals, "LATER_S", 0.1)
    monkeypatch.setattr(arrivals, "LOOK_S", 0.5)
    return Place(tmp_path / "spaces")


async def test_a_space_that_cannot_be_looked_at_holds_up_no_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One space has too many names in it, or a broken folder: triggers of the others begin, and are told of what comes."""
    there = space_watch.look

    def look(folder: Path) -> Mapping[str, Any]:
        if folder.name == "bad":
            raise DriverError("more than 20000 names are in it")
        return there(folder)

    monkeypatch.setattr(arrivals, "look", look)
    engine = Engine(aa=Arrival("bad", "**"), zz=Arrival("inbox", "**"))
    task = asyncio.create_task(
        Arrivals(engine, place.spaces, SqliteArrivals(place.labels), SystemTimer()).run()  # type: ignore[arg-type]
    )
    try:
        async with asyncio.timeout(10):
            while place.watched() < 1:
                await asyncio.sleep(0.01)
        (place.inbox / "a").write_text("1")
        await engine.until(1)
        monkeypatch.setattr(arrivals, "look", there)
        async with asyncio.timeout(10):
            while place.watched() < 2:
                await asyncio.sleep(0.01)
        (place.spaces.folder("default", "bad") / "b").write_text("2")
        await engine.until(2)
    finally:
        task.cancel()
        await asyncio.wait((task,))
    assert [(one.trigger, one.facts["path"]) for one in engine.fired] == [("zz", "a"), ("aa", "b")]


async def test_a_file_that_cannot_be_told_of_now_loses_no_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of what was told cannot be read for a while, in the middle of several files: all of them are told of later."""
    engine, broken, hit = Engine(all=Arrival("inbox", "**")), [True], asyncio.Event()
    loop = asyncio.get_running_loop()
    told = SqliteArrivals.told

    def breaks(self: SqliteArrivals, *args: str) -> str | None:
        if args[-1] == "a" and broken:
            loop.call_soon_threadsafe(hit.set)
            raise DriverError("the disk is not there")
        return told(self, *args)

    async with place.watching(engine):
        monkeypatch.setattr(SqliteArrivals, "told", breaks)
        # They come to stand still in one look.
        for name in "abc":
            (place.inbox / f".{name}").write_text(name)
        for name in "abc":
            (place.inbox / f".{name}").rename(place.inbox / name)
        async with asyncio.timeout(10):
            await hit.wait()
        broken.clear()
        await engine.until(3)
    assert sorted(str(one.facts["path"]) for one in engine.fired) == ["a", "b", "c"]


async def test_a_file_of_a_run_carries_how_often_it_went_round(place: Place) -> None:
    """What a run has written fires as the next link of its chain, so that a circle comes to its end; other files begin one."""
    engine = Engine(all=Arrival("inbox", "**"))
    engine.hops["s-7"] = 3
    async with place.watching(engine):
        ours = CallContext("default", "s-7", "call-1-1", Path("/nowhere"), labels=())
        place.spaces.perform("write", "inbox", {"path": "ours", "content": "x"}, ours, Guard())
        (place.inbox / "theirs").write_text("y")
        await engine.until(2)
    assert {str(one.facts["path"]): one.hops for one in engine.fired} == {"ours": 3, "theirs": 0}
