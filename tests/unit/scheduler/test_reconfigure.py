"""Another declaration for an endpoint that is in use."""

from __future__ import annotations

from agentos.scheduler.arbiter import Arbiter, Limits, Turn
from agentos.scheduler.classes import PriorityClass
from agentos.scheduler.rates import Bucket

STANDARD, HIGH = PriorityClass("standard"), PriorityClass("high", rank=10, patience_ms=100)
BATCH = PriorityClass("batch", rank=-10, aging_ms=None, preemptible=True)


def arbiter(slots: int = 1, *classes: PriorityClass) -> Arbiter:
    return Arbiter("e", Limits(slots), {one.name: one for one in classes or (STANDARD, HIGH, BATCH)})


def turn(name: str, priority: str = "standard", *, tenant: str = "a", at_ms: int = 0, tokens: int = 10) -> Turn:
    return Turn(name, f"s-{name}", (tenant, "p", "x"), priority, tokens, at_ms)


def served(one: Arbiter, now_ms: int = 0) -> str | None:
    found = one.next(now_ms)
    return None if found is None else found.turn.id


def test_slots_count_at_once() -> None:
    """More let more out; with fewer than run, nothing goes out until enough have ended."""
    one = arbiter()
    for name in "abcd":
        one.enqueue(turn(name))
    assert (served(one), served(one)) == ("a", None)
    one.reconfigure(Limits(2), {"standard": STANDARD}, now_ms=0)
    assert (served(one), served(one)) == ("b", None)
    one.reconfigure(Limits(1), {"standard": STANDARD}, now_ms=0)
    one.finish("a", used=10, now_ms=0)
    assert served(one) is None
    one.finish("b", used=10, now_ms=0)
    assert served(one) == "c"


def test_a_rate_that_changes_keeps_what_is_in_it() -> None:
    """Declaring a rate again is no way to a full bucket; a new one begins full; one that is gone limits nothing."""
    bucket = Bucket(60)
    bucket.take(60, 0)
    bucket.change(600, 0)
    assert (bucket.level(0), bucket.level(1000)) == (0, 10)
    bucket.change(5, 60_000)
    assert bucket.level(60_000) == 5
    one = Arbiter("e", Limits(9, requests_per_minute=1), {"standard": STANDARD})
    for name in "abc":
        one.enqueue(turn(name))
    assert (served(one), served(one)) == ("a", None)
    one.reconfigure(Limits(9, requests_per_minute=60), {"standard": STANDARD}, now_ms=0)
    assert (served(one), one.wake_at(0)) == (None, 1000)
    one.reconfigure(Limits(9), {"standard": STANDARD}, now_ms=0)
    assert (served(one), served(one)) == ("b", "c")


def test_classes_come_change_and_go() -> None:
    """A new class has the weights and quotas that are there; a changed rank counts for those that wait; one that is gone stays
    for as long as a turn is of it.
    """
    one = arbiter(2, STANDARD, BATCH)
    one.weigh(("a",), 3)
    one.allot(("b",), 1)
    one.enqueue(turn("held", tenant="b"))
    assert served(one) == "held"
    one.enqueue(turn("old", "batch"))
    one.reconfigure(Limits(2), {"standard": STANDARD, "high": HIGH}, now_ms=0)
    one.enqueue(turn("new", "high", tenant="b"))
    assert {node.path: node.weight for node in one.standings("high")}["a",] == 3
    assert served(one) == "old"
    one.finish("held", used=1, now_ms=0)
    assert served(one) == "new"
    for name in ("old", "new"):
        one.finish(name, used=1, now_ms=0)
    one.reconfigure(Limits(1), {"standard": STANDARD, "high": PriorityClass("high", rank=-1)}, now_ms=0)
    assert sorted(one.depth()) == ["high", "standard"]
    one.enqueue(turn("h", "high"))
    one.enqueue(turn("s"))
    assert served(one) == "s"


def test_what_was_lifted_stays_lifted() -> None:
    """A session that somebody waits for counts as of the class of that one, also when its rank is another now."""
    one = arbiter()
    one.enqueue(turn("lifted", "batch"))
    one.enqueue(turn("other"))
    one.boost("s-lifted", "high")
    one.reconfigure(Limits(1), {"standard": STANDARD}, now_ms=0)
    assert served(one) == "lifted"


def test_patience_names_its_end() -> None:
    """The time at which a victim is named is told before, so that nobody has to look again and again; after it there is none."""
    one = arbiter()
    one.enqueue(turn("runs", "batch"))
    assert served(one) == "runs"
    assert one.patience_ends(0) is None
    one.enqueue(turn("urgent", "high", at_ms=50))
    assert one.patience_ends(60) == 151
    assert one.victim(150) is None
    victim = one.victim(151)
    assert victim is not None
    assert (victim.id, one.patience_ends(151)) == ("runs", None)
