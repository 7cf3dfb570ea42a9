"""What has to hold before a session may begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.scheduler.precondition import Deferred, Impossible, Precondition, Ready, precondition

OUTCOMES = st.sampled_from([None, "finished", "failed", "cancelled", "halted"])


def test_nothing_asked_for_is_ready() -> None:
    assert Precondition().look(0, {}) == Ready()


def test_the_time_alone() -> None:
    assert Precondition(10).look(9, {}) == Deferred(10, ())
    assert Precondition(10).look(10, {}) == Ready()


@pytest.mark.parametrize(
    ("outcome", "words"), [("failed", "s-1 failed"), ("cancelled", "was cancelled"), ("halted", "was halted")]
)
def test_what_was_to_finish_and_did_not_makes_it_impossible(outcome: str, words: str) -> None:
    found = Precondition(after=("s-1",)).look(0, {"s-1": outcome})
    assert isinstance(found, Impossible)
    assert words in found.reason
    assert Precondition(after_any=("s-1",)).look(0, {"s-1": outcome}) == Ready()


def test_a_session_that_does_not_exist_is_never_waited_for() -> None:
    assert Precondition(after_any=("s-1",)).look(0, {}) == Impossible("session s-1 does not exist")


@given(st.none() | st.integers(0, 9), st.dictionaries(st.sampled_from("abcdef"), OUTCOMES), st.integers(0, 9), st.data())
def test_it_only_comes_nearer(not_before: int | None, outcomes: dict[str, str | None], now: int, data: st.DataObject) -> None:
    """What is ready stays ready, and what is impossible stays so, whatever happens to others and however late it gets."""
    names = sorted(outcomes)
    after = tuple(name for name in names if data.draw(st.booleans()))
    begin = Precondition(not_before, after, tuple(name for name in names if name not in after))
    assert precondition(begin.to_dict()) == begin
    first = begin.look(now, outcomes)
    later = {name: data.draw(OUTCOMES) if outcome is None else outcome for name, outcome in outcomes.items()}
    second = begin.look(now + data.draw(st.integers(0, 9)), later)
    if not isinstance(first, Deferred):
        assert type(second) is type(first)
