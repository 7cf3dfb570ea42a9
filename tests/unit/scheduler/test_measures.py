"""Figures from rows, against plain computations and runs that are known to be wrong."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.scheduler.arbiter import PriorityClass
from agentos.scheduler.measures import inversions, jain, largest_lag, worst_window
from agentos.scheduler.simulate import Left, Row

CLASSES = {
    "high": PriorityClass("high", rank=10),
    "low": PriorityClass("low", rank=5, aging_ms=1000),
    "rest": PriorityClass("rest", aging_ms=None),
}
WEIGHTS = {("a",): 1, ("b",): 2, ("c",): 3}


def got(seed: int, turns: int) -> list[tuple[tuple[str, ...], int]]:
    draw = random.Random(seed)
    return [(draw.choice(list(WEIGHTS)), draw.randint(1, 50)) for _ in range(turns)]


def row(name: str, priority: str, came: int, began: int, ended: int, order: tuple[int, int, int], path: str = "t/p/a") -> Row:
    return Row(name, "x", tuple(path.split("/")), priority, 1, came, began, ended, order)


def test_jain_is_one_for_equals_and_one_nth_for_one_who_has_all() -> None:
    """And one where there is nothing to share."""
    assert jain([3, 3, 3]) == 1
    assert jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert jain([]) == jain([0, 0]) == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_lag_is_the_largest_of_all_intervals(seed: int) -> None:
    """Against every interval, one by one."""
    served = got(seed, 25)
    worst = 0.0
    for begin, end in combinations(range(len(served) + 1), 2):
        sums = [sum(tokens for path, tokens in served[begin:end] if path == one) / weight for one, weight in WEIGHTS.items()]
        worst = max(worst, max(sums) - min(sums))
    assert largest_lag(served, WEIGHTS) == pytest.approx(worst)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_worst_window_is_the_worst_of_all_shortest_ones(seed: int) -> None:
    """From every beginning to where each has had its turns, and also without the turns at its beginning that are not needed."""
    served = got(seed, 40)
    found = []
    for end in range(len(served) + 1):
        for begin in range(end):
            part = served[begin:end]
            counts = [sum(path == one for path, _ in part) for one in WEIGHTS]
            before = [sum(path == one for path, _ in served[begin : end - 1]) for one in WEIGHTS]
            if min(counts) >= 3 > min(before):
                amounts = [sum(tokens for path, tokens in part if path == one) / weight for one, weight in WEIGHTS.items()]
                found.append(jain(amounts))
    assert worst_window(served, WEIGHTS, turns=3) == (pytest.approx(min(found)) if found else None)


def test_a_lower_turn_before_a_higher_one_that_waits_is_an_inversion() -> None:
    """Not when the higher one came later in the same ms; and also when the higher one never went out."""
    low = row("l", "low", 0, 5, 105, (2, 3, 6))
    high = row("h", "high", 5, 105, 200, (1, 7, 8))
    assert inversions([low, high], [], CLASSES, {}).count == 1
    after = row("h", "high", 5, 105, 200, (4, 7, 8))
    found = inversions([low, after], [], CLASSES, {})
    assert (found.count, found.longest_ms, found.longest_turn_ms) == (0, 100, 100)
    assert inversions([low], [Left("h", "x", ("t", "p", "a"), "high", 1, 5, (1, None))], CLASSES, {}).count == 1


def test_what_has_risen_by_its_age_is_no_inversion() -> None:
    """Five ranks in five seconds; a class that does not age never rises."""
    for priority, wrong in (("low", 0), ("rest", 1)):
        old = row("l", priority, 0, 5500, 5600, (1, 3, 6))
        high = row("h", "high", 5400, 5600, 5700, (2, 7, 8))
        assert inversions([old, high], [], CLASSES, {}).count == wrong


def test_what_a_quota_or_its_class_holds_is_not_waiting_for_others() -> None:
    """A tenant that has its slots, a class that has its slots."""
    runs = row("h1", "high", 0, 0, 100, (1, 2, 9))
    waits = row("h2", "high", 1, 100, 200, (3, 10, 11))
    low = row("l", "low", 1, 2, 50, (4, 5, 6), "other/p/a")
    assert inversions([runs, waits, low], [], CLASSES, {}).count == 1
    assert inversions([runs, waits, low], [], CLASSES, {("t",): 1}).count == 0
    capped = CLASSES | {"high": PriorityClass("high", rank=10, slots=1)}
    assert inversions([runs, waits, low], [], capped, {}).count == 0
