"""Budgets of a delegation: whoever pays for a descendant is never overdrawn, whatever runs at once, ends early, or crashes."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of
from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event
from agentos.kernel.booked import DAY_MS, HEARD, Payer, Told, day_of, told_of
from agentos.kernel.budget_tree import read_tree
from agentos.kernel.budgets import RULE, RULE_HELD, Budgets, Held, Refused, Row, Want, at_most
from agentos.kernel.lineage import ALONE, Paying, given_to_child, paying_with
from agentos.projections.session_state import SessionState
from agentos.scheduler.declared import Arbitration, Budget

NOW = 1_795_000_000_000


@dataclass
class Node:
    """A session of a tree: what it was given, and who is above it."""

    name: str
    agent: str = "a"
    above: Node | None = None
    given: dict[str, int] | None = None
    children: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.above is not None:
            self.above.children.append(self)

    @property
    def state(self) -> SessionState:
        """As the log would have it: what `delegated` says is made of the parent's in the way that a receiver does it."""
        if self.above is None:
            return SessionState(id=self.name, agent=self.agent)
        parent = self.above.state
        before = parent.delegated or {"lineage": [], "delegators": []}
        return SessionState(
            id=self.name,
            agent=self.agent,
            delegated={
                "lineage": [*before["lineage"], parent.id],
                "delegators": [*before["delegators"], {"session": parent.id, "agent": parent.agent}],
                **given_to_child(parent, self.given),
            },
        )

    def payer(self, now: int = NOW) -> Payer:
        return Payer(self.name, self.agent, "p", day_of(now), paying_with(self.state).lineage)

    def tree(self) -> list[Node]:
        """Itself and everybody below."""
        return [self, *(one for child in self.children for one in child.tree())]


@dataclass
class Past:
    """The log as the books see it: events of one session in order, those of different ones in any."""

    chance: random.Random
    events: list[Event] = field(default_factory=list)
    reads: list[str | None] = field(default_factory=list)

    async def __call__(self, tenant: str, session: str | None = None) -> AsyncIterator[Told]:
        self.reads.append(session)
        rows = defaultdict(list)
        for event in self.events:
            rows[event.subject].append(event)
        while rows:
            name = self.chance.choice(sorted(rows))
            event = rows[name].pop(0)
            if not rows[name]:
                del rows[name]
            if event.type in HEARD and session in {None, event.subject}:
                yield told_of(event)

    def add(self, kind: str, session: str, data: dict[str, Any], *, agent: str = "a", now: int = NOW) -> Event:
        told = {"agent": agent} | attributes_of(kind, data)
        seq = 1 + sum(event.subject == session for event in self.events)
        self.events.append(Event("e", kind, "t", session, seq, "", now, "agent/a", 1, None, {}, told))
        return self.events[-1]

    def decided(self, held: Held, *, children: list[str] | None = None, now: int = NOW) -> Event:
        data: dict[str, Json] = {"call": held.key[1], "tool": "write", "decision": {"effect": "allow"}, "reserved": held.told()}
        if children:
            data["children"] = children
        return self.add(ev.SYSCALL_DECIDED, held.key[0], data, agent=held.payer.agent, now=now)

    def finished(self, held: Held, spent: dict[str, int], *, now: int = NOW) -> Event:
        data: dict[str, Json] = {"call": held.key[1], "tool": "write", "spent": spent, "duration_us": 5}
        return self.add(ev.SYSCALL_FINISHED, held.key[0], data, agent=held.payer.agent, now=now)

    def used(self) -> dict[str, dict[str, int]]:
        """By session: what its own calls have used, an open one by its reservation; added up by hand."""
        calls: dict[tuple[str, str], dict[str, Any]] = {}
        for event in self.events:
            key = event.subject, str(event.attributes.get("call"))
            for name in ("reserved", "spent"):
                if name in event.attributes:
                    calls[key] = json.loads(str(event.attributes[name]))
        sums: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (session, _), amounts in calls.items():
            for unit, amount in amounts.items():
                if type(amount) is int:
                    sums[session][unit] += amount
        return {name: dict(found) for name, found in sums.items()}


async def ask(
    budgets: Budgets, node: Node, call: str, want: Want, declared: Arbitration, now: int = NOW, *, first: bool = False
) -> Held | Refused:
    paying, shares = paying_with(node.state), bool(node.children)
    answer = await budgets.reserve("t", call, node.payer(now), want, declared, now, paying=paying, first=first, shares=shares)
    assert answer is not None
    return answer


async def rows(budgets: Budgets, declared: Arbitration, nodes: list[Node], now: int = NOW) -> list[Row]:
    return await budgets.rows("t", declared, now, sessions={node.name: node.agent for node in nodes})


def limits_of(node: Node, declared: Arbitration) -> dict[str, int]:
    budget = declared.per_session.get(node.agent)
    return at_most(budget.limits() if budget is not None else {}, node.given or {})


def test_who_pays_is_told_from_the_nearest_up() -> None:
    """With what each of them was given, however deep; for a session of nobody there is nobody."""
    top = Node("top", "boss")
    middle = Node("middle", "lead", top, {"tokens": 50})
    leaf = Node("leaf", "hand", middle, {"calls": 2})
    assert paying_with(top.state) == ALONE
    assert paying_with(leaf.state) == Paying(
        ("middle", "top"), {"top": "boss", "middle": "lead"}, {"middle": {"tokens": 50}, "leaf": {"calls": 2}}
    )


@pytest.mark.parametrize(
    "delegated",
    [
        {},
        {"lineage": [], "delegators": []},
        {"lineage": ["x"], "delegators": []},
        {"lineage": ["x"], "delegators": [{"session": "y", "agent": "a"}]},
        {"lineage": ["x"], "delegators": [{"session": "x", "agent": "a"}], "budget": {"tokens": -1}},
        {"lineage": ["x"], "delegators": [{"session": "x", "agent": "a"}], "budget": {"tokens": True}},
        {"lineage": ["x"], "delegators": [{"session": "x", "agent": "a"}], "budgets": {"x": {"euros": 1}}},
    ],
)
def test_a_record_that_cannot_be_read_lets_nothing_through(delegated: dict[str, Any]) -> None:
    """Whoever pays is never guessed, and no limit is overlooked."""
    with pytest.raises(ChainBroken, match="who pays"):
        paying_with(SessionState(id="s", delegated=delegated))


async def test_ten_children_cannot_have_more_than_their_parent() -> None:
    """Each may use as much as the parent, and together they get what it has left, also where only its agent is limited."""
    past = Past(random.Random(1))
    budgets, declared = Budgets(past), Arbitration(per_session={"a": Budget(tokens=100, calls=200)})
    top = Node("top")
    children = [Node(f"c{number}", above=top, given={"tokens": 100}) for number in range(10)]
    answers = await asyncio.gather(*(ask(budgets, child, "c", Want(input=30), declared, first=True) for child in children))
    assert sum(isinstance(one, Held) for one in answers) == 3
    refused = next(one for one in answers if isinstance(one, Refused))
    assert refused.rule == RULE_HELD
    assert "an operator can raise spec.budget.tokens of Agent a, which session top above it runs" in refused.reason
    assert isinstance(await ask(budgets, top, "own", Want(input=11), declared), Refused)
    assert isinstance(await ask(budgets, top, "own", Want(input=10), declared), Held)


async def test_a_child_has_what_it_was_given_and_no_more_than_its_agent() -> None:
    """In each unit the lower one counts, also where the tenant declares none; and the sentence says who can give more."""
    past = Past(random.Random(1))
    top = Node("top")
    child = Node("c", "b", top, {"tokens": 50, "calls": 9})
    declared = Arbitration(per_session={"b": Budget(tokens=80, calls=1)})
    refused = await ask(Budgets(past), child, "c1", Want(input=51), declared)
    assert isinstance(refused, Refused)
    assert refused.rule == RULE
    assert refused.reason.endswith("51 are wanted; so much was given with the task: whoever delegates can give more")
    refused = await ask(Budgets(past), child, "c1", Want(calls=2), declared)
    assert isinstance(refused, Refused)
    assert refused.reason.endswith("an operator can raise spec.budget.calls of Agent b")
    assert isinstance(await ask(Budgets(past), child, "c1", Want(input=51), Arbitration()), Refused)
    assert await Budgets(past).reserve("t", "c1", top.payer(), Want(input=51), Arbitration(), NOW) is None


async def test_a_limit_in_the_middle_holds_for_what_is_below_after_a_restart() -> None:
    """The leaf asks first: that the one above it was given less than its agent may use stands in the leaf's own log."""
    top = Node("top")
    middle = Node("middle", above=top, given={"tokens": 50})
    leaf = Node("leaf", above=middle)
    past = Past(random.Random(1))
    declared = Arbitration(per_session={"a": Budget(tokens=1000)})
    held = await ask(Budgets(past), leaf, "c1", Want(input=40), declared)
    assert isinstance(held, Held)
    past.decided(held)
    assert isinstance(await ask(Budgets(past), leaf, "c2", Want(input=11), declared), Refused)
    assert isinstance(await ask(Budgets(past), leaf, "c2", Want(input=10), declared), Held)


async def test_a_parent_that_asks_first_after_a_restart_knows_of_its_children() -> None:
    """Where only sessions are limited a session reads its own log alone; one that has delegated reads what its children used."""
    top = Node("top")
    child = Node("child", above=top)
    past = Past(random.Random(1))
    declared = Arbitration(per_session={"a": Budget(tokens=100)})
    held = await ask(Budgets(past), child, "c1", Want(input=90), declared)
    assert isinstance(held, Held)
    past.decided(held)
    past.reads.clear()
    again = Budgets(past)
    assert isinstance(await ask(again, top, "c1", Want(input=11), declared), Refused)
    assert past.reads == [None]


async def test_a_child_that_outlives_its_parent_gets_nothing_anew() -> None:
    """The parent's account stays while somebody may pay into it, in books that were kept and in any order of the log; then it
    goes."""
    top = Node("top")
    child = Node("child", above=top)
    past = Past(random.Random(1))
    declared = Arbitration(per_session={"a": Budget(tokens=100)})
    kept = Budgets(past)
    delegating = await ask(kept, top, "d", Want(input=90, calls=1), declared)
    assert isinstance(delegating, Held)
    kept.hear(past.decided(delegating, children=["child"]))
    kept.hear(past.finished(delegating, {"tokens": 90, "calls": 1}))
    kept.hear(past.add(ev.SESSION_FINISHED, "top", {}))
    for seed in range(5):
        past.chance.seed(seed)
        for book in (kept, Budgets(past)):
            refused = await ask(book, child, "c", Want(input=11), declared)
            assert isinstance(refused, Refused)
            assert "session top is 100 tokens: 90 are used" in refused.reason
    later = NOW + 3 * DAY_MS
    for book in (kept, Budgets(past)):
        assert isinstance(await ask(book, Node("other"), "c", Want(input=1), declared, later), Held)
        found = await book.rows("t", Arbitration(), later, days=9, sessions={"top": "a"})
        assert [row for row in found if row.kind == "session" and row.name == "top"] == []


async def test_a_tree_says_who_used_what() -> None:
    """Each session with its own calls and with all below it, over or not, also one that has made no call; nobody twice."""
    past = Past(random.Random(1))
    top = Node("top")
    left, right = Node("left", "b", top), Node("right", "b", top)
    leaf = Node("leaf", above=left)
    budgets, declared = Budgets(past), Arbitration(per_session={"a": Budget(tokens=1000)})

    async def act(node: Node, call: str, want: Want, spent: dict[str, int] | None, children: list[str] | None = None) -> None:
        held = await ask(budgets, node, call, want, declared)
        assert isinstance(held, Held)
        budgets.hear(past.decided(held, children=children))
        if spent is not None:
            budgets.hear(past.finished(held, spent))

    await act(top, "d", Want(calls=1), None, ["left", "right"])
    await act(left, "d", Want(calls=1), {"calls": 1}, ["leaf", "left"])
    await act(leaf, "c1", Want(input=50), {"tokens": 40})
    await act(leaf, "c2", Want(input=9), None)
    budgets.hear(past.add(ev.SESSION_FINISHED, "leaf", {}))
    branches, whole = await budgets.tree("t", "top")
    assert whole
    assert [(one.session, one.parent, one.depth, one.agent) for one in branches] == [
        ("top", "", 0, "a"),
        ("left", "top", 1, "b"),
        ("leaf", "left", 2, "a"),
        ("right", "top", 1, ""),
    ]
    assert [(one.own, one.total, one.held) for one in branches] == [
        ({}, {"tokens": 49, "calls": 1}, {"calls": 1}),
        ({"calls": 1}, {"tokens": 49, "calls": 1}, {}),
        ({"tokens": 49}, {"tokens": 49}, {}),
        ({}, {}, {}),
    ]
    found = {row.unit: (row.used, row.reserved) for row in await rows(budgets, declared, [top]) if row.kind == "session"}
    assert found == {"tokens": (49, 0), "calls": (1, 1)}
    assert right.state.delegated is not None
    few, whole = await read_tree(past, "t", "top", most=2)
    assert ([one.session for one in few], whole) == (["top", "left"], False)


class Schedule:
    """A tree of sessions that call, end and crash as `chance` has it; `budgets` are the books that are kept meanwhile."""

    def __init__(self, nodes: list[Node], declared: Arbitration, chance: random.Random) -> None:
        self.nodes, self.declared, self.chance = nodes, declared, chance
        self.past = Past(chance)
        self.budgets = Budgets(self.past)
        self.under_way: list[Held] = []
        self.over: set[str] = set()
        self.number = 0

    @property
    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.name not in self.over]

    async def delegate(self) -> None:
        """Every parent lets its children come to be, and waits for them."""
        for node in self.nodes:
            if node.children and isinstance(held := await ask(self.budgets, node, "d", Want(calls=1), self.declared), Held):
                self.budgets.hear(self.past.decided(held, children=[child.name for child in node.children]))

    async def call(self, which: int) -> None:
        """Sessions call at once; of what is held for them a part is given back."""
        self.number += 1
        chosen = [self.chance.choice(self.alive) for _ in range(which + 1)]
        wants = [Want(self.chance.randint(0, 9), self.chance.randint(0, 9), calls=1, milliseconds=1000) for _ in chosen]
        calls = (
            ask(self.budgets, node, f"c{self.number}-{k}", wants[k], self.declared, first=not self.heard(node))
            for k, node in enumerate(chosen)
        )
        for held in (one for one in await asyncio.gather(*calls) if isinstance(one, Held)):
            if self.chance.random() < 0.9:
                self.budgets.hear(self.past.decided(held))
                self.under_way.append(held)
            else:
                self.budgets.release(held)

    async def end(self, which: int) -> None:
        """A call ends, having used a part of what was held."""
        if self.under_way:
            held = self.under_way.pop(which % len(self.under_way))
            spent = {unit: self.chance.randint(0, most) for unit, most in held.amounts.items()}
            self.budgets.hear(self.past.finished(held, spent))

    async def crash(self, _which: int) -> None:
        """The books are gone, and nobody knows what came of the calls."""
        self.budgets = Budgets(self.past)
        for held in self.under_way:
            self.past.add(ev.SYSCALL_UNKNOWN, held.key[0], {"call": held.key[1], "tool": "write"})
        self.under_way.clear()

    async def doubt(self, which: int) -> None:
        """The log did not say whether it had stored a decision, and the runtime was gone before it could ask."""
        self.number += 1
        held = await ask(
            self.budgets, self.alive[which % len(self.alive)], f"c{self.number}", Want(which, calls=1), self.declared
        )
        if isinstance(held, Held):
            if self.chance.random() < 0.5:
                self.past.decided(held)
                self.under_way.append(held)
            self.budgets = Budgets(self.past)

    async def finish(self, which: int) -> None:
        """A session ends, its descendants do not."""
        gone = self.alive[which % len(self.alive)]
        self.over.add(gone.name)
        self.under_way = [held for held in self.under_way if held.key[0] != gone.name]
        self.budgets.hear(self.past.add(ev.SESSION_CANCELLED, gone.name, {"by": "a", "reason": "b"}))

    def heard(self, node: Node) -> bool:
        return any(event.subject == node.name for event in self.past.events)

    def check(self) -> None:
        """Nobody has passed a limit, with all that is below it."""
        used = self.past.used()
        for node in self.nodes:
            for unit, most in limits_of(node, self.declared).items():
                assert sum(used.get(one.name, {}).get(unit, 0) for one in node.tree()) <= most, (node.name, unit)
        for unit, most in self.declared.in_all[("tenant", "")].limits().items() if self.declared.in_all else ():
            assert sum(one.get(unit, 0) for one in used.values()) <= most


@settings(max_examples=200, deadline=None)
@given(
    parents=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    limit=st.integers(0, 80),
    steps=st.lists(
        st.tuples(st.sampled_from(("call", "call", "call", "end", "crash", "doubt", "finish")), st.integers(0, 9)), max_size=40
    ),
    whole=st.booleans(),
    seed=st.integers(0, 999),
)
def test_no_tree_overdraws_anybody_in_it(
    parents: list[int], limit: int, steps: list[tuple[str, int]], whole: bool, seed: int
) -> None:
    """Children at once, crashes, appends of which nobody knows, parents that end first: no session passes what it may use, all
    that is below it included; and books that are read again, in any order of sessions, are those that were kept."""
    chance = random.Random(seed)
    nodes = [Node("n0", "a0")]
    for number, parent in enumerate(parents, 1):
        budget = {"tokens": chance.randint(0, limit), "calls": chance.randint(1, 9)} if chance.random() < 0.5 else None
        nodes.append(Node(f"n{number}", f"a{chance.randint(0, 2)}", nodes[parent % number], budget))
    declared = Arbitration(
        per_session={"a0": Budget(tokens=limit, calls=20), "a1": Budget(tokens=limit // 2), "a2": Budget(milliseconds=9000)},
        in_all={("tenant", ""): Budget(tokens=limit * 3 // 4)} if whole else {},
    )

    async def run() -> None:
        schedule = Schedule(nodes, declared, chance)
        await schedule.delegate()
        for act, which in steps:
            if schedule.alive:
                await getattr(schedule, act)(which)
            schedule.check()
        alive = schedule.alive
        assert await rows(schedule.budgets, declared, alive) == await rows(Budgets(schedule.past), declared, alive)

    asyncio.run(run())
