"""The kill switch: from one moment on nothing of its scope decides or acts; nobody is denied anything; after it all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kernel_in_memory import ALLOW, Kernel, calls, settled, text
from manual_clock import breathe

from agentos.abi import event as ev
from agentos.abi.errors import Frozen
from agentos.abi.freeze import Freeze, FreezeScope, ScopeKind, read_scope
from agentos.abi.ids import FLEET
from agentos.abi.syscall import Result
from agentos.kernel.freeze import Freezes
from agentos.kernel.sessions import Sessions
from agentos.projections.session import fold_all
from agentos.projections.state_document import read_state, state_document


def freeze(name: str = "f-1", kind: ScopeKind = ScopeKind.TENANT, scope: str = "", tenant: str = "default") -> Freeze:
    where = FLEET if kind is ScopeKind.FLEET else tenant
    return Freeze(name, where, FreezeScope(kind, scope), "enough", "principal/ann", 1)


def freezes_of(sessions: Sessions) -> Freezes:
    return sessions._gate.freezes


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.001)


async def begin(sessions: Sessions) -> str:
    return (await sessions.create("default", "worker", "work", None, "principal/op")).id


async def over(sessions: Sessions, session: str) -> None:
    async with asyncio.timeout(20):
        while not (state := await sessions.state("default", session)).over:
            await sessions.wait_beyond("default", session, state.seq)


@pytest.mark.parametrize(
    ("kind", "scope", "tenant", "held"),
    [
        (ScopeKind.FLEET, "", "other", True),
        (ScopeKind.TENANT, "", "default", True),
        (ScopeKind.TENANT, "", "other", False),
        (ScopeKind.PROGRAM, "default", "default", True),
        (ScopeKind.PROGRAM, "else", "default", False),
        (ScopeKind.AGENT, "worker", "default", True),
        (ScopeKind.AGENT, "worker", "other", False),
        (ScopeKind.AGENT, "boss", "default", False),
    ],
)
async def test_it_holds_its_scope_and_nothing_else(kernel: Kernel, kind: ScopeKind, scope: str, tenant: str, held: bool) -> None:
    """A run of what is frozen is refused with its reason; whatever else there is goes on."""
    sessions = kernel.sessions()
    freezes_of(sessions).impose(freeze(kind=kind, scope=scope, tenant=tenant))
    if held:
        with pytest.raises(Frozen, match="is frozen by principal/ann: enough"):
            await begin(sessions)
    else:
        await over(sessions, await begin(sessions))
    await sessions.close()


async def test_a_child_is_held_with_whoever_delegated_to_it(kernel: Kernel) -> None:
    """What acts on behalf of a frozen agent is frozen too, whatever its own agent."""
    delegators = [{"session": "s-0", "agent": "boss", "labels": {}, "tool": "ask", "tools": None}]
    journal = await kernel.journal(delegated={"parent": "s-0", "delegators": delegators})
    gate = kernel.gate()
    gate.freezes.impose(freeze(kind=ScopeKind.AGENT, scope="boss"))
    with pytest.raises(Frozen):
        await kernel.perform(gate, journal, "step-1", "read", path="a")
    assert await kernel.types("s-1") == ["session.created"]


async def test_a_session_parks_without_a_harness_and_goes_on(kernel: Kernel) -> None:
    """What acts when it comes has its outcome; the next call is not decided, nobody is told of a denial, and the session has no
    harness; after it, the session goes on where it was."""
    acts, go = asyncio.Event(), asyncio.Event()

    async def slow() -> Result:
        acts.set()
        await go.wait()
        return Result("done")

    kernel.driver.answers["send"] = slow
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), calls(("c2", "write", {"path": "y"})), text("all done")]
    sessions = kernel.sessions()
    session = await begin(sessions)
    await acts.wait()
    freezes = freezes_of(sessions)
    freezes.impose(freeze())
    await freezes.quiet(freeze())
    decided = (await kernel.types(session)).count("syscall.decided")
    go.set()
    await until(lambda: "f-1" in sessions._journals["default", session].state.frozen)
    await breathe()
    types = await kernel.types(session)
    assert types[-2:] == ["syscall.finished", "session.frozen"]
    assert types.count("syscall.decided") == decided
    assert not sessions._places._seats
    spawned = kernel.spawner.spawned
    freezes.lift("f-1")
    await over(sessions, session)
    state = fold_all(await kernel.published(session))
    assert (state.state, state.result, state.frozen) == ("finished", "all done", ("f-1",))
    assert (kernel.spawner.spawned, [name for name, _ in kernel.driver.calls]) == (spawned + 1, ["send", "write"])
    assert not any("frozen" in str(request.messages) for request in kernel.model.seen)
    await sessions.close()


async def test_what_two_freezes_hold_goes_on_after_both(kernel: Kernel) -> None:
    """And says once of each that it came to it."""
    sessions = kernel.sessions()
    freezes, asked = freezes_of(sessions), asyncio.Event()

    def decide(_: Any) -> Any:
        freezes.impose(freeze("f-1"))
        freezes.impose(freeze("f-2", ScopeKind.AGENT, "worker"))
        asked.set()
        kernel.policy.decide = lambda _: ALLOW
        return ALLOW

    kernel.policy.decide = decide
    session = await begin(sessions)
    await asked.wait()
    await until(lambda: sessions._journals["default", session].state.frozen == ("f-1",))
    freezes.lift("f-1")
    await until(lambda: sessions._journals["default", session].state.frozen == ("f-1", "f-2"))
    assert (await kernel.types(session)).count("syscall.decided") == 0
    freezes.lift("f-2")
    await over(sessions, session)
    assert (await kernel.types(session)).count("session.frozen") == 2
    await sessions.close()


async def test_a_call_that_was_decided_and_held_back_is_decided_again(kernel: Kernel) -> None:
    """Also after a restart: it has surely not begun, so its outcome is not unknown, although it must not be made twice."""
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions = kernel.sessions()
    record = kernel.log.append

    async def append(subject: str, messages: Any, **how: Any) -> Any:
        position = await record(subject, messages, **how)
        if b'"tool":"send"' in messages[0].data and b"syscall.decided" in messages[0].data:
            freezes_of(sessions).impose(freeze())
        return position

    kernel.log.append = append  # type: ignore[method-assign]
    session = await begin(sessions)
    await until(lambda: sessions._journals["default", session].state.frozen)
    assert kernel.driver.calls == []
    events = await kernel.published(session)
    assert events[-1].data == {"freeze": "f-1", "held": ["c1"]}
    state = fold_all(events)
    assert state.held == {"c1"}
    assert read_state(state_document(state)) == state
    await sessions.close()
    kernel.log.append = record  # type: ignore[method-assign]
    again = kernel.sessions()
    freezes_of(again).impose(freeze())
    await again.resume("default", session)
    await breathe()
    assert (await kernel.types(session))[-1] == "session.owned"
    freezes_of(again).lift("f-1")
    await over(again, session)
    types = await kernel.types(session)
    assert "syscall.unknown" not in types
    assert types.count("session.frozen") == 1
    assert kernel.driver.calls == [("send", {"path": "x"})]
    await again.close()


async def test_a_model_call_that_was_held_back_is_made_anew(kernel: Kernel) -> None:
    """It failed before it began, and the model was not asked."""
    sessions = kernel.sessions()
    record = kernel.log.append

    async def append(subject: str, messages: Any, **how: Any) -> Any:
        position = await record(subject, messages, **how)
        if b"syscall.decided" in messages[0].data:
            freezes_of(sessions).impose(freeze())
        return position

    kernel.log.append = append  # type: ignore[method-assign]
    session = await begin(sessions)
    await until(lambda: sessions._journals["default", session].state.frozen)
    assert kernel.model.seen == []
    kernel.log.append = record  # type: ignore[method-assign]
    freezes_of(sessions).lift("f-1")
    await over(sessions, session)
    events = await kernel.published(session)
    failed = next(event for event in events if event.type == ev.SYSCALL_FAILED)
    assert (failed.data["call"], failed.data["error"]["code"]) == ("model-1", "frozen")
    assert len(kernel.model.seen) == 1
    await sessions.close()


async def test_a_frozen_session_can_be_ended(kernel: Kernel) -> None:
    """Of a call that was held back the log says that it never began."""
    journal = await kernel.journal()
    data = {"freeze": "f-1", "held": ["step-1"]}
    gate = kernel.gate()
    gate.freezes.impose(freeze())
    gate.freezes.lift("f-1")
    await decided(kernel, journal)
    await journal.record(ev.SESSION_FROZEN, data, actor="system/kernel", revision=1, policy=None)
    sessions = kernel.sessions()
    freezes_of(sessions).impose(freeze())
    await sessions.resume("default", "s-1")
    await breathe()
    await sessions.cancel("default", "s-1", reason="enough", actor="principal/ann")
    assert (await kernel.types("s-1"))[-2:] == ["syscall.failed", "session.cancelled"]
    await kernel.published("s-1")
    await sessions.close()


async def decided(kernel: Kernel, journal: Any) -> None:
    """The record of a call that was allowed, as a crash leaves it."""
    gate = kernel.gate()

    async def lost() -> Result:
        raise asyncio.CancelledError

    seen = journal.record

    async def record(kind: str, *args: Any, **how: Any) -> Any:
        return await seen(kind, *args, **how) if kind == ev.SYSCALL_DECIDED else journal.state

    kernel.driver.answers["send"] = lost
    journal.record = record
    with pytest.raises(asyncio.CancelledError):
        await kernel.perform(gate, journal, "step-1", "send", path="x")
    journal.record = seen


async def test_it_waits_for_decisions_that_are_on_their_way(kernel: Kernel) -> None:
    """Quiet comes when the log has them; what is of another scope is not waited for."""
    journal, freezes = await kernel.journal(), Freezes()
    configuration = kernel.current("default")
    with freezes.intent(journal.state, configuration):
        freezes.impose(freeze())
        waits = asyncio.create_task(freezes.quiet(freeze()))
        other = asyncio.create_task(freezes.quiet(freeze("f-2", ScopeKind.AGENT, "boss")))
        await breathe()
        assert (waits.done(), other.done()) == (False, True)
    await breathe()
    assert waits.done()
    with pytest.raises(Frozen), freezes.intent(journal.state, configuration):
        pytest.fail("nothing is recorded any more")


async def test_no_decision_follows_with_many_sessions_at_once(kernel: Kernel) -> None:
    """Two hundred live sessions: once quiet, the number of decisions stands still, and nothing acts any more."""
    kernel.model.replies = [calls((f"c{turn}", "write", {"path": "x"})) for turn in range(12)]
    sessions = kernel.sessions()
    current = kernel.current
    kernel.current = lambda tenant: _many(current(tenant))  # type: ignore[method-assign]
    names = [await begin(sessions) for _ in range(200)]
    await until(lambda: len(kernel.driver.calls) > 200)
    freezes = freezes_of(sessions)
    freezes.impose(freeze())
    acted = len(kernel.driver.calls)
    await freezes.quiet(freeze())
    before = {name: (await kernel.types(name)).count("syscall.decided") for name in names}
    await until(lambda: not sessions._places._seats)
    assert {name: (await kernel.types(name)).count("syscall.decided") for name in names} == before
    assert len(kernel.driver.calls) == acted
    live = [name for name in names if not (await sessions.state("default", name)).over]
    async with asyncio.timeout(20):
        while not all([(await sessions.state("default", name)).frozen for name in live]):
            await asyncio.sleep(0.01)
    assert {(await kernel.types(name)).count("session.frozen") for name in live} == {1}
    freezes.lift("f-1")
    await settled(sessions)
    for name in names:
        state = fold_all(await kernel.events(name))
        assert state.over
        assert state.state == "finished", state.error
    await sessions.close()


def _many(configuration: Any) -> Any:
    return replace(configuration, max_sessions=1000)


@pytest.mark.parametrize(
    "body", [{"kind": "agent"}, {"kind": "fleet", "name": "x"}, {"kind": "all"}, {"kind": "agent", "name": "A b"}]
)
def test_a_scope_that_says_nothing_clear_is_refused(body: dict[str, Any]) -> None:
    """A kill switch holds exactly what it names."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_scope(body)
