"""Fair sharing: whoever stays backlogged gets what its weight deserves, in every interval, at every level."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.scheduler.share import ShareTree

LEAVES = st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("mn"))


def saturated(weights: dict[str, int], charges: dict[str, list[int]], turns: int, seed: int) -> list[tuple[str, int]]:
    """Siblings that always have a task waiting; who was served, and charged how much."""
    tree: ShareTree[int] = ShareTree()
    draw = random.Random(seed)
    for name, weight in weights.items():
        tree.weigh((name,), weight)
        tree.enqueue((name,), 0)
    served = []
    for turn in range(turns):
        path = tree.next_path()
        assert path is not None
        charge = draw.choice(charges[path[0]])
        assert tree.dequeue(charge=charge)[0] == path
        tree.enqueue(path, turn)
        served.append((path[0], charge))
    return served


@settings(max_examples=60, deadline=None)
@given(
    weights=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 20), min_size=2),
    most=st.integers(1, 5000),
    seed=st.integers(0, 2**32),
)
def test_the_lag_bound_holds_over_every_interval(weights: dict[str, int], most: int, seed: int) -> None:
    """Charges over weights of two saturated siblings differ by at most one largest charge of each, whatever part is looked at."""
    charges = {name: [random.Random(f"{seed}{name}{n}").randint(1, most) for n in range(5)] for name in weights}
    served = saturated(weights, charges, 120, seed)
    for one, other in combinations(weights, 2):
        bound = max(charges[one]) / weights[one] + max(charges[other]) / weights[other]
        lead = low = high = 0.0
        for name, charge in served:
            lead += charge / weights[one] if name == one else -charge / weights[other] if name == other else 0
            low, high = min(low, lead), max(high, lead)
        # The largest difference of two prefixes is the largest of any interval.
        assert high - low <= bound + 0.01


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_is_lost_doubled_or_served_while_held(data: st.DataObject) -> None:
    """Whatever is done in whatever order: each task comes out once, never from a held place, and some task whenever one can."""
    tree: ShareTree[int] = ShareTree()
    waiting: dict[int, tuple[str, ...]] = {}
    path: tuple[str, ...]
    held: list[tuple[str, ...]] = []
    out: list[tuple[tuple[str, ...], int]] = []
    for number in range(data.draw(st.integers(1, 60))):
        act = data.draw(st.sampled_from(["enqueue", "enqueue", "dequeue", "hold", "release", "settle", "remove"]))
        if act == "enqueue":
            path = data.draw(LEAVES)
            tree.enqueue(path, number)
            waiting[number] = path
        elif act == "hold":
            path = data.draw(LEAVES)[: data.draw(st.integers(1, 3))]
            tree.hold(path)
            held.append(path)
        elif act == "release" and held:
            tree.release(held.pop(data.draw(st.integers(0, len(held) - 1))))
        elif act == "settle" and out:
            tree.settle(out.pop()[0], data.draw(st.integers(-500, 500)))
        elif act == "remove" and waiting:
            task = data.draw(st.sampled_from(sorted(waiting)))
            assert tree.remove(waiting.pop(task), task)
            assert not tree.remove(("a", "x", "m"), -1)
        elif act == "dequeue":
            free = {task for task, at in waiting.items() if not any(at[: len(one)] == one for one in held)}
            assert tree.servable == bool(free)
            if not free:
                with pytest.raises(LookupError):
                    tree.dequeue(charge=1)
                continue
            path, task = tree.dequeue(charge=data.draw(st.integers(0, 1000)))
            assert task in free
            assert waiting.pop(task) == path
            out.append((path, task))
        assert len(tree) == len(waiting)


def test_many_children_do_not_change_a_rivals_share() -> None:
    """A program that forks a hundred agents gets what it got with one."""
    for children in (1, 100):
        tree: ShareTree[int] = ShareTree()
        got = {"quiet": 0, "loud": 0}
        for _ in range(2000):
            tree.enqueue(("acme", "quiet", "one"), 0)
            for child in range(children):
                tree.enqueue(("acme", "loud", f"agent-{child}"), 0)
            path, _ = tree.dequeue(charge=100)
            got[path[1]] += 100
        assert abs(got["quiet"] - got["loud"]) <= 200


def test_idling_earns_nothing() -> None:
    """Who comes back after a long time does not have everything to catch up; who is there all the time is not pushed away."""
    tree: ShareTree[int] = ShareTree()
    for _ in range(1000):
        tree.enqueue(("busy",), 0)
        tree.dequeue(charge=10)
    got = []
    for _ in range(20):
        for name in ("busy", "back"):
            tree.enqueue((name,), 0)
        got.append(tree.dequeue(charge=10)[0][0])
    assert abs(got.count("busy") - got.count("back")) <= 1


def test_an_estimate_that_was_wrong_is_made_good() -> None:
    """Who always says 1 and uses 100 gets no more than who says 100."""
    tree: ShareTree[int] = ShareTree()
    used = {"liar": 0, "honest": 0}
    for name in used:
        tree.enqueue((name,), 0)
    for _ in range(1000):
        path = tree.next_path()
        assert path is not None
        said = 1 if path == ("liar",) else 100
        tree.dequeue(charge=said)
        tree.enqueue(path, 0)
        tree.settle(path, 100 - said)
        used[path[0]] += 100
    assert abs(used["liar"] - used["honest"]) <= 200


def test_tasks_of_one_leaf_go_by_their_order_and_then_as_they_came() -> None:
    """The earliest deadline first; equals in order of arrival."""
    tree: ShareTree[str] = ShareTree()
    for order, task in (((2,), "late"), ((1,), "soon"), ((1,), "soon too"), ((2,), "late too")):
        tree.enqueue(("a",), task, order=order)
    assert [tree.dequeue(charge=1)[1] for _ in range(4)] == ["soon", "soon too", "late", "late too"]


def test_standings_tell_who_is_behind() -> None:
    """By weight: who was charged least per weight is furthest behind."""
    tree: ShareTree[int] = ShareTree()
    tree.weigh(("heavy",), 3)
    for _ in range(40):
        for name in ("heavy", "light"):
            tree.enqueue((name,), 0)
        tree.dequeue(charge=30)
    found = {one.path: one for one in tree.standings()}
    assert found["heavy",].charged == pytest.approx(3 * found["light",].charged, abs=90)
    assert {one.weight for one in found.values()} == {3, 1}
    with pytest.raises(ValueError, match="from 1 on"):
        tree.weigh(("x",), 0)
    with pytest.raises(ValueError, match="not held"):
        tree.release(("x",))


def test_who_was_alone_owes_nothing_when_all_have_rested() -> None:
    """Having used much while nobody else was there, with estimates that said little, costs nothing later."""
    tree: ShareTree[int] = ShareTree()
    for number in range(8):
        tree.enqueue(("alone",), number)
        tree.dequeue(charge=1)
    for _ in range(8):
        tree.finish(("alone",), 10_000)
    for number in range(20):
        tree.enqueue(("alone",), number)
        tree.enqueue(("new",), number)
    assert [tree.dequeue(charge=100)[0][0] for _ in range(6)].count("alone") == 3


def test_refunds_of_one_do_not_keep_another_waiting() -> None:
    """Who estimates ten thousand and uses one, on many slots, goes no more than one before a newcomer when these are gone."""
    tree: ShareTree[int] = ShareTree()
    for number in range(100):
        tree.enqueue(("cautious",), number)
    for _ in range(8):
        tree.dequeue(charge=10_000)
    for _ in range(8):
        tree.finish(("cautious",), 1 - 10_000)
    tree.enqueue(("new",), 0)
    got = []
    for _ in range(3):
        path, _ = tree.dequeue(charge=1)
        tree.finish(path, 0)
        got.append(path[0])
    assert "new" in got


def test_what_goes_out_of_turn_does_not_set_the_clock_forward() -> None:
    """A leaf far ahead of its share is served out of turn: whoever comes next still starts with those that wait."""
    tree: ShareTree[int] = ShareTree()
    for name in ("ahead", "waits"):
        for number in range(50):
            tree.enqueue((name,), number)
    tree.settle(("ahead",), 1_000_000)
    tree.dequeue_at(("ahead",), charge=10)
    tree.enqueue(("new",), 0)
    assert "new" in [tree.dequeue(charge=10)[0][0] for _ in range(3)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_one_certain_task_can_be_taken(seed: int) -> None:
    """Whatever is taken out of turn or removed does not come out again, and the rest comes in its order."""
    draw, tree = random.Random(seed), ShareTree[int]()
    order = {task: draw.randint(0, 9) for task in range(200)}
    for task, key in order.items():
        tree.enqueue(("a",), task, order=(key,))
    for task in draw.sample(sorted(order), 150):
        if draw.random() < 0.5:
            assert tree.remove(("a",), task)
            assert not tree.remove(("a",), task)
        else:
            tree.take(("a",), task, charge=1)
            with pytest.raises(LookupError):
                tree.take(("a",), task, charge=1)
        del order[task]
    assert [tree.dequeue(charge=1)[1] for _ in range(len(tree))] == sorted(order, key=lambda task: (order[task], task))
    assert not tree.servable
