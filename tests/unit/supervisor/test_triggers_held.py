"""Triggers whose runs may not begin now: they wait, hold up no other one, take no more than is theirs, and lose nothing."""

from __future__ import annotations

from typing import Any

import pytest
from trigger_world import MINUTE, START, Life, World, cron

from agentos.abi.errors import Conflict, Frozen
from agentos.kernel.firing import Firing, Missed, Outcome, Overlap, RunEnd, Webhook
from agentos.supervisor.progress import Progress

HOOK = Webhook("orders", "SECRET")


def delivery(which: str, trigger: str = "t", **more: Any) -> Firing:
    return Firing(trigger, which, START, "webhook", b"{}", labels=("untrusted",), **more)


def record(world: World, trigger: str = "t") -> Progress:
    return Progress.from_bytes(*world.records[f"state.{trigger}"])


async def test_a_firing_of_a_frozen_agent_ends_no_run() -> None:
    """A run that a freeze has parked is not replaced by one that could not begin; after the thaw the newest one replaces it."""
    world = World()
    world.declare(HOOK, overlap=Overlap.REPLACE)
    life = Life(world)
    first = await life.triggers.fire("default", delivery("d-1"))
    world.frozen.add("worker")
    with pytest.raises(Frozen):
        await life.triggers.fire("default", delivery("d-2"))
    assert world.log[first.session or ""].outcome is None
    world.frozen.clear()
    second = await life.triggers.fire("default", delivery("d-2"))
    assert (second.outcome, world.log[first.session or ""].outcome) == (Outcome.STARTED, "cancelled")


@pytest.mark.parametrize("held", ["frozen", "full"])
async def test_what_was_put_off_still_overlaps_with_nothing(held: str) -> None:
    """Deliveries that came while no run could begin are told again later: `skip` counts for them as for any other."""
    world = World()
    world.declare(HOOK, overlap=Overlap.SKIP)
    life = Life(world)
    world.frozen, world.most_live = ({"worker"}, 1000) if held == "frozen" else (set(), 0)
    for number in range(5):
        with pytest.raises(Conflict):
            await life.triggers.fire("default", delivery(f"d-{number}"))
    assert held == "full" or not world.records.get("state.t") or not record(world).open
    world.frozen, world.most_live = set(), 1000
    told = [(await life.triggers.fire("default", delivery(f"d-{number}"))).outcome for number in range(5)]
    assert told == [Outcome.STARTED, *[Outcome.SKIPPED] * 4]
    assert len(world.open_runs()) == 1


@pytest.mark.parametrize("declared", ["before", "while it runs"])
async def test_times_of_a_frozen_agent_are_missed_as_its_declaration_says(declared: str) -> None:
    """A freeze is as if nobody had been there: the times in it are made up for, or not, by `missed`; none is lost silently."""
    world = World()
    world.declare(cron(missed=Missed.ALL), "all", overlap=Overlap.ALLOW)
    world.declare(cron(missed=Missed.LAST), "last", overlap=Overlap.ALLOW)
    life = Life(world)
    if declared == "before":
        await life.look()
    else:
        world.triggers, later = {}, world.triggers
        await life.look()
        world.triggers = later
    world.frozen.add("worker")
    await life.look()
    for _ in range(3):
        world.clock.ms += MINUTE
        await life.look()
    assert world.log == {}
    world.frozen.clear()
    world.clock.ms += 61_000
    await life.look()
    assert [run.firing[11:16] for run in world.runs("all")] == ["00:01", "00:02", "00:03", "00:04"]
    assert [run.firing[11:16] for run in world.runs("last")] == ["00:04"]


@pytest.mark.parametrize("told", [True, False])
async def test_an_end_of_a_run_reaches_the_triggers_that_can_fire(told: bool) -> None:
    """A trigger that cannot fire now, or whose record cannot be read, keeps no other one from hearing of the same end."""
    world = World()
    world.declare(HOOK, "first", agent="collector", overlap=Overlap.ALLOW)
    world.declare(RunEnd(("collector",)), "a-frozen", agent="held", overlap=Overlap.ALLOW)
    world.declare(RunEnd(("collector",)), "b-broken", overlap=Overlap.ALLOW)
    world.declare(RunEnd(("collector",)), "c-well", overlap=Overlap.ALLOW)
    life = Life(world)
    await life.look()
    world.frozen.add("held")
    world.records["state.b-broken"] = (b"no record", 99_999)
    ended = [(await life.triggers.fire("default", delivery(f"d-{n}", "first"))).session or "" for n in range(2)]
    world.clock.ms += MINUTE
    for session in ended:
        world.end(session)
        if told:
            life.triggers.ended("default", session)
    await life.look()
    assert sorted(run.firing for run in world.runs("c-well")) == sorted(ended)
    world.frozen.clear()
    await life.look()
    assert sorted(run.firing for run in world.runs("a-frozen")) == sorted(ended), "after the thaw it hears of them, too"
    await life.triggers.reset("default", "b-broken")
    await life.look()
    assert len(world.runs("c-well")) == 2


async def test_a_delivery_that_was_recorded_long_ago_begins_nothing() -> None:
    """A signature that does not say when it was made is good for ever: what it began once it does not begin again."""
    world = World()
    world.declare(HOOK, overlap=Overlap.ALLOW)
    life = Life(world)
    first = await life.triggers.fire("default", delivery("sha256-of-the-body"))
    world.end(first.session or "")
    world.clock.ms += 40 * 86_400_000
    assert await life.triggers.tidy() > 0
    again = await life.triggers.fire("default", delivery("sha256-of-the-body"))
    assert (again.session, again.again, len(world.log)) == (first.session, True, 1)


async def test_a_schedule_that_was_not_declared_meanwhile_has_missed_nothing() -> None:
    """Who takes a trigger away and declares it again finds it begun anew, and not a day's runs at once."""
    world = World()
    spec = world.declare(cron(missed=Missed.ALL), overlap=Overlap.ALLOW)
    life = Life(world)
    await life.look()
    del world.triggers["t"]
    world.clock.ms += MINUTE
    await life.look()
    world.clock.ms += 20 * MINUTE
    world.triggers["t"] = spec
    await life.look()
    assert world.log == {}
    world.clock.ms += MINUTE
    await life.look()
    assert len(world.runs()) == 1
