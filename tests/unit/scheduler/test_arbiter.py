"""The arbiter on a virtual clock: work conserving, nobody starves, ranks hold, quotas and rates hold, inheritance lifts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.scheduler.arbiter import NEVER, Arbiter, Limits, PriorityClass, Turn

CLASSES = {
    "interactive": PriorityClass("interactive", rank=10, patience_ms=2000),
    "standard": PriorityClass("standard", rank=5),
    "batch": PriorityClass("batch", rank=0, aging_ms=None, preemptible=True, leave=20),
}


def turn(
    name: str,
    path: str = "acme/support/triage",
    priority: str = "standard",
    tokens: int = 100,
    at: int = 0,
    *,
    session: str = "",
    deadline_ms: int = NEVER,
    risk: int = 0,
) -> Turn:
    return Turn(name, session or f"s-{name}", tuple(path.split("/")), priority, tokens, at, deadline_ms, risk)


def arbiter(**limits: int) -> Arbiter:
    return Arbiter("claude", Limits(**({"slots": 1} | limits)), CLASSES)


def served(one: Arbiter, now: int = 0) -> str | None:
    admission = one.next(now)
    return None if admission is None else admission.turn.id


def test_the_higher_rank_goes_first_and_batch_gets_what_is_left() -> None:
    """In whatever order they came; a batch turn goes when nobody else waits, and not because it is old."""
    one = arbiter(slots=3)
    for name, priority in (("b", "batch"), ("s", "standard"), ("i", "interactive")):
        one.enqueue(turn(name, priority=priority))
    assert [served(one, 10_000_000) for _ in range(3)] == ["i", "s", "b"]


def test_a_class_rises_with_the_age_of_its_oldest_turn() -> None:
    """A standard turn that has waited long enough goes before an interactive one that has not, and its reason says so."""
    one = arbiter()
    one.enqueue(turn("old"))
    one.enqueue(turn("new", priority="interactive", at=310_000))
    admission = one.next(310_000)
    assert admission is not None
    assert (admission.turn.id, admission.waited_ms) == ("old", 310_000)
    assert "risen" in admission.why


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_work_is_conserved_and_no_limit_is_passed(data: st.DataObject) -> None:
    """A slot stays free only when nothing may go; slots and quotas are never exceeded; each turn goes out once."""
    slots, quota = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    one = arbiter(slots=slots)
    one.allot(("a",), quota)
    waiting: dict[str, Turn] = {}
    running: dict[str, Turn] = {}
    out: list[str] = []
    now = 0
    for number in range(data.draw(st.integers(1, 50))):
        now += data.draw(st.integers(0, 30_000))
        act = data.draw(st.sampled_from(["come", "come", "go", "go", "end", "leave"]))
        if act == "come":
            made = turn(
                f"t{number}",
                data.draw(st.sampled_from(["a/x/m", "a/x/n", "b/x/m", "b/y/m"])),
                data.draw(st.sampled_from(sorted(CLASSES))),
                data.draw(st.integers(1, 1000)),
                now,
            )
            one.enqueue(made)
            waiting[made.id] = made
        elif act == "end" and running:
            name = data.draw(st.sampled_from(sorted(running)))
            del running[name]
            one.finish(name, used=data.draw(st.integers(0, 2000)), now_ms=now)
        elif act == "leave" and waiting:
            name = data.draw(st.sampled_from(sorted(waiting)))
            del waiting[name]
            assert one.withdraw(name)
        elif act == "go":
            full = sum(1 for item in running.values() if item.path[0] == "a") >= quota
            free = {name for name, item in waiting.items() if item.path[0] != "a" or not full}
            gone = served(one, now)
            assert (gone is not None) == (bool(free) and len(running) < slots)
            if gone is not None:
                assert gone in free
                running[gone] = waiting.pop(gone)
                out.append(gone)
        assert one.waiting() == len(waiting)
        assert {item.id for item, _, _ in one.running()} == set(running)
    assert len(out) == len(set(out))


def test_nobody_starves() -> None:
    """Under a flood of a higher class every standard turn goes out within a time that does not depend on the flood's length."""
    one, now, number = arbiter(), 0, 0
    for name in range(20):
        one.enqueue(turn(f"poor-{name}", f"poor/p/a{name}"))
    waits: list[int] = []
    while len(waits) < 20:
        while one.depth()["interactive"] < 5:
            number += 1
            one.enqueue(turn(f"rich-{number}", f"rich/p/a{number % 3}", "interactive", at=now))
        admission = one.next(now)
        assert admission is not None
        if admission.turn.id.startswith("poor"):
            waits.append(admission.waited_ms)
        now += 1000
        one.finish(admission.turn.id, used=100, now_ms=now)
    # Five ranks of a minute each to rise, and what the urgent ones wait themselves; then the twenty go one after the other.
    assert max(waits) <= 5 * 60_000 + 5_000 + 21_000


def test_rates_hold_and_part_of_them_is_kept_from_batch() -> None:
    """Batch stops at a fifth of the rate, the others use it up; `wake_at` says when it goes on."""
    one = arbiter(slots=100, requests_per_minute=10)
    for number in range(20):
        one.enqueue(turn(f"b{number}", priority="batch"))
    assert sum(served(one) is not None for _ in range(20)) == 8
    for number in range(20):
        one.enqueue(turn(f"i{number}", priority="interactive"))
    assert [served(one) for _ in range(3)] == ["i0", "i1", None]
    when = one.wake_at(0)
    assert when is not None
    assert served(one, when - 1) is None
    assert served(one, when) == "i2"


def test_tokens_that_were_underestimated_are_made_good() -> None:
    """After a turn that used a minute's worth, the next waits for it."""
    one = arbiter(slots=2, tokens_per_minute=1000)
    one.enqueue(turn("a", tokens=10))
    one.enqueue(turn("b", tokens=10))
    assert served(one) == "a"
    one.finish("a", used=2000, now_ms=0)
    assert served(one) is None
    when = one.wake_at(0)
    assert when is not None
    assert 60_000 <= when <= 60_060
    assert served(one, when) == "b"


def test_whoever_an_urgent_session_waits_for_runs_at_its_priority() -> None:
    """Also in mid-queue; and falls back when nobody waits any more."""
    one = arbiter()
    one.enqueue(turn("other", "b/p/a"))
    one.enqueue(turn("holder", "a/p/a", "batch", session="s-holder"))
    one.boost("s-holder", "interactive")
    one.boost("s-holder", "interactive")
    one.unboost("s-holder", "interactive")
    first = one.preview(0)
    assert first is not None
    assert (first.turn.id, first.priority) == ("holder", "interactive")
    one.unboost("s-holder", "interactive")
    first = one.preview(0)
    assert first is not None
    assert (first.turn.id, first.priority) == ("other", "standard")
    assert "b/p/a is the furthest behind" in first.why
    one.boost("s-holder", "interactive")
    assert served(one) == "holder"
    with pytest.raises(ValueError, match="nobody"):
        one.unboost("s-holder", "standard")


def test_a_preemptible_turn_makes_room_when_patience_ends() -> None:
    """Not before, not for its equals, and not once somebody urgent waits for it."""
    one = arbiter(slots=2)
    for name in ("first", "second"):
        one.enqueue(turn(name, priority="batch"))
    assert [served(one, 0), served(one, 10)] == ["first", "second"]
    assert one.victim(100_000) is None
    one.enqueue(turn("urgent", priority="interactive", at=1000))
    assert one.victim(3000) is None
    found = one.victim(3001)
    assert found is not None
    assert found.id == "second"
    one.boost("s-second", "interactive")
    found = one.victim(3001)
    assert found is not None
    assert found.id == "first"


def test_deadlines_come_before_risk_before_arrival() -> None:
    """Within one agent."""
    one = arbiter(slots=5)
    one.enqueue(turn("plain"))
    one.enqueue(turn("risky", risk=5))
    one.enqueue(turn("late", deadline_ms=9000))
    one.enqueue(turn("soon", deadline_ms=100))
    assert [served(one) for _ in range(4)] == ["soon", "late", "risky", "plain"]


def test_a_run_can_be_repeated_exactly() -> None:
    """The same turns at the same times are served in the same order."""

    def play() -> list[str]:
        draw, one, found = random.Random(7), arbiter(slots=2), []
        for number in range(300):
            path, priority = f"{draw.choice('ab')}/p/{draw.choice('xyz')}", draw.choice(sorted(CLASSES))
            one.enqueue(turn(f"t{number}", path, priority, at=number))
            admission = one.next(number)
            if admission is not None:
                found.append(admission.turn.id)
            elif running := sorted(item.id for item, _, _ in one.running()):
                one.finish(draw.choice(running), used=draw.randint(1, 500), now_ms=number)
        return found

    assert play() == play()


def test_age_lifts_the_turn_that_is_old_and_no_other() -> None:
    """It goes itself, also where its agent has others that come before it; then the higher rank goes on."""
    one = arbiter()
    one.enqueue(turn("old", at=1))
    for number in range(5):
        one.enqueue(turn(f"risky-{number}", at=100_000, risk=9))
    one.enqueue(turn("urgent", priority="interactive", at=310_000))
    first = served(one, 310_000)
    assert first == "old"
    one.finish(first, used=100, now_ms=310_001)
    assert served(one, 310_001) == "urgent"


def test_a_turn_behind_a_quota_lifts_nobody_by_its_age() -> None:
    """Its tenant has its slots; others of its class wait their turn behind the higher rank."""
    one = arbiter(slots=2)
    one.allot(("acme",), 1)
    one.enqueue(turn("runs"))
    assert served(one) == "runs"
    one.enqueue(turn("held"))
    one.enqueue(turn("fresh", "beta/p/a", at=900_000))
    one.enqueue(turn("urgent", "beta/p/a", "interactive", at=900_000))
    assert served(one, 900_000) == "urgent"
    assert one.victim(999_000_000) is None
    one.finish("urgent", used=1, now_ms=900_001)
    one.finish("runs", used=1, now_ms=900_001)
    one.enqueue(turn("urgent too", "beta/p/a", "interactive", at=900_001))
    assert served(one, 900_001) == "held"


def test_a_quota_that_comes_later_holds_those_who_wait_already() -> None:
    """Waiting turns are sorted anew; when it is raised they go."""
    one = arbiter(slots=3)
    for number in range(3):
        one.enqueue(turn(f"t{number}"))
    assert served(one) == "t0"
    one.allot(("acme", "support"), 1)
    assert served(one) is None
    one.allot(("acme", "support"), 2)
    assert [served(one), served(one)] == ["t1", None]


def test_nobody_is_stopped_where_that_would_help_nobody() -> None:
    """An urgent class that has the slots it may have waits for its own turns."""
    classes = CLASSES | {"interactive": PriorityClass("interactive", rank=10, patience_ms=0, slots=1)}
    one = Arbiter("claude", Limits(slots=2), classes)
    one.enqueue(turn("batch", priority="batch"))
    one.enqueue(turn("first", priority="interactive"))
    one.enqueue(turn("second", priority="interactive"))
    assert [served(one), served(one), served(one)] == ["first", "batch", None]
    assert one.victim(10_000) is None
    one.finish("first", used=1, now_ms=10_000)
    assert served(one, 10_000) == "second"


def test_a_class_that_does_not_age_is_below_all_others_whatever_its_rank() -> None:
    """It is passed over, stopped, and lifted, as what it is."""
    classes = {"standard": PriorityClass("standard", rank=1, patience_ms=0), "left": PriorityClass("left", 99, None, None, True)}
    one = Arbiter("claude", Limits(slots=1), classes)
    one.enqueue(turn("left", priority="left"))
    assert served(one) == "left"
    one.enqueue(turn("standard", at=10))
    found = one.victim(100)
    assert found is not None
    assert found.id == "left"
    one.boost("s-left", "standard")
    assert one.victim(100) is None


def test_whoever_has_no_deadline_is_not_overtaken_for_ever() -> None:
    """A stream of turns of its own agent with deadlines, risks, and deadlines long past does not keep it waiting."""
    one, now = arbiter(), 0
    one.enqueue(turn("plain"))
    for number in range(1000):
        one.enqueue(turn(f"d{number}", at=now, deadline_ms=now + 5000 if number % 2 else 0, risk=9))
        first = served(one, now)
        assert first is not None
        now += 10_000
        one.finish(first, used=1, now_ms=now)
        if first == "plain":
            break
    assert now <= 1_250_000


def test_a_boost_to_a_class_that_is_not_there_changes_nothing() -> None:
    """It is refused before anything is kept."""
    one = arbiter()
    with pytest.raises(KeyError):
        one.boost("s-t1", "no-such-class")
    one.enqueue(turn("t1"))
    assert served(one) == "t1"


LEVELS = [("a", "x", "m"), ("a", "x", "n"), ("a", "y", "m"), ("b", "x", "m"), ("b", "x", "n"), ("c", "z", "o")]


@settings(max_examples=80, deadline=None)
@given(
    slots=st.integers(1, 9),
    weights=st.dictionaries(
        st.sampled_from(sorted({path[:depth] for path in LEVELS for depth in (1, 2, 3)})), st.integers(1, 9), max_size=6
    ),
    most=st.integers(1, 3000),
    seed=st.integers(0, 2**32),
)
def test_the_bound_holds_for_what_was_received(slots: int, weights: dict[tuple[str, ...], int], most: int, seed: int) -> None:
    """Siblings of every level, many slots, estimates that are wrong: over every interval, what two of them received over their
    weights differs by no more than 2 · slots · the largest turn over the smaller weight.
    """
    draw = random.Random(seed)
    one = arbiter(slots=slots)
    for path, weight in weights.items():
        one.weigh(path, weight)
    nodes = sorted({path[:depth] for path in LEVELS for depth in (1, 2, 3)})
    got = dict.fromkeys(nodes, 0)
    pairs = [(x, y) for x in nodes for y in nodes if x < y and x[:-1] == y[:-1]]
    spans = dict.fromkeys(pairs, (0.0, 0.0))
    liars = {path: draw.choice([0.0, 0.1, 1.0, 1.0, 5.0]) for path in LEVELS}
    number, use, running = 0, {}, []

    def come(path: tuple[str, ...]) -> None:
        nonlocal number
        number += 1
        use[f"t{number}"] = used = draw.randint(1, most)
        one.enqueue(turn(f"t{number}", "/".join(path), tokens=min(most, int(used * liars[path]))))

    for path in LEVELS:
        come(path)
        come(path)
    for now in range(400):
        while (admission := one.next(now)) is not None:
            running.append(admission.turn)
            come(admission.turn.path)
        ended = running.pop(draw.randrange(len(running)))
        one.finish(ended.id, used=use[ended.id], now_ms=now)
        for depth in (1, 2, 3):
            got[ended.path[:depth]] += use[ended.id]
        for pair, (low, high) in spans.items():
            lead = got[pair[0]] / weights.get(pair[0], 1) - got[pair[1]] / weights.get(pair[1], 1)
            spans[pair] = min(low, lead), max(high, lead)
    for (left, right), (low, high) in spans.items():
        # The largest difference of two prefixes is the largest of any interval.
        assert high - low <= 2 * slots * most / min(weights.get(left, 1), weights.get(right, 1)) + 1


@pytest.mark.parametrize("said", [1, 100, 10_000])
def test_one_that_comes_back_is_bound_like_the_others(said: int) -> None:
    """One sleeps now and then, the other's estimates are far off: while both wait, the bound holds over what they receive."""
    one, number, slots = arbiter(slots=4), 0, 4
    waits = {"steady": 0, "sleeper": 0}
    got = dict(waits)
    running: list[Turn] = []
    for now in range(2000):
        awake = now % 400 >= 200
        if now % 400 == 200:
            got = dict.fromkeys(got, 0)
        while True:
            for name, many in list(waits.items()):
                for _ in range(many, 2 if name == "steady" or awake else 0):
                    number, waits[name] = number + 1, waits[name] + 1
                    one.enqueue(turn(f"t{number}", f"{name}/p/a", tokens=said if name == "steady" else 100, at=now))
            admission = one.next(now)
            if admission is None:
                break
            running.append(admission.turn)
            waits[admission.turn.path[0]] -= 1
        ended = running.pop(0)
        one.finish(ended.id, used=100, now_ms=now)
        got[ended.path[0]] += 100
        if awake:
            assert abs(got["steady"] - got["sleeper"]) <= 2 * slots * max(said, 100)


def test_nobody_starves_behind_a_class_that_is_overrun() -> None:
    """The higher one has more to do than it can for ever, and ages sixty times as fast: the lower one's turn still comes."""
    classes = {"high": PriorityClass("high", rank=10, aging_ms=1000), "low": PriorityClass("low", rank=5, aging_ms=60_000)}
    one, now, number = Arbiter("claude", Limits(slots=1), classes), 0, 0
    one.enqueue(turn("low", priority="low"))
    while True:
        for _ in range(2):
            number += 1
            one.enqueue(turn(f"h{number}", "rich/p/a", "high", at=now))
        first = served(one, now)
        assert first is not None
        if first == "low":
            break
        now += 1000
        one.finish(first, used=100, now_ms=now)
        assert now <= 2 * 5 * 60_000 + 2000
