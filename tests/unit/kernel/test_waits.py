"""One graph of all waits: cycles are found whatever the waits are over, and classes go along all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentos.kernel.waits import Waits
from agentos.scheduler.waits import Cycle
from tests.unit.kernel.test_lending import RANKS, Boosts


def test_a_class_goes_on_from_a_delegation_over_a_lock() -> None:
    """Who holds what the child of an urgent session waits for counts as urgent, until the child has it."""
    boosts = Boosts()
    waits = Waits(boosts)
    assert waits.wait("parent", {"child"}, "delegation c1", "interactive") is None
    assert waits.wait("child", {"other"}, "lock ledger", "batch") is None
    assert (boosts.highest("child"), boosts.highest("other")) == ("interactive", "interactive")
    assert waits.height("child", "batch") == boosts.height("interactive")
    waits.done("child")
    assert (boosts.highest("child"), boosts.highest("other")) == ("interactive", None)


def test_a_child_that_waits_for_its_parent_closes_a_cycle() -> None:
    """The lock of a session that waits for its child cannot be waited for by the child; nothing is entered."""
    boosts = Boosts()
    waits = Waits(boosts)
    waits.wait("parent", {"child", "sibling"}, "delegation c1", "standard")
    cycle = waits.wait("child", {"parent"}, "lock ledger", "standard")
    assert isinstance(cycle, Cycle)
    assert [(wait.waiter, wait.reason) for wait in cycle.waits] == [("child", "lock ledger"), ("parent", "delegation c1")]
    assert boosts.highest("parent") is None
    waits.stop("parent", "child")
    assert waits.wait("child", {"parent"}, "lock ledger", "standard") is None
    assert [(one.waiter, one.holder) for one in waits.waits({"parent", "child"})] == [("child", "parent"), ("parent", "sibling")]


def test_who_insists_has_a_wait_given_up() -> None:
    """A parent that comes after the wait of its child, as after a restart, is not who has to give way, if the child can."""
    boosts = Boosts()
    waits = Waits(boosts)
    assert waits.wait("child", {"parent"}, "lock ledger", "standard") is None
    assert isinstance(waits.insist("parent", {"child"}, "delegation c1", "standard"), Cycle)
    seen: list[Cycle] = []

    def gives_way(cycle: Cycle) -> bool:
        seen.append(cycle)
        waits.done("child")
        return True

    waits.yielding.append(gives_way)
    assert waits.insist("parent", {"child"}, "delegation c1", "standard") is None
    assert [(one.waiter, one.holder) for one in waits.waits({"parent", "child"})] == [("parent", "child")]
    assert [cycle.members for cycle in seen] == [("parent", "child")]


@given(st.data())
def test_lent_is_what_waits_behind_and_no_cycle_ever_stands(data: st.DataObject) -> None:
    """Whatever waits begin and end: nobody waits for itself, and everybody counts as the highest class behind it."""
    boosts = Boosts()
    waits, plain = Waits(boosts), dict[str, tuple[str, set[str]]]()
    sessions = [f"s-{number}" for number in range(6)]

    def behind(session: str) -> set[str]:
        found, row = set[str](), {session}
        while row:
            row = {one for one, (_, holders) in plain.items() if holders & row} - found
            found |= row
        return found

    for _ in range(data.draw(st.integers(1, 25))):
        session = data.draw(st.sampled_from(sessions))
        if session in plain and plain[session][1] and data.draw(st.booleans()):
            holder = data.draw(st.sampled_from(sorted(plain[session][1])))
            waits.stop(session, holder)
            plain[session][1].discard(holder)
        elif session in plain:
            waits.done(session)
            del plain[session]
        else:
            holders = data.draw(st.sets(st.sampled_from(sessions), min_size=1, max_size=3))
            own = data.draw(st.sampled_from(sorted(RANKS)))
            closes = session in holders or bool(holders & behind(session))
            assert (waits.wait(session, holders, "lock x", own) is not None) == closes
            if not closes:
                plain[session] = own, set(holders)
        for one in sessions:
            assert one not in behind(one)
            assert boosts.highest(one) == max((plain[other][0] for other in behind(one)), key=boosts.height, default=None)
        told = {(wait.waiter, wait.holder) for wait in waits.waits(set(sessions))}
        assert told == {(waiter, holder) for waiter, (_, holders) in plain.items() for holder in holders}
