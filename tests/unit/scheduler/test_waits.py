"""The wait-for graph: a cycle is found exactly when it closes, and named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.scheduler.waits import WaitGraph

NAMES = st.sampled_from([f"s-{n}" for n in range(6)])


@given(st.lists(st.tuples(st.sampled_from(["wait", "wait", "done"]), NAMES, st.sets(NAMES, min_size=1, max_size=3)), max_size=40))
def test_a_wait_is_refused_just_when_it_closes_a_cycle(acts: list[tuple[str, str, set[str]]]) -> None:
    """Against a plain search over all waits; what is named is a cycle, and the graph never holds one."""
    graph, plain = WaitGraph(), dict[str, set[str]]()

    def reaches(one: str, goal: str) -> bool:
        seen, rest = set(), [one]
        while rest:
            here = rest.pop()
            if here == goal:
                return True
            if here not in seen:
                seen.add(here)
                rest += plain.get(here, ())
        return False

    for act, waiter, holders in acts:
        if act == "done":
            graph.done(waiter)
            plain.pop(waiter, None)
        elif waiter in plain:
            with pytest.raises(ValueError, match="already"):
                graph.wait(waiter, holders, "x")
        else:
            closes = any(reaches(holder, waiter) for holder in holders)
            cycle = graph.wait(waiter, sorted(holders), f"lock of {waiter}")
            assert (cycle is not None) == closes
            if cycle is None:
                plain[waiter] = holders
            else:
                assert cycle.members[0] == waiter
                around = (*cycle.members[1:], waiter)
                assert tuple(wait.holder for wait in cycle.waits) == around
                assert len(set(cycle.members)) == len(cycle.members)
                assert all(name in str(cycle) for name in cycle.members)
        assert {(wait.waiter, wait.holder) for wait in graph.waits()} == {(a, b) for a, to in plain.items() for b in to}


def test_the_cycle_is_told_in_words() -> None:
    """Who waits for whom, and for what."""
    graph = WaitGraph()
    assert graph.wait("s-1", ["s-2"], "lock ledger") is None
    cycle = graph.wait("s-2", ["s-1"], "lock stock")
    assert str(cycle) == "deadlock: s-2 waits for s-1 (lock stock), s-1 waits for s-2 (lock ledger)"
    itself = graph.wait("s-3", ["s-3"], "lock x")
    assert str(itself) == "deadlock: s-3 waits for s-3 (lock x)"
