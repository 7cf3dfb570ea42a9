"""A log that goes away, or answers too late: what a runtime believes is always what the log holds, and nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kernel_in_memory import ALLOW, Kernel, calls, settled, text

from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import ChainBroken, Conflict, LogUnavailable, NotFound, UsageError
from agentos.abi.event import Event
from agentos.abi.syscall import Result
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject
from agentos.projections.session import SessionState


class FlakyLog(MemoryLog):
    """Fails `times` appends of the event types `kinds`; before (`stored` false) or after they are stored."""

    kinds: tuple[str, ...] = ()
    stored, times = False, 1

    async def append(self, subject: str, messages: Any, *, after: int) -> int:
        if self.times and any(f'"type":"agentos.{kind}"'.encode() in messages[0].data for kind in self.kinds):
            self.times -= 1
            if self.stored:
                await super().append(subject, messages, after=after)
            raise LogUnavailable("the event log does not answer")
        return await super().append(subject, messages, after=after)


def asks(document: dict[str, Any]) -> Decision:
    if document["syscall"]["tool"] == "send" and not document["approvals"]:
        return Decision(Verdict.ASK, ("grants.approval",), ("needs a person",))
    return ALLOW


@pytest.fixture
def flaky(kernel: Kernel) -> Callable[..., FlakyLog]:
    def make(*kinds: str, stored: bool, times: int = 1) -> FlakyLog:
        log = FlakyLog()
        log.kinds, log.stored, log.times = kinds, stored, times
        kernel.log = log
        return log

    return make


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    "kinds",
    [
        ("syscall.decided",),
        ("syscall.finished",),
        ("syscall.refused",),
        ("session.waiting",),
        ("session.finished",),
        ("syscall.finished", "session.owned"),
        ("syscall.finished", "session.owned", "syscall.unknown"),
    ],
)
async def test_a_session_goes_on_when_the_log_is_back(
    kernel: Kernel, flaky: Callable[..., FlakyLog], kinds: tuple[str, ...], stored: bool, times: int
) -> None:
    """Whatever append was lost, and whether or not it was stored: the session ends as if nothing had been, no effect doubled."""
    flaky(*kinds, stored=stored, times=times)
    kernel.policy.decide = asks
    kernel.model.replies = [
        calls(("c1", "send", {"path": "x"}), ("c2", "write", {}), ("c3", "read", {"path": "y"})),
        text("done"),
    ]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    state = await sessions.state("default", session)
    if state.state == "waiting":
        await sessions.answer("default", session, granted=True, reason="fine", actor="principal/ann")
        await settled(sessions)
        state = await sessions.state("default", session)
    assert (state.state, state.result) == ("finished", "done")
    assert [name for name, _ in kernel.driver.calls].count("send") <= 1
    assert sessions.running() == 0


@pytest.mark.parametrize("stored", [False, True])
async def test_an_answer_whose_storing_is_unknown_is_found_in_the_log(
    kernel: Kernel, flaky: Callable[..., FlakyLog], stored: bool
) -> None:
    """If it is there the session runs on, if not it waits on; it never stands between."""
    flaky("approval.granted", stored=stored)
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    with pytest.raises(LogUnavailable):
        await sessions.answer("default", session, granted=True, reason="fine", actor="principal/ann")
    await settled(sessions)
    assert (await sessions.state("default", session)).state == ("finished" if stored else "waiting")


@pytest.mark.parametrize("stored", [False, True])
async def test_a_creation_whose_storing_is_unknown_is_found_in_the_log(
    kernel: Kernel, flaky: Callable[..., FlakyLog], stored: bool
) -> None:
    """A session that was created after all runs; one that was not is not counted as live."""
    log = flaky("session.created", stored=stored)
    sessions = kernel.sessions()
    with pytest.raises(LogUnavailable):
        await sessions.create("default", "worker", "work", None, "principal/op")
    await settled(sessions)
    events = [item for stream in await log.streams() async for item in log.scan(stream)]
    assert bool(events) is stored
    assert not sessions._live


@pytest.mark.parametrize("stored", [False, True])
async def test_a_cancellation_that_is_not_recorded_stops_nothing(
    kernel: Kernel, flaky: Callable[..., FlakyLog], stored: bool
) -> None:
    """The session was stopped for it; without the word in the log it runs on."""
    flaky("session.cancelled", stored=stored)
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> Result:
        begun.set()
        await go.wait()
        return Result("read")

    kernel.driver.answers["read"] = slow
    kernel.model.replies = [calls(("c1", "read", {"path": "x"})), text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await begun.wait()
    go.set()
    with pytest.raises(LogUnavailable):
        await sessions.cancel("default", session, reason="stop", actor="principal/op")
    await settled(sessions)
    assert (await sessions.state("default", session)).state == ("cancelled" if stored else "finished")


async def test_a_reason_that_cannot_be_recorded_stops_nothing(kernel: Kernel) -> None:
    """A cancel that fails for its own words leaves the session running."""
    begun = asyncio.Event()

    async def slow() -> Result:
        begun.set()
        await asyncio.sleep(0)
        return Result("read")

    kernel.driver.answers["read"] = slow
    kernel.model.replies = [calls(("c1", "read", {"path": "x"})), text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await begun.wait()
    with pytest.raises(ValueError, match="surrogate"):
        await sessions.cancel("default", session, reason="\ud800", actor="principal/op")
    await settled(sessions)
    assert (await sessions.state("default", session)).state == "finished"


async def test_closing_ends_sessions_that_wait_for_the_log(kernel: Kernel, flaky: Callable[..., FlakyLog]) -> None:
    """A runtime that stops leaves no task behind, also when the log is away."""
    flaky("syscall.decided", stored=False, times=10**9)
    sessions = kernel.sessions()
    await sessions.create("default", "worker", "work", None, "principal/op")
    while kernel.log.times > 10**9 - 3:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    await sessions.close()
    assert sessions.running() == 0
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("session")] == []


async def cut(kernel: Kernel, session: str, keep: Callable[[str], bool]) -> None:
    """The log as a crash would have left it: up to the last event whose type `keep` accepts."""
    types = await kernel.types(session)
    end = max(number for number, kind in enumerate(types, 1) if keep(kind))
    whole = [stored async for stored in kernel.log.read(session_subject(session))]
    kernel.log, position = type(kernel.log)(), 0
    for number, stored in enumerate(whole[:end]):
        position = await kernel.log.append(stored.subject, [Message(str(number), stored.data)], after=position)


async def resumed(kernel: Kernel, session: str) -> SessionState:
    sessions = kernel.sessions()
    await sessions.resume("default", session)
    await settled(sessions)
    return await sessions.state("default", session)


async def test_a_halt_that_was_decided_halts_after_a_crash(kernel: Kernel) -> None:
    """SIGKILL between the decision and the end of the session: the model is not asked again."""
    halt = Decision(Verdict.HALT, ("x.stop",), ("enough",))
    kernel.policy.decide = lambda doc: halt if doc["syscall"]["tool"] == "send" else ALLOW
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("on and on")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    await cut(kernel, session, lambda kind: kind == "syscall.decided")
    asked = len(kernel.model.seen)
    state = await resumed(kernel, session)
    assert (state.state, state.error["message"], len(kernel.model.seen)) == ("halted", "enough", asked)


async def test_a_question_that_was_decided_is_asked_after_a_crash(kernel: Kernel) -> None:
    """SIGKILL between the decision and the question: the session waits for a person, instead of failing."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    await cut(kernel, session, lambda kind: kind == "syscall.decided")
    state = await resumed(kernel, session)
    assert (state.state, state.waiting_for) == ("waiting", "c1")


async def test_an_event_that_is_no_event_of_a_session_is_a_broken_chain(kernel: Kernel) -> None:
    """A log that holds what cannot be folded is said to be broken; it is no KeyError."""
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    await cut(kernel, session, lambda kind: kind == "session.created")
    stored = await kernel.log.last(session_subject(session))
    assert stored is not None
    event = Event.from_bytes(stored.data)
    data = {("gaol" if key == "goal" else key): value for key, value in event.data.items()}
    odd = replace(event, data=data).to_record(b"0" * 16)
    kernel.log = MemoryLog()
    await kernel.log.append(stored.subject, [Message("1", odd)], after=0)
    with pytest.raises(ChainBroken, match="goal"):
        await kernel.sessions().state("default", session)


async def test_a_session_outlives_its_tenant_and_can_be_ended(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the tenant is not declared any more a session can still be cancelled."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"}))]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)

    def gone(_self: Kernel, tenant: str) -> Any:
        raise NotFound(f"there is no tenant {tenant}")

    monkeypatch.setattr(Kernel, "current", gone)
    assert (await sessions.cancel("default", session, reason="over", actor="principal/op")).state == "cancelled"


async def test_sessions_that_wait_for_a_person_count_as_live(kernel: Kernel) -> None:
    """The limit of a tenant holds running and waiting sessions together, also after a restart; ended ones free their place."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()
    made = [(await sessions.create("default", "worker", "work", None, "principal/op")).id for _ in range(10)]
    await settled(sessions)
    with pytest.raises(Conflict, match="10 live sessions"):
        await sessions.create("default", "worker", "work", None, "principal/op")
    later = kernel.sessions()
    later.adopt("default", made)
    with pytest.raises(Conflict):
        await later.create("default", "worker", "work", None, "principal/op")
    await later.answer("default", made[0], granted=True, reason="fine", actor="principal/ann")
    await settled(later)
    await later.create("default", "worker", "work", None, "principal/op")
    await settled(later)


async def test_asking_for_what_is_not_there_leaves_nothing_behind(kernel: Kernel) -> None:
    """Ids that nobody knows, and sessions that rest, hold no memory."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"}))]
    sessions = kernel.sessions()
    await sessions.create("default", "worker", "work", None, "principal/op")
    await settled(sessions)
    for number in range(100):
        with pytest.raises(NotFound):
            await sessions.state("default", f"s-{number}")
    assert (len(sessions._journals), len(sessions._turnstiles), len(sessions._tasks)) == (0, 0, 0)


async def test_what_waits_for_a_resting_session_is_woken_by_its_answer(kernel: Kernel) -> None:
    """A follower does not ask in a loop while a person thinks."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    seq = (await sessions.state("default", session)).seq
    waiting = asyncio.create_task(sessions.wait_beyond("default", session, seq))
    for _ in range(5):
        await sessions.state("default", session)
    assert not waiting.done()
    await sessions.answer("default", session, granted=True, reason="fine", actor="principal/ann")
    await waiting
    await settled(sessions)


async def test_a_goal_that_cannot_be_recorded_leaves_nothing_behind(kernel: Kernel) -> None:
    """Neither a workspace nor a place is kept for a session that never was."""
    sessions = kernel.sessions()
    with pytest.raises(UsageError):
        await sessions.create("default", "worker", "\ud800", None, "principal/op")
    assert list(kernel.workspaces.path("default", "x").parent.iterdir()) == []
    assert not sessions._live


async def test_a_cancellation_that_fails_twice_leaves_one_that_comes_back(kernel: Kernel, flaky: Callable[..., FlakyLog]) -> None:
    """The call that was under way and the cancellation both meet a log that is away: the session is taken over once."""
    log = flaky("syscall.unknown", "syscall.failed", "session.cancelled", stored=False)
    log.times = 2
    begun = asyncio.Event()

    async def hang() -> Result:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    kernel.driver.answers["send"] = hang
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await begun.wait()
    with pytest.raises(LogUnavailable):
        await sessions.cancel("default", session, reason="enough", actor="principal/ann")
    kernel.driver.answers.clear()
    await settled(sessions)
    assert (await kernel.types(session)).count("session.owned") == 1
    assert (await sessions.state("default", session)).state == "finished"
