"""Requests that leave for a call: each is decided and recorded as a syscall of its own, before the outcome of the call."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kernel_in_memory import ALLOW, Kernel, RecordingDriver, tool

from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import DriverError
from agentos.abi.syscall import NET_REQUEST, Result, ToolEffect
from agentos.drivers.port import CallContext, ToolSpec
from agentos.egress.asking import Gatekeeper, NetDenied, NetRequest, Permit, Scheme
from agentos.kernel import departures
from agentos.kernel.reply import is_call_id
from agentos.kernel.workspace import Workspaces
from agentos.projections import context
from agentos.projections.session import State, Step

FETCH = replace(tool("fetch", effect=ToolEffect.EXTERNAL), driver={"http": {"url": "https://api.example"}})
GET = NetRequest(Scheme.HTTPS, "api.example", 443, "GET", "/a")


class Fetching(RecordingDriver):
    """Does what `work` says with the way out of the call."""

    def __init__(self) -> None:
        super().__init__()
        self.work: Any = None
        self.kept: Gatekeeper | None = None

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        self.kept = context.net
        done: Result = await self.work(context)
        return done


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    made = Kernel(Workspaces(tmp_path), driver=Fetching())
    made.tools["fetch"] = FETCH
    return made


def only(verdict: Decision) -> Any:
    """Policy that says `verdict` of requests, and lets calls through."""
    return lambda document: verdict if document["syscall"]["tool"] == NET_REQUEST else ALLOW


async def told(permit: Permit) -> None:
    await permit.finished(status=200, sent=10, received=20, address="192.0.2.1:443")


async def test_a_request_is_a_syscall_between_the_call_and_its_outcome(kernel: Kernel) -> None:
    """Policy is told where it goes and for whom; its outcome stands before that of the call, and costs no call of the budget."""

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        await told(await place.net.ask(GET))
        return Result("fetched")

    kernel.driver.work = work  # type: ignore[attr-defined]
    journal = await kernel.journal()
    call = await kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a")
    assert call.step is Step.FINISHED
    asked = kernel.policy.asked[-1]["syscall"]
    about = {"call": "c1", "tool": "fetch", "scheme": "https", "host": "api.example", "port": 443, "method": "GET", "path": "/a"}
    assert (asked["tool"], asked["effect"], asked["args"]) == (NET_REQUEST, "external", about)
    events = [(event.type.removeprefix("agentos.syscall."), event.data["tool"]) for event in (await kernel.published())[1:]]
    assert events == [("decided", "fetch"), ("decided", NET_REQUEST), ("finished", NET_REQUEST), ("finished", "fetch")]
    assert (journal.state.tool_calls, len(context.pending(journal.state))) == (1, 0)
    assert journal.decisions == {}


@pytest.mark.parametrize(
    ("verdict", "rule"),
    [
        (deny("network.undeclared", "nobody may go there"), "network.undeclared"),
        (Decision(Verdict.ASK, ("some.rule",), ("people are to say",)), "kernel.net-ask"),
    ],
)
async def test_what_policy_does_not_let_through_does_not_leave(kernel: Kernel, verdict: Decision, rule: str) -> None:
    """The driver is told why in policy's words, and the log has the denial; nobody can be asked in the middle of a request."""

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        with pytest.raises(NetDenied, match=rule):
            await place.net.ask(GET)
        return Result("did without")

    kernel.driver.work = work  # type: ignore[attr-defined]
    kernel.policy.decide = only(verdict)
    journal = await kernel.journal()
    assert (await kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a")).step is Step.FINISHED
    denied = [one for one in journal.state.calls.values() if one.tool == NET_REQUEST]
    assert [(one.step, one.decision and one.decision["rules"]) for one in denied] == [(Step.DENIED, [rule])]


async def test_nothing_leaves_once_the_call_is_over(kernel: Kernel) -> None:
    """What was under way is given up and recorded before the outcome of the call; whoever kept the way out gets no further."""

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        await place.net.ask(GET)
        raise DriverError("it broke")

    driver = kernel.driver
    assert isinstance(driver, Fetching)
    driver.work = work
    journal = await kernel.journal()
    call = await kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a")
    assert call.step is Step.FAILED
    events = [(event.type.removeprefix("agentos.syscall."), event.data["tool"]) for event in (await kernel.published())[-2:]]
    assert events == [("failed", NET_REQUEST), ("failed", "fetch")]
    assert driver.kept is not None
    with pytest.raises(NetDenied, match="is over"):
        await driver.kept.ask(GET)


async def test_many_at_once_each_have_their_own_words(kernel: Kernel) -> None:
    """Fifty requests of one call interleave; each is recorded once with its own outcome."""

    async def one(way: Gatekeeper, number: int) -> None:
        permit = await way.ask(replace(GET, path=f"/{number}"))
        await asyncio.sleep(0)
        if number % 2:
            await permit.failed("reset")
            await permit.finished(status=200, sent=0, received=0, address="")  # told twice: the first word counts
        else:
            await told(permit)

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        await asyncio.gather(*(one(place.net, number) for number in range(50)))
        return Result("all done")

    kernel.driver.work = work  # type: ignore[attr-defined]
    journal = await kernel.journal()
    await kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a")
    steps = [one.step for one in journal.state.calls.values() if one.tool == NET_REQUEST]
    assert (steps.count(Step.FINISHED), steps.count(Step.FAILED)) == (25, 25)
    assert await kernel.published()


async def test_a_cancelled_call_leaves_nothing_open(kernel: Kernel) -> None:
    """Its requests have outcomes, and then so has it."""
    reached = asyncio.Event()

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        await place.net.ask(GET)
        reached.set()
        await asyncio.Event().wait()
        return Result("never")

    kernel.driver.work = work  # type: ignore[attr-defined]
    journal = await kernel.journal()
    task = asyncio.create_task(kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a"))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [one.step for one in journal.state.calls.values()] == [Step.UNKNOWN, Step.FAILED]
    assert await kernel.published()


async def test_after_a_crash_a_request_is_unknown_and_nobody_asks_about_it(kernel: Kernel) -> None:
    """It is part of a call whose outcome is unknown: that one is what people settle."""
    reached = asyncio.Event()

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        await place.net.ask(GET)
        reached.set()
        await asyncio.Event().wait()
        return Result("never")

    kernel.driver.work = work  # type: ignore[attr-defined]
    journal = await kernel.journal()
    task = asyncio.create_task(kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a"))
    await reached.wait()
    again = await type(journal).load(kernel.log, "default", "s-1", kernel.timer, journal._random)
    await kernel.gate().settle(again, kernel.current("default"))
    assert [one.step for one in again.state.calls.values()] == [Step.UNKNOWN, Step.UNKNOWN]
    assert again.state.lost == {"c1"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_is_cancelled_twice_leaves_nothing_open(kernel: Kernel) -> None:
    """However impatient whoever stops the call is: each of its requests has an outcome, and stands before that of the call."""
    reached = asyncio.Event()

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        for _ in range(3):
            await place.net.ask(GET)
        reached.set()
        await asyncio.Event().wait()
        return Result("never")

    kernel.driver.work = work  # type: ignore[attr-defined]
    journal = await kernel.journal()
    task = asyncio.create_task(kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a"))
    await reached.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    steps = [one.step for one in journal.state.calls.values()]
    assert steps == [Step.UNKNOWN, Step.FAILED, Step.FAILED, Step.FAILED]
    assert (await kernel.published())[-1].data["tool"] == "fetch"


async def test_policy_may_halt_the_session_by_a_request(kernel: Kernel) -> None:
    """The call is stopped, nothing more leaves, and the session is over behind the outcome of the call, never before it."""
    after: list[str] = []

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        for _ in range(2):
            with pytest.raises(NetDenied) as denied:
                await place.net.ask(GET)
            after.append(denied.value.message)
        await asyncio.Event().wait()
        return Result("never")

    kernel.driver.work = work  # type: ignore[attr-defined]
    kernel.policy.decide = only(Decision(Verdict.HALT, ("some.rule",), ("enough",)))
    journal = await kernel.journal()
    call = await kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a")
    assert call.step is Step.UNKNOWN
    assert journal.state.state is State.HALTED
    assert after == ["denied by policy (some.rule): enough", "policy has halted the session"]
    types = [event.type.removeprefix("agentos.") for event in (await kernel.published())[1:]]
    assert types == ["syscall.decided", "syscall.decided", "syscall.unknown", "session.halted"]


async def test_a_halt_that_a_crash_cut_off_is_made_up_for(kernel: Kernel) -> None:
    """A request halts the session, and the runtime dies before the call ends: whoever comes next halts it."""
    reached = asyncio.Event()

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        with pytest.raises(NetDenied):
            await place.net.ask(GET)
        reached.set()
        return Result("never told")

    kernel.driver.work = work  # type: ignore[attr-defined]
    kernel.policy.decide = only(Decision(Verdict.HALT, ("some.rule",), ("enough",)))
    journal = await kernel.journal()
    task = asyncio.create_task(kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a"))
    await reached.wait()
    again = await type(journal).load(kernel.log, "default", "s-1", kernel.timer, journal._random)
    await kernel.gate().settle(again, kernel.current("default"))
    assert again.state.state is State.HALTED
    assert again.state.calls["c1"].step is Step.UNKNOWN
    await asyncio.gather(task, return_exceptions=True)


async def test_a_denial_that_nobody_waits_for_any_more_leaves_no_error_behind(kernel: Kernel) -> None:
    """Whoever asked has gone when policy says no: the log has the denial, and nothing is reported as lost."""
    asked, answer, reported = asyncio.Event(), asyncio.Event(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))

    async def slowly(document: Mapping[str, Any]) -> Decision:
        if document["syscall"]["tool"] != NET_REQUEST:
            return ALLOW
        asked.set()
        await answer.wait()
        return deny("some.rule", "no")

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        asking = asyncio.ensure_future(place.net.ask(GET))
        await asked.wait()
        asking.cancel()
        await asyncio.sleep(0)
        answer.set()
        await asyncio.wait((asking,))
        return Result("done")

    kernel.driver.work = work  # type: ignore[attr-defined]
    kernel.policy.decide_syscall = slowly  # type: ignore[method-assign]
    journal = await kernel.journal()
    await kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a")
    assert [one.step for one in journal.state.calls.values()] == [Step.FINISHED, Step.DENIED]
    gc.collect()
    await asyncio.sleep(0)
    assert reported == []


async def test_a_call_cannot_fill_the_log(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Denials are bounded, and so is the text that its requests put into the log; what comes behind is refused unrecorded."""
    monkeypatch.setattr(departures, "MOST_DENIED", 3)
    monkeypatch.setattr(departures, "MOST_TEXT", 100)
    said: list[str] = []

    async def work(place: CallContext) -> Result:
        assert place.net is not None
        for request in (GET, GET, GET, GET, replace(GET, path="/" + "x" * 100)):
            with pytest.raises(NetDenied) as denied:
                await place.net.ask(request)
            said.append(denied.value.message)
        return Result("done")

    kernel.driver.work = work  # type: ignore[attr-defined]
    kernel.policy.decide = only(deny("some.rule", "no"))
    journal = await kernel.journal()
    await kernel.perform(kernel.gate(), journal, "c1", "fetch", path="a")
    assert said[2:4] == ["denied by policy (some.rule): no", "the call was denied 3 requests already"]
    monkeypatch.setattr(departures, "MOST_DENIED", 9)
    said.clear()
    await kernel.perform(kernel.gate(), journal, "c2", "fetch", path="a")
    assert said[-1] == "the requests of the call have named too much already"
    assert sum(one.tool == NET_REQUEST for one in journal.state.calls.values()) == 7


def test_no_model_may_use_such_an_id() -> None:
    """The kernel's own ids are not taken from anybody else."""
    assert not is_call_id("net-3-1")
    assert is_call_id("network")
