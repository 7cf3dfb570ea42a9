"""Whoever was stopped for a while looks again before it acts, and lets go of what has changed hands."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kernel_in_memory import FakeRandom, Kernel, calls, settled, text

from agentos.abi import event as ev
from agentos.abi.errors import LogUnavailable, Relieved, SequenceConflict
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.kernel.acts import STILL_US
from agentos.kernel.journal import Journal
from agentos.kernel.tenure import Watched


class SlowLog(MemoryLog):
    """Stands still for a minute once a decision is stored; `meanwhile` is what others do then."""

    kernel: Kernel
    taken = False
    away = False
    looks = 0

    async def append(self, subject: str, messages: Any, *, after: int) -> int:
        position = await super().append(subject, messages, after=after)
        if b'"type":"agentos.syscall.decided"' in messages[0].data and b'"tool":"send"' in messages[0].data:
            await self.kernel.timer.sleep(60)
            if self.taken:
                other = await Journal.load(self, "default", "s-1", self.kernel.timer, FakeRandom(99))
                await other.record(ev.SESSION_OWNED, {"epoch": 1}, actor="system/kernel", revision=1, policy=None)
        return position

    async def last(self, subject: str) -> Any:
        self.looks += 1
        if self.away:
            raise LogUnavailable("the event log does not answer")
        return await super().last(subject)


@pytest.fixture
def slow(kernel: Kernel) -> SlowLog:
    kernel.log = SlowLog()
    kernel.log.kernel = kernel
    return kernel.log


async def test_what_has_changed_hands_meanwhile_is_not_acted_on(kernel: Kernel, slow: SlowLog) -> None:
    """The intent was durable and ours; a minute later it is another runtime's, and the tool is not called."""
    slow.taken = True
    journal = await kernel.journal()
    with pytest.raises(SequenceConflict):
        await kernel.perform(kernel.gate(), journal, "c1", "send", path="x")
    assert journal.stale
    assert not kernel.driver.calls
    assert (await kernel.types("s-1"))[-1] == "session.owned"


async def test_who_was_slow_and_is_alone_acts(kernel: Kernel, slow: SlowLog) -> None:
    """One look, and the call is made."""
    call = await kernel.perform(kernel.gate(), await kernel.journal(), "c1", "send", path="x")
    assert (call.step, slow.looks) == ("finished", 1)
    assert len(kernel.driver.calls) == 1


async def test_nothing_goes_out_while_nobody_can_look(kernel: Kernel, slow: SlowLog) -> None:
    """A log that is away when it is to be asked: no act, and the intent stands for who takes the session over."""
    slow.away = True
    journal = await kernel.journal()
    with pytest.raises(LogUnavailable):
        await kernel.perform(kernel.gate(), journal, "c1", "send", path="x")
    assert not kernel.driver.calls
    assert journal.state.calls["c1"].step == "allowed"


async def test_a_look_holds_for_a_moment(kernel: Kernel) -> None:
    """The claim is read once within the time that a look holds for, and again after it."""
    looks: list[str] = []

    async def look(tenant: str) -> bool:
        looks.append(tenant)
        return len(looks) < 3

    tenure = Watched(look, kernel.timer)
    await tenure.hold("default")
    await tenure.hold("default")
    assert len(looks) == 1
    await kernel.timer.sleep(STILL_US / 1_000_000 + 1)
    await tenure.hold("default")
    assert len(looks) == 2
    await kernel.timer.sleep(STILL_US / 1_000_000 + 1)
    with pytest.raises(Relieved):
        await tenure.hold("default")


async def test_a_relieved_runtime_takes_no_session(kernel: Kernel) -> None:
    """It says so, writes nothing, and does not come back to it."""
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()

    async def look(tenant: str) -> bool:
        del tenant
        return False

    journal = await kernel.journal()
    sessions._gate.tenure = Watched(look, kernel.timer)
    with pytest.raises(Relieved):
        await sessions.resume("default", journal.session)
    await settled(sessions)
    assert await kernel.types("s-1") == ["session.created"]
    assert not sessions._journals


class LateLog(MemoryLog):
    """Says late that a session was created; `told` lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.stored, self.told = asyncio.Event(), asyncio.Event()

    async def append(self, subject: str, messages: Any, *, after: int) -> int:
        position = await super().append(subject, messages, after=after)
        if b'"type":"agentos.session.created"' in messages[0].data:
            self.stored.set()
            await self.told.wait()
        return position


async def test_a_session_that_is_found_before_its_creator_hears_of_it_is_run_once(kernel: Kernel) -> None:
    """Somebody who looks for sessions that run nowhere waits for the creator's turn to end, and finds it running."""
    kernel.log = log = LateLog()
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()
    creating = asyncio.create_task(sessions.create("default", "worker", "work", None, "principal/op"))
    await log.stored.wait()
    (stream,) = await log.streams()
    (subject,) = [stored.subject async for stored in log.scan(stream)]
    session = subject.rpartition(".")[2]
    found = asyncio.create_task(sessions.resume("default", session))
    await asyncio.sleep(0.01)
    log.told.set()
    await asyncio.gather(creating, found)
    await settled(sessions)
    assert "session.owned" not in await kernel.types(session)
    assert len(kernel.driver.calls) == 1
