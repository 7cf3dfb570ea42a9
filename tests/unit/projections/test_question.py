"""What policy is told of delegation, from the folded session, and the same again from the log."""

from __future__ import annotations

from typing import Any

import jsonschema

from agentos.abi import event as ev
from agentos.abi.event import Event
from agentos.policy.known import schema
from agentos.projections.question import question, recorded
from agentos.projections.session import SessionState, fold_all
from agentos.projections.session_state import State
from agentos.projections.state_document import state_document

DIGEST = "sha256:" + "0" * 64
LEAD: dict[str, Any] = {"session": "s-0", "agent": "lead", "labels": {"team": "ops"}, "tool": "hand-on", "tools": ["ask", "read"]}
MIDDLE: dict[str, Any] = {"session": "s-1", "agent": "middle", "labels": {}, "tool": "hand-on", "tools": None}
DELEGATED: dict[str, Any] = {
    "parent": "s-1",
    "call": "c-1",
    "index": 0,
    "decided": 4,
    "tool": "hand-on",
    "lineage": ["s-0", "s-1"],
    "delegators": [LEAD, MIDDLE],
    "tools": None,
    "budget": None,
}
AGENT = {"name": "worker", "labels": {}}


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"call": name, "tool": "ask", "effect": "write", "args": {"goal": "x"}, "args_digest": DIGEST, **more}


def told(state: SessionState, name: str = "c-1") -> dict[str, Any]:
    made = question(state, agent=AGENT, call=call(name), revision=1, policy_digest=None, now_ms=5)
    session: dict[str, Any] = made["session"]
    return session


def events(*payloads: tuple[str, dict[str, Any]]) -> list[Event]:
    return [
        Event(f"e-{seq}", kind, "default", "s-2", seq, "", seq, "system/kernel", 1, None, data)
        for seq, (kind, data) in enumerate(payloads, 1)
    ]


def decided(name: str, children: list[str] | None = None, effect: str = "allow") -> tuple[str, dict[str, Any]]:
    decision = {"effect": effect, "rules": ["a.b"], "reasons": ["so"]}
    more = {"children": children} if children is not None else {}
    return ev.SYSCALL_DECIDED, call(name, agent=AGENT, now=5, turn=1, decision=decision, **more)


def created(**more: Any) -> tuple[str, dict[str, Any]]:
    return ev.SESSION_CREATED, {"agent": "worker", "goal": "sort", "inputs": [], **more}


def test_a_session_that_nobody_delegated_to_is_told_as_ever() -> None:
    """Not a field more than in the questions of logs from before there was delegation."""
    assert told(fold_all(events(created()))) == {
        "id": "s-2",
        "tenant": "default",
        "actor": "system/kernel",
        "labels": [],
        "delegation": [],
        "unknown": [],
    }


def test_for_whom_a_session_acts_is_told() -> None:
    """The sessions above and who runs them, the first at the top; a narrowing only where there is one."""
    session = told(fold_all(events(created(delegated=DELEGATED))))
    assert (session["delegation"], session["delegators"]) == (["s-0", "s-1"], [LEAD, MIDDLE])
    assert {"tools", "children"}.isdisjoint(session)
    assert told(fold_all(events(created(delegated={**DELEGATED, "tools": ["ask"]}))))["tools"] == ["ask"]
    assert told(fold_all(events(created(delegated={**DELEGATED, "tools": []}))))["tools"] == []


def test_children_of_other_calls_are_counted() -> None:
    """Those of the call itself are not: decided once more, after a crash or an approval, it asks for none beside them."""
    state = fold_all(events(created(), decided("c-1", ["s-3", "s-4"]), decided("c-2", ["s-5"]), decided("c-3", None)))
    assert told(state, "c-1")["children"] == 1
    assert told(state, "c-2")["children"] == 2
    assert told(state, "c-3")["children"] == 3
    assert "children" not in told(fold_all(events(created(), decided("c-1", ["s-3"]))), "c-1")


def test_questions_about_delegation_fit_their_schema() -> None:
    """With all that a child in the middle of a tree has."""
    state = fold_all(events(created(delegated={**DELEGATED, "tools": ["ask"]}), decided("c-1", ["s-3"])))
    made = question(state, agent=AGENT, call=call("c-2"), revision=1, policy_digest=DIGEST, now_ms=5)
    jsonschema.validate(made, dict(schema("policy-input")))


def test_the_log_alone_gives_the_questions_again() -> None:
    """Each decision of a child that delegates on, one of them made twice, as it was asked when it was made."""
    history = events(created(delegated=DELEGATED), decided("c-1", ["s-3"]), decided("c-2", ["s-4"]), decided("c-1", ["s-3"]))
    asked = [
        question(fold_all(history[:at]), agent=AGENT, call=history[at].data, revision=1, policy_digest=None, now_ms=5)
        for at in (1, 2, 3)
    ]
    assert [item.question for item in recorded(history)] == asked
    assert [item.question["session"].get("children") for item in recorded(history)] == [None, 1, 1]


def test_a_fork_acts_for_the_same_sessions() -> None:
    """A fork of a child is no way around the grants of those who delegated."""
    child = fold_all(events(created(delegated=DELEGATED)))
    forked = {
        "session": "s-2",
        "seq": 1,
        "head": DIGEST,
        "state": state_document(child),
        "files": [],
        "left": 0,
        "workspace": "now",
    }
    fork = fold_all(events(created(forked=forked)))
    assert fork.state is State.RUNNING
    assert told(fork)["delegators"] == [LEAD, MIDDLE]
