"""Trees of delegations by chance, on the real kernel and the shipped axioms.

Agents delegate to each other as a drawn plan says. Meanwhile the runtime dies at any write, grants come and go, sessions are
cancelled, and envelopes come once more. What the logs say in the end is held against what may be.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from delegating_in_memory import AGENTS, House, hand
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kernel_in_memory import Kernel, calls, text
from manual_clock import breathe

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, parse_decision
from agentos.abi.errors import Conflict, LogUnavailable
from agentos.abi.event import Event
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers.port import CallContext, ModelReply
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message, Stored
from agentos.eventlog.subject import session_subject
from agentos.kernel.workspace import Workspaces
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms
from agentos.projections.session import SessionState, Step

TOOLS = ("send", "write", "hand")
BELOW = ("writer", "checker", "editor")

TAKEN: Sequence[Mapping[str, frozenset[str]]] = (
    {},
    {"boss": frozenset({"send"})},
    {"boss": frozenset({"hand"})},
    {"writer": frozenset({"hand", "write"})},
    {"checker": frozenset({"send"}), "editor": frozenset({"write"})},
)
"""What the agents have not, in each of the configurations that are in force one after the other."""


def may(configuration: int, agent: str, tool: str) -> bool:
    """Whether an agent holds a grant."""
    return tool not in TAKEN[configuration].get(agent, frozenset())


@cache
def engine(configuration: int) -> Any:
    """The shipped axioms over the grants of one configuration."""

    def grant(agent: str, tool: str) -> dict[str, Json]:
        name = f"{agent}-{tool}"
        return {"name": name, "args": {}, "approval": False, "by": "principal/al", "digest": f"sha256:{name}"}

    agents = {
        name: {
            "model": "m",
            "models": ["m"],
            "tools": list(TOOLS),
            "budget": {"calls": 10_000, "tokens": 10_000_000},
            "governance": {},
            "delegates": {"max_depth": 3, "max_children": 100},
        }
        for name in AGENTS
    }
    plain = {"effect": "write", "labels": [], "idempotent": True, "driver": "builtin", "workspace_args": []}
    facts = {
        "tenant": {"name": "default", "limits": {"sessions": 100}},
        "agents": agents,
        "tools": {
            "write": plain,
            "send": {**plain, "effect": "external", "idempotent": False},
            "hand": {**plain, "driver": "delegate", "agents": list(BELOW)},
        },
        "grants": {name: {tool: [grant(name, tool)] for tool in TOOLS if may(configuration, name, tool)} for name in AGENTS},
        "policies": {},
        "rules": {
            "syscall": ["budget", "declassify", "delegation", "grants", "model", "workspace"],
            "admission": [],
            "approval": [],
        },
        "roles": {},
    }
    return opa.build(axioms("syscall"), {"agentos": facts})


@dataclass
class Plan:
    """What one session is to do: tools that it calls, and delegations."""

    agent: str
    acts: list[str | Hand]


@dataclass
class Hand:
    """One delegation: to whom, and narrowed to what."""

    below: list[Plan]
    tools: list[str] | None = None
    most: int | None = None
    """Calls that each child may make, with all below it."""


def plans(agents: Sequence[str], depth: int) -> st.SearchStrategy[Plan]:
    acts: list[st.SearchStrategy[Any]] = [st.sampled_from(["send", "write"])]
    if depth:
        narrowed = st.sampled_from([None, None, None, None, ["send", "hand"], ["send", "write", "hand"]])
        below = st.lists(plans(BELOW, depth - 1), min_size=1, max_size=3)
        acts += [st.builds(Hand, below, narrowed, st.sampled_from([None, None, None, 1, 4]))] * 2
    return st.builds(Plan, st.sampled_from(agents), st.lists(st.one_of(acts), min_size=depth > 1, max_size=3))


TREES = plans(("boss",), 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("grants"), st.integers(1, len(TAKEN) - 1)),
        st.tuples(st.just("grants"), st.integers(0, len(TAKEN) - 1)),
        st.tuples(st.just("kill"), st.integers(0, 12)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("replay"), st.integers(0, 9)),
        st.tuples(st.just("pass"), st.integers(1, 2000)),
    ),
    max_size=8,
)
"""Other grants; the runtime dies so many writes later; a session is cancelled; an envelope comes once more; time passes."""


class Fused(MemoryLog):
    """A log whose writer dies: the last write may be stored or not, and none after it is."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.left: int | None = None

    @property
    def dead(self) -> bool:
        return self.left is not None and self.left < 0

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        await asyncio.sleep(0)
        if self.left is not None:
            self.left -= 1
            if self.left == -1 and len(subject) % 2:
                await self._log.append(subject, messages, after=after)
            if self.left < 0:
                raise LogUnavailable("the writer is dead")
        return await self._log.append(subject, messages, after=after)

    async def last(self, subject: str) -> Stored | None:
        return await self._log.last(subject)

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        async for stored in self._log.read(subject, after=after):
            yield stored

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        async for stored in self._log.scan(stream, after=after):
            yield stored

    async def streams(self) -> tuple[str, ...]:
        return await self._log.streams()


@dataclass
class World:
    """One history: a house, what is known of its sessions, and what has been done."""

    house: House
    store: MemoryLog
    revisions: dict[int, int] = field(default_factory=dict)
    """By revision: the configuration."""
    sent: list[tuple[str, str]] = field(default_factory=list)
    envelopes: list[tuple[str, bytes, bytes]] = field(default_factory=list)

    def play(self, tree: Plan) -> None:
        """Have the model say what the plan says, to each session by its goal."""
        replies: dict[str, list[ModelReply]] = {}

        def write(name: str, plan: Plan) -> None:
            said = replies[name] = []
            for number, act in enumerate(plan.acts):
                if isinstance(act, str):
                    said.append(calls((f"c{number}", act, {"path": name, "content": name})))
                    continue
                named = [f"{name}.{number}{chr(97 + index)}" for index in range(len(act.below))]
                tasks = [{"agent": one.agent, "goal": goal} for goal, one in zip(named, act.below, strict=True)]
                args: dict[str, Any] = {"tasks": tasks}
                args |= {"tools": act.tools} if act.tools is not None else {}
                args |= {"budget": {"calls": act.most}} if act.most is not None else {}
                said.append(calls((f"c{number}", "hand", args)))
                for goal, one in zip(named, act.below, strict=True):
                    write(goal, one)
            said.append(text(f"said by {name}"))

        def reply(request: Any) -> list[ModelReply]:
            found = re.search(r"node[0-9.a-z]*", str(request.messages[0]))
            assert found is not None
            return replies[found.group().rstrip(".")]

        write("node", tree)
        for agent in AGENTS:
            self.house.model.plays[agent] = reply

    async def send(self, context: CallContext) -> Result:
        """A tool that must not be called twice."""
        self.sent.append((context.session, context.call))
        if len(self.sent) % 3 == 0:
            await self.house.clock.sleep(0.5)
        return Result("sent")

    async def decide(self, document: Mapping[str, Any]) -> Decision:
        return parse_decision(engine(self.revisions[document["config_revision"]]).eval_document(ENTRY, dict(document)))

    def grants(self, configuration: int) -> None:
        self.house.kernel.revision += 1
        self.revisions[self.house.kernel.revision] = configuration

    async def step(self, kind: str, number: int, root: str) -> None:
        house = self.house
        self.envelopes += [one for one in house.queue if one not in self.envelopes]
        house.deliver()
        match kind:
            case "grants":
                self.grants(number)
            case "kill":
                await self.kill(number, root)
            case "cancel":
                found = sorted(await self.tree(root))
                try:
                    name = found[number % len(found)]
                    await house.sessions.cancel("default", name, reason="by chance", actor="principal/op")
                except Conflict:
                    pass
            case "replay" if self.envelopes:
                house.queue.append(self.envelopes[number % len(self.envelopes)])
            case "pass":
                await house.clock.advance(number)
        await self.rest()

    async def rest(self) -> None:
        """Let harnesses, which are threads, go on a little."""
        for _ in range(3):
            await breathe()
            await asyncio.sleep(0.001)
        self.envelopes += [one for one in self.house.queue if one not in self.envelopes]
        self.house.deliver()

    async def kill(self, writes: int, root: str) -> None:
        """The runtime dies so many writes later, and a fresh one takes over what it finds. The queue delivers what it can."""
        house, fused = self.house, Fused(self.store)
        held = house.kernel.log
        assert isinstance(held, Fused)
        held.left = writes
        for _ in range(10):
            if held.dead:
                break
            await self.rest()
        held.left = -1
        await house.stop()
        house.kernel.log = fused
        house.start()
        house.queue[:] = list(self.envelopes)
        states = await self.tree(root)
        live = [(name, state.delegated["parent"]) for name, state in states.items() if state.delegated and not state.over]
        await house.delegator.cascade.recover("default", live)
        for name, state in states.items():
            if not state.over:
                await house.sessions.resume("default", name)

    async def tree(self, root: str) -> dict[str, SessionState]:
        """The sessions that there are, each behind its parent."""
        found, coming = dict[str, SessionState](), [root]
        while coming:
            name = coming.pop(0)
            if await self.store.last(session_subject(name)) is None:
                continue
            found[name] = await self.house.state(name)
            coming += [child for children in found[name].delegations.values() for child in children]
        return found

    async def begun(self) -> set[str]:
        """Every session of the log."""
        found = set()
        for stream in await self.store.streams():
            async for stored in self.store.scan(stream):
                event = Event.from_bytes(stored.data)
                if event.type == ev.SESSION_CREATED:
                    found.add(event.subject)
        return found

    async def finish(self, root: str) -> dict[str, SessionState]:
        """Let it all come to its end."""
        async with asyncio.timeout(20):
            while True:
                await self.rest()
                await self.house.clock.advance(1000)
                states = await self.tree(root)
                if all(state.over for state in states.values()) and not self.house._receipts:
                    return states


ENTRY = "agentos.syscall.decision"


async def _history(tree: Plan, steps: list[tuple[str, int]]) -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel(Workspaces(Path(folder)))
        world = World(House(kernel), MemoryLog())
        await world.house.stop()
        kernel.log = Fused(world.store)
        kernel.tools["hand"] = hand(agents=list(BELOW), maxTasks=8)
        kernel.tools["send"] = replace(kernel.tools["write"], name="send", effect=ToolEffect.EXTERNAL, idempotent=False)
        kernel.tools.pop("read")
        kernel.policy.decide_syscall = world.decide  # type: ignore[method-assign]
        world.house.answers["send"] = world.send
        world.grants(0)
        world.play(tree)
        world.house.delivers = False
        world.house.start()
        try:
            root = await world.house.run(goal="node")
            for kind, number in steps:
                await world.rest()
                await world.step(kind, number, root)
            states = await world.finish(root)
            events = {name: await kernel.published(name) for name in states}
            assert await world.begun() == states.keys(), "somebody whom no call names"
        finally:
            await world.house.stop()
            logging.disable(logging.NOTSET)
    _judge(world, states, events)


def _judge(world: World, states: Mapping[str, SessionState], events: Mapping[str, list[Event]]) -> None:
    parents = {child: name for name, state in states.items() for named in state.delegations.values() for child in named}
    named = Counter(child for state in states.values() for found in state.delegations.values() for child in found)
    assert set(named.values()) <= {1}, "a child that two calls name"
    for name, told in events.items():
        assert [event.type for event in told].count(ev.SESSION_CREATED) == 1, "a child that was begun twice"
        _judge_authority(world, name, told, states, parents)
    once = Counter(world.sent)
    assert set(once.values()) <= {1}, "a tool that was called twice"
    for name, state in states.items():
        assert state.over, "somebody outlives its parent"
        _judge_results(state, states)
        _judge_budget(name, state, states)


def _judge_authority(
    world: World, name: str, told: list[Event], states: Mapping[str, SessionState], parents: Mapping[str, str]
) -> None:
    """What was allowed was granted to everybody above at that moment, and left out by nobody."""
    above: list[tuple[str, Json]] = []
    child = name
    while child in parents:
        parent = states[parents[child]]
        (call,) = (call for call, children in parent.delegations.items() if child in children)
        above.append((parent.agent, parent.calls[call].args.get("tools")))
        child = parent.id
    assert {f"of-{agent}" for agent, _ in above} <= states[name].labels, "what those above had learnt"
    for event in told:
        if event.type != ev.SYSCALL_DECIDED or event.data["decision"]["effect"] != "allow" or event.data["tool"] not in TOOLS:
            continue
        configuration, tool = world.revisions[event.config_revision], event.data["tool"]
        assert may(configuration, states[name].agent, tool)
        for agent, narrowed in above:
            assert may(configuration, agent, tool), f"{agent} may not {tool}"
            assert may(configuration, agent, "hand"), f"{agent} may not delegate"
            assert narrowed is None or tool in narrowed, f"{tool} was left out"


def _judge_results(state: SessionState, states: Mapping[str, SessionState]) -> None:
    """What a child carried is on its parent once the parent was told how it ended."""
    for call in state.delegations:
        if state.calls[call].step is not Step.FINISHED:
            continue
        result = state.calls[call].result
        assert result is not None
        for child in result["data"]["children"]:
            if child["outcome"] != "refused":
                assert child["outcome"] == str(states[child["session"]].state)
                assert states[child["session"]].labels <= state.labels


def _judge_budget(name: str, state: SessionState, states: Mapping[str, SessionState]) -> None:
    """Nobody used more calls than it was given, with all below it."""
    given = ((state.delegated or {}).get("budget") or {}).get("calls")
    if given is not None:
        assert _used(name, states) <= given


def _used(name: str, states: Mapping[str, SessionState]) -> int:
    state = states[name]
    # A call is paid when it is let through, however often it is decided.
    own = sum(call.tool in TOOLS and call.step in {Step.FINISHED, Step.FAILED, Step.UNKNOWN} for call in state.calls.values())
    return own + sum(_used(child, states) for found in state.delegations.values() for child in found if child in states)


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(tree=TREES, steps=STEPS)
def test_whatever_happens_no_child_is_more_than_its_parents(tree: Plan, steps: list[tuple[str, int]]) -> None:
    """No child is allowed what one above it was not allowed at that moment; none begins twice, acts twice what must not be, or
    outlives its parent; what it learnt is on its parent; and nobody uses more than it was given.
    """
    asyncio.run(_history(tree, steps))
