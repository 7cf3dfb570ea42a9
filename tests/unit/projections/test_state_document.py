"""The canonical state document: the same bytes for the same history, other bytes for another state, and it can be read back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given

from agentos.abi.canonical import canonical, parse_strict
from agentos.projections.session import SessionState, fold, fold_all
from agentos.projections.state_document import digest_of_state, read_state, state_bytes, state_document

sys.path.insert(0, str(Path(__file__).parent))

from session_histories import History, histories


@given(histories())
def test_the_document_is_a_function_of_the_history(history: History) -> None:
    """Folded twice, it is the same bytes; they are canonical."""
    one, other = fold_all(history.events), fold_all(list(history.events))
    assert state_bytes(one) == state_bytes(other)
    assert canonical(parse_strict(state_bytes(one))) == state_bytes(one)


@given(histories())
def test_every_event_shows(history: History) -> None:
    """No two states of one session have one digest."""
    state, seen = SessionState(), {digest_of_state(SessionState())}
    for event in history.events:
        state = fold(state, event)
        assert digest_of_state(state) not in seen
        seen.add(digest_of_state(state))


@given(histories())
def test_what_is_written_is_read(history: History) -> None:
    """The document tells the whole state: what is read back is equal, and goes on alike."""
    middle = len(history.events) // 2
    state = fold_all(history.events[:middle])
    again = read_state(json.loads(state_bytes(state)))
    assert again == state
    for event in history.events[middle:]:
        state, again = fold(state, event), fold(again, event)
    assert state_bytes(again) == state_bytes(state)


@pytest.mark.parametrize("change", [{"abi": "agentos/v2"}, {"more": 1}, {"state": "asleep"}, {"calls": [{}]}])
def test_a_document_of_another_version_is_refused(change: dict[str, object]) -> None:
    """Nothing is guessed."""
    with pytest.raises((ValueError, KeyError)):
        read_state({**state_document(SessionState()), **change})
