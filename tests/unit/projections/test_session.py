"""The fold of one session: laws that hold after every event of every valid history."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.abi.event import Event
from agentos.projections.session import OPEN, SessionState, State, Step, fold, fold_all

sys.path.insert(0, str(Path(__file__).parent))

from session_histories import KERNEL, PEOPLE, History, histories

SCHEMA = json.loads((asset("schemas") / "v1" / "event.json").read_text())


def prefixes(history: History) -> list[SessionState]:
    """The state before the first event and after each."""
    states = [SessionState()]
    for event in history.events:
        states.append(fold(states[-1], event))
    return states


@given(histories(whole=True))
def test_the_histories_are_of_the_published_shape(history: History) -> None:
    """What these tests fold is what `schemas/v1/event.json` describes."""
    validator = jsonschema.Draft202012Validator({"$defs": SCHEMA["$defs"], "allOf": SCHEMA["allOf"]})
    for event in history.events:
        validator.validate({"type": event.type, "data": event.data})


@given(histories())
def test_the_state_is_a_function_of_the_events(history: History) -> None:
    """Folding twice, and folding on from any middle, gives one state; no event is changed by it."""
    copy = json.dumps([event.data for event in history.events])
    states = prefixes(history)
    assert fold_all(history.events) == states[-1] == fold_all(list(history.events))
    assert json.dumps([event.data for event in history.events]) == copy
    assert [state.seq for state in states] == list(range(len(states)))


@given(histories())
def test_labels_and_spend_only_grow(history: History) -> None:
    """What a session has seen and spent is never taken back."""
    states = prefixes(history)
    for before, after in pairwise(states):
        assert before.labels <= after.labels
        assert before.tool_calls <= after.tool_calls
        assert before.input_tokens <= after.input_tokens
        assert before.output_tokens <= after.output_tokens
        assert before.turn <= after.turn
        assert before.epoch <= after.epoch
        assert list(after.calls)[: len(before.calls)] == list(before.calls)


@given(histories())
def test_spend_is_what_the_events_say(history: History) -> None:
    """Tokens are the sum of the replies; calls are the allowed ones that are not the model's."""
    state = fold_all(history.events)
    replies = [event.data["result"]["data"] for event in history.events if is_reply(event)]
    assert state.input_tokens == sum(reply["input_tokens"] for reply in replies)
    assert state.output_tokens == sum(reply["output_tokens"] for reply in replies)
    allowed = [event.data for event in history.events if event.type == ev.SYSCALL_DECIDED]
    allowed = [data for data in allowed if data["decision"]["effect"] == "allow" and data["tool"] != "model-call"]
    assert state.tool_calls == len(allowed)
    labels = [event.data["result"].get("labels", []) for event in history.events if event.type == ev.SYSCALL_FINISHED]
    assert state.labels == frozenset().union(*labels)


@given(histories(whole=True))
def test_over_is_final(history: History) -> None:
    """A session is over after a terminal event, and after no other; at most a harness is stopped behind that."""
    states = prefixes(history)
    for event, before, state in zip(history.events, states, states[1:], strict=False):
        assert state.over == (before.over or event.type in ev.TERMINAL)
        assert not before.over or event.type == ev.HARNESS_STOPPED


@given(histories(whole=True))
def test_a_harness_that_was_stopped_moves_nothing(history: History) -> None:
    """Why it was stopped is kept as the log has it, and no word of it changes where the session stands or how it has ended."""
    told = None
    for event, before, after in zip(history.events, states := prefixes(history), states[1:], strict=False):
        if event.type == ev.HARNESS_STOPPED:
            told = {**event.data, "at": event.time_ms, "seq": event.seq}
            assert replace(after, stopped=before.stopped, seq=before.seq) == before
        assert after.stopped == told


@pytest.mark.parametrize("end", sorted(ev.TERMINAL))
def test_a_harness_that_is_stopped_behind_an_end_does_not_undo_it(end: str) -> None:
    """Whatever the end was, it stays, with its result or its error."""
    data = {"result": "so", "error": {"code": "c", "message": "m"}, "reason": "r", "rules": [], "reasons": ["a"]}
    after = {"reason": "after-finish", "message": "m", "after": end.rpartition(".")[2], "code": 1, "new": "passed over"}
    ended = fold(SessionState(id="s-1"), Event("e", end, "default", "s-1", 1, "", 7, KERNEL, 0, None, data))
    stopped = fold(ended, Event("e", ev.HARNESS_STOPPED, "default", "s-1", 2, "", 8, KERNEL, 0, None, after))
    assert stopped.stopped == {name: after[name] for name in ("reason", "message", "after", "code")} | {"at": 8, "seq": 2}
    assert replace(stopped, stopped=None, seq=1) == ended


@given(histories())
def test_a_session_waits_for_exactly_one_asked_call(history: History) -> None:
    """`waiting_for` is set while and only while the session waits, and names a call that was asked."""
    for state in prefixes(history):
        assert (state.state is State.WAITING) <= (state.waiting_for is not None)
        assert (state.waiting is None) == (state.waiting_for is None)
        if state.state is State.WAITING:
            assert state.calls[state.waiting_for or ""].step is Step.ASKED
        if state.state is State.RUNNING:
            assert state.waiting_for is None


@given(histories())
def test_a_settled_call_stays_settled(history: History) -> None:
    """A call that needs nothing more is never opened again, and keeps what is known of it."""
    states = prefixes(history)
    for before, after in pairwise(states):
        for name, call in before.calls.items():
            if call.step not in OPEN:
                assert after.calls[name] == call


@given(histories())
def test_a_call_has_at_most_one_outcome(history: History) -> None:
    """A result or an error, never both; a result is of a finished call, and an approval is kept."""
    for state in prefixes(history):
        for call in state.calls.values():
            assert call.result is None or call.error is None
            assert (call.result is not None) == (call.step is Step.FINISHED)
            assert (call.error is not None) == (call.step in {Step.FAILED, Step.UNKNOWN, Step.REJECTED, Step.REFUSED})
            assert call.step is not Step.APPROVED or call.approvals[-1]["by"] in PEOPLE


@given(histories())
def test_a_yes_is_used_once_per_call_that_rests_on_it(history: History) -> None:
    """What the session keeps of its yeses: those for all of it, in order, each counted once for each allow that names it."""
    state = fold_all(history.events)
    granted = [event for event in history.events if event.type == ev.APPROVAL_GRANTED]
    assert [(one["call"], one["by"]) for one in state.approvals] == [
        (event.data["call"], event.actor) for event in granted if event.data["scope"] == "session"
    ]
    relied = [
        (one["call"], one["by"])
        for event in history.events
        if event.type == ev.SYSCALL_DECIDED and event.data["decision"]["effect"] == "allow"
        for one in event.data.get("approvals", ())
        if one["scope"] == "session"
    ]
    assert sum(one["used"] for one in state.approvals) == len(relied)
    for call in state.calls.values():
        assert [one["by"] for one in call.approvals] == [event.actor for event in granted if event.data["call"] == call.call]


@given(histories(), st.text(min_size=1, max_size=10), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
def test_an_event_of_a_newer_version_changes_only_the_number(history: History, kind: str, data: dict[str, int]) -> None:
    """What this version does not know it passes over."""
    state = fold_all(history.events)
    event = Event("e", f"agentos.new.{kind}", "default", "s-1", state.seq + 1, "", 0, KERNEL, state.config_revision, None, data)
    assert fold(state, event) == replace(state, seq=state.seq + 1)


@given(histories())
def test_only_a_revised_event_moves_a_session(history: History) -> None:
    """A session runs under the revision that it was created under until it says that it moved."""
    states = prefixes(history)
    for event, before, after in zip(history.events, states, states[1:], strict=False):
        if event.type == ev.SESSION_REVISED:
            assert (before.config_revision, after.config_revision) == (event.data["from"], event.data["to"])
        elif before.seq:
            assert after.config_revision == before.config_revision


@pytest.mark.parametrize(
    ("kind", "data", "state", "error"),
    [
        (ev.SESSION_FINISHED, {"result": "so"}, State.FINISHED, None),
        (ev.SESSION_FAILED, {"error": {"code": "c", "message": "m"}}, State.FAILED, {"code": "c", "message": "m"}),
        (ev.SESSION_CANCELLED, {"reason": "r"}, State.CANCELLED, {"code": "cancelled", "message": "r"}),
        (ev.SESSION_HALTED, {"rules": [], "reasons": ["a", "b"]}, State.HALTED, {"code": "halted", "message": "a; b"}),
    ],
)
def test_each_end_says_why(kind: str, data: dict[str, object], state: State, error: object) -> None:
    """How it ended, and what a person reads about it."""
    ended = fold(SessionState(id="s-1"), Event("e", kind, "default", "s-1", 1, "", 0, KERNEL, 0, None, data))
    assert (ended.state, ended.error, ended.over) == (state, error, True)
    assert (ended.result == "so") == (state is State.FINISHED)


def is_reply(event: Event) -> bool:
    return event.type == ev.SYSCALL_FINISHED and event.data["tool"] == "model-call"


@pytest.mark.parametrize(
    ("kind", "said"),
    [(ev.SYSCALL_FAILED, {"error": {"code": "driver", "message": "no"}, "duration_us": 1}), (ev.SYSCALL_UNKNOWN, {})],
)
def test_a_failure_labels_the_session_like_a_result(kind: str, said: dict[str, Any]) -> None:
    """The words of a failure are the tool's: its labels travel into the session with them."""
    created = {"agent": "worker", "goal": "sort", "inputs": [], "labels": ["internal"]}
    decision = {"effect": "allow", "rules": ["some.rule"], "reasons": []}
    decided = {"call": "c", "tool": "t", "effect": "read", "args": {}, "args_digest": "", "decision": decision, "turn": 1}
    failed = {"call": "c", "tool": "t", "labels": ["untrusted"], **said}
    kinds = [(ev.SESSION_CREATED, created), (ev.SYSCALL_DECIDED, decided), (kind, failed)]
    events = [Event("e", name, "default", "s-1", n, "", n, KERNEL, 1, None, data) for n, (name, data) in enumerate(kinds, 1)]
    assert fold_all(events).labels == {"internal", "untrusted"}
