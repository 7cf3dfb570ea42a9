"""How often something may happen: buckets, and what a request counts for."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.control import rate as rates
from agentos.control.rate import BURST_S, URGENT, URGENT_TOGETHER, Allowance, Knocks, Rate, too_often
from agentos.control.webhook import OFTEN


def test_a_place_takes_its_burst_then_its_rate() -> None:
    """A path takes a burst, then as many as its rate; another path is not touched by that."""
    rate, burst = Rate(OFTEN), int(OFTEN.burst)
    assert [rate.take("a", 0) for _ in range(burst)] == [0.0] * burst
    assert rate.take("a", 0) == pytest.approx(1 / OFTEN.per_second)
    assert rate.take("b", 0) == 0.0
    assert rate.take("a", int(1_000_000 / OFTEN.per_second)) == 0.0
    assert rate.take("a", int(1_000_000 / OFTEN.per_second)) > 0


@given(st.lists(st.integers(0, 300_000), max_size=200), st.floats(0.5, 50), st.floats(1, 20))
def test_no_span_of_time_gives_more_than_burst_and_rate(gaps: list[int], per_second: float, burst: float) -> None:
    """Whatever the rhythm: what was let in until any moment is at most the burst and the rate times the time."""
    rate, now, taken = Rate(Allowance(per_second, burst)), 0, 0
    for gap in gaps:
        now += gap
        wait = rate.take("a", now)
        taken += wait == 0.0
        assert wait >= 0
        assert taken <= burst + now * per_second / 1_000_000 + 1e-6


def test_who_waits_as_long_as_told_is_let_in() -> None:
    """The time that a refusal names is enough, however often one was refused before it."""
    rate = Rate(Allowance(3, 1))
    assert rate.take("a", 0) == 0.0
    for now in range(0, 200_000, 20_000):
        wait = rate.take("a", now)
        assert wait > 0
    assert rate.take("a", now + int(wait * 1_000_000) + 1) == 0.0


def test_places_are_bounded_and_a_new_name_is_no_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is full again is forgotten; as long as nobody is, a new place waits, and the old ones are still counted."""
    monkeypatch.setattr(rates, "MAX_PLACES", 3)
    rate = Rate(Allowance(1, 1))
    assert [rate.take(name, 0) for name in "abc"] == [0.0] * 3
    assert rate.take("d", 0) == 1.0
    assert rate.take("a", 0) > 0
    assert rate.take("d", 1_000_000) == 0.0


def _knocks(per_second: int = 10) -> tuple[Knocks, list[int]]:
    now = [0]
    return Knocks(lambda: now[0], lambda _tenant: per_second), now


def _taken(knocks: Knocks, tenant: str, name: str, *, urgent: bool = False, most: int = 10_000) -> int:
    """How many requests one after the other are let in at this moment."""
    return next(number for number in count() if number == most or knocks.take(tenant, name, urgent=urgent))


def test_one_principal_keeps_no_other_out() -> None:
    """A flood of one gets half of what the tenant may; its refusals cost nobody anything, and the tenant's bound holds."""
    knocks, _ = _knocks(10)
    assert _taken(knocks, "acme", "flood") == 5 * BURST_S
    for _ in range(1000):
        assert knocks.take("acme", "flood") > 0
    assert _taken(knocks, "acme", "ann") == 5 * BURST_S
    assert _taken(knocks, "acme", "bob") == 0


def test_tenants_and_the_fleet_count_apart() -> None:
    """What acme's principals use up, neither beta's nor the fleet's operators lack; the same name elsewhere is another one."""
    knocks, _ = _knocks(10)
    for name in "abcdef":
        _taken(knocks, "acme", name)
    assert knocks.take("acme", "zoe") > 0
    assert knocks.take("beta", "a") == 0.0
    assert knocks.take("*", "operator") == 0.0


def test_what_is_urgent_has_its_own() -> None:
    """A kill switch is thrown although the tenant has used up everything; who floods it keeps no other from it."""
    knocks, now = _knocks(10)
    for name in "abcdef":
        _taken(knocks, "acme", name)
    assert _taken(knocks, "acme", "a", urgent=True) == URGENT.burst
    assert knocks.take("acme", "b", urgent=True) == 0.0
    now[0] += 1_000_000
    assert _taken(knocks, "acme", "a", urgent=True) == URGENT.per_second
    assert knocks.take("acme", "b", urgent=True) == 0.0
    assert sum(_taken(knocks, "acme", name, urgent=True) for name in "cdefghij") <= URGENT_TOGETHER.burst


def test_a_tenant_of_one_request_a_second_is_served() -> None:
    """The smallest rate that can be declared lets its principal in, once a second."""
    knocks, now = _knocks(1)
    assert _taken(knocks, "acme", "ann") == BURST_S
    now[0] += 1_000_000
    assert _taken(knocks, "acme", "ann") == 1


def test_a_refusal_says_when() -> None:
    """In its words and as a number, never zero."""
    error = too_often("ann", 0.0001)
    assert error.to_dict()["retry_after_ms"] == 1
    assert (error.code, error.retryable) == ("rate.limited", True)
