"""Sessions whose harness is let go while their calls are under way: nothing is lost, doubled, or left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from kernel_in_memory import InlineHarness, InlineSpawner, Kernel, calls, settled, text
from manual_clock import breathe
from test_together import Meeting, met, reads, together, until

from agentos.abi.errors import LogUnavailable, Unavailable
from agentos.drivers.port import CallContext, ToolSpec
from agentos.kernel.adrift import Adrift
from agentos.kernel.port import Brief, Left, Misdeed
from agentos.kernel.sessions import Sessions
from agentos.projections.session import State


class Wanted(InlineHarness):
    """A harness that can be used again; `wanted` has it told to go as soon as all that it has asked for is under way."""

    spawner: Shared

    def rest(self) -> asyncio.Future[None]:
        self.told = super().rest()
        self.spawner.resting.append(self)
        return self.told

    def rise(self) -> None:
        self.spawner.resting.remove(self)

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        left = await super().stop(reuse=reuse, finished=finished)
        misdeed, self.spawner.misdeed = self.spawner.misdeed, None
        return left if misdeed is None else Left(159, misdeed)


class Shared(InlineSpawner):
    """Harnesses that others may want."""

    def __init__(self) -> None:
        super().__init__()
        self.resting: list[Wanted] = []
        self.misdeed: Misdeed | None = None
        """Of the next one that is stopped."""

    async def spawn(self, brief: Brief) -> Wanted:
        made = await super().spawn(brief)
        wanted = Wanted(made._reader, made._writer, made._thread)
        wanted.spawner = self
        return wanted

    async def want(self) -> None:
        """Somebody else needs the process of a session that rests."""
        await until(lambda: self.resting)
        self.resting[0].told.set_result(None)
        await until(lambda: not self.resting)


class Slow:
    """Replies of a model, each given when the test lets it go."""

    def __init__(self, kernel: Kernel) -> None:
        self.asked = 0
        self.go = asyncio.Semaphore(0)
        self._complete = kernel.model.complete
        kernel.model.complete = self._wait  # type: ignore[method-assign]

    async def _wait(self, *args: Any) -> Any:
        self.asked += 1
        await self.go.acquire()
        return await self._complete(*args)


@pytest.fixture
def kernel(kernel: Kernel) -> Kernel:
    kernel.spawner = Shared()
    return together(kernel)


@pytest.fixture
def slow(kernel: Kernel) -> Slow:
    return Slow(kernel)


async def begin(kernel: Kernel) -> tuple[Sessions, str]:
    sessions = kernel.sessions()
    return sessions, (await sessions.create("default", "worker", "work", None, "principal/op")).id


async def adrift(sessions: Sessions) -> None:
    """Return once a session has calls under way and no place."""
    await until(lambda: sessions._places._adrift)


async def ends(kernel: Kernel, sessions: Sessions, session: str) -> list[str]:
    """The types of a session's events once it has come to rest, and a moment later."""
    async with asyncio.timeout(20):
        await settled(sessions)
    for _ in range(50):
        await asyncio.sleep(0)
    await kernel.published(session)
    return await kernel.types(session)


async def test_the_model_answers_though_its_harness_has_gone(kernel: Kernel, slow: Slow) -> None:
    """It is asked once; the next process finds its words in the view."""
    sessions, session = await begin(kernel)
    await kernel.spawner.want()
    await adrift(sessions)
    slow.go.release()
    assert (await ends(kernel, sessions, session))[-3:] == ["syscall.decided", "syscall.finished", "session.finished"]
    assert (slow.asked, kernel.spawner.spawned) == (1, 2)


async def test_calls_at_once_end_without_their_harness(kernel: Kernel) -> None:
    """Those that act and one that waits behind them: each is made once, and its result is told to the model."""
    driver = met(kernel)
    driver.hold("a", "b")
    kernel.model.replies = [calls(*reads("a", "b"), ("c", "write", {"path": "c"})), text("done")]
    sessions, session = await begin(kernel)
    await until(lambda: driver.acting == {"a", "b"})
    await kernel.spawner.want()
    await adrift(sessions)
    for one in driver.held.values():
        one.set()
    assert (await ends(kernel, sessions, session))[-1] == "session.finished"
    assert sorted(name for what, name in driver.log if what == "begins") == ["a", "b", "c"]


async def test_policy_that_is_away_for_a_moment_fails_nobody(kernel: Kernel) -> None:
    """What keeps a call from being decided now is tried again, as with a harness beside it."""
    driver = met(kernel)
    driver.hold("a")
    driver.errors["a"] = Unavailable("policy says nothing")
    kernel.model.replies = [calls(*reads("a")), text("done")]
    sessions, session = await begin(kernel)
    await until(lambda: driver.acting)
    gate, failing = sessions._gate, [True]
    perform = gate.perform

    async def once(*args: Any) -> Any:
        if failing:
            failing.clear()
            driver.hold("b")
            await driver.held["b"].wait()
            raise Unavailable("policy says nothing of call b")
        return await perform(*args)

    gate.perform = once  # type: ignore[method-assign]
    driver.errors.clear()
    driver.held["a"].set()
    kernel.model.replies = [calls(*reads("a")), calls(*reads("b")), text("done")]
    await until(lambda: "b" in driver.held)
    await kernel.spawner.want()
    await adrift(sessions)
    driver.held["b"].set()
    assert (await ends(kernel, sessions, session))[-1] == "session.finished"


async def test_a_misdeed_ends_what_is_under_way_before_the_session(kernel: Kernel, slow: Slow) -> None:
    """Who has done what it must not when it was told to go is stopped with all that it has asked for; nothing comes behind."""
    sessions, session = await begin(kernel)
    await until(lambda: slow.asked)
    kernel.spawner.misdeed = Misdeed.NETWORK
    await kernel.spawner.want()
    await until(lambda: not sessions.running())
    slow.go.release()
    types = await ends(kernel, sessions, session)
    assert types[-3:] == ["syscall.failed", "harness.stopped", "session.failed"]
    stopped = (await kernel.events(session))[-2]
    assert (stopped.data["reason"], stopped.data["code"]) == ("network", 159)


async def test_cancelling_ends_what_is_adrift(kernel: Kernel, slow: Slow) -> None:
    """The call is stopped, the log says so, and nothing comes behind the end."""
    sessions, session = await begin(kernel)
    await kernel.spawner.want()
    await adrift(sessions)
    await sessions.cancel("default", session, reason="enough", actor="principal/op")
    slow.go.release()
    assert (await ends(kernel, sessions, session))[-2:] == ["syscall.failed", "session.cancelled"]


async def test_cancelling_while_a_harness_is_let_go_leaves_nothing_behind(kernel: Kernel) -> None:
    """At each step of its leaving: what was under way has ended when the session has."""
    driver = met(kernel)
    for step in range(12):
        driver.hold("a", "b")
        kernel.model.replies = [calls(*reads("a", "b"))]
        sessions, session = await begin(kernel)
        await until(lambda: driver.acting == {"a", "b"} and kernel.spawner.resting)
        kernel.spawner.resting[0].told.set_result(None)
        for _ in range(step):
            await asyncio.sleep(0)
        await sessions.cancel("default", session, reason="enough", actor="principal/op")
        left = [task for task in asyncio.all_tasks() if session in task.get_name() and not task.done()]
        assert (left, driver.acting) == ([], set()), f"after {step} steps"
        assert (await kernel.types(session))[-1] == "session.cancelled"


async def test_a_pause_holds_until_it_is_taken_back(kernel: Kernel, slow: Slow) -> None:
    """The call that is adrift comes to its end; the session goes on from there once it may."""
    sessions, session = await begin(kernel)
    await kernel.spawner.want()
    await adrift(sessions)
    under = kernel.current("default")
    async with sessions.journal("default", session) as journal:
        await journal.record_under(under, "agentos.session.paused", {"reason": "look"}, "principal/op")
    slow.go.release()
    async with asyncio.timeout(20):
        await settled(sessions)
    assert (await sessions.state("default", session)).state is State.PAUSED
    async with sessions.journal("default", session) as journal:
        await journal.record_under(under, "agentos.session.resumed", {"reason": "go on"}, "principal/op")
        sessions.wake(journal)
    assert (await ends(kernel, sessions, session))[-1] == "session.finished"
    assert slow.asked == 1


async def test_a_log_that_goes_away_meanwhile_loses_nothing(kernel: Kernel, slow: Slow) -> None:
    """The session comes back; of a model call that was out nobody knows, and it is asked again under another number."""
    sessions, session = await begin(kernel)
    await kernel.spawner.want()
    await adrift(sessions)
    append = kernel.log.append

    async def away(*args: Any, **named: Any) -> int:
        kernel.log.append = append  # type: ignore[method-assign]
        raise LogUnavailable("the event log does not answer")

    kernel.log.append = away  # type: ignore[method-assign]
    slow.go.release()
    slow.go.release()
    types = await ends(kernel, sessions, session)
    assert types[-1] == "session.finished"
    assert types.count("syscall.unknown") == 1


async def test_the_runtime_ends_while_a_call_is_adrift(kernel: Kernel, slow: Slow) -> None:
    """Another one takes the session up."""
    sessions, session = await begin(kernel)
    await kernel.spawner.want()
    await adrift(sessions)
    await sessions.close()
    slow.go.release()
    later = kernel.sessions()
    await later.resume("default", session)
    assert (await ends(kernel, later, session))[-1] == "session.finished"


async def test_who_is_in_a_hurry_waits_for_what_it_has_stopped() -> None:
    """Cancelled once more, `drop` still returns when nothing is under way."""
    may = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await may.wait()
            raise

    work = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    drop = asyncio.create_task(Adrift((work,)).drop())
    await asyncio.sleep(0)
    drop.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not drop.done()
    may.set()
    with pytest.raises(asyncio.CancelledError):
        await drop
    assert work.done()


async def test_a_wait_without_a_place_is_still_a_wait(kernel: Kernel) -> None:
    """Whoever looks whether a session does something (its watchdog) sees that it waits for others,
    and however long it does: it has no place to give up."""
    granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    session_of: list[str] = []
    driver = met(kernel)

    async def waits(tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Any:
        session_of.append(context.session)
        await sessions.idle(context.session, granted, 0.001)
        return await Meeting.call(driver, tool, args, context)

    driver.call = waits  # type: ignore[method-assign]
    kernel.model.replies = [calls(("a", "write", {"path": "a"})), text("done")]
    sessions, session = await begin(kernel)
    grace: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    kernel.timer.sleep = lambda _: grace  # type: ignore[assignment, method-assign, return-value]
    await until(lambda: session_of)
    await until(lambda: sessions.rests(session))
    await kernel.spawner.want()
    await adrift(sessions)
    assert sessions.rests(session)
    grace.set_result(None)
    await breathe()
    assert [seat.leaving for seat in sessions._places._adrift] == [False]
    granted.set_result(None)
    assert (await ends(kernel, sessions, session))[-1] == "session.finished"
