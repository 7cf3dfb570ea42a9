"""The context view: whatever the history, the model is shown a conversation that holds together."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given

from agentos.abi import event as ev
from agentos.projections import context
from agentos.projections.grown import Grown
from agentos.projections.session import OPEN, Call, SessionState, Step, fold_all

sys.path.insert(0, str(Path(__file__).parent))

from session_histories import History, histories


def uses(message: dict[str, Any]) -> list[str]:
    return [block["id"] for block in message["content"] if block["type"] == "tool_use"]


def results(message: dict[str, Any]) -> list[str]:
    return [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]


@given(histories())
def test_every_call_is_answered_once_in_the_next_message(history: History) -> None:
    """Each `tool_use` of a reply has exactly one `tool_result` in the message behind it, but for calls still pending."""
    state = fold_all(history.events)
    view = context.messages(state)
    pending = [call["call"] for call in context.pending(state)]
    replies = [place for place, message in enumerate(view) if message["role"] == "assistant"]
    assert [tuple(uses(view[place])) for place in replies] == list(history.proposed)
    for place in replies:
        answered = results(view[place + 1]) if place + 1 < len(view) and view[place + 1]["role"] == "user" else []
        open_now = pending if place == replies[-1] else []
        assert answered == [call for call in uses(view[place]) if call not in open_now]
    everything = [call for message in view for call in results(message)] if replies else []
    assert len(everything) == len(set(everything))


@given(histories())
def test_pending_and_settled_are_what_was_proposed(history: History) -> None:
    """Of the last reply each call is either settled or pending, in the model's order, with its own arguments."""
    state = fold_all(history.events)
    proposed = list(history.proposed[-1]) if history.proposed else []
    pending = context.pending(state)
    settled = [call for call in proposed if call in state.calls and state.calls[call].step not in OPEN]
    names = [call["call"] for call in pending]
    assert sorted(settled + names) == sorted(proposed)
    assert names == [call for call in proposed if call in names]
    assert all(call["args"] == {"path": call["call"]} for call in pending)
    for call in pending:
        known = state.calls.get(call["call"])
        assert known is None or (known.tool, dict(known.args)) == (call["tool"], call["args"])


@given(histories())
def test_the_view_is_a_function_of_the_log(history: History) -> None:
    """Made twice, and after a restart from the same events, it is the same; making it changes nothing."""
    state = fold_all(history.events)
    before = json.dumps(context.messages(state))
    assert json.dumps(context.messages(state)) == before
    assert json.dumps(context.messages(fold_all(history.events))) == before
    assert state == fold_all(history.events)


@given(histories(whole=True))
def test_the_view_only_grows(history: History) -> None:
    """Between two replies of the model, what it was shown before is a prefix of what it is shown now."""
    shown: list[Any] = []
    for end, event in enumerate(history.events, 1):
        if event.type == ev.SYSCALL_DECIDED and event.data["tool"] == "model-call":
            view = context.messages(fold_all(history.events[: end - 1]))
            assert view[: len(shown)] == shown
            assert view[-1]["role"] == "user"
            shown = view


@given(histories())
def test_roles_alternate_and_the_goal_comes_first(history: History) -> None:
    """The goal is the first message and stands alone in its block; no role speaks twice in a row once calls are settled."""
    state = fold_all(history.events)
    view = context.messages(state)
    assert view[0]["content"][0] == {"type": "text", "text": "sort"}
    assert len(view[0]["content"]) == 1 + bool(state.inputs)
    roles = [message["role"] for message in view]
    assert all(one != other for one, other in pairwise(roles))


@given(histories())
def test_whatever_did_not_succeed_is_told_as_an_error(history: History) -> None:
    """A denial names its rules, a refusal its reason; only a result without error lacks the mark."""
    state = fold_all(history.events)
    for message in context.messages(state):
        for block in message["content"]:
            if block["type"] != "tool_result":
                continue
            call = state.calls[block["tool_use_id"]]
            good = call.result is not None and not call.result["is_error"]
            assert block.get("is_error", False) is not good
            assert block["content"]
            if call.step is Step.DENIED:
                assert "some.rule" in block["content"]
                assert "because" in block["content"]


def test_many_input_files_are_listed_up_to_a_bound() -> None:
    """The first are named, the rest is counted."""
    inputs = tuple({"path": f"input/{number:04d}", "bytes": number} for number in range(context.MAX_LISTED + 7))
    text = context.messages(SessionState(goal="g", inputs=inputs))[0]["content"][1]["text"]
    assert text.count("\n- ") == context.MAX_LISTED
    assert text.endswith("… and 7 more")


def test_a_goal_that_looks_like_a_listing_stays_in_its_block() -> None:
    """What a person typed and what the runtime says are two blocks."""
    state = SessionState(goal="x\nInput files in the workspace:\n- secret", inputs=({"path": "input/a", "bytes": 1},))
    opening = context.messages(state)[0]["content"]
    assert [block["text"] for block in opening] == [state.goal, "Input files in the workspace:\n- input/a (1 bytes)"]


def test_data_travels_beside_the_text() -> None:
    """A result's `data` is in its block for scripted plays; a result without data has no such field."""
    reply = {"content": [{"type": "tool_use", "id": "c1", "name": "t", "input": {}}], "stop_reason": "tool_use"}
    model = Call("model-1", "model-call", {}, "", Step.FINISHED, 1, result={"content": "", "is_error": False, "data": reply})
    call = Call("c1", "t", {}, "", Step.FINISHED, 1, result={"content": "ok", "is_error": False, "data": [1]})
    state = SessionState(calls=Grown({"model-1": model, "c1": call}))
    assert context.messages(state)[-1]["content"][0]["data"] == [1]
    bare = replace(call, result={"content": "ok", "is_error": False})
    assert "data" not in context.messages(replace(state, calls=Grown({"model-1": model, "c1": bare})))[-1]["content"][0]
