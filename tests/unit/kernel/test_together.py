"""Calls of one turn at once: what may overlap, what waits, and that nothing else changes by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kernel_in_memory import ALLOW, InlineSpawner, Kernel, RecordingDriver, calls, settled, text, tool
from manual_clock import breathe
from test_hostile_harness import hostile

from agentos.abi import event as ev
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import DriverError, LogUnavailable
from agentos.abi.event import Event
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers.port import CallContext, ToolSpec
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.kernel.life import Life
from agentos.kernel.port import Brief
from agentos.kernel.replay import replay
from agentos.kernel.serving import MAX_AT_ONCE
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.projections import context
from agentos.projections.session import State, Step, fold_all
from agentos.projections.state_document import digest_of_state

ASK = Decision(Verdict.ASK, ("people.ask",), ("a person looks at it",))
HALT = Decision(Verdict.HALT, ("rules.halt",), ("enough",))


class Meeting(RecordingDriver):
    """Says which calls act at which time. Those in `held` act until they are let go (`go`)."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, str]] = []
        """`(begins | ends, call)`, in order."""
        self.acting: set[str] = set()
        self.most = 0
        self.held: dict[str, asyncio.Event] = {}
        self.errors: dict[str, Exception] = {}

    def hold(self, *names: str) -> None:
        self.held |= {name: asyncio.Event() for name in names}

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        name = context.call
        self.log.append(("begins", name))
        self.acting.add(name)
        self.most = max(self.most, len(self.acting))
        try:
            if name in self.held:
                await self.held[name].wait()
            if name in self.errors:
                raise self.errors[name]
            return Result(f"{tool.name} {name}", labels=tool.labels)
        finally:
            self.acting.discard(name)
            self.log.append(("ends", name))


def reads(*names: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Reads, each of a file of its call's name."""
    return [(name, "read", {"path": name}) for name in names]


@pytest.fixture
def kernel(kernel: Kernel) -> Kernel:
    return together(kernel)


def together(kernel: Kernel) -> Kernel:
    """A kernel with tools that commute: `read`, and `mark`, whose results carry a label."""
    read = replace(tool("read", effect=ToolEffect.READ), commutes=True)
    kernel.driver = Meeting()
    kernel.tools = {**kernel.tools, "read": read, "mark": replace(read, name="mark", labels=("seen",))}
    return kernel


def about(document: Mapping[str, Any]) -> str:
    """Which call policy is asked about, by the file that it names."""
    return str(document["syscall"]["args"].get("path", ""))


def met(kernel: Kernel) -> Meeting:
    driver = kernel.driver
    assert isinstance(driver, Meeting)
    return driver


async def until(condition: Any) -> None:
    """Harnesses are threads: let them go on until `condition()`."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def start(kernel: Kernel, *proposals: tuple[str, str, dict[str, Any]]) -> tuple[Sessions, str]:
    kernel.model.replies = [calls(*proposals), text("done")]
    sessions = kernel.sessions()
    return sessions, (await sessions.create("default", "worker", "work", None, "principal/op")).id


def results(events: list[Event]) -> list[str]:
    """The ids of the results that the model was last shown, in order."""
    shown = context.messages(fold_all(events))
    return [
        block["tool_use_id"]
        for message in shown
        if message["role"] == "user"
        for block in message["content"]
        if "tool_use_id" in block
    ]


async def test_two_reads_act_at_once_and_each_is_told_when_it_ends(kernel: Kernel) -> None:
    """Both have begun before either has ended; the second one ends first; the conversation keeps the order of the reply."""
    driver = met(kernel)
    driver.hold("c1", "c2")
    sessions, session = await start(kernel, *reads("c1", "c2"))
    await until(lambda: driver.acting == {"c1", "c2"})
    driver.held["c2"].set()
    await until(lambda: driver.acting == {"c1"})
    driver.held["c1"].set()
    await settled(sessions)
    events = await kernel.published(session)
    kinds = [(event.type.rpartition(".")[2], event.data.get("call")) for event in events if event.data.get("tool") == "read"]
    assert kinds == [("decided", "c1"), ("decided", "c2"), ("finished", "c2"), ("finished", "c1")]
    assert results(events) == ["c1", "c2"]
    assert [block["content"] for block in kernel.model.seen[-1].messages[-1]["content"]] == ["read c1", "read c2"]
    assert fold_all(events).state is State.FINISHED


async def test_what_does_not_commute_is_alone(kernel: Kernel) -> None:
    """A write begins once the reads before it have ended, and the reads behind it begin once it has."""
    driver = met(kernel)
    driver.hold("r1", "r2")
    sessions, session = await start(kernel, *reads("r1", "r2"), ("w1", "write", {"path": "a"}), *reads("r3", "r4"))
    await until(lambda: driver.acting == {"r1", "r2"})
    await breathe()
    assert (await kernel.types(session)).count("syscall.decided") == 3  # the model's and the two
    for held in driver.held.values():
        held.set()
    await settled(sessions)
    place = {what: at for at, what in enumerate(driver.log)}
    assert max(place["ends", "r1"], place["ends", "r2"]) < place["begins", "w1"] < place["ends", "w1"]
    assert place["ends", "w1"] < min(place["begins", "r3"], place["begins", "r4"])
    assert results(await kernel.published(session)) == ["r1", "r2", "w1", "r3", "r4"]


@pytest.mark.parametrize("change", [{"commutes": False}, {"effect": ToolEffect.WRITE}], ids=["undeclared", "writes"])
async def test_only_a_read_that_says_so_commutes(kernel: Kernel, change: dict[str, Any]) -> None:
    """Neither a read that does not say so, nor a write that does, overlaps."""
    kernel.tools["read"] = replace(kernel.tools["read"], **change)
    sessions, _ = await start(kernel, *reads("c1", "c2", "c3"))
    await settled(sessions)
    assert met(kernel).most == 1
    assert met(kernel).log == [(what, name) for name in ("c1", "c2", "c3") for what in ("begins", "ends")]


async def test_a_call_is_not_decided_while_a_new_label_is_on_its_way(kernel: Kernel) -> None:
    """Whoever reads what is labelled is waited for; policy is asked about the next call with the label in hand."""
    driver = met(kernel)
    driver.hold("m1", "m2")
    kernel.policy.decide = lambda document: (
        deny("wall.no", "it has seen the other side") if about(document) == "c9" and document["session"]["labels"] else ALLOW
    )
    marks = [(name, "mark", {"path": "a"}) for name in ("m1", "m2")]
    sessions, session = await start(kernel, *marks, *reads("c9"))
    await until(lambda: driver.acting == {"m1"})
    await breathe()
    assert driver.acting == {"m1"}
    driver.held["m1"].set()
    await until(lambda: driver.acting == {"m2"})  # its label is there: the next one need not wait for another of the same
    await until(lambda: any(about(one) == "c9" for one in kernel.policy.asked))
    driver.held["m2"].set()
    await settled(sessions)
    assert (await sessions.state("default", session)).calls["c9"].step is Step.DENIED


@pytest.mark.parametrize(("verdict", "state"), [(ASK, State.WAITING), (HALT, State.HALTED)])
async def test_a_session_waits_or_is_halted_once_the_others_have_ended(kernel: Kernel, verdict: Decision, state: State) -> None:
    """The call that asks, or halts, lets those before it end, and none behind it is decided."""
    driver = met(kernel)
    driver.hold("c1")
    kernel.policy.decide = lambda document: verdict if about(document) == "c2" else ALLOW
    sessions, session = await start(kernel, *reads("c1", "c2", "c3"))
    await until(lambda: any(about(one) == "c2" for one in kernel.policy.asked))
    await breathe()
    assert (await kernel.types(session))[-1] == "syscall.decided"
    driver.held["c1"].set()
    await settled(sessions)
    after = await sessions.state("default", session)
    assert (after.state, after.calls["c1"].step, "c3" in after.calls) == (state, Step.FINISHED, False)
    kinds = [kind for kind in await kernel.types(session) if "model" not in kind]
    assert kinds[-2:] == ["syscall.finished", "session.waiting" if verdict is ASK else "session.halted"]
    if verdict is ASK:
        kernel.policy.decide = lambda _: ALLOW
        await sessions.answer("default", session, granted=True, reason="fine", actor="principal/ann")
        await settled(sessions)
        assert results(await kernel.published(session)) == ["c1", "c2", "c3"]
        assert [name for what, name in driver.log if what == "begins"] == ["c1", "c2", "c3"]


async def test_a_pause_lets_what_acts_end_and_nothing_else_begin(kernel: Kernel) -> None:
    """Paused while two of three act, behind a barrier: both are told of, and the third is made when the session goes on."""
    driver = met(kernel)
    driver.hold("c1", "c2")
    sessions, session = await start(kernel, *reads("c1", "c2"), ("w1", "write", {"path": "a"}))
    life = Life(sessions, kernel, sessions._gate)
    await until(lambda: driver.acting == {"c1", "c2"})
    await life.pause("default", session, reason="wait", actor="principal/op")
    for held in driver.held.values():
        held.set()
    await settled(sessions)
    paused = await sessions.state("default", session)
    assert (paused.state, sorted(name for name in paused.calls if name[0] != "m")) == (State.PAUSED, ["c1", "c2"])
    await life.resume("default", session, reason="go", actor="principal/op")
    await settled(sessions)
    assert results(await kernel.published(session)) == ["c1", "c2", "w1"]
    assert [name for what, name in driver.log if what == "begins"] == ["c1", "c2", "w1"]


async def test_a_cancelled_session_leaves_no_call_without_an_outcome(kernel: Kernel) -> None:
    """All that act are stopped, each with its own outcome, before the session is over."""
    driver = met(kernel)
    driver.hold("c1", "c2", "c3")
    sessions, session = await start(kernel, *reads("c1", "c2", "c3"))
    await until(lambda: len(driver.acting) == 3)
    after = await sessions.cancel("default", session, reason="no", actor="principal/op")
    assert {call.step for name, call in after.calls.items() if name[0] == "c"} == {Step.FAILED}
    assert (await kernel.types(session))[-4:] == ["syscall.failed"] * 3 + ["session.cancelled"]
    assert driver.acting == set()


async def test_a_driver_that_breaks_lets_the_others_end(kernel: Kernel) -> None:
    """The session fails of it; what acted beside it has its outcome in the log before that."""
    driver = met(kernel)
    driver.hold("c1", "c2")
    driver.errors["c2"] = ZeroDivisionError("broken")
    sessions, session = await start(kernel, *reads("c1", "c2", "c3"))
    await until(lambda: {"c1", "c2"} <= driver.acting)
    driver.held["c2"].set()
    await until(lambda: "c2" not in driver.acting)
    await breathe()
    driver.held["c1"].set()
    await settled(sessions)
    after = await sessions.state("default", session)
    assert (after.state, after.calls["c1"].step) == (State.FAILED, Step.FINISHED)
    assert after.error is not None
    assert after.error["code"] == "internal"


async def test_so_many_act_at_once_and_no_more(kernel: Kernel) -> None:
    """Of forty reads in one reply never more than the limit act; all are made, in the order of the reply."""
    names = [f"c{number}" for number in range(40)]
    driver = met(kernel)
    driver.hold(*names)
    sessions, session = await start(kernel, *reads(*names))
    await until(lambda: len(driver.acting) == MAX_AT_ONCE)
    await breathe()
    assert len(driver.acting) == MAX_AT_ONCE
    for name in names:
        driver.held[name].set()
    await settled(sessions)
    assert driver.most == MAX_AT_ONCE
    assert [name for what, name in driver.log if what == "begins"] == names
    assert results(await kernel.published(session)) == names


async def test_a_harness_that_waits_for_each_answer_is_served_as_before(kernel: Kernel) -> None:
    """One that knows nothing of several requests at once makes the same session."""
    kernel.spawner = hostile(
        """
for name in ("step-1", "step-2"):
    ask("tool.call", call=name, tool="read", args={"path": "a"})
ask("finish", result="fine")
"""
    )
    sessions, session = await start(kernel, *reads("c1"))
    await settled(sessions)
    assert met(kernel).most == 1
    assert (await sessions.state("default", session)).result == "fine"


async def test_a_call_that_is_proposed_twice_at_once_is_made_once(kernel: Kernel) -> None:
    """The second one waits for the first and is answered from the log; another call under its id is refused."""
    kernel.spawner = hostile(
        """
def propose(number, tool, path):
    send({"id": number, "method": "tool.call", "params": {"call": "step-1", "tool": tool, "args": {"path": path}}})
propose(1, "read", "a"); propose(2, "read", "a"); propose(3, "read", "b")
answers = {frame["id"]: "result" in frame for frame in (receive(), receive(), receive())}
send({"id": 4, "method": "finish", "params": {"result": json.dumps([answers[1], answers[2], answers[3]])}})
receive()
"""
    )
    driver = met(kernel)
    sessions, session = await start(kernel)
    await settled(sessions)
    assert (await sessions.state("default", session)).result == "[true, true, false]"
    assert [name for what, name in driver.log if what == "begins"] == ["step-1"]


async def test_a_harness_that_leaves_lets_what_it_asked_for_end(kernel: Kernel) -> None:
    """Its calls are finished and recorded; the next harness is told of them and does not repeat them."""
    first = hostile(
        """
for name in ("step-1", "step-2"):
    send({"id": 1, "method": "tool.call", "params": {"call": name, "tool": "read", "args": {"path": "a"}}})
"""
    )
    second = hostile('ask("finish", result="fine")')

    class Both:
        spawned = 0

        async def spawn(self, brief: Brief) -> Any:
            self.spawned += 1
            return await (first if self.spawned == 1 else second).spawn(brief)

    driver = met(kernel)
    driver.hold("step-1", "step-2")
    kernel.spawner = Both()
    sessions, session = await start(kernel)
    await until(lambda: len(driver.acting) == 2)
    for held in driver.held.values():
        held.set()
    await settled(sessions)
    after = await sessions.state("default", session)
    assert (after.result, {call.step for call in after.calls.values()}) == ("fine", {Step.FINISHED})


@pytest.mark.parametrize("flood", ["nonsense", "unnamed"])
async def test_a_flood_beside_calls_ends_the_process_and_keeps_their_outcomes(kernel: Kernel, flood: str) -> None:
    """As before: after a hundred requests that make no sense it is stopped, and the call it made has its outcome."""
    frame = {
        "nonsense": {"id": 2, "method": "bogus", "params": {}},
        "unnamed": {"id": 2, "method": "tool.call", "params": {"call": "nobody", "tool": "read", "args": {}}},
    }[flood]
    kernel.spawner = hostile(
        f"""
send({{"id": 1, "method": "tool.call", "params": {{"call": "step-1", "tool": "read", "args": {{"path": "a"}}}}}})
for _ in range(10**5): send({json.dumps(frame)})
"""
    )
    sessions, session = await start(kernel)
    async with asyncio.timeout(30):
        await settled(sessions)
    after = await sessions.state("default", session)
    assert after.error is not None
    assert (after.error["code"], after.calls["step-1"].step) == ("harness", Step.FINISHED)


class Losing(MemoryLog):
    """Does not store, or stores and does not say so, the `at`th outcome of a read."""

    def __init__(self, at: int, *, stored: bool) -> None:
        super().__init__()
        self._at, self._stored = at, stored

    async def append(self, subject: str, messages: Any, *, after: int) -> int:
        if b'"type":"agentos.syscall.finished"' in messages[0].data and b'"tool":"read"' in messages[0].data:
            self._at -= 1
            if self._at == 0:
                if self._stored:
                    await super().append(subject, messages, after=after)
                raise LogUnavailable("the event log does not answer")
        return await super().append(subject, messages, after=after)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_log_that_goes_away_under_several_calls_loses_none(kernel: Kernel, at: int, stored: bool) -> None:
    """Whatever of the outcomes was stored: the session is read again, reads without one are made again, and it goes on."""
    kernel.log = Losing(at, stored=stored)
    sessions, session = await start(kernel, *reads("c1", "c2", "c3"))
    await settled(sessions)
    events = await kernel.published(session)
    assert fold_all(events).state is State.FINISHED
    assert results(events) == ["c1", "c2", "c3"]
    again = await replay(events, InlineSpawner())
    assert (again.difference, again.state) == (None, digest_of_state(fold_all(events)))


Ways = st.lists(st.sampled_from(["read", "mark", "write", "send", "denied", "failing"]), min_size=1, max_size=7)


@given(ways=Ways, order=st.permutations(range(7)), crash=st.none() | st.integers(0, 20), asked=st.none() | st.integers(0, 6))
@settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_mixture_in_any_order_is_the_same_conversation(
    tmp_path_factory: pytest.TempPathFactory, ways: list[str], order: list[int], crash: int | None, asked: int | None
) -> None:
    """Calls of all kinds, ending in any order, a crash between any two events, a question to people: the results stand in the
    order of the reply, each call has one outcome, what does not commute was alone, and each prefix can be gone through again.
    """
    kernel = together(Kernel(Workspaces(tmp_path_factory.mktemp("folders"))))
    driver = met(kernel)
    names = [f"c{number}" for number in range(len(ways))]
    way = dict(zip(names, ways, strict=True))
    driver.hold(*names)
    driver.errors = {name: DriverError("it is not there") for name in names if way[name] == "failing"}

    def decide(document: Mapping[str, Any]) -> Decision:
        call = about(document)
        if way.get(call) == "denied":
            return deny("rules.no", "nobody may")
        return ASK if asked is not None and call == f"c{asked}" and not document["approvals"] else ALLOW

    kernel.policy.decide = decide
    proposals = [(name, {"denied": "read", "failing": "read"}.get(kind, kind), {"path": name}) for name, kind in way.items()]
    sessions, session = await start(kernel, *proposals)

    async def play(steps: int | None = None) -> None:
        """Let calls end, the first in `order` of those that act, and answer what is asked; at most until `steps` are seen."""
        while steps is None or len(driver.log) < steps:
            await asyncio.sleep(0.001)
            await breathe()
            acting = sorted(driver.acting, key=lambda name: order[names.index(name)])
            if acting:
                driver.held[acting[0]].set()
            elif not sessions.running():
                state = await sessions.state("default", session)
                if state.state is not State.WAITING:
                    return
                await sessions.answer("default", session, granted=True, reason="fine", actor="principal/ann")

    async with asyncio.timeout(20):
        if crash is not None:
            await play(crash)
            await sessions.close()
            driver.acting.clear()
            sessions = kernel.sessions()
            await sessions.resume("default", session)
        await play()
    events = await kernel.published(session)
    final = fold_all(events)
    assert final.state is State.FINISHED
    assert results(events) == names
    outcomes = [
        event.data["call"] for event in events if event.type in {ev.SYSCALL_FINISHED, ev.SYSCALL_FAILED, ev.SYSCALL_UNKNOWN}
    ]
    assert len(outcomes) == len(set(outcomes))
    alone = {name for name in names if way[name] in {"write", "send"}}
    for (what, name), (after, other) in pairwise(driver.log):
        assert what == "ends" or name not in alone or (after, other) == ("ends", name)
    for end in {len(events), *range(1, len(events), 3)}:
        again = await replay(events[:end], InlineSpawner())
        assert (again.difference, again.events) == (None, end)
        assert again.state == digest_of_state(fold_all(events[:end]))
