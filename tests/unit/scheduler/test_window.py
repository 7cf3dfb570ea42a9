"""What an endpoint did lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentos.scheduler.window import MOST, Waits, Window


def test_percentiles_are_of_the_class_alone() -> None:
    window = Window(1000)
    for waited in range(1, 101):
        window.admitted("standard", waited_ms=waited, now_ms=0)
    window.admitted("batch", waited_ms=9_000, now_ms=0)
    assert window.waits("standard", 0) == Waits(100, 51, 96)
    assert window.waits("batch", 0) == Waits(1, 9_000, 9_000)
    assert window.waits("interactive", 0) == Waits(0, None, None)


def test_what_is_older_than_the_window_counts_no_more() -> None:
    window = Window(1000)
    window.admitted("standard", waited_ms=5, now_ms=0)
    window.ended(("a", "p", "x"), "standard", tokens=7, now_ms=0)
    window.ended(("a", "p", "x"), "standard", tokens=4, now_ms=900)
    assert window.received(1000) == {("standard", ("a", "p", "x")): 11}
    assert window.waits("standard", 1001).admitted == 0
    assert window.received(1001) == {("standard", ("a", "p", "x")): 4}


def test_no_more_than_its_bound_is_held() -> None:
    window = Window(1000)
    for _ in range(MOST + 5):
        window.admitted("standard", waited_ms=1, now_ms=0)
    assert window.waits("standard", 0).admitted == MOST


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 500), st.integers(0, 300)), max_size=40))
def test_received_is_the_sum_of_what_ended_within_the_window(ends: list[tuple[str, int, int]]) -> None:
    window, now, expected = Window(1000), 0, dict[str, int]()
    seen = []
    for tenant, tokens, later in ends:
        now += later
        window.ended((tenant, "p", "x"), "standard", tokens=tokens, now_ms=now)
        seen.append((now, tenant, tokens))
    for when, tenant, tokens in seen:
        if when >= now - 1000:
            expected[tenant] = expected.get(tenant, 0) + tokens
    assert {path[0]: tokens for (_, path), tokens in window.received(now).items()} == expected
