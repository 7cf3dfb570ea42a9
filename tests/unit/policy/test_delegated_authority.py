"""What may be done on behalf of others: real OPA over the shipped axioms, held against the definition written out in Python.

The agents of one set of facts are called by what is granted to them, so that one engine stands for every set of grants, and one
agent in the place of another for a grant that came or went.
"""

from __future__ import annotations

import copy
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, parse_decision
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms
from agentos.policy.port import Module

GRANTS = "policies/agentos/syscall/rules/grants/grants.rego"
STRENGTH = {"allow": 0, "ask": 1, "deny": 2}


def grant(name: str, **more: Json) -> dict[str, Json]:
    return {"name": name, "args": {}, "approval": False, "by": "principal/al", "digest": f"sha256:{name}", **more}


HELD: dict[str, list[dict[str, Json]]] = {
    "none": [],
    "free": [grant("free")],
    "asks": [grant("asks", approval=True)],
    "counted": [grant("counted", max_uses=3)],
    "both": [grant("both", approval=True, max_uses=3)],
    "narrow": [grant("narrow", args={"to": {"equals": "a"}})],
    "ends": [grant("ends", until=1000)],
    "mixed": [grant("for-a", approval=True, args={"to": {"equals": "a"}}), grant("early", until=1000, max_uses=2)],
}
"""What an agent holds for the tool `act`."""

HANDS: dict[str, list[dict[str, Json]]] = {
    "hands": [grant("hands", max_uses=1)],
    "late": [grant("late", until=1000)],
    "bare": [],
}
"""What it holds for the tool `hand-on`, by which it delegates."""

AGENTS = [f"{held}-{hands}" for held in HELD for hands in HANDS]

FACTS: dict[str, Any] = {
    "agentos": {
        "tenant": {"name": "default", "limits": {"sessions": 100}},
        "agents": {
            name: {"model": "m", "models": ["m"], "tools": ["act"], "budget": {"calls": 9, "tokens": 9}, "governance": {}}
            for name in AGENTS
        },
        "tools": {
            "act": {"effect": "external", "labels": [], "idempotent": False, "driver": "mcp", "workspace_args": []},
            "hand-on": {"driver": "delegate", "agents": AGENTS, "effect": "write", "labels": [], "workspace_args": ["inputs"]},
        },
        "grants": {name: {"act": HELD[name.partition("-")[0]], "hand-on": HANDS[name.partition("-")[2]]} for name in AGENTS},
        "policies": {},
        "rules": {
            "syscall": ["budget", "declassify", "delegation", "grants", "model", "workspace"],
            "admission": [],
            "approval": [],
        },
        "roles": {},
    }
}

Link = tuple[str, Sequence[str] | None]
"""A delegator: its agent, and what it narrowed the tools to."""


def asking(agent: str, chain: Sequence[Link], *, to: str = "a", now: int = 0, spent: Sequence[str] = ()) -> dict[str, Any]:
    """The question of a session of `agent` that acts for `chain`, the first at the top."""
    session: dict[str, Any] = {"id": "s-own", "tenant": "default", "actor": "principal/al", "labels": []}
    session["delegation"] = [f"s-{at}" for at in range(len(chain))]
    if chain:
        session["delegators"] = [
            {"session": f"s-{at}", "agent": name, "labels": {}, "tool": "hand-on", "tools": tools and list(tools)}
            for at, (name, tools) in enumerate(chain)
        ]
        if chain[-1][1] is not None:
            session["tools"] = list(chain[-1][1])
    return {
        "abi": "agentos/v1",
        "syscall": {"tool": "act", "effect": "external", "args": {"to": to}, "args_digest": "sha256:a"},
        "agent": {"name": agent, "labels": {}},
        "session": session,
        "budget": {"calls": 0, "tokens": 0},
        "approvals": [],
        "config_revision": 1,
        "policy_digest": "sha256:p",
        "spent": list(spent),
        "now": now,
    }


def covering(agent: str, question: Mapping[str, Any]) -> list[dict[str, Json]]:
    """The definition: the grants of one agent that cover a call, each condition by itself."""
    found = []
    for one in HELD[agent.partition("-")[0]]:
        fits = all(question["syscall"]["args"].get(name) == want["equals"] for name, want in one["args"].items())
        if fits and question["now"] < one.get("until", 2**53) and one["digest"] not in question["spent"]:
            found.append(one)
    return found


def may(agent: str, question: Mapping[str, Any]) -> str:
    """What its own grants say to the call."""
    covers = covering(agent, question)
    if not covers:
        return "deny"
    return "ask" if all(one["approval"] for one in covers) else "allow"


def paid(agent: str, question: Mapping[str, Any]) -> frozenset[str]:
    """The grants of which one pays, where the agent has only those that are counted."""
    covers = covering(agent, question)
    paying = [one for one in covers if not one["approval"]] or covers
    return frozenset(one["name"] for one in paying) if all("max_uses" in one for one in paying) else frozenset()


def expected(question: Mapping[str, Any]) -> tuple[str, frozenset[frozenset[str]]]:
    """The definition: the strictest that any of the chain is told, each narrowing kept, each delegation still granted."""
    acting = [question["agent"]["name"], *(one["agent"] for one in question["session"].get("delegators", ()))]
    effect = max((may(agent, question) for agent in acting), key=STRENGTH.__getitem__)
    session = question["session"]
    for one in session.get("delegators", ()):
        still = [held for held in HANDS[one["agent"].partition("-")[2]] if question["now"] < held.get("until", 2**53)]
        if not still or (one["tools"] is not None and "act" not in one["tools"]):
            effect = "deny"
    if "tools" in session and "act" not in session["tools"]:
        effect = "deny"
    if session["delegation"] != [one["session"] for one in session.get("delegators", ())]:
        effect = "deny"
    uses = {paid(agent, question) for agent in acting} - {frozenset()} if effect != "deny" else set()
    return effect, frozenset(uses)


@cache
def engine(source: str | None = None) -> Any:
    """The shipped axioms over the facts; `source` in the place of the rule `grants`."""
    modules = [Module(one.path, source) if source and one.path == GRANTS else one for one in axioms("syscall")]
    return opa.build(modules, FACTS)


def decided(question: Mapping[str, Any], by: Any = None) -> Decision:
    return parse_decision((by or engine()).eval_document("agentos.syscall.decision", dict(question)))


def told(decision: Decision) -> tuple[str, frozenset[frozenset[str]]]:
    uses = decision.obliged("uses")
    return str(decision.effect), frozenset(frozenset(str(one["name"]) for one in use.fields["grants"]) for use in uses)


NARROWINGS = st.sampled_from([None, None, None, ("act",), ("act", "hand-on"), ("hand-on",), ()])
LINKS = st.tuples(st.sampled_from([name for name in AGENTS if name.endswith("hands")] * 2 + AGENTS), NARROWINGS)
CHAINS = st.lists(LINKS, max_size=4)
CALLS = st.fixed_dictionaries(
    {
        "to": st.sampled_from(["a", "a", "b"]),
        "now": st.sampled_from([0, 0, 999, 1000]),
        "spent": st.lists(
            st.sampled_from(["sha256:counted", "sha256:both", "sha256:early", "sha256:hands"]), max_size=2, unique=True
        ),
    }
)


@settings(max_examples=300, deadline=None)
@given(agent=st.sampled_from(AGENTS), chain=CHAINS, call=CALLS)
def test_a_decision_is_the_strictest_of_the_chain(agent: str, chain: list[Link], call: dict[str, Any]) -> None:
    """Effect and charges are those of the definition, for every agent, chain, narrowing and call."""
    question = asking(agent, chain, **call)
    assert told(decided(question)) == expected(question)


@settings(max_examples=200, deadline=None)
@given(agent=st.sampled_from(AGENTS), chain=CHAINS, call=CALLS)
def test_no_child_does_what_one_above_it_may_not(agent: str, chain: list[Link], call: dict[str, Any]) -> None:
    """Whatever is said to a session above, asked about the very same call, the child is told at least as strictly."""
    child = STRENGTH[decided(asking(agent, chain, **call)).effect]
    for place, (name, _) in enumerate(chain):
        assert child >= STRENGTH[decided(asking(name, chain[:place], **call)).effect]


@settings(max_examples=200, deadline=None)
@given(agent=st.sampled_from(AGENTS), chain=CHAINS, call=CALLS, more=LINKS, change=st.data())
def test_who_acts_for_more_or_with_less_may_no_more(
    agent: str, chain: list[Link], call: dict[str, Any], more: Link, change: st.DataObject
) -> None:
    """Another delegator anywhere in the chain, or a narrower delegation, never loosens a decision."""
    before = STRENGTH[decided(asking(agent, chain, **call)).effect]
    place = change.draw(st.integers(0, len(chain)))
    longer = [*chain[:place], more, *chain[place:]]
    assert STRENGTH[decided(asking(agent, longer, **call)).effect] >= before
    if chain:
        at = change.draw(st.integers(0, len(chain) - 1))
        name, tools = chain[at]
        kept = change.draw(
            st.lists(st.sampled_from(tools), unique=True) if tools else NARROWINGS.filter(lambda one: tools is None)
        )
        narrower = [*chain[:at], (name, kept), *chain[at + 1 :]]
        assert STRENGTH[decided(asking(agent, narrower, **call)).effect] >= before


@settings(max_examples=25, deadline=None)
@given(agent=st.sampled_from(AGENTS), chain=st.lists(LINKS, min_size=1, max_size=3), call=CALLS, which=st.data())
def test_a_revocation_reaches_everybody_below(agent: str, chain: list[Link], call: dict[str, Any], which: st.DataObject) -> None:
    """Other facts, without what one of the chain held for the tool or for delegating: the next call of the child is denied."""
    name = which.draw(st.sampled_from([agent, *(name for name, _ in chain)]))
    tool = which.draw(st.sampled_from(["act", "hand-on"] if name in {one for one, _ in chain} else ["act"]))
    facts = copy.deepcopy(FACTS)
    del facts["agentos"]["grants"][name][tool]
    after = opa.build(axioms("syscall"), facts)
    assert decided(asking(agent, chain, **call), after).effect == "deny"
    after.close()


@given(chain=st.lists(LINKS, max_size=3))
def test_a_call_of_the_model_asks_no_delegator(chain: list[Link]) -> None:
    """Whoever it acts for, and whatever was left out: a session thinks for as long as its budget lets it."""
    question = asking("none-bare", chain)
    question["syscall"] |= {"tool": "model-call", "args": {"model": "m"}}
    assert decided(question).effect == "allow"


def samples() -> Iterator[dict[str, Any]]:
    """Questions by which a lost guard shows: every pair of child and delegator, and many longer chains."""
    draw = random.Random(7)
    calls = [dict(zip(("to", "now"), pair, strict=True)) for pair in itertools.product("ab", (0, 1000))]
    for agent, above in itertools.product(["free-bare", "none-hands"], AGENTS):
        for call in calls:
            yield asking(agent, [(above, None)], **call)
    for _ in range(600):
        links = [(draw.choice(AGENTS[::3]), draw.choice([None, None, ("act",), ()])) for _ in range(draw.randint(1, 3))]
        question = asking("free-bare", links, spent=draw.choice([[], ["sha256:counted"]]), **draw.choice(calls))
        fault = draw.randint(0, 9)
        if fault == 0:
            del question["session"]["delegators"]
        elif fault == 1:
            question["session"]["delegation"] = []
        elif fault == 2:
            question["session"]["tools"] = []
        yield question


def differs(source: str | None) -> bool:
    """Whether `grants` with this source decides any of the samples otherwise than the definition."""
    by = engine(source)
    return any(told(decided(question, by)) != expected(question) for question in samples())


SOURCE = next(one.source for one in axioms("syscall") if one.path == GRANTS)


def without(text: str) -> str:
    """The rule `grants` without the rule, or the condition, in which `text` stands first behind the rules of its own grants."""
    at = SOURCE.index(text, SOURCE.index("# title: chain"))
    if re.match(r'"rule": ', text):
        start = SOURCE.rindex("\nresults contains", 0, at) + 1
        return SOURCE[:start] + SOURCE[SOURCE.index("\n}\n", at) + 3 :]
    assert SOURCE.count(text, SOURCE.index("# title: chain")) == 1, text
    return SOURCE[:at] + SOURCE[at + len(text) :]


GUARDS = [
    *(
        f'"rule": "grants.{name}"'
        for name in (
            "chain",
            "delegator",
            "undelegated",
            "narrowed",
            "delegator-counted",
            "delegator-approval",
            "delegator-approval-counted",
        )
    ),
    "\tsome grant in data.agentos.grants[whose][tool]\n\tnot used_up(grant)\n",
    "\tcurrent(grant)\n\tevery name, constraint in grant.args {\n\t\tsatisfied(name, constraint)\n\t}\n",
    "\tsome grant in data.agentos.grants[one.agent][one.tool]\n\tcurrent(grant)\n",
    "narrowings contains names if {\n\tnames := input.session.tools\n}\n",
    "narrowings contains names if {\n\tsome one in input.session.delegators\n\tnames := one.tools\n\tnames != null\n}\n",
    "\t[one.session | some one in input.session.delegators] == input.session.delegation\n",
]


def test_the_samples_agree_with_the_definition() -> None:
    """The shipped rule decides each of them as the definition does."""
    assert not differs(None)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.strip().partition("\n")[0][:60])
def test_every_guard_is_needed(guard: str) -> None:
    """Without any one of the guards some sample is decided otherwise."""
    head = guard.partition("\n")[0] + "\n"
    source = without(guard)
    if "some grant in data" in guard:
        # The rest of the body stands on the grant: it is the conditions on it that go.
        source = SOURCE.replace(guard, head)
    assert differs(source)
