"""Triggers: each firing starts exactly one run, whatever dies in between; overlap, pauses, ends of runs, daemons."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tarfile
from collections import Counter
from typing import Any

import pytest
from trigger_world import MINUTE, START, Died, Life, World, cron, lived

from agentos.abi.errors import Conflict, LogUnavailable, NotFound, UsageError
from agentos.kernel.firing import MAX_HOPS, Firing, Missed, Outcome, Overlap, RunEnd, Signal, Webhook
from agentos.supervisor.overlap import MOST_QUEUED
from agentos.supervisor.progress import Progress

HOOK = Webhook("orders", "SECRET")


def delivery(which: str = "d-1", payload: bytes | None = b"{}", **more: Any) -> Firing:
    return Firing("t", which, more.pop("at_ms", START), "webhook", payload, labels=("untrusted",), **more)


def record(world: World, trigger: str = "t") -> Progress:
    return Progress.from_bytes(*world.records[f"state.{trigger}"])


def files(archive: bytes | None) -> dict[str, bytes]:
    assert archive is not None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


async def steps_of(make: Any, work: Any) -> int:
    """How many steps `work` takes in a world of its own that nobody disturbs."""
    life = Life(make())
    await work(life)
    return life.steps


async def test_a_delivery_told_again_starts_one_run_and_gives_the_same_answer() -> None:
    """Whoever tells of a delivery twice, with another time even, hears of the same session."""
    world = World()
    world.declare(HOOK, labels=("internal",))
    life = Life(world)
    first = await life.triggers.fire("default", delivery())
    world.clock.ms += 3 * MINUTE
    again = await life.triggers.fire("default", delivery(at_ms=START + 3 * MINUTE))
    assert (first.outcome, first.again, again.again) == (Outcome.STARTED, False, True)
    assert first.session == again.session
    run = world.log[first.session or ""]
    assert len(world.log) == 1
    assert (run.actor, run.labels, run.file_labels) == ("trigger/t", ("internal",), {".": ("untrusted",)})
    assert files(run.files)["payload"] == b"{}"
    told = json.loads(files(run.files)["firing.json"])
    assert told["id"] == "d-1"
    assert told["payload"] == {"bytes": 2, "content_type": "application/octet-stream"}


async def test_no_words_of_a_sender_stand_in_what_is_kept_for_ever() -> None:
    """The id that a sender has chosen is in the run's input alone: headers and records have its digest."""
    world = World()
    world.declare(HOOK)
    await Life(world).triggers.fire("default", delivery("call-john-smith"))
    (run,) = world.runs()
    assert run.firing.startswith("x-")
    kept = b"".join(data for data, _ in world.records.values()) + str(run.origin).encode() + "".join(world.records).encode()
    assert b"john" not in kept


@pytest.mark.parametrize("overlap", list(Overlap))
@pytest.mark.parametrize("payload", [None, b"x"])
async def test_a_delivery_survives_a_death_at_each_step(overlap: Overlap, payload: bytes | None) -> None:
    """Dead after any number of steps, twice in a row; told again until it is answered: one run, and nothing left under way."""

    def make() -> World:
        world = World()
        world.declare(HOOK, overlap=overlap)
        return world

    async def work(life: Life) -> None:
        await life.triggers.fire("default", delivery(payload=payload))

    for left in range(await steps_of(make, work)):
        world = make()
        assert not await lived(world, work, left=left)
        world.clock.ms += 1
        await lived(world, work, left=left)
        await work(Life(world))
        assert len(world.log) == 1, f"dead after {left} steps"
        assert record(world).open == ()
        assert record(world).started == 1


@pytest.mark.parametrize("missed", list(Missed))
async def test_a_schedule_survives_a_death_at_each_step(missed: Missed) -> None:
    """A time that comes while the runtime dies is started once by the ones that follow."""

    def make() -> World:
        world = World()
        world.declare(cron(missed=missed))
        return world

    async def work(life: Life) -> None:
        await life.look()
        life.world.clock.ms += MINUTE
        await life.look()

    for left in range(await steps_of(make, work) + 1):
        world = make()
        await lived(world, work, left=left)
        world.clock.ms = START + MINUTE + 1
        await lived(world, Life.look, left=left % 7)
        world.clock.ms += 10 * 1000
        life = Life(world)
        await life.look()
        await life.look()
        begun = record(world).since_ms
        expected = 1 if begun < START + MINUTE else 0
        assert Counter(run.firing for run in world.runs()) == Counter(
            {"2026-11-23T00:01:00.000Z": expected} if expected else {}
        ), f"dead after {left} steps"
        assert record(world).open == ()


async def test_times_are_as_the_policy_for_missed_ones_says() -> None:
    """Down for five minutes: `all` makes up for each, `last` for one, `skip` for none that is more than a minute late."""
    found = {}
    for missed in Missed:
        world = World()
        world.declare(cron(missed=missed), overlap=Overlap.ALLOW)
        await Life(world).look()
        world.clock.ms = START + 5 * MINUTE + 90_000 + 1
        await Life(world).look()
        found[missed] = ([run.firing[11:16] for run in world.runs()], record(world).missed)
    assert found == {
        Missed.ALL: (["00:01", "00:02", "00:03", "00:04", "00:05", "00:06"], 0),
        Missed.LAST: (["00:06"], 5),
        Missed.SKIP: (["00:06"], 5),
    }


async def test_a_time_that_is_found_late_is_one_that_was_missed() -> None:
    for late_s, started in ((59, 1), (120, 0)):
        world = World()
        world.declare(cron("0 * * * *", Missed.SKIP))
        await Life(world).look()
        world.clock.ms += 60 * MINUTE + late_s * 1000
        await Life(world).look()
        assert (len(world.runs()), record(world).missed) == (started, 1 - started)


async def test_two_runtimes_start_one_run_of_each_time() -> None:
    """Both see that a time is due, cross at every step, and one session comes of it; of a delivery, too."""
    import random

    for seed in range(150):
        world = World(shuffle=random.Random(seed))
        world.declare(cron(missed=Missed.ALL), overlap=Overlap.ALLOW)
        world.declare(HOOK, "hook", overlap=Overlap.ALLOW)
        lives = [Life(world), Life(world)]
        await asyncio.gather(*(life.look() for life in lives))
        world.clock.ms += 3 * MINUTE
        told = Firing("hook", "d-1", START, "webhook", b"x")
        fired = await asyncio.gather(*(life.look() for life in lives), *(life.triggers.fire("default", told) for life in lives))
        assert Counter(run.firing[11:16] for run in world.runs()) == Counter({"00:01": 1, "00:02": 1, "00:03": 1}), seed
        assert len(world.runs("hook")) == 1, seed
        assert len({one.session for one in fired if one is not None}) == 1, seed
        for life in lives:
            await life.look()
        assert record(world).open == record(world, "hook").open == ()


async def test_a_clock_that_is_set_back_fires_no_time_again() -> None:
    """An hour back, as at the end of summer on a machine without UTC: nothing until the hour has passed again."""
    world = World()
    world.declare(cron(missed=Missed.ALL), overlap=Overlap.ALLOW)
    await Life(world).look()
    world.clock.ms += 2 * MINUTE
    life = Life(world)
    await life.look()
    world.clock.ms -= 60 * MINUTE
    for _ in range(30):
        world.clock.ms += MINUTE
        await life.look()
        await Life(world).look()
    assert len(world.runs()) == 2
    world.clock.ms = START + 3 * MINUTE
    await Life(world).look()
    assert [run.firing[11:16] for run in world.runs()] == ["00:01", "00:02", "00:03"]


async def test_a_clock_that_was_wrong_by_years_does_not_stop_a_trigger_for_years() -> None:
    world = World()
    world.declare(cron(), overlap=Overlap.ALLOW)
    await Life(world).look()
    world.clock.ms += 4 * 366 * 86_400_000
    await Life(world).look()
    assert len(world.runs()) == 1
    world.clock.ms = START + 10 * MINUTE
    await Life(world).look()
    world.clock.ms += MINUTE
    await Life(world).look()
    assert [run.firing[:16] for run in world.runs()][1:] == ["2026-11-23T00:11"]


async def test_another_schedule_has_missed_nothing() -> None:
    """A daily trigger that becomes an hourly one does not make up for the hours since its last day."""
    world = World()
    world.declare(cron("0 0 * * *"))
    await Life(world).look()
    world.clock.ms += 15 * 60 * MINUTE + 1
    world.declare(cron("0 * * * *"))
    life = Life(world)
    await life.look()
    assert world.runs() == []
    world.clock.ms += 60 * MINUTE
    await life.look()
    assert len(world.runs()) == 1


async def test_what_overlap_says() -> None:
    """While one run is not over: nothing, one beside it, one in line behind all of them, or one in its place."""
    for overlap in Overlap:
        world = World()
        world.declare(HOOK, overlap=overlap)
        life = Life(world)
        fired = [await life.triggers.fire("default", delivery(f"d-{number}")) for number in range(3)]
        runs = world.runs()
        outcomes = [one.outcome for one in fired]
        match overlap:
            case Overlap.SKIP:
                assert outcomes == [Outcome.STARTED, Outcome.SKIPPED, Outcome.SKIPPED]
                assert record(world).skipped == 2
                assert (await life.triggers.fire("default", delivery("d-1"))).outcome is Outcome.SKIPPED, "told again"
                world.end(runs[0].id)
                assert (await life.triggers.fire("default", delivery("d-1"))).again, "it was skipped once and for all"
                assert (await life.triggers.fire("default", delivery("d-9"))).outcome is Outcome.STARTED
            case Overlap.ALLOW:
                assert outcomes == [Outcome.STARTED] * 3
                assert len(world.open_runs()) == 3
            case Overlap.QUEUE:
                assert outcomes == [Outcome.STARTED, Outcome.QUEUED, Outcome.QUEUED]
                assert runs[2].after == (runs[0].id, runs[1].id)
            case Overlap.REPLACE:
                assert [run.outcome for run in runs] == ["cancelled", "cancelled", None]
                assert "trigger t has fired again" in runs[0].reason


async def test_a_line_is_bounded() -> None:
    world = World()
    world.declare(HOOK, overlap=Overlap.QUEUE)
    life = Life(world)
    fired = [await life.triggers.fire("default", delivery(f"d-{number}")) for number in range(MOST_QUEUED + 2)]
    assert [one.outcome for one in fired[-2:]] == [Outcome.QUEUED, Outcome.SKIPPED]
    assert "wait in line" in fired[-1].why


async def test_runs_that_a_runtime_before_left_running_count() -> None:
    """A fresh runtime has taken nothing over yet; what the log says is not over keeps a trigger that skips from starting."""
    world = World()
    world.declare(HOOK)
    await Life(world).triggers.fire("default", delivery("d-1"))
    assert (await Life(world).triggers.fire("default", delivery("d-2"))).outcome is Outcome.SKIPPED


async def test_records_that_were_lost_are_read_from_the_log() -> None:
    """Without the bucket (a restore) a delivery that is told again starts nothing, and a run that goes on counts."""
    world = World()
    world.declare(HOOK)
    first = await Life(world).triggers.fire("default", delivery("d-1"))
    world.records.clear()
    life = Life(world)
    again = await life.triggers.fire("default", delivery("d-1"))
    assert (again.session, again.again) == (first.session, True)
    assert (await life.triggers.fire("default", delivery("d-2"))).outcome is Outcome.SKIPPED


async def test_too_many_live_sessions_put_a_firing_off_and_lose_none() -> None:
    world = World(most_live=1)
    world.declare(cron(missed=Missed.ALL), overlap=Overlap.ALLOW)
    world.declare(HOOK, "hook", overlap=Overlap.ALLOW)
    life = Life(world)
    await life.look()
    world.clock.ms += 3 * MINUTE
    for _ in range(3):
        await life.look()
        with pytest.raises(Conflict):
            await life.triggers.fire("default", Firing("hook", "d-1", START, "webhook", b"x"))
        world.end(world.open_runs()[0].id)
        world.clock.ms += 6000
        await life.look()
    world.end(world.open_runs()[0].id) if world.open_runs() else None
    assert (await life.triggers.fire("default", Firing("hook", "d-1", START, "webhook", b"x"))).outcome is Outcome.STARTED
    assert [run.firing[11:16] for run in world.runs()] == ["00:01", "00:02", "00:03"]


async def test_while_the_log_is_away_nothing_is_promised_and_nothing_lost() -> None:
    world = World()
    world.declare(cron(missed=Missed.ALL), overlap=Overlap.ALLOW)
    world.declare(HOOK, "hook")
    life = Life(world)
    await life.look()
    world.away = True
    world.clock.ms += 2 * MINUTE
    await life.look()
    with pytest.raises(LogUnavailable):
        await life.triggers.fire("default", Firing("hook", "d-1", START, "webhook", b"x"))
    assert world.log == {}
    world.away = False
    world.clock.ms += 10_000
    await life.look()
    assert len(world.runs()) == 2


async def test_firings_that_nobody_tells_of_again_do_not_stop_a_trigger() -> None:
    """Senders that have given up leave intents behind: those whose run began count as done, the others are dropped."""
    world = World(most_live=0)
    world.declare(HOOK, overlap=Overlap.ALLOW)
    life = Life(world)
    for number in range(3):
        with pytest.raises(Conflict):
            await life.triggers.fire("default", delivery(f"full-{number}"))
    world.most_live = 1000
    assert record(world).open == (), "the log can tell that nothing began for those"
    left = 0
    while not record(world).open or not world.runs():
        # First it dies behind the intent, then, going on from there, behind the session.
        left = 0 if len(record(world).open) == 1 and left > 5 else left + 1
        await lived(world, lambda alive: alive.triggers.fire("default", delivery("died")), left=left)
    (began,) = world.runs()
    world.clock.ms += 11 * MINUTE
    life = Life(world)
    await life.triggers.fire("default", delivery("new"))
    assert record(world).open == ()
    assert (await life.triggers.fire("default", delivery("died"))).session == began.id
    assert (await life.triggers.fire("default", delivery("full-1"))).outcome is Outcome.STARTED
    assert len(world.runs()) == 3


async def test_a_trigger_that_cannot_start_its_run_says_so_once() -> None:
    """An agent that is gone is no reason to try for ever: the firing has failed, and whoever tells of it again hears so."""
    world = World()
    world.declare(HOOK, agent="nobody")
    life = Life(world)
    fired = await life.triggers.fire("default", delivery())
    assert (fired.outcome, fired.session) == (Outcome.FAILED, None)
    assert "no agent nobody" in fired.why
    assert (await life.triggers.fire("default", delivery())).again
    assert record(world).failed == 1
    assert record(world).open == ()


async def test_a_pause_holds_and_what_passed_meanwhile_is_not_made_up_for() -> None:
    world = World()
    world.declare(cron(missed=Missed.ALL), overlap=Overlap.ALLOW)
    world.declare(HOOK, "hook")
    life = Life(world)
    await life.look()
    world.switched = {"t": (False, world.clock.ms), "hook": (False, world.clock.ms)}
    for _ in range(5):
        world.clock.ms += MINUTE
        await life.look()
    told = Firing("hook", "d-1", START, "webhook", b"x")
    assert (await life.triggers.fire("default", told)).outcome is Outcome.PAUSED
    assert world.log == {}
    by_hand = Firing("t", "m-1", world.clock.ms, "manual", actor="principal/ann")
    assert (await life.triggers.fire("default", by_hand)).outcome is Outcome.STARTED
    assert world.runs()[0].actor == "principal/ann"
    world.switched = {"t": (True, world.clock.ms), "hook": (True, world.clock.ms)}
    await life.look()
    await Life(world).look()
    assert len(world.runs()) == 1
    world.clock.ms += MINUTE
    await Life(world).look()
    assert len(world.runs()) == 2
    assert (await life.triggers.fire("default", told)).outcome is Outcome.STARTED


async def test_the_end_of_a_run_fires_once_told_or_found() -> None:
    """The end is told at once; one that nobody told of, because the runtime died, is found; neither fires twice."""
    world = World()
    world.declare(HOOK, "first", agent="collector", overlap=Overlap.ALLOW)
    world.declare(RunEnd(("collector",)), overlap=Overlap.ALLOW)
    life = Life(world)
    await life.look()
    for number in range(3):
        await life.triggers.fire("default", Firing("first", f"d-{number}", START, "webhook", b"x"))
    told, lost, failed = [run.id for run in world.runs("first")]
    world.clock.ms += MINUTE
    world.end(told)
    life.triggers.ended("default", told)
    await life.triggers._run_ends.tell()
    life.triggers.ended("default", told)
    await life.triggers._run_ends.tell()
    world.end(failed, "failed")
    world.end(lost)
    for _ in range(2):
        await Life(world).look()
    assert sorted(run.firing for run in world.runs()) == sorted([told, lost])
    run = world.runs()[0]
    assert files(run.files)["payload"] == b"well"
    assert run.file_labels == {".": ("internal",)}, "what it said keeps the labels of the run that said it"
    assert run.origin["firing"]["hops"] == 1


async def test_ends_that_are_told_again_and_again_are_looked_at_once() -> None:
    """Who looks at a session that is over has its end told again. That is no new end, whether a trigger wants it or not."""
    world = World()
    world.declare(HOOK, "first", agent="collector", overlap=Overlap.ALLOW)
    world.declare(HOOK, "second", agent="another", overlap=Overlap.ALLOW)
    world.declare(RunEnd(("collector",)), overlap=Overlap.ALLOW)
    life = Life(world)
    await life.look()
    for name in ("first", "second"):
        await life.triggers.fire("default", Firing(name, "d-1", START, "webhook", b"x"))
    for run in list(world.log.values()):
        world.end(run.id)
        life.triggers.ended("default", run.id)
    await life.triggers._run_ends.tell()
    steps = life.steps
    for run in list(world.log.values()):
        life.triggers.ended("default", run.id) if run.outcome else None
    assert await life.triggers._run_ends.tell()
    assert life.steps == steps
    assert len(world.runs()) == 1


async def test_the_end_of_a_run_survives_a_death_at_each_step() -> None:
    def make() -> World:
        world = World()
        world.declare(HOOK, "first", agent="collector")
        world.declare(RunEnd(("collector",)))
        return world

    async def work(life: Life) -> None:
        await life.look()
        fired = await life.triggers.fire("default", Firing("first", "d-1", START, "webhook", b"x"))
        if life.world.log[fired.session or ""].outcome is None:
            life.world.clock.ms += MINUTE
            life.world.end(fired.session or "")
        life.triggers.ended("default", fired.session or "")
        await life.triggers._run_ends.tell()

    for left in range(await steps_of(make, work) + 1):
        world = make()
        life = Life(world)
        await life.look()
        await lived(world, work, left=left)
        await work(Life(world))
        await Life(world).look()
        assert len(world.runs()) == 1, f"dead after {left} steps"
        assert record(world).open == ()


async def test_runs_that_start_each_other_come_to_an_end() -> None:
    """Two triggers in a circle: after so many runs the chain is cut, and the log says so."""
    world = World()
    world.declare(RunEnd(("ping",)), "pong", agent="pong")
    world.declare(RunEnd(("pong",)), "ping", agent="ping")
    world.declare(HOOK, "hook", agent="ping")
    life = Life(world)
    await life.look()
    await life.triggers.fire("default", Firing("hook", "d-1", START, "webhook", b"x"))
    for _ in range(MAX_HOPS * 2):
        for run in [run for run in world.log.values() if run.outcome is None]:
            world.end(run.id)
            life.triggers.ended("default", run.id)
        await life.triggers._run_ends.tell()
    assert len(world.log) == MAX_HOPS + 1


async def test_signals_fire_what_waits_for_them() -> None:
    world = World()
    world.declare(Signal("ready"))
    world.declare(Signal("other"), "o")
    life = Life(world)
    for _ in range(2):
        fired = await life.triggers.signal("default", "ready", "now", "session/s-1", id="s-1#7", labels=("untrusted",))
    assert [one.again for one in fired] == [True]
    (run,) = world.log.values()
    assert (run.trigger, files(run.files)["payload"]) == ("t", b"now")


async def test_what_cannot_be_fired_is_refused() -> None:
    world = World()
    world.declare(HOOK)
    world.declare(cron(), "work", agent="", daemon="compact")
    fire = Life(world).triggers.fire
    with pytest.raises(NotFound, match="no trigger x"):
        await fire("default", Firing("x", "1", START, "webhook"))
    with pytest.raises(UsageError, match="daemon"):
        await fire("default", Firing("work", "1", START, "webhook"))
    with pytest.raises(UsageError, match="at most"):
        await fire("default", delivery(payload=b"x" * (8 * 1024 * 1024 + 1)))
    with pytest.raises(UsageError, match="id of a firing"):
        await fire("default", delivery(""))
    assert world.log == {}


async def test_a_record_that_cannot_be_read_stops_its_trigger_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing fires on the word of a broken record; the others do, and a reset mends it by what the log says."""
    world = World()
    world.declare(cron(), overlap=Overlap.ALLOW)
    world.declare(cron(), "u", overlap=Overlap.ALLOW)
    life = Life(world)
    await life.look()
    world.records["state.t"] = (b'{"v":1}', world.records["state.t"][1])
    world.clock.ms += MINUTE
    with caplog.at_level(logging.WARNING):
        await life.look()
    assert (len(world.runs("t")), len(world.runs("u"))) == (0, 1)
    assert "no record of one" in caplog.text
    standing = {one.spec.name: one.progress for one in await life.triggers.standing("default")}
    assert standing["t"] is None
    await life.triggers.reset("default", "t")
    world.clock.ms += MINUTE
    await life.look()
    world.clock.ms += MINUTE
    await life.look()
    assert len(world.runs("t")) == 1


async def test_daemons_work_by_their_schedule_one_at_a_time() -> None:
    """A daemon goes by its own schedule until a trigger names it; it never overlaps itself; what it found is told."""
    world = World()
    life = Life(world)
    begun, gate = [], asyncio.Event()

    async def work() -> dict[str, Any]:
        begun.append(world.clock.ms)
        await gate.wait()
        return {"swept": 3}

    async def fails() -> dict[str, Any]:
        raise LogUnavailable("the log is away")

    life.triggers.daemon("strays", work, "*/5 * * * *")
    life.triggers.daemon("compact", fails, "0 0 1 1 *")
    await life.look()
    for _ in range(10):
        world.clock.ms += MINUTE
        await life.look()
        await asyncio.sleep(0)
    assert len(begun) == 1
    standing = {one.spec.name: one for one in await life.triggers.standing("default")}
    assert standing["strays"].at_work
    assert standing["strays"].built_in
    with pytest.raises(Conflict, match="at work"):
        await life.triggers.fire("default", Firing("strays", "m-1", START, "manual"))
    gate.set()
    await asyncio.sleep(0.01)
    assert record(world, "strays").last == {
        "id": str(START + 5 * MINUTE),
        "at_ms": START + 5 * MINUTE,
        "outcome": "done",
        "session": None,
        "why": '{"swept": 3}',
    }
    world.declare(cron("0 0 1 1 *"), "rarely", agent="", daemon="strays")
    await life.look()
    world.clock.ms += 60 * MINUTE
    await life.look()
    assert len(begun) == 1
    assert {one.spec.name for one in await life.triggers.standing("default")} == {"compact", "rarely"}
    await life.triggers.fire("default", Firing("compact", "m-1", START, "manual"))
    await asyncio.sleep(0.01)
    assert (record(world, "compact").last or {})["why"] == "log.unavailable: the log is away"


async def test_marks_and_records_that_nobody_needs_are_forgotten() -> None:
    world = World()
    world.declare(HOOK)
    life = Life(world)
    await life.triggers.fire("default", delivery())
    assert await life.triggers.tidy() == 0
    world.clock.ms += 9 * 86_400_000
    assert await life.triggers.tidy() == 1
    assert list(world.records) == ["state.t"]
    del world.triggers["t"]
    assert await life.triggers.tidy() == 1
    assert world.records == {}


async def test_a_dead_runtime_does_nothing_more() -> None:
    """The world's own promise, on which the others rest."""
    world = World()
    world.declare(HOOK)
    life = Life(world, left=0)
    with pytest.raises(Died):
        await life.triggers.fire("default", delivery())
    assert world.records == {}
