"""Histories of triggers by chance: time passes, deliveries come and come again, runs end, the runtime dies at any step."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from trigger_world import MINUTE, START, Life, World, cron, lived

from agentos.kernel.firing import Firing, Missed, Overlap, RunEnd, Webhook
from agentos.scheduler.cron import schedule
from agentos.supervisor.progress import Progress

ACTIONS = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 90)),
    st.tuples(st.just("deliver"), st.integers(0, 5)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("die"), st.integers(0, 25)),
    st.tuples(st.just("back"), st.integers(1, 30)),
)
"""Minutes pass; a delivery is told of; a run ends; the runtime dies so many steps into what it does next; the clock goes back."""


@settings(max_examples=100, deadline=None)
@given(
    overlap=st.sampled_from(list(Overlap)),
    missed=st.sampled_from(list(Missed)),
    every=st.sampled_from([1, 7, 30]),
    actions=st.lists(ACTIONS, max_size=30),
)
def test_whatever_happens_each_firing_starts_one_run_at_most(
    overlap: Overlap, missed: Missed, every: int, actions: list[tuple[str, int]]
) -> None:
    """No firing has two runs. Where nothing is skipped each has one: every delivery that was answered, every time that came,
    every end of a run, while the clock goes back by less than an hour. Where one runs at a time, one does.
    """
    asyncio.run(_history(overlap, missed, every, actions))


async def _history(overlap: Overlap, missed: Missed, every: int, actions: list[tuple[str, int]]) -> None:
    world = World()
    world.declare(cron(f"*/{every} * * * *", missed), "clock", overlap=overlap)
    world.declare(Webhook("p", "S"), "hook", overlap=overlap)
    world.declare(RunEnd(("worker",)), "after", agent="follower", overlap=Overlap.ALLOW)
    life, newest = Life(world), START
    await life.look()
    world.clock.ms += 60 * MINUTE

    async def deliver(alive: Life, number: int) -> None:
        # With a payload and without: one is finished by who tells of it again, the other by the runtime itself.
        payload = b"x" if number % 2 else None
        fired = await alive.triggers.fire("default", Firing("hook", f"d-{number}", world.clock.ms, "webhook", payload))
        assert fired.session is None or fired.session in world.log

    left: int | None = None
    for action, number in [*actions, ("pass", 1)]:
        match action:
            case "die":
                left = number
                continue
            case "pass":
                world.clock.ms += number * MINUTE
            case "back":
                world.clock.ms = max(world.clock.ms - number * MINUTE, newest - 50 * MINUTE)
            case "end":
                running = [run for run in world.log.values() if run.outcome is None and not _waits(world, run.after)]
                if running:
                    ended = running[number % len(running)]
                    world.end(ended.id)
                    life.triggers.ended("default", ended.id)
        newest = max(newest, world.clock.ms)
        if left is not None:
            await lived(world, (lambda alive, n=number: deliver(alive, n)) if action == "deliver" else Life.look, left=left)
            left, life = None, Life(world)
        elif action == "deliver":
            await deliver(life, number)
        world.clock.ms += 6000
        await life.look()
        _one_at_a_time(world, overlap)

    for number in range(6):
        await deliver(life, number)
    world.clock.ms = max(newest, world.clock.ms) + 10_000
    await life.look()
    await Life(world).look()
    for name in world.triggers:
        counted = Counter(run.firing for run in world.runs(name))
        assert set(counted.values()) <= {1}, (name, counted)
        assert all(not intent.whole for intent in Progress.from_bytes(*world.records[f"state.{name}"]).open), name
    if overlap in {Overlap.ALLOW, Overlap.REPLACE, Overlap.QUEUE}:
        assert len(world.runs("hook")) == 6
    if overlap is Overlap.ALLOW and missed is Missed.ALL:
        times, _ = schedule(f"*/{every} * * * *").between(START, world.clock.ms, most=100_000)
        assert len(world.runs("clock")) == len(times)
    ended = {run.id for run in world.log.values() if run.agent == "worker" and run.outcome == "finished"}
    assert {run.firing for run in world.runs("after")} == ended


def _waits(world: World, after: tuple[str, ...]) -> bool:
    return any(world.log[name].outcome is None for name in after)


def _one_at_a_time(world: World, overlap: Overlap) -> None:
    for name in ("clock", "hook"):
        begun = [run for run in world.open_runs(name) if not _waits(world, run.after)]
        assert overlap is Overlap.ALLOW or len(begun) <= 1, (name, begun)
