"""Deferred sessions: created and recorded at once, begun when what they wait for holds, and holding nothing until then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from kernel_in_memory import ALLOW, Kernel, ListModel, calls, settled, text
from manual_clock import ManualClock, breathe

from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import Conflict, LogUnavailable, NotFound
from agentos.abi.record import header_of
from agentos.drivers.port import ModelReply, ModelSpec
from agentos.kernel.deferral import AGAIN_MS
from agentos.kernel.sessions import Sessions
from agentos.projections.session import fold_all
from agentos.scheduler.precondition import Precondition

HOUR = 3_600_000


class Asker(ListModel):
    """In sessions whose goal is `ask`, a call that a person is asked about comes first."""

    async def complete(self, model: ModelSpec, request: Any, on_text: object = None) -> ModelReply:
        asks = "ask" in str(request.messages[0]["content"]) and len(request.messages) == 1
        return calls(("c1", "send", {"path": "x"})) if asks else text("done")


@pytest.fixture
def clock(kernel: Kernel) -> ManualClock:
    """A clock that stands still unless it is moved; and a model that asks where it is told to."""
    kernel.model = Asker()
    kernel.timer = clock = ManualClock()  # type: ignore[assignment]
    return clock


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.001)


async def begin(sessions: Sessions, goal: str = "later", *, priority: str | None = None, **words: Any) -> str:
    wanted = Precondition(**words)
    return (await sessions.create("default", "worker", goal, None, "principal/op", priority=priority, begin=wanted)).id


async def asking(kernel: Kernel, sessions: Sessions) -> str:
    """A session that waits for a person."""
    kernel.policy.decide = lambda document: (
        Decision(Verdict.ASK, ("people.ask",), ("look",))
        if document["syscall"]["tool"] == "send" and not document["approvals"]
        else ALLOW
    )
    session = (await sessions.create("default", "worker", "ask", None, "principal/op")).id
    await settled(sessions)
    return session


async def stands(sessions: Sessions, session: str) -> str:
    return str((await sessions.state("default", session)).state)


async def over(sessions: Sessions, *names: str) -> None:
    """Return once all of `names` are over."""
    async with asyncio.timeout(20):
        for name in names:
            while not (state := await sessions.state("default", name)).over:
                await sessions.wait_beyond("default", name, state.seq)


async def yes(sessions: Sessions, session: str) -> None:
    await sessions.answer("default", session, granted=True, reason="fine", actor="principal/ann", roles=["approver"])


async def no(sessions: Sessions, session: str) -> None:
    await sessions.cancel("default", session, reason="enough", actor="principal/ann")


async def test_it_begins_when_the_session_before_it_has_finished(kernel: Kernel, clock: ManualClock) -> None:
    """Until then it has one event, no task, no harness, and asks nobody; what it waited for stands in its log as it was."""
    sessions = kernel.sessions()
    first = await asking(kernel, sessions)
    spawned, asked = kernel.spawner.spawned, len(kernel.policy.asked)
    later = await begin(sessions, after=(first,))
    await breathe()
    state = await sessions.state("default", later)
    assert (state.state, state.deferred, state.over) == ("deferred", {"after": [first]}, False)
    assert (kernel.spawner.spawned, len(kernel.policy.asked), sessions.running()) == (spawned, asked, 0)
    assert sessions.live("default") == {first, later}
    await yes(sessions, first)
    await over(sessions, first, later)
    assert (await kernel.types(later))[:3] == ["session.created", "session.begun", "syscall.decided"]
    events = await kernel.published(later)
    assert events[1].data == {"outcomes": {first: "finished"}}
    assert events[0].attributes["deferred"] == f'{{"after":["{first}"]}}'
    assert fold_all(events).deferred is None
    await settled(sessions)
    assert not sessions.live("default")
    await sessions.close()


@pytest.mark.parametrize(("how", "outcome"), [("after", "failed"), ("after_any", "finished")])
async def test_one_that_was_to_finish_and_did_not(kernel: Kernel, clock: ManualClock, how: str, outcome: str) -> None:
    """Whoever was to begin after it had finished fails and says why; so does who waits for that one in turn."""
    sessions = kernel.sessions()
    first = await asking(kernel, sessions)
    second = await begin(sessions, **{how: (first,)})
    third = await begin(sessions, after=(second,))
    await no(sessions, first)
    await over(sessions, second, third)
    state = await sessions.state("default", second)
    assert (state.state, (await sessions.state("default", third)).state) == (outcome, outcome)
    if how == "after":
        words = f"session {first} was cancelled, and this one was to begin after it had finished"
        assert state.error == {"code": "precondition", "message": words}
        assert await kernel.types(second) == ["session.created", "session.failed"]
        await kernel.published(second)
        error = (await sessions.state("default", third)).error
        assert error is not None
        assert error["message"].startswith(f"session {second} failed, ")
    await sessions.close()


async def test_it_begins_at_its_time(kernel: Kernel, clock: ManualClock) -> None:
    """Not a moment before, and with both a time and a session named, after both."""
    sessions = kernel.sessions()
    first = await asking(kernel, sessions)
    one = await begin(sessions, not_before_ms=clock.ms + HOUR)
    both = await begin(sessions, not_before_ms=clock.ms + 2 * HOUR, after=(first,))
    await yes(sessions, first)
    await over(sessions, first)
    await clock.advance(HOUR - 1)
    assert [await stands(sessions, name) for name in (one, both)] == ["deferred", "deferred"]
    await clock.advance(1)
    await over(sessions, one)
    await clock.advance(HOUR - 1)
    assert await stands(sessions, both) == "deferred"
    await clock.advance(1)
    await over(sessions, both)
    assert await stands(sessions, both) == "finished"
    await sessions.close()


async def test_what_holds_already_begins_at_once(kernel: Kernel, clock: ManualClock) -> None:
    """A time that has passed and a session that has finished; one that failed before lets it fail, as it would a moment later."""
    sessions = kernel.sessions()
    first = (await sessions.create("default", "worker", "first", None, "principal/op")).id
    await over(sessions, first)
    good = await begin(sessions, not_before_ms=1, after=(first,), after_any=(first,))
    await over(sessions, good)
    assert await stands(sessions, good) == "finished"
    asked = await asking(kernel, sessions)
    await no(sessions, asked)
    bad = await begin(sessions, after=(asked,))
    await over(sessions, bad)
    assert await stands(sessions, bad) == "failed"
    await sessions.close()


async def test_a_session_that_is_not_there_is_refused(kernel: Kernel) -> None:
    """Nothing is created: no event, no workspace, no live session."""
    sessions = kernel.sessions()
    with pytest.raises(NotFound, match="no session s-none in tenant default"):
        await begin(sessions, after=("s-none",))
    assert not sessions.live("default")
    assert not list(kernel.workspaces.path("default", "s-x").parent.glob("*"))


async def test_a_restart_looks_again(kernel: Kernel, clock: ManualClock) -> None:
    """Another runtime holds it, before and after the sessions that it names; what ended in between counts."""
    sessions = kernel.sessions()
    first, second = await asking(kernel, sessions), await asking(kernel, sessions)
    waits, fails, timed = (
        await begin(sessions, after=(first,)),
        await begin(sessions, after=(second,)),
        await begin(sessions, not_before_ms=clock.ms + HOUR),
    )
    await breathe()
    await sessions.close()

    alone = kernel.sessions()
    await no(alone, second)
    await alone.close()

    later = kernel.sessions()
    for name in (waits, fails, timed):
        await later.resume("default", name)
        assert later.runs("default", name)
    await over(later, fails)
    assert later.live("default") == {waits, timed}
    assert await kernel.types(waits) == ["session.created"]
    await clock.advance(HOUR)
    await over(later, timed)
    await yes(later, first)
    await over(later, waits)
    assert [await stands(later, name) for name in (waits, fails, timed)] == ["finished", "failed", "finished"]
    await later.close()


async def test_a_person_cancels_one(kernel: Kernel, clock: ManualClock) -> None:
    """It is over, nothing of it begins, nobody holds it, and who waited for its end is told."""
    sessions = kernel.sessions()
    first = await asking(kernel, sessions)
    later = await begin(sessions, after=(first,))
    behind = await begin(sessions, after_any=(later,))
    await no(sessions, later)
    await over(sessions, behind)
    assert (await stands(sessions, later), await stands(sessions, behind)) == ("cancelled", "finished")
    assert await kernel.types(later) == ["session.created", "session.cancelled"]
    assert not any(sessions.deferrals.holds("default", one) for one in (first, later, behind))
    with pytest.raises(Conflict):
        await no(sessions, later)
    await sessions.close()


async def test_the_log_is_away_when_it_is_to_begin(kernel: Kernel, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again, and begins once."""
    sessions = kernel.sessions()
    later = await begin(sessions, not_before_ms=clock.ms + HOUR)
    await breathe()
    real, away = kernel.log.last, [True]

    async def last(subject: str) -> Any:
        if away[0]:
            raise LogUnavailable("away")
        return await real(subject)

    append = kernel.log.append

    async def appending(*args: Any, **words: Any) -> int:
        if away[0]:
            raise LogUnavailable("away")
        return await append(*args, **words)

    monkeypatch.setattr(kernel.log, "last", last)
    monkeypatch.setattr(kernel.log, "append", appending)
    await clock.advance(HOUR + 10 * AGAIN_MS)
    away[0] = False
    async with asyncio.timeout(20):
        while not (await sessions.state("default", later)).over:
            await clock.advance(AGAIN_MS)
            await asyncio.sleep(0.001)
    assert (await kernel.types(later)).count("session.begun") == 1
    await sessions.close()


async def test_how_a_session_ended_is_known_when_its_words_are_erased(
    kernel: Kernel, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header says so. On the word of an event that cannot be read, nothing begins."""
    sessions = kernel.sessions()
    first = (await sessions.create("default", "worker", "first", None, "principal/op")).id
    await over(sessions, first)
    real, lost = kernel.log.last, [b"odd"]

    async def last(subject: str) -> Any:
        stored = await real(subject)
        assert stored is not None
        return replace(stored, data=lost[0] or header_of(stored.data))

    monkeypatch.setattr(kernel.log, "last", last)
    later = await begin(sessions, after=(first,))
    await breathe()
    assert await stands(sessions, later) == "deferred"
    lost[0] = b""
    sessions.deferrals.ended("default", first)
    await over(sessions, later)
    assert await stands(sessions, later) == "finished"
    await sessions.close()


async def test_an_end_that_one_reads_is_known_to_all(kernel: Kernel, clock: ManualClock) -> None:
    """Also before anybody has told it, if anybody ever does: here another runtime has ended the session."""
    sessions = kernel.sessions()
    first = await asking(kernel, sessions)
    early = await begin(sessions, after_any=(first,))
    await breathe()
    other = kernel.sessions()
    await no(other, first)
    late = await begin(sessions, after_any=(first,))
    await over(sessions, early, late)
    assert [await stands(sessions, name) for name in (early, late)] == ["finished", "finished"]
    await sessions.close()


async def test_one_task_for_all_and_none_for_nobody(kernel: Kernel, clock: ManualClock) -> None:
    """However many wait, one task sees to them, and it goes when the last one has begun."""
    sessions = kernel.sessions()
    before = asyncio.all_tasks()
    names = [await begin(sessions, not_before_ms=clock.ms + HOUR) for _ in range(8)]
    await breathe()
    own = {task.get_name() for task in asyncio.all_tasks() - before} - {""}
    assert {name for name in own if not name.startswith("Task-")} == {"deferred sessions"}
    await clock.advance(HOUR)
    await over(sessions, *names)
    await settled(sessions)
    await until(lambda: not any(task.get_name() == "deferred sessions" for task in asyncio.all_tasks()))
    await sessions.close()


async def test_who_waits_lends_its_class(kernel: Kernel, clock: ManualClock) -> None:
    """To the session that it waits for, through another deferred one, until that has begun."""
    sessions = kernel.sessions()
    first = await asking(kernel, sessions)
    second = await begin(sessions, after=(first,), priority="batch")
    effective = partial(sessions._places._admissions.effective, own="batch")
    assert (effective(first), effective(second)) == ("batch", "batch")
    third = await begin(sessions, after=(second,), priority="interactive")
    assert (effective(first), effective(second), effective(third)) == ("interactive", "interactive", "batch")
    await no(sessions, third)
    assert (effective(first), effective(second)) == ("batch", "batch")
    await no(sessions, first)
    await over(sessions, second)
    await sessions.close()
