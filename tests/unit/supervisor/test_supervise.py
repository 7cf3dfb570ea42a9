"""What is to be done for standing agents: told from declarations, sessions and switches alone, and never two sessions at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.ids import time_of
from agentos.kernel.standing import ReadyAfter, Restart, StandingSpec
from agentos.supervisor.supervise import (
    SUPERVISOR,
    WATCHDOG,
    Begin,
    End,
    Judged,
    Phase,
    Run,
    Switches,
    Unit,
    judge,
    pause_ms,
    session_id,
)

NOW = 1_763_700_000_000
SPEC = StandingSpec("watch", backoff_ms=1_000, max_backoff_ms=8_000, limit_starts=5, limit_within_ms=60_000)


def run(name: str, state: str, begun: int, end: int | None = None, *, by: str = "", turned: bool = True) -> Run:
    """A session that was begun `begun` ms before NOW, whose newest event came `end` ms before it."""
    return Run(name, state, NOW - begun, NOW - (begun if end is None else end), turned, by)


def one(unit: Unit, now_ms: int = NOW) -> Judged:
    return judge({unit.agent: unit}, now_ms)[unit.agent]


def of(*runs: Run, spec: StandingSpec = SPEC, switches: Switches | None = None, **more: object) -> Judged:
    return one(replace(Unit("a", spec, runs, switches or Switches()), **more))


def test_one_that_was_never_begun_is_begun() -> None:
    """Its first session follows no other."""
    judged = of()
    assert isinstance(judged.act, Begin)
    assert (judged.phase, judged.act.after) == (Phase.STARTING, "")


def test_one_that_runs_is_left_alone() -> None:
    """It is ready once a turn is complete, or at once where that is declared."""
    assert of(run("s-1", "running", 5000)) == Judged(Phase.ACTIVE, run=run("s-1", "running", 5000), starts=1)
    assert of(run("s-1", "running", 5000, turned=False)).phase is Phase.STARTING
    created = replace(SPEC, ready_after=ReadyAfter.CREATED)
    assert of(run("s-1", "running", 5000, turned=False), spec=created).phase is Phase.ACTIVE


@pytest.mark.parametrize(
    ("state", "by", "restart", "phase"),
    [
        ("finished", "agent/a", Restart.ON_FAILURE, Phase.FINISHED),
        ("finished", "agent/a", Restart.NO, Phase.FINISHED),
        ("finished", "agent/a", Restart.ALWAYS, Phase.STARTING),
        ("cancelled", "principal/ann", Restart.ON_FAILURE, Phase.FINISHED),
        ("cancelled", "principal/ann", Restart.ALWAYS, Phase.STARTING),
        ("cancelled", WATCHDOG, Restart.ON_FAILURE, Phase.STARTING),
        ("cancelled", "system/kernel", Restart.NO, Phase.FAILED),
        ("cancelled", SUPERVISOR, Restart.NO, Phase.STARTING),
        ("failed", "system/kernel", Restart.ON_FAILURE, Phase.STARTING),
        ("failed", "system/kernel", Restart.NO, Phase.FAILED),
        ("halted", "system/kernel", Restart.ALWAYS, Phase.FAILED),
        ("halted", "system/kernel", Restart.ON_FAILURE, Phase.FAILED),
    ],
)
def test_what_follows_an_end(state: str, by: str, restart: Restart, phase: Phase) -> None:
    """After a clean end, a failure, a halt by policy and an end of our own, as it is declared; a halt is never got round."""
    judged = of(run("s-1", state, 20_000, 10_000, by=by), spec=replace(SPEC, restart=restart))
    assert judged.phase is phase
    assert isinstance(judged.act, Begin) == (phase is Phase.STARTING)


def test_the_pause_doubles_up_to_its_limit() -> None:
    """1, 2, 4, 8, 8 seconds; a clean end waits for the first one."""
    assert [pause_ms(SPEC, number) for number in (0, 1, 2, 3, 4, 5, 400)] == [1000, 1000, 2000, 4000, 8000, 8000, 8000]


def test_it_pauses_before_it_is_begun_again() -> None:
    """By the number of failures in a row; the time is told, so that nobody has to ask again before."""
    runs = (run("s-3", "failed", 1_500, 1_400), run("s-2", "failed", 5_000, 4_000), run("s-1", "finished", 9_000, 8_000))
    judged = of(*runs)
    assert (judged.phase, judged.act, judged.next_ms, judged.failures) == (Phase.RESTARTING, None, NOW - 1_400 + 2_000, 2)
    due = judged.next_ms or 0
    again = one(Unit("a", SPEC, runs), due)
    assert isinstance(again.act, Begin)
    assert again.act.after == "s-3"


def test_one_that_lived_long_before_it_failed_begins_a_new_row() -> None:
    """Its failure counts as the first."""
    runs = (run("s-2", "failed", 70_000, 500), run("s-1", "failed", 80_000, 71_000))
    assert of(*runs).failures == 1


def test_one_that_is_begun_too_often_is_given_up_for_good() -> None:
    """Also long after; only a person's word begins it again."""
    runs = tuple(run(f"s-{5 - age}", "failed", 1_000 * age + 1_000, 1_000 * age + 900) for age in range(5))
    later = NOW + 8_000
    assert one(Unit("a", SPEC, runs), later).phase is Phase.FAILED
    assert one(Unit("a", SPEC, runs), NOW + 10**9).phase is Phase.FAILED
    assert one(Unit("a", SPEC, runs[:4]), later).phase is Phase.STARTING
    started = Unit("a", SPEC, runs, Switches(reset_ms=NOW + 10))
    assert isinstance(one(started, NOW + 20).act, Begin)
    assert (one(started, NOW + 20).starts, one(started, NOW + 20).failures) == (0, 0)


def test_the_watchdog_ends_what_says_nothing() -> None:
    """Not what waits for a person or for others, and not for a silence that nobody was there to hear."""
    spec = replace(SPEC, watchdog_ms=3_000)
    silent = run("s-1", "running", 9_000, 3_000)
    act = of(silent, spec=spec).act
    assert isinstance(act, End)
    assert (act.session, act.by) == ("s-1", WATCHDOG)
    assert of(run("s-1", "running", 9_000, 2_999), spec=spec).next_ms == NOW + 1
    assert of(run("s-1", "waiting", 9_000, 3_000), spec=spec).act is None
    assert of(run("s-1", "paused", 9_000, 3_000), spec=spec).act is None
    assert of(silent, spec=spec, rests=True).act is None
    assert of(silent, spec=spec, seen_ms=NOW - 2_999).act is None


def test_one_that_is_stopped_is_ended_and_not_begun() -> None:
    """A crash between the word and the act is made up for; one that is disabled goes on to its end."""
    stopped, disabled = Switches(stopped=True, why="stopped by ann"), Switches(enabled=False, why="disabled by ann")
    act = of(run("s-1", "running", 5_000), switches=stopped).act
    assert isinstance(act, End)
    assert (act.session, act.reason, act.by) == ("s-1", "stopped by ann", SUPERVISOR)
    assert of(run("s-1", "running", 5_000), switches=disabled).act is None
    for switches in (stopped, disabled):
        assert of(run("s-1", "failed", 90_000), switches=switches) == Judged(Phase.STOPPED, switches.why, failures=1)


def test_of_two_sessions_the_later_one_is_ended() -> None:
    """Whatever made two of them (a clock that was set back, a lost month): one stays."""
    act = of(run("s-2", "running", 4_000), run("s-1", "waiting", 5_000)).act
    assert isinstance(act, End)
    assert act.session == "s-2"


def test_nothing_begins_while_it_is_held() -> None:
    """A freeze, a try that failed: it says why, and when it may be over."""
    judged = of(held="frozen", held_until_ms=NOW + 500)
    assert (judged.phase, judged.why, judged.next_ms, judged.act) == (Phase.WAITING, "frozen", NOW + 500, None)
    lives = of(run("s-1", "running", 5_000), held="frozen", held_until_ms=None)
    assert (lives.phase, lives.why, lives.act) == (Phase.ACTIVE, "frozen", None)


def pair(below: Unit, **order: tuple[str, ...]) -> Judged:
    """What becomes of `b`, which is begun after `a` or requires it."""
    above = Unit("b", replace(SPEC, **order), ())
    return judge({"b": above, "a": below}, NOW)["b"]


def test_those_that_are_begun_first_are_waited_for() -> None:
    """Until they are ready or have been given up; what is required has to be ready."""
    begun, ready = Unit("a", SPEC, (run("s-1", "running", 5, turned=False),)), Unit("a", SPEC, (run("s-1", "running", 5),))
    off = Unit("a", SPEC, (), Switches(stopped=True, why="stopped"))
    done = Unit("a", SPEC, (run("s-1", "finished", 90, 80),))
    for order in ("after", "requires"):
        assert pair(begun, **{order: ("a",)}).phase is Phase.WAITING
        assert pair(ready, **{order: ("a",)}).phase is Phase.STARTING
        assert pair(done, **{order: ("a",)}).phase is Phase.STARTING
    assert pair(off, after=("a",)).phase is Phase.STARTING
    assert pair(off, requires=("a",)).phase is Phase.BLOCKED
    assert pair(ready, requires=("ghost",)).phase is Phase.BLOCKED


def test_what_requires_one_that_is_gone_is_stopped() -> None:
    """Through a chain of them; while the required one is merely being restarted it goes on."""
    lives = (run("s-9", "running", 5_000),)
    chain = {
        "c": Unit("c", replace(SPEC, requires=("b",)), lives),
        "b": Unit("b", replace(SPEC, requires=("a",)), lives),
        "a": Unit("a", SPEC, (run("s-1", "halted", 900, 800),)),
    }
    judged = judge(chain, NOW)
    assert [judged[name].phase for name in "abc"] == [Phase.FAILED, Phase.BLOCKED, Phase.BLOCKED]
    assert all(isinstance(judged[name].act, End) for name in "bc")
    chain["a"] = Unit("a", SPEC, (run("s-1", "failed", 900, 800),))
    judged = judge(chain, NOW)
    assert [judged[name].phase for name in "abc"] == [Phase.RESTARTING, Phase.ACTIVE, Phase.ACTIVE]


def test_a_circle_begins_nothing_and_ends_nothing() -> None:
    """Where one is declared is refused; should there be one all the same, it is told."""
    circle = {
        "a": Unit("a", replace(SPEC, after=("b",))),
        "b": Unit("b", replace(SPEC, after=("a",)), (run("s-1", "running", 5),)),
    }
    judged = judge(circle, NOW)
    assert (judged["a"].phase, judged["a"].act, judged["b"].phase) == (Phase.WAITING, None, Phase.ACTIVE)


def test_the_next_session_has_one_name_only() -> None:
    """However often it is begun, and whenever: it follows from the one before, or from the month."""
    last = run("s-1", "failed", 50_000, 40_000)
    names = {
        session_id("default", "a", act)
        for later in (0, 5_000, 3_600_000)
        if isinstance(act := one(Unit("a", SPEC, (last,)), NOW + later).act, Begin)
    }
    assert len(names) == 1
    assert time_of(names.pop()) == last.updated_ms
    first = {
        session_id("default", "a", act) for late in (0, 9_000) if isinstance(act := one(Unit("a", SPEC), NOW + late).act, Begin)
    }
    assert len(first) == 1
    month = time_of(first.pop())
    assert month is not None
    assert NOW - 31 * 86_400_000 < month <= NOW


class World:
    """A log of sessions, a supervisor that sees it late, and crashes between its decision and the record."""

    def __init__(self) -> None:
        self.now = NOW
        self.log: dict[str, Run] = {}
        self.most = 0
        self.switches = Switches()

    def seen(self, behind: int) -> tuple[Run, ...]:
        """The sessions as an index has them that lacks the newest `behind`."""
        known = list(self.log.values())
        return tuple(reversed(known[: len(known) - behind]))

    def look(self, behind: int, crash: bool) -> None:
        judged = one(
            Unit("a", replace(SPEC, restart=Restart.ALWAYS, limit_starts=1000), self.seen(behind), self.switches), self.now
        )
        match judged.act:
            case Begin() as begin:
                name = session_id("default", "a", begin)
                if name not in self.log:
                    self.log[name] = Run(name, "running", self.now, self.now)
                if crash:
                    return
            case End() as end if self.log[end.session].live:
                self.end(end.session, "cancelled", end.by)
        self.most = max(self.most, sum(run.live for run in self.log.values()))

    def end(self, name: str, state: str, by: str) -> None:
        self.log[name] = replace(self.log[name], state=state, updated_ms=self.now, by=by)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("end"), st.sampled_from(["finished", "failed", "cancelled"]), st.just(False)),
        st.tuples(st.just("wait"), st.integers(1, 20_000), st.just(False)),
        st.tuples(st.just("switch"), st.booleans(), st.booleans()),
    ),
    max_size=60,
)


@given(STEPS)
def test_there_is_never_a_second_session(steps: list[tuple[str, object, bool]]) -> None:
    """Whatever ends, however late the index, wherever it crashes: begun again is the same session, as long as one lives."""
    world = World()
    for what, value, flag in steps:
        match what, value:
            case "look", int(behind):
                world.look(min(behind, len(world.log)), flag)
            case "end", str(state):
                for name, run_ in world.log.items():
                    if run_.live:
                        world.end(name, state, "principal/ann")
            case "wait", int(ms):
                world.now += ms
            case "switch", bool(enabled):
                world.switches = Switches(enabled, flag, world.now if enabled else world.switches.reset_ms, "by ann")
        world.now += 1
        assert sum(run_.live for run_ in world.log.values()) <= 1
