"""Signals: told once and durably, seen at the next turn or got by who waits, at no cost, with the labels of whoever sent them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from kernel_in_memory import TOOLS, Kernel, ListModel, RecordingDriver, calls, text
from manual_clock import ManualClock, breathe

from agentos.abi.errors import AgentOSError, Conflict, NotFound, Unavailable
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers.adapters.builtin import BuiltinDriver
from agentos.drivers.port import CallContext, ModelReply, ModelSpec, ToolSpec
from agentos.drivers.primitives import input_schema
from agentos.kernel.sessions import Sessions
from agentos.kernel.signals import MOST, MOST_BY_AGENTS, SignalDesk
from agentos.projections.context import messages
from agentos.projections.session import fold_all
from agentos.projections.state_document import read_state, state_document

HOUR = 3_600_000


class Hands(RecordingDriver):
    """Records, and leaves the primitives `wait` and `signal` to the builtin driver."""

    def __init__(self) -> None:
        super().__init__()
        self.builtin = BuiltinDriver()

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        done = await super().call(tool, args, context)
        return await self.builtin.call(tool, args, context) if tool.name in {"wait", "signal"} else done


class Script(ListModel):
    """By the goal of the session: a list of replies each."""

    def __init__(self) -> None:
        super().__init__()
        self.plays: dict[str, list[ModelReply]] = {}

    async def complete(self, model: ModelSpec, request: Any, on_text: object = None) -> ModelReply:
        self.seen.append(request)
        number = sum(1 for message in request.messages if message["role"] == "assistant")
        play = self.plays.get(request.messages[0]["content"][0]["text"], [])
        return play[number] if number < len(play) else text("done")


def primitive(name: str) -> ToolSpec:
    driver = {"builtin": {"primitive": name}}
    return ToolSpec(
        name, name, ToolEffect.WRITE, idempotent=True, input_schema=input_schema(name), driver=driver, timeout_ms=HOUR
    )


class World:
    """A runtime in memory with signals."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.driver, self.model = Hands(), Script()
        kernel.driver, kernel.model = self.driver, self.model
        kernel.tools = {**TOOLS, "wait": primitive("wait"), "signal": primitive("signal")}
        self.of_agent: list[str] = []
        self.sessions, self.desk = self.fresh()

    def fresh(self) -> tuple[Sessions, SignalDesk]:
        """As after a restart."""
        sessions = self.kernel.sessions()

        async def live_of(tenant: str, agent: str) -> Sequence[str]:
            return self.of_agent

        desk = self.driver.builtin.signals = SignalDesk(sessions, self.kernel, self.kernel.timer, live_of)
        desk.idle = sessions.idle
        sessions.at_end(desk.ended)
        self.sessions, self.desk = sessions, desk
        return sessions, desk

    async def begin(self, goal: str, *replies: ModelReply, **how: Any) -> str:
        self.model.plays[goal] = list(replies)
        return (await self.sessions.create("default", "worker", goal, None, "principal/op", **how)).id

    async def tell(self, session: str, name: str, data: str = "") -> None:
        await self.desk.signal("default", session, name, data, actor="principal/ann")

    async def waits(self, session: str) -> None:
        await until(
            lambda: any(one.patience for desk in [self.desk._desks.get(("default", session))] if desk for one in desk.waiters)
        )

    async def end(self, session: str) -> Any:
        async with asyncio.timeout(20):
            while not (state := await self.sessions.state("default", session)).over:
                await self.sessions.wait_beyond("default", session, state.seq)
        return fold_all(await self.kernel.published(session))

    async def close(self) -> None:
        await self.sessions.close()
        await self.desk.close()


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.001)


@pytest.fixture
def world(kernel: Kernel) -> World:
    kernel.timer = ManualClock()  # type: ignore[assignment]
    return World(kernel)


WAIT = calls(("c1", "wait", {"signal": "go", "timeoutSeconds": 600}))


async def test_it_is_seen_at_the_next_turn_and_stays_where_it_was_seen(world: World) -> None:
    """What a model has been shown never changes: later views begin as the earlier ones did."""
    acts, go = asyncio.Event(), asyncio.Event()

    async def slow() -> Result:
        acts.set()
        await go.wait()
        return Result("done")

    world.driver.answers["send"] = slow
    session = await world.begin(
        "work", calls(("c1", "send", {"path": "x"})), calls(("c2", "write", {"path": "y"})), text("all done")
    )
    await acts.wait()
    await world.tell(session, "hint", "look in the inbox")
    go.set()
    state = await world.end(session)
    first, second, third = (request.messages for request in world.model.seen)
    assert len(first) == 1
    assert second[-1]["content"][-1] == {"type": "text", "text": "Signal hint from principal/ann:\nlook in the inbox"}
    assert third[: len(second)] == second
    assert messages(state)[: len(third)] == third
    assert read_state(state_document(state)) == state
    await world.close()


async def test_one_that_comes_while_the_model_is_asked_is_for_the_next_turn(world: World) -> None:
    """The log names how many the view held; nothing is put into a request that was under way."""
    asked = world.model.complete

    async def complete(*words: Any) -> ModelReply:
        if not world.model.seen:
            world.model.complete = asked  # type: ignore[method-assign]
            await world.tell(session, "hint", "late")
        return await asked(*words)

    world.model.complete = complete  # type: ignore[method-assign,assignment]
    gate, world.kernel.policy.decide = asyncio.Event(), world.kernel.policy.decide
    session = await world.begin("work", calls(("c2", "write", {"path": "y"})), text("all done"))
    gate.set()
    state = await world.end(session)
    first, second = (request.messages for request in world.model.seen)
    assert first == second[:1]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert "late" in str(second[-1])
    assert [call.args.get("signals") for call in state.calls.values() if call.tool == "model-call"] == [None, 1]
    await world.close()


async def test_who_waits_gets_it_and_the_model_is_told_once(world: World) -> None:
    """The call is answered with it; it is no message besides."""
    session = await world.begin("work", WAIT, text("all done"))
    await world.waits(session)
    await world.tell(session, "other", "no")
    await world.tell(session, "go", "yes")
    state = await world.end(session)
    assert state.calls["c1"].result["content"] == "the signal go came from principal/ann: yes"
    assert [one.get("consumed") for one in state.signals] == [None, "c1"]
    told = str(world.model.seen[-1].messages)
    assert (told.count("Signal other"), told.count("Signal go"), told.count("the signal go came")) == (1, 0, 1)
    await world.close()


async def test_one_that_came_before_counts_once(world: World) -> None:
    """The first wait gets what is there already, the second one waits for another."""
    again = calls(("c2", "wait", {"signal": "go"}))
    acts, go = asyncio.Event(), asyncio.Event()

    async def slow() -> Result:
        acts.set()
        await go.wait()
        return Result("done")

    world.driver.answers["send"] = slow
    session = await world.begin("work", calls(("c0", "send", {"path": "x"})), WAIT, again, text("all done"))
    await acts.wait()
    await world.tell(session, "go", "1")
    go.set()
    await until(lambda: world.sessions._journals["default", session].state.turn == 3)
    await world.waits(session)
    await world.tell(session, "go", "2")
    state = await world.end(session)
    assert [state.calls[name].result["data"]["number"] for name in ("c1", "c2")] == [1, 2]
    await world.close()


async def test_a_wait_ends_at_its_time_over_a_restart_too(world: World) -> None:
    """The time counts from when the call was first allowed; the model is told that it did not come."""
    session = await world.begin("work", WAIT, text("all done"))
    await world.waits(session)
    await world.kernel.timer.advance(400_000)  # type: ignore[attr-defined]
    await world.close()
    world.fresh()
    await world.sessions.resume("default", session)
    await world.waits(session)
    state = await world.sessions.state("default", session)
    assert list(state.since) == ["c1"]
    await world.kernel.timer.advance(199_000)  # type: ignore[attr-defined]
    assert not (await world.sessions.state("default", session)).over
    await world.kernel.timer.advance(2_000)  # type: ignore[attr-defined]
    state = await world.end(session)
    assert state.calls["c1"].error["code"] == "signal.late"
    assert (state.state, state.since) == ("finished", {})
    await world.close()


async def test_a_signal_that_came_while_no_runtime_ran_is_got_after_it(world: World) -> None:
    """What is in the log was said."""
    session = await world.begin("work", WAIT, text("all done"))
    await world.waits(session)
    await world.close()
    world.fresh()
    await world.tell(session, "go")
    await world.sessions.resume("default", session)
    state = await world.end(session)
    assert state.calls["c1"].result["content"] == "the signal go came from principal/ann"
    await world.close()


async def test_stop_ends_whatever_it_waits_for(world: World) -> None:
    """And the model is asked to come to an end."""
    session = await world.begin("work", WAIT, text("all done"))
    await world.waits(session)
    await world.tell(session, "stop")
    state = await world.end(session)
    assert state.calls["c1"].error["code"] == "signal.stop"
    assert "you are asked to stop" in str(world.model.seen[-1].messages)
    await world.close()


async def test_an_agent_tells_another_with_its_labels(world: World) -> None:
    """What it says is untrusted, carries what its session carries, and is told once however often the call is made."""
    listener = await world.begin("listen", WAIT, text("heard"))
    await world.waits(listener)
    args = {"session": listener, "name": "go", "data": "now"}
    speaker = await world.begin("speak", calls(("c1", "signal", args)), text("said"), labels=("pii",))
    await world.end(speaker)
    state = await world.end(listener)
    assert state.labels == {"pii", "untrusted"}
    signalled = next(event for event in await world.kernel.published(listener) if event.type.endswith("signalled"))
    assert signalled.attributes["dataclasses"] == "pii,untrusted"
    assert (signalled.actor, signalled.data["id"]) == ("agent/worker", f"{speaker}/c1")
    await world.close()


async def test_the_same_call_made_again_tells_nobody_twice(world: World) -> None:
    """As after a crash; also when the one that was told is over by then."""
    listener = await world.begin("listen", WAIT, text("heard"))
    await world.waits(listener)
    for _ in range(2):
        await world.desk.signal("default", listener, "go", actor="agent/x", call="s-9/c1")
    state = await world.end(listener)
    await world.desk.signal("default", listener, "go", actor="agent/x", call="s-9/c1")
    assert len(state.signals) == 1
    with pytest.raises(Conflict, match="already finished"):
        await world.desk.signal("default", listener, "go", actor="agent/x", call="s-9/c2")
    await world.close()


async def test_all_live_sessions_of_an_agent(world: World) -> None:
    """Those that have ended meanwhile are named; where there is none the model is told so."""
    first = await world.begin("one", WAIT, text("heard"))
    second = await world.begin("two", WAIT, text("heard"))
    gone = await world.begin("three", text("over"))
    await world.end(gone)
    await world.waits(first)
    await world.waits(second)
    world.of_agent = [first, second, gone]
    speaker = await world.begin("speak", calls(("c1", "signal", {"agent": "worker", "name": "go"})), text("said"))
    state = await world.end(speaker)
    assert state.calls["c1"].result["data"] == {"signal": "go", "sessions": [first, second], "left": [gone]}
    await world.end(first)
    await world.end(second)
    world.of_agent = []
    state = await world.end(await world.begin("alone", calls(("c1", "signal", {"agent": "worker", "name": "go"})), text("said")))
    assert state.calls["c1"].error["message"] == "agent worker has no live session"
    await world.close()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"name": "go"}, "a signal goes to one of"),
        ({"name": "go", "session": "s-9", "agent": "worker"}, "a signal goes to one of"),
        ({"name": "go", "session": "s-9"}, "no session s-9"),
        ({"name": "go", "triggers": True}, "there are no triggers here"),
    ],
)
async def test_what_cannot_be_told_is_said_to_the_model(world: World, args: dict[str, Any], message: str) -> None:
    """And nothing else happens to its session."""
    state = await world.end(await world.begin("speak", calls(("c1", "signal", args)), text("said")))
    assert message in state.calls["c1"].error["message"]
    assert state.state == "finished"
    await world.close()


async def test_nobody_floods_a_session(world: World) -> None:
    """Each signal stays in its view, so there is a most."""
    session = await world.begin("work", WAIT, text("heard"))
    await world.waits(session)
    for number in range(MOST):
        await world.tell(session, "hint", str(number))
    with pytest.raises(Conflict, match="the most"):
        await world.tell(session, "hint")
    with pytest.raises(NotFound):
        await world.tell("s-9", "hint")
    await world.close()


async def test_who_waits_gives_its_place_up(world: World) -> None:
    """More sessions wait than there are places, and another one runs to its end meanwhile; then all get their signal."""
    world.kernel.current = _many(world.kernel.current)  # type: ignore[method-assign]
    waiting = [await world.begin(f"wait-{number}", WAIT, text("heard")) for number in range(70)]
    for session in waiting:
        await world.waits(session)
    assert (await world.end(await world.begin("quick", text("done")))).state == "finished"
    for session in waiting:
        await world.tell(session, "go")
    for session in waiting:
        assert (await world.end(session)).calls["c1"].step == "finished"
    await breathe()
    assert not world.desk._desks
    await world.close()


def _many(current: Any) -> Any:
    from dataclasses import replace

    return lambda tenant: replace(current(tenant), max_sessions=1000)


async def test_agents_leave_room_for_people(world: World) -> None:
    """However much agents have told a session, a person can still ask it to stop."""
    session = await world.begin("work", WAIT, text("heard"))
    await world.waits(session)
    for number in range(MOST_BY_AGENTS):
        await world.desk.signal("default", session, "hint", str(number), actor="agent/chatty")
    with pytest.raises(Conflict, match="the most"):
        await world.desk.signal("default", session, "hint", actor="agent/chatty")
    await world.tell(session, "stop")
    assert (await world.end(session)).calls["c1"].error["code"] == "signal.stop"
    await world.close()


@pytest.mark.parametrize("error", [Conflict("too many live sessions"), Unavailable("the index is behind"), NotFound("gone")])
async def test_triggers_that_cannot_fire_are_news_for_the_model(world: World, error: AgentOSError) -> None:
    """The session goes on, and its model knows why nothing was started."""

    class Full:
        async def signal(self, *args: Any, **how: Any) -> Any:
            raise error

    world.desk.triggers = Full()
    state = await world.end(await world.begin("speak", calls(("c1", "signal", {"name": "go", "triggers": True})), text("said")))
    assert state.state == "finished"
    assert error.message in state.calls["c1"].error["message"]
    await world.close()
