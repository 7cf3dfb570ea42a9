"""The oldest that may go, against a plain search; and heaps that do not grow with what has gone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.scheduler.arrivals import Arrivals, Domain

QUOTAS = [("a",), ("a", "x"), ("b",)]
DOMAINS: list[Domain] = [(), (("a",),), (("a",), ("a", "x")), (("b",),)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_it_is_the_oldest_that_no_quota_holds_back(data: st.DataObject) -> None:
    """Whatever comes, goes, is shut and opened, in whatever order and with times that stand still or go back."""
    arrivals = Arrivals()
    here: dict[str, tuple[int, int, Domain]] = {}
    shut: set[tuple[str, ...]] = set()
    for number in range(data.draw(st.integers(1, 80))):
        act = data.draw(st.sampled_from(["add", "add", "drop", "shut", "open"]))
        if act == "add":
            domain, at_ms = data.draw(st.sampled_from(DOMAINS)), data.draw(st.integers(0, 20))
            arrivals.add(f"t{number}", domain, at_ms, shut.__contains__)
            here[f"t{number}"] = (at_ms, number, domain)
        elif act == "drop" and here:
            name = data.draw(st.sampled_from(sorted(here)))
            arrivals.drop(name, here.pop(name)[2])
        elif act in {"shut", "open"}:
            quota = data.draw(st.sampled_from(QUOTAS))
            if (act == "shut") != (quota in shut):
                shut ^= {quota}
                arrivals.shut(quota, 1 if act == "shut" else -1)
        free = [(at_ms, order, name) for name, (at_ms, order, domain) in here.items() if not shut & set(domain)]
        assert arrivals.oldest() == (min(free)[2] if free else None)


def test_what_has_gone_takes_no_room() -> None:
    """Behind one that waits for ever a hundred thousand come and go; a quota opens and shuts as often."""
    arrivals = Arrivals()
    arrivals.add("stays", (), 0, lambda _: False)
    arrivals.add("held", DOMAINS[1], 0, lambda _: False)
    for number in range(100_000):
        arrivals.add(f"t{number}", (), number, lambda _: False)
        arrivals.drop(f"t{number}", ())
        arrivals.shut(("a",), 1)
        arrivals.shut(("a",), -1)
    assert arrivals.oldest() == "stays"
    assert sum(len(line.heap) for line in arrivals._lines.values()) + len(arrivals._heads) < 500
