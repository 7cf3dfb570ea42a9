"""Budgets: nobody overdraws, whatever is at work at the same time; nothing leaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.scheduler.budget import Exceeded, Ledger, Reservation

PARENT = ("session", "s-parent")
TENANT = ("tenant", "acme")
AMOUNTS = st.integers(0, 1000)


@given(
    limit=st.integers(0, 5000),
    acts=st.lists(st.tuples(st.sampled_from(("reserve", "settle", "cancel")), st.integers(0, 3), AMOUNTS), max_size=60),
)
def test_children_cannot_overdraw_what_they_share(limit: int, acts: list[tuple[str, int, int]]) -> None:
    """What is used and held never passes a limit as long as calls use no more than they reserved; at the end nothing is held."""
    ledger = Ledger()
    ledger.limit(PARENT, "tokens", limit)
    held: list[Reservation] = []
    for act, child, amount in acts:
        if act == "reserve":
            made = ledger.reserve([("session", f"s-{child}"), PARENT, TENANT, PARENT], {"tokens": amount, "calls": 1})
            if isinstance(made, Exceeded):
                assert ledger.used(PARENT, "tokens") + ledger.reserved(PARENT, "tokens") + amount > limit
                assert str(limit) in str(made)
                continue
            held.append(made)
        elif held:
            one = held.pop(child % len(held))
            if act == "settle":
                ledger.settle(one, {"tokens": min(amount, one.amounts["tokens"]), "calls": 1})
            else:
                ledger.cancel(one)
            with pytest.raises(KeyError):
                ledger.settle(one, {})
        assert ledger.used(PARENT, "tokens") + ledger.reserved(PARENT, "tokens") <= limit
    for one in held:
        ledger.cancel(one)
    for account in (PARENT, TENANT, *(("session", f"s-{child}") for child in range(4))):
        assert ledger.reserved(account, "tokens") == ledger.reserved(account, "calls") == 0
    assert ledger.used(TENANT, "tokens") == ledger.used(PARENT, "tokens")


def test_a_refusal_changes_nothing() -> None:
    """No account holds a part of it, whichever one refused."""
    ledger = Ledger()
    ledger.limit(TENANT, "calls", 0)
    refused = ledger.reserve([PARENT, TENANT], {"calls": 1})
    assert isinstance(refused, Exceeded)
    assert refused.account == TENANT
    assert (ledger.reserved(PARENT, "calls"), ledger.left(TENANT, "calls"), ledger.left(PARENT, "calls")) == (0, 0, None)


def test_more_than_was_reserved_is_booked_and_refuses_the_next() -> None:
    """The provider's count holds."""
    ledger = Ledger()
    ledger.limit(PARENT, "tokens", 100)
    made = ledger.reserve([PARENT], {"tokens": 60})
    assert isinstance(made, Reservation)
    ledger.settle(made, {"tokens": 130})
    assert ledger.left(PARENT, "tokens") == 0
    assert isinstance(ledger.reserve([PARENT], {"tokens": 1}), Exceeded)
    assert isinstance(ledger.reserve([PARENT], {"tokens": 0, "calls": 1}), Reservation)
    ledger.limit(PARENT, "tokens", None)
    assert isinstance(ledger.reserve([PARENT], {"tokens": 1}), Reservation)


def test_what_the_log_says_is_booked_again() -> None:
    """A restart does not give a budget back."""
    ledger = Ledger()
    ledger.limit(PARENT, "calls", 2)
    ledger.book([PARENT, PARENT], {"calls": 2})
    assert isinstance(ledger.reserve([PARENT], {"calls": 1}), Exceeded)
    assert list(ledger.limits()) == [(PARENT, "calls", 2)]
    for unit, amount in (("euros", 1), ("calls", -1)):
        with pytest.raises(ValueError, match="cannot be reserved"):
            ledger.reserve([PARENT], {unit: amount})
    with pytest.raises(ValueError, match="no unit"):
        ledger.limit(PARENT, "euros", 1)
