"""Sessions that share endpoints: order, fail-over, stopping, places."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kernel_in_memory import ALLOW, Kernel, calls, settled, text
from manual_clock import ManualClock, breathe

from agentos.abi import event as ev
from agentos.abi.decision import deny
from agentos.abi.errors import Denied, DriverError, UsageError
from agentos.abi.obligation import Obligation
from agentos.abi.syscall import Result
from agentos.drivers.port import ModelReply, ModelSpec, ModelUnavailable, ReplyBroken
from agentos.kernel import places
from agentos.kernel.admission import PLACES
from agentos.kernel.failures import Preempted, told
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.sessions import Sessions
from agentos.kernel.turn import MODEL_TRIES
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import SessionState, State
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.declared import Arbitration, Circuit, Endpoint, ModelClass, Route, When


@dataclass
class Models:
    """Answers by model: with a reply, an error to raise, or once `go` is released for it (`hold`)."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Model, goal and how the answer begins already."""
    running: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    go: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def complete(self, model: ModelSpec, request: Any, on_text: Any = None) -> ModelReply:
        name, goal = model.name, request.messages[0]["content"][0]["text"]
        self.asked.append((name, goal, request.beginning))
        self.running[name] = self.running.get(name, 0) + 1
        self.most[name] = max(self.most.get(name, 0), self.running[name])
        try:
            answer = self.answers.get(name, text("done"))
            if answer == "hold":
                if on_text is not None and not request.beginning:
                    on_text("half of ")
                    on_text("it ")
                await self.go.acquire()
                answer = text("done")
            if callable(answer):
                answer = answer(request)
            if isinstance(answer, Exception):
                raise answer
            reply: ModelReply = answer
            return reply
        finally:
            self.running[name] -= 1

    async def close(self) -> None:
        return


AGENTS: Mapping[str, tuple[str, str]] = {
    "worker": ("one", "standard"),
    "clerk": ("one", "batch"),
    "desk": ("one", "interactive"),
    "other": ("two", "batch"),
    "router": ("any", "standard"),
}


class Shared(Kernel):
    """A kernel whose agents share the endpoints `one` and `two`."""

    def __init__(self, workspaces: Workspaces, clock: Any = None) -> None:
        super().__init__(workspaces, timer=clock or ManualClock(), model=Models())  # type: ignore[arg-type]
        self.arbitration = Arbitration()
        self.fail_fast = False

    def limit(self, *, continues: bool = False, failures: int = 100, **limits: Limits) -> None:
        self.arbitration = replace(
            self.arbitration,
            endpoints={
                name: Endpoint(("default", name), limit, continues=continues, circuit=Circuit(failures, 5_000))
                for name, limit in {"one": Limits(64), "two": Limits(64), **limits}.items()
            },
        )

    def route(self, *routes: Route) -> None:
        self.limit()
        self.arbitration = replace(self.arbitration, model_classes={"any": ModelClass("any", routes)})

    def current(self, tenant: str) -> Configuration:
        return replace(
            super().current(tenant),
            max_sessions=1000,
            agents={
                name: AgentSpec(name, model, "You work.", tuple(self.tools), {}, priority=priority, fail_fast=self.fail_fast)
                for name, (model, priority) in AGENTS.items()
            },
            models={name: ModelSpec(name, "list", {}) for name in ("one", "two")},
            arbitration=self.arbitration,
        )

    @property
    def models(self) -> Models:
        found: Any = self.model
        return found  # type: ignore[no-any-return]


@pytest.fixture
def shared(kernel: Kernel) -> Shared:
    return Shared(kernel.workspaces)


async def started(sessions: Sessions, agent: str, goal: str = "", **more: Any) -> str:
    return (await sessions.create("default", agent, goal or agent, None, "principal/op", **more)).id


async def until(met: Any) -> None:
    """Harnesses are threads: let them go on until `met()`."""
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.002)


def model_events(events: list[Any]) -> list[tuple[str, str]]:
    """(type, model or error code) of what happened to model calls."""
    found = []
    for event in events:
        if event.data.get("tool") == "model-call":
            kind = event.type.removeprefix("agentos.syscall.")
            word = event.data["args"]["model"] if kind == "decided" else event.data.get("error", {}).get("code", "")
            found.append((kind, word))
    return found


async def test_class_goes_before_arrival(shared: Shared) -> None:
    """One slot, held: of those that wait the interactive one is asked next, batch last; the log says as what and how long."""
    shared.limit(one=Limits(1))
    shared.models.answers["one"] = "hold"
    sessions = shared.sessions()
    await started(sessions, "worker", "first")
    await until(lambda: shared.models.asked)
    arbiter = next(pool for pool in sessions._places._admissions.pools() if pool.key == ("default", "one")).arbiter
    for number, agent in enumerate(("clerk", "worker", "desk"), 1):
        last = await started(sessions, agent)
        await until(lambda number=number: arbiter.waiting() == number)
    shared.timer.ms += 700
    for _ in range(4):
        shared.models.go.release()
    await settled(sessions)
    assert [goal for _, goal, _ in shared.models.asked] == ["first", "desk", "worker", "clerk"]
    decided = next(event for event in await shared.published(last) if event.type == ev.SYSCALL_DECIDED)
    assert (decided.data["admitted"]["class"], decided.data["admitted"]["endpoint"]) == ("interactive", "default/one")
    assert decided.data["admitted"]["waited_ms"] == 700
    assert shared.models.most == {"one": 1}


async def test_an_endpoint_that_fails_is_passed_over_at_once(shared: Shared) -> None:
    """429 of the first model of the route: the next one is asked without a pause, as another syscall; both are in the log."""
    shared.route(Route(("one", "two")))
    shared.models.answers["one"] = ModelUnavailable("429", retry_after=30.0)
    sessions = shared.sessions()
    session = await started(sessions, "router")
    await settled(sessions)  # the clock stands still: whoever paused would never end
    assert model_events(await shared.published(session)) == [
        ("decided", "one"),
        ("failed", "driver.model"),
        ("decided", "two"),
        ("finished", ""),
    ]
    assert (await shared.events(session))[-1].type == ev.SESSION_FINISHED
    await started(sessions, "router")
    await settled(sessions)
    assert [name for name, _, _ in shared.models.asked] == ["one", "two", "two"]  # it asked to be left alone


async def test_a_call_that_all_endpoints_fail_is_tried_again_and_fails(kernel: Kernel) -> None:
    """Each round asks every model of the route once; after the last round the session fails, and says why."""
    shared = Shared(kernel.workspaces, kernel.timer)
    shared.route(Route(("one", "two")))
    shared.models.answers |= {"one": ModelUnavailable("503"), "two": ModelUnavailable("529 overloaded")}
    sessions = shared.sessions()
    session = await started(sessions, "router")
    await settled(sessions)
    assert [name for name, _, _ in shared.models.asked] == ["one", "two"] * MODEL_TRIES
    state = await sessions.state("default", session)
    assert state.error == {"code": "driver.model", "message": "the model could not be called: 529 overloaded"}


async def test_what_the_endpoint_is_not_to_blame_for_is_not_passed_on(kernel: Kernel) -> None:
    """A refusal of the request fails the session; a broken reply is asked for again where it came from."""
    shared = Shared(kernel.workspaces, kernel.timer)
    shared.route(Route(("one", "two")))
    shared.limit(failures=1)
    replies = [ReplyBroken("no JSON"), text("done")]
    shared.models.answers["one"] = lambda _: replies.pop(0)
    sessions = shared.sessions()
    await started(sessions, "router")
    await settled(sessions)
    shared.models.answers["one"] = DriverError("400")
    session = await started(sessions, "router")
    await settled(sessions)
    assert [name for name, _, _ in shared.models.asked] == ["one"] * 3
    assert (await sessions.state("default", session)).state is State.FAILED


async def test_no_route_fails_the_session(shared: Shared) -> None:
    """A class none of whose routes takes the call says so, and nothing is asked."""
    shared.route(Route(("one",), When(labels=frozenset({"pii"}))))
    sessions = shared.sessions()
    session = await started(sessions, "router")
    await settled(sessions)
    error = (await sessions.state("default", session)).error
    assert error is not None
    assert error["code"] == "route"
    assert shared.models.asked == []


@pytest.mark.parametrize("continues", [True, False])
async def test_a_call_is_stopped_for_one_that_has_waited_too_long(shared: Shared, continues: bool) -> None:
    """The batch call's stream is cancelled, what it had said is in the log, and it is made again, from there on if it can be."""
    shared.limit(one=Limits(1), continues=continues)
    shared.models.answers["one"] = "hold"
    sessions = shared.sessions()
    batch = await started(sessions, "clerk")
    await until(lambda: shared.models.asked)
    await started(sessions, "desk")
    arbiter = next(pool for pool in sessions._places._admissions.pools() if pool.key == ("default", "one")).arbiter
    await until(lambda: arbiter.waiting() == 1)
    await shared.timer.advance(10_001)  # type: ignore[attr-defined]
    await until(lambda: len(shared.models.asked) == 2)
    for _ in range(2):
        shared.models.go.release()
    await settled(sessions)
    said = "half of it" if continues else ""
    assert shared.models.asked == [("one", "clerk", ""), ("one", "desk", ""), ("one", "clerk", said)]
    events = await shared.published(batch)
    assert model_events(events) == [("decided", "one"), ("failed", "preempted"), ("decided", "one"), ("finished", "")]
    failed = next(event for event in events if event.type == ev.SYSCALL_FAILED)
    assert (failed.data["error"]["partial"], failed.data["error"]["retryable"]) == ("half of it ", True)
    assert (await sessions.state("default", batch)).result == ("half of itdone" if continues else "done")


def test_words_of_a_stopped_call_are_withheld_like_its_result() -> None:
    """Where an obligation hides what comes of a call, what it had said by then is hidden too."""
    hidden = [Obligation("redact", "r.no", {"in": "result", "path": "/content"})]
    assert told(Preempted("stopped", partial="words"))["partial"] == "words"
    assert "words" not in str(told(Preempted("stopped", partial="words"), hidden))


async def test_waiting_for_one_endpoint_keeps_nobody_from_another(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """All places are taken by sessions that wait for a full endpoint: one that needs another endpoint gets a place, and an
    interactive one goes before all that wait; those that gave theirs up finish too, each call made once.
    """
    monkeypatch.setattr(places, "MAX_RUNNING", 3)
    shared.limit(one=Limits(1))
    shared.models.answers["one"] = "hold"
    sessions = shared.sessions()
    flood = [await started(sessions, "clerk", f"c{number}") for number in range(8)]
    await until(lambda: len(shared.models.asked) == 1)
    other = await started(sessions, "other")
    await until(lambda: sessions._tasks.get(("default", other)) is None)
    assert (await sessions.state("default", other)).state is State.FINISHED
    desk = await started(sessions, "desk")
    admissions = sessions._places._admissions
    arbiter = next(pool for pool in admissions.pools() if pool.key == ("default", "one")).arbiter
    await until(lambda: arbiter.depth()["interactive"] == 1)
    for _ in range(9):
        shared.models.go.release()
    await settled(sessions)
    order = [goal for name, goal, _ in shared.models.asked if name == "one"]
    assert order[1] == "desk"
    assert sorted(order) == sorted([f"c{number}" for number in range(8)] + ["desk"])
    for session in (*flood, desk):
        assert model_events(await shared.published(session)) == [("decided", "one"), ("finished", "")]
    assert shared.models.most["one"] == 1
    assert admissions.depth(PLACES) == 0


async def test_a_session_can_be_stopped_and_paused_while_it_waits(shared: Shared) -> None:
    """Cancelled, it leaves the queue; paused, it makes no call when its turn comes, and gives that to the next."""
    shared.limit(one=Limits(1))
    shared.models.answers["one"] = "hold"
    sessions = shared.sessions()
    await started(sessions, "worker", "first")
    await until(lambda: shared.models.asked)
    admissions = sessions._places._admissions
    arbiter = next(pool for pool in admissions.pools() if pool.key == ("default", "one")).arbiter
    waiting = []
    for number, goal in enumerate(("cancelled", "paused", "last"), 1):
        waiting.append(await started(sessions, "worker", goal))
        await until(lambda number=number: arbiter.waiting() == number)
    await sessions.cancel("default", waiting[0], reason="no", actor="principal/op")
    assert arbiter.waiting() == 2
    async with sessions.journal("default", waiting[1]) as journal:
        await journal.record(ev.SESSION_PAUSED, {"reason": "wait"}, actor="principal/op", revision=1, policy=None)
    for _ in range(2):
        shared.models.go.release()
    await settled(sessions)
    assert [goal for _, goal, _ in shared.models.asked] == ["first", "last"]
    assert [str((await sessions.state("default", one)).state) for one in waiting] == ["cancelled", "paused", "finished"]


async def test_a_tool_with_limits_is_called_so_often_at_a_time(shared: Shared) -> None:
    """Six sessions call a tool that takes two calls at one time: never three, and all of them are made."""
    shared.arbitration = Arbitration(tool_limits={"send": Limits(2)})
    shared.models.answers["one"] = lambda request: (
        text("done") if len(request.messages) > 1 else calls(("c1", "send", {"path": "x"}))
    )
    running, most = 0, 0

    async def send() -> Result:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await breathe()
        running -= 1
        return Result("sent")

    shared.driver.answers["send"] = send
    sessions = shared.sessions()
    made = [await started(sessions, "worker", f"g{number}") for number in range(6)]
    await settled(sessions)
    assert (most, len(shared.driver.calls)) == (2, 6)
    assert {(await sessions.state("default", one)).state for one in made} == {State.FINISHED}


async def test_a_run_has_a_class_and_a_deadline_of_its_own(shared: Shared) -> None:
    """They stand in the first event and in the state, which a restart comes to as well; what the tenant may not use is denied."""
    shared.arbitration = replace(shared.arbitration, allowed=frozenset({"batch"}))
    sessions = shared.sessions()
    session = await started(sessions, "worker", priority="batch", due_in_ms=60_000)
    await settled(sessions)
    first = (await shared.published(session))[0]
    assert (first.data["priority"], first.data["deadline_ms"]) == ("batch", first.time_ms + 60_000)
    state: SessionState = await shared.sessions().state("default", session)
    assert (state.priority, state.deadline_ms) == ("batch", first.data["deadline_ms"])
    decided = next(event for event in await shared.events(session) if event.type == ev.SYSCALL_DECIDED)
    assert decided.data["admitted"]["class"] == "batch"
    with pytest.raises(Denied, match="may not use the priority class interactive"):
        await started(sessions, "worker", priority="interactive")
    with pytest.raises(UsageError, match="no priority class is called urgent"):
        await started(sessions, "worker", priority="urgent")


async def test_sessions_that_fail_go_first_where_that_is_declared(shared: Shared) -> None:
    """Of turns of one agent that are due at no time: the one whose session had two calls denied, then one, then those that came
    before; without `failFast` as they came.
    """
    denied = {"good": 0, "bad": 1, "worse": 2}
    shared.policy.decide = lambda asked: deny("rules.no", "no") if asked["syscall"]["tool"] == "send" else ALLOW

    def answer(request: Any) -> ModelReply:
        goal, replies = request.messages[0]["content"][0]["text"], sum(one["role"] == "assistant" for one in request.messages)
        if replies:
            return text("done")
        failing = [(f"c{number}", "send", {"path": "x"}) for number in range(denied[goal])]
        return calls(*failing, ("hold", "write", {"path": "x"}))

    for fail_fast, expected in ((True, ["worse", "bad", "good"]), (False, ["good", "bad", "worse"])):
        shared.fail_fast = fail_fast
        shared.models.asked.clear()
        shared.limit(one=Limits(3))
        shared.models.answers["one"] = answer
        gates = {goal: asyncio.Event() for goal in denied}
        order = iter(denied)

        async def wait(order: Any = order, gates: Any = gates) -> Result:
            await gates[next(order)].wait()
            return Result("held")

        shared.driver.answers["write"] = wait
        sessions = shared.sessions()
        for number, goal in enumerate(denied, 1):
            await started(sessions, "worker", goal)
            await until(lambda number=number: sum(name == "write" for name, _ in shared.driver.calls) == number)
        shared.driver.calls.clear()
        # All of them come to a full endpoint now, one after the other.
        shared.limit(one=Limits(1))
        shared.models.answers["one"] = "hold"
        await started(sessions, "worker", "blocks")
        await until(lambda: shared.models.running.get("one") == 1)
        arbiter = next(pool for pool in sessions._places._admissions.pools() if pool.key == ("default", "one")).arbiter
        for number, goal in enumerate(denied, 1):
            gates[goal].set()
            await until(lambda number=number, arbiter=arbiter: arbiter.waiting() == number)
        for _ in range(4):
            shared.models.go.release()
        await settled(sessions)
        assert [goal for _, goal, _ in shared.models.asked[-3:]] == expected


async def test_a_continued_call_that_is_stopped_again_keeps_what_was_said_first(shared: Shared) -> None:
    """Stopped twice: the third call begins with the words of both, and they are all in the answer."""
    shared.limit(one=Limits(1), continues=True)
    words = iter(("one ", " two "))

    class Twice(Models):
        async def complete(self, model: ModelSpec, request: Any, on_text: Any = None) -> ModelReply:
            said = next(words, "") if request.messages[0]["content"][0]["text"] == "clerk" else ""
            if on_text is not None and said:
                on_text(said)
            return await super().complete(model, request, None)

    shared.model = Twice()  # type: ignore[assignment]
    shared.models.answers["one"] = "hold"
    sessions = shared.sessions()
    batch = await started(sessions, "clerk")
    for round_ in range(2):
        await until(lambda round_=round_: len(shared.models.asked) == 1 + 2 * round_)
        await started(sessions, "desk")
        arbiter = next(pool for pool in sessions._places._admissions.pools() if pool.key == ("default", "one")).arbiter
        await until(lambda arbiter=arbiter: arbiter.waiting() == 1)
        await shared.timer.advance(10_001)  # type: ignore[attr-defined]
        await until(lambda round_=round_: len(shared.models.asked) == 2 + 2 * round_)
        shared.models.go.release()
    await until(lambda: len(shared.models.asked) == 5)
    shared.models.go.release()
    await settled(sessions)
    assert [said for _, goal, said in shared.models.asked if goal == "clerk"] == ["", "one", "one two"]
    assert (await sessions.state("default", batch)).result == "one twodone"
    partials = [one.data["error"]["partial"] for one in await shared.published(batch) if one.type == ev.SYSCALL_FAILED]
    assert [one.rstrip() for one in partials] == ["one", "one two"]


@pytest.mark.parametrize(("own", "expected"), [(None, "standard"), ("batch", "batch")])
async def test_a_tool_is_told_the_class_that_its_session_has(shared: Shared, own: str | None, expected: str) -> None:
    """That of the run, or that of the agent: locks are waited for by it."""
    told: list[str] = []
    real = shared.driver.call

    async def call(tool: Any, args: Any, context: Any) -> Result:
        told.append(context.priority)
        return await real(tool, args, context)

    shared.driver.call = call  # type: ignore[method-assign]
    shared.models.answers["one"] = lambda request: (
        text("done") if len(request.messages) > 1 else calls(("c1", "send", {"path": "x"}))
    )
    sessions = shared.sessions()
    await started(sessions, "worker", priority=own)
    await settled(sessions)
    assert told == [expected]
