"""Admission: who may ask an endpoint, in which order, and where to when it is out of order."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manual_clock import ManualClock, breathe

from agentos.kernel.admission import PLACES, Admissions, PoolKey, Request, Ticket, Waiting
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.classes import PriorityClass
from agentos.scheduler.declared import BUILT_IN, Arbitration, Circuit, Endpoint

ONE, TWO = ("default", "one"), ("default", "two")
TIGHT = Circuit(failures=1, open_ms=10_000)


def declared(**endpoints: Limits) -> Arbitration:
    return Arbitration(endpoints={name: Endpoint(("default", name), limits, circuit=TIGHT) for name, limits in endpoints.items()})


def opened(clock: ManualClock, **endpoints: Limits) -> Admissions:
    made = Admissions(clock)
    made.declare("default", declared(**endpoints))
    return made


def request(session: str, *candidates: PoolKey, priority: str = "standard", agent: str = "worker", tokens: int = 1) -> Request:
    return Request("default", session, "model-1", agent, priority, candidates or (ONE,), tokens=tokens)


def names(waiting: list[Waiting]) -> list[str]:
    """The sessions that are let in."""
    return [one.request.session for one in waiting if one.ready.done()]


async def test_what_nobody_limits_goes_at_once() -> None:
    """Without a declaration there is a slot for everybody, and nothing is waited for."""
    made = Admissions(ManualClock())
    waiting = [made.ask(request(f"s{number}")) for number in range(200)]
    assert len(names(waiting)) == 200
    assert waiting[0].ready.result().told()["waited_ms"] == 0


async def test_slots_are_given_in_the_order_of_class() -> None:
    """With one slot: the interactive one first, whoever came before it, and batch only when nobody else waits."""
    clock = ManualClock()
    made = opened(clock, one=Limits(1))
    first = made.ask(request("first"))
    rest = [made.ask(request(name, priority=name)) for name in ("batch", "standard", "interactive")]
    order = []
    for _ in range(3):
        holder = next(one for one in [first, *rest] if one.ready.done() and one.request.session not in order)
        order.append(holder.request.session)
        clock.ms += 40
        holder.ready.result().succeeded(used=10)
    assert order == ["first", "interactive", "standard"]
    told = rest[0].ready.result().told()
    assert (told["endpoint"], told["class"], told["waited_ms"]) == ("default/one", "batch", 120)


async def test_an_interactive_turn_is_not_behind_a_flood() -> None:
    """64 batch turns wait and one runs: an interactive one goes out at the next end, and is the only one that does."""
    made = opened(ManualClock(), one=Limits(1))
    running = made.ask(request("running", priority="batch"))
    flood = [made.ask(request(f"b{number}", priority="batch")) for number in range(64)]
    urgent = made.ask(request("urgent", priority="interactive"))
    running.ready.result().succeeded(used=1)
    assert (names(flood), names([urgent])) == ([], ["urgent"])


async def test_a_rate_wakes_by_itself() -> None:
    """Nothing comes and nothing ends: the turn goes out when its rate has filled up, and not before."""
    clock = ManualClock()
    made = opened(clock, one=Limits(10, requests_per_minute=2))
    for number in range(2):
        made.ask(request(f"s{number}")).ready.result().succeeded(used=1)
    third = made.ask(request("third"))
    await clock.advance(29_999)
    assert not third.ready.done()
    await clock.advance(1)
    assert third.ready.done()


async def test_a_cancelled_one_leaves_nothing_behind() -> None:
    """Cancelled while it waits: gone from the queue. Cancelled when it was let in at the same moment: its slot is free again."""
    made = opened(ManualClock(), one=Limits(1))
    holder = made.ask(request("holder"))
    tasks = [asyncio.create_task(made.admit(request(name))) for name in ("early", "late")]
    await breathe()
    tasks[0].cancel()
    await breathe()
    assert made.depth(ONE) == 1
    holder.ready.result().release()  # `late` is let in, and is cancelled before it runs again
    tasks[1].cancel()
    await breathe()
    assert all(task.cancelled() for task in tasks)
    assert names([made.ask(request("next"))]) == ["next"]


async def test_a_ticket_is_given_back_once() -> None:
    """The first word counts: a second one does not free a slot that somebody else has by now."""
    made = opened(ManualClock(), one=Limits(1))
    first = made.ask(request("first")).ready.result()
    second, third = made.ask(request("second")), made.ask(request("third"))
    with first:
        first.failed()
        first.succeeded(used=1)
    first.release()
    assert names([second, third]) == []  # the endpoint is out of order
    made = opened(ManualClock(), one=Limits(1))
    first = made.ask(request("first")).ready.result()
    second, third = made.ask(request("second")), made.ask(request("third"))
    with first:
        pass
    first.release()
    assert names([second, third]) == ["second"]


async def test_who_waits_goes_where_an_endpoint_is_in_order() -> None:
    """When a circuit opens, those in its queue that may go elsewhere do, with the time when they came; the others stay."""
    clock = ManualClock()
    made = opened(clock, one=Limits(1), two=Limits(1))
    running = made.ask(request("running"))
    both, only = made.ask(request("both", ONE, TWO)), made.ask(request("only", ONE))
    clock.ms += 500
    running.ready.result().failed()
    assert names([both, only]) == ["both"]
    ticket = both.ready.result()
    assert (ticket.key, ticket.admission.waited_ms) == (TWO, 500)
    assert made.ask(request("new", ONE, TWO)).pool.key == TWO
    await clock.advance(9_999)
    assert not only.ready.done()
    await clock.advance(1)
    assert only.ready.result().tried
    assert made.ask(request("not yet", ONE, TWO)).pool.key == TWO


async def test_an_endpoint_that_asks_for_rest_gets_it() -> None:
    """After a 429 that says when to come again nobody goes there before, and then somebody does without being asked."""
    clock = ManualClock()
    made = opened(clock, one=Limits(4))
    made.declare("default", Arbitration(endpoints={"one": Endpoint(ONE, Limits(4))}))
    made.ask(request("first")).ready.result().failed(retry_after_ms=2_000)
    second = made.ask(request("second"))
    await clock.advance(1_999)
    assert not second.ready.done()
    await clock.advance(1)
    assert second.ready.done()


async def test_patience_stops_who_may_be_stopped() -> None:
    """Once an interactive turn has waited for longer than its patience, the batch turn that began last is told to stop."""
    clock = ManualClock()
    made = opened(clock, one=Limits(2))
    older, newer = (made.ask(request(name, priority="batch")).ready.result() for name in ("older", "newer"))
    urgent = made.ask(request("urgent", priority="interactive"))
    await clock.advance(10_000)
    assert not newer.stop.done()
    await clock.advance(1)
    assert (older.stop.done(), newer.stop.done(), urgent.ready.done()) == (False, True, False)
    newer.release(used=5)
    assert urgent.ready.done()
    await clock.advance(60_000)
    assert not older.stop.done()


async def test_a_new_declaration_counts_for_those_that_wait() -> None:
    """More slots let more of them out at once; fewer let nobody out until enough have ended; a new class can be asked as."""
    made = opened(ManualClock(), one=Limits(1))
    waiting = [made.ask(request(f"s{number}")) for number in range(4)]
    made.declare("default", declared(one=Limits(3)))
    assert names(waiting) == ["s0", "s1", "s2"]
    urgent = {**BUILT_IN, "urgent": PriorityClass("urgent", rank=500)}
    made.declare("default", replace(declared(one=Limits(1)), priorities=urgent))
    late = made.ask(request("late", priority="urgent"))
    for one in waiting[:2]:
        one.ready.result().succeeded(used=1)
    assert names([waiting[3], late]) == []
    waiting[2].ready.result().succeeded(used=1)
    assert names([waiting[3], late]) == ["late"]


async def test_a_class_that_is_gone_keeps_its_rank_no_longer_than_it_is_used() -> None:
    """Who waits as of it goes on as it came; once nobody does, its name counts as the standard class, without a restart."""
    made = Admissions(ManualClock())
    urgent = {**BUILT_IN, "urgent": replace(BUILT_IN["interactive"], name="urgent")}
    made.declare("default", replace(declared(one=Limits(1)), priorities=urgent))
    running = await made.admit(request("s-1", ONE))
    waiting = made.ask(request("s-2", ONE, priority="urgent"))
    made.declare("default", declared(one=Limits(1)))
    assert made.height("urgent") == BUILT_IN["interactive"].height
    waiting.withdraw()
    running.release()
    made.declare("default", declared(one=Limits(2)))
    assert made.height("urgent") == BUILT_IN["standard"].height
    await made.close()


async def test_weights_hold_between_tenants_that_share_an_endpoint() -> None:
    """Two tenants that always have somebody waiting get slots of a shared endpoint by their weights."""
    made = Admissions(ManualClock())
    shared = {"one": Endpoint(ONE, Limits(1))}
    made.declare("a", Arbitration(endpoints=shared, weights={("a",): 3}))
    made.declare("b", Arbitration(endpoints=shared))
    waiting = [
        made.ask(Request(tenant, f"{tenant}{number}", "model-1", "x", "standard", (ONE,), tokens=10))
        for tenant in "ab"
        for number in range(40)
    ]
    served = {"a": 0, "b": 0}
    for _ in range(40):
        ticket = next(one for one in waiting if one.ready.done() and not ticket_ended(one)).ready.result()
        served[ticket.request.tenant] += 1
        ticket.succeeded(used=10)
    assert 29 <= served["a"] <= 31


async def test_whoever_an_urgent_one_waits_for_goes_first() -> None:
    """A boost counts in every queue, in those that come to be later too, and ends; a class nobody knows lifts nobody."""
    made = opened(ManualClock(), one=Limits(1), two=Limits(1))
    made.boost("held", "interactive")
    made.boost("held", "nobody knows it")
    assert made.effective("held", "batch") == "interactive"
    assert made.effective("held", "gone") == "interactive"
    for key in (ONE, TWO):
        holder = made.ask(request("holder", key)).ready.result()
        other, lifted = made.ask(request("other", key)), made.ask(request("held", key, priority="batch"))
        holder.succeeded(used=1)
        assert names([other, lifted]) == ["held"]
    made.unboost("held", "nobody knows it")
    made.unboost("held", "interactive")
    assert made.effective("held", "batch") == "batch"
    with pytest.raises(ValueError, match="nobody"):
        made.unboost("held", "interactive")


def ticket_ended(waiting: Waiting) -> bool:
    """Whether a ticket was given back, as the queue sees it."""
    return waiting.turn.id not in waiting.pool.tickets


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_nothing_is_lost_or_doubled(seed: int, slots: int) -> None:
    """Sessions ask, are cancelled, answered, failed, stopped and lifted at random; limits change. Never more run than slots
    allow; every request ends exactly once, let in or taken back; and when all has ended, no slot is held and nobody waits.
    """
    asyncio.run(_shaken(random.Random(seed), slots))


async def _shaken(dice: random.Random, slots: int) -> None:
    clock = ManualClock()
    made = opened(clock, one=Limits(slots), two=Limits(slots, requests_per_minute=600))
    made.declare("default", declared(one=Limits(slots), two=Limits(slots, requests_per_minute=600)))
    out: dict[str, Ticket] = {}
    came: list[str] = []
    ended: list[str] = []

    async def live(name: str) -> None:
        candidates = dice.choice([(ONE,), (TWO,), (ONE, TWO), (TWO, ONE)])
        try:
            ticket = await made.admit(request(name, *candidates, priority=dice.choice(list(BUILT_IN))))
            assert name not in out
            with ticket:
                out[name] = ticket
                try:
                    for _ in range(dice.randrange(40)):
                        if not ticket.stop.done():
                            await clock.sleep(0.5)
                    how = dice.random()
                    if how < 0.5:
                        ticket.succeeded(used=dice.randrange(50))
                    elif how < 0.7:
                        ticket.failed(dice.choice([None, 500]))
                finally:
                    del out[name]
        finally:
            ended.append(name)

    tasks = []
    for number in range(60):
        came.append(f"s{number}")
        tasks.append(asyncio.create_task(live(f"s{number}")))
        await asyncio.sleep(0)
        if dice.random() < 0.25:
            dice.choice(tasks).cancel()
        if dice.random() < 0.1:
            made.boost(f"s{number}", "interactive")
        await clock.advance(dice.randrange(400))
        for key in (ONE, TWO):
            assert sum(ticket.key == key for ticket in out.values()) <= slots
    for _ in range(400):
        await clock.advance(5_000)
        if all(task.done() for task in tasks):
            break
    assert sorted(ended) == sorted(came)
    assert all(task.done() and (task.cancelled() or task.exception() is None) for task in tasks)
    for pool in made.pools():
        assert (pool.arbiter.waiting(), list(pool.arbiter.running()), pool.tickets, pool.waking) == (0, [], {}, None)


async def test_a_clock_that_is_set_back_shuts_nothing() -> None:
    """A rate fills up and a circuit closes by the time that goes by, whatever the clock on the wall says meanwhile."""

    class Wall(ManualClock):
        off = 3_600_000

        def now_ms(self) -> int:
            return self.ms + self.off

    clock = Wall()
    made = opened(clock, one=Limits(10, requests_per_minute=1), two=Limits(1))
    made.ask(request("first")).ready.result().succeeded(used=1)
    made.ask(request("fails", TWO)).ready.result().failed()
    waiting = [made.ask(request("rate")), made.ask(request("circuit", TWO))]
    clock.off = 0
    await clock.advance(60_000)
    assert names(waiting) == ["rate", "circuit"]
    await made.close()


async def test_a_deadline_is_by_the_clock_on_the_wall() -> None:
    """Of two turns of one agent the one that is due first goes first, also after the clock was set back."""

    class Wall(ManualClock):
        off = 3_600_000

        def now_ms(self) -> int:
            return self.ms + self.off

    clock = Wall()
    made = opened(clock, one=Limits(1))
    running = made.ask(request("running"))
    clock.off = 0
    due = [replace(request(f"s{minutes}"), deadline_ms=clock.now_ms() + minutes * 60_000) for minutes in (9, 3, 6)]
    waiting = [made.ask(one) for one in due]
    running.ready.result().succeeded(used=1)
    assert names(waiting) == ["s3"]
    await made.close()


async def test_a_call_that_was_never_made_uses_no_rate() -> None:
    """A tenant whose calls are all denied takes nothing of what others may ask a minute; calls that were made, or failed, do."""
    made = opened(ManualClock(), one=Limits(10, requests_per_minute=2))
    for number in range(50):
        made.ask(request(f"denied{number}")).ready.result().release(0)
    asked = made.ask(request("asked")).ready.result()
    asked.begun = True
    asked.release(0)
    made.ask(request("failed")).ready.result().failed()
    late = made.ask(request("late"))
    assert not late.ready.done()
    late.withdraw()
    await made.close()


async def test_only_the_queues_that_are_asked_for_are_shown() -> None:
    """Those that are named, and the places; a model of another tenant is not, whose name begins like it."""
    made = opened(ManualClock(), one=Limits(1))
    for key in (ONE, TWO, ("other", "one"), ("tool", "default", "one"), PLACES):
        made.ask(request("s", key))
    shown = [(view.kind, view.name) for view in made.snapshot({"default/one"}).endpoints]
    assert shown == [("model", "default/one"), ("tool", "default/one"), ("harness", "")]
    assert len(made.snapshot().endpoints) == 5
    assert made.snapshot(()).endpoints[0].kind == "harness"
