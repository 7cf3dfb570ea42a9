"""Classes lent along waits: in whatever order waits begin and end, everybody is lent what those behind it are."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from agentos.kernel.lending import Lending

RANKS = {"batch": 0, "standard": 1, "interactive": 2}


class Boosts:
    """Counts what is lent; takes nothing back that was not lent."""

    def __init__(self) -> None:
        self.lent: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def boost(self, session: str, priority: str) -> None:
        self.lent[session][priority] += 1

    def unboost(self, session: str, priority: str) -> None:
        assert self.lent[session][priority] > 0
        self.lent[session] -= Counter([priority])

    def height(self, priority: str) -> tuple[bool, int]:
        return True, RANKS[priority]

    def highest(self, session: str) -> str | None:
        return max(self.lent[session], key=self.height, default=None)


def behind(waits: dict[int, tuple[str, set[int]]], session: int) -> set[int]:
    """Whoever waits for `session`, directly or through others."""
    found = {waiter for waiter, (_, targets) in waits.items() if session in targets}
    return found.union(*(behind(waits, one) for one in found))


@given(st.data())
def test_what_is_lent_is_the_highest_class_behind(data: st.DataObject) -> None:
    """Sessions wait for older ones; they enter in any order, as after a restart, and leave, or end, in any order."""
    boosts = Boosts()
    lending = Lending(boosts)
    waits: dict[int, tuple[str, set[int]]] = {}
    for _ in range(data.draw(st.integers(1, 20))):
        session = data.draw(st.integers(1, 6))
        if session not in waits:
            own, targets = data.draw(st.sampled_from(sorted(RANKS))), data.draw(st.sets(st.integers(0, session - 1), min_size=1))
            waits[session] = own, targets
            lending.waits(str(session), own, map(str, targets))
        elif waits[session][1] and data.draw(st.booleans()):
            target = data.draw(st.sampled_from(sorted(waits[session][1])))
            waits[session][1].discard(target)
            lending.stops(str(session), str(target))
        else:
            del waits[session]
            lending.leaves(str(session))
        for one in range(7):
            classes = [waits[waiter][0] for waiter in behind(waits, one)]
            assert boosts.highest(str(one)) == max(classes, key=boosts.height, default=None)
    for session in list(waits):
        lending.leaves(str(session))
    assert not any(boosts.lent.values())
