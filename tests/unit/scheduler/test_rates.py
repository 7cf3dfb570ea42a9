"""Rates: never more than a minute's worth in a minute beyond what was there, whatever the clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.scheduler.rates import Bucket


@given(rate=st.integers(1, 10_000), steps=st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 500)), max_size=60))
def test_no_more_goes_out_than_the_rate_allows(rate: int, steps: list[tuple[int, int]]) -> None:
    """Over any time from the start: what was taken is at most the first fill, what came in, and one piece beyond."""
    bucket, now, taken = Bucket(rate), 0, 0
    for gone, amount in steps:
        now += gone
        if bucket.has(amount, now):
            bucket.take(amount, now)
            taken += amount
        largest = max(amount for _, amount in steps)
        assert taken <= rate + now * rate / 60_000 + max(0, largest - rate)


@given(rate=st.integers(1, 10_000), taken=st.integers(0, 100_000), amount=st.integers(1, 20_000))
def test_when_is_the_first_moment(rate: int, taken: int, amount: int) -> None:
    """Not a millisecond earlier, and no later."""
    bucket = Bucket(rate)
    bucket.take(taken, 0)
    when = bucket.when(amount, 0)
    assert Bucket.has(bucket, amount, when)
    fresh = Bucket(rate)
    fresh.take(taken, 0)
    assert when == 0 or not fresh.has(amount, when - 1)


def test_what_is_given_back_never_overfills_and_a_clock_set_back_gives_nothing() -> None:
    """A full bucket stays full."""
    bucket = Bucket(60)
    bucket.take(-1000, 0)
    assert bucket.level(0) == 60
    bucket.take(60, 1000)
    assert bucket.level(0) == 0
    assert bucket.level(1000) == 0
    assert bucket.level(2000) == 1
    with pytest.raises(ValueError, match="at least one"):
        Bucket(0)
