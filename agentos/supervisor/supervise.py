"""Standing agents, the pure half: given what is declared and what has happened, what is to be done next.

A standing agent is kept alive as one session at a time, as systemd keeps a service: restarted by its policy after a growing
pause, given up when it is started too often, watched, begun in order with others. Everything is told from three things, each of
which outlives the runtime: the declaration (`StandingSpec`), the sessions in the log that were begun for it (`Run`), and what
people switched (`Switches`, in the tenant's audit chain). Nothing else is kept, so a restart of the runtime changes nothing.

    judged = judge({"mail": Unit(spec, runs=(Run(…),), …)}, now_ms)["mail"]
    judged.phase   # Phase.RESTARTING
    judged.act     # Begin(…), End(…) or None; judged.next_ms says when to ask again

| what ended it | counts as | restarted by |
| --- | --- | --- |
| it finished; a person cancelled it | clean | `always` |
| it failed; the watchdog or another part of the runtime cancelled it | failure | `always`, `on-failure` |
| policy halted it | failure for good | nothing but a person |
| the supervisor itself: what it requires is gone, it was stopped | nothing | as soon as it may run again |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from agentos.abi.ids import derived_id
from agentos.eventlog.subject import period_start
from agentos.kernel.standing import ReadyAfter, Restart, StandingSpec

SUPERVISOR: Final = "system/supervisor"
"""Who begins standing sessions, and ends those that are not to run."""

WATCHDOG: Final = "system/watchdog"
"""Who ends those that say nothing for too long."""

LIVE: Final = frozenset({"deferred", "running", "waiting", "paused"})
"""States, as the index has them, of sessions that are not over."""


@dataclass(frozen=True, slots=True)
class Run:
    """One session that was begun for a standing agent. `by` is who ended it, `code` the error that it failed with."""

    session: str
    state: str
    created_ms: int
    updated_ms: int
    """When its newest event came; of one that is over: when it ended."""
    turned: bool = False
    """Whether a turn of it is complete."""
    by: str = ""
    code: str = ""

    @property
    def live(self) -> bool:
        """Whether it is not over."""
        return self.state in LIVE


@dataclass(frozen=True, slots=True)
class Switches:
    """What people switched. Of an agent about which nobody said anything: enabled, not stopped."""

    enabled: bool = True
    stopped: bool = False
    reset_ms: int = 0
    """When somebody last enabled or started it: what came before is no reason not to begin."""
    why: str = ""
    """Who switched it off, when and why, in words; empty while it is on."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A standing agent and all that its judgement is made from. `runs` are its sessions, newest first."""

    agent: str
    spec: StandingSpec
    runs: tuple[Run, ...] = ()
    switches: Switches = field(default_factory=Switches)
    seen_ms: int = 0
    """Since when somebody has been looking: before that its silence says nothing."""
    rests: bool = False
    """Whether its session waits for something that is not its own doing: a lock, a signal, an endpoint."""
    held: str = ""
    """What holds it now (a freeze, a try that failed), in words: nothing begins."""
    held_until_ms: int | None = None
    """When that may be over, if it is over by itself."""


class Phase(StrEnum):
    """Where a standing agent stands."""

    ACTIVE = "active"
    STARTING = "starting"  # begun, not ready yet
    RESTARTING = "restarting"  # pauses before it is begun again
    WAITING = "waiting"  # for what it is begun after, or until it may begin
    FINISHED = "finished"  # ended cleanly, and is not begun again
    STOPPED = "stopped"  # by a person
    FAILED = "failed"  # given up until a person starts it
    BLOCKED = "blocked"  # what it requires does not run


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin its next session: the one after `after` (empty: the first), as of `at_ms`."""

    after: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class End:
    """Cancel a session of it."""

    session: str
    reason: str
    by: str = SUPERVISOR


@dataclass(frozen=True, slots=True)
class Judged:
    """Where a standing agent stands, and what is to be done. `next_ms`: when to ask again; None: when something happens."""

    phase: Phase
    why: str = ""
    run: Run | None = None
    """Its session, if it has one that is not over."""
    act: Begin | End | None = None
    next_ms: int | None = None
    starts: int = 0
    """How often it was begun in the time that its limit is for."""
    failures: int = 0
    """How many of its last sessions failed one after the other."""

    @property
    def ready(self) -> bool:
        """Whether those that require it may run."""
        return self.phase in {Phase.ACTIVE, Phase.FINISHED}

    @property
    def gone(self) -> bool:
        """Whether it does not run and will not by itself: those that require it are stopped."""
        return self.phase in {Phase.STOPPED, Phase.FAILED, Phase.BLOCKED}


class _Ending(StrEnum):
    CLEAN = "clean"
    FAILURE = "failure"
    HALTED = "halted"
    OURS = "ours"


def judge(units: Mapping[str, Unit], now_ms: int) -> dict[str, Judged]:
    """All standing agents of a tenant, those first that others are begun after. Never raises."""
    judged: dict[str, Judged] = {}
    left = dict(units)
    while left:
        free = [name for name, unit in left.items() if not any(one in left for one in _named(unit.spec))]
        for name in free or list(left):
            unit = left.pop(name)
            # A circle is refused where it is declared; should there be one, nothing in or behind it begins.
            held = unit if free else replace(unit, held=unit.held or "agents that are begun after each other name it")
            judged[name] = _judge(held, now_ms, judged, units)
    return judged


def _named(spec: StandingSpec) -> tuple[str, ...]:
    return (*spec.after, *spec.requires)


def _judge(unit: Unit, now_ms: int, others: Mapping[str, Judged], units: Mapping[str, Unit]) -> Judged:
    live = [run for run in unit.runs if run.live]
    found = _alive(unit, live, now_ms, others, units) if live else _dead(unit, now_ms, others, units)
    since = max(unit.switches.reset_ms, now_ms - unit.spec.limit_within_ms)
    starts = sum(run.created_ms >= since for run in unit.runs)
    return replace(found, starts=starts, failures=_failures(unit))


def _alive(unit: Unit, live: Sequence[Run], now_ms: int, others: Mapping[str, Judged], units: Mapping[str, Unit]) -> Judged:
    """It has a session, perhaps one too many: of what was begun twice the older one stays."""
    spec, run = unit.spec, min(live, key=lambda one: (one.created_ms, one.session))
    extra = next((one for one in live if one is not run), None)
    act = End(extra.session, f"session {run.session} runs for this standing agent already") if extra is not None else None
    if unit.switches.stopped:
        return Judged(Phase.STOPPED, unit.switches.why, run, End(run.session, unit.switches.why))
    if (lost := next(_lost(spec, others, units), None)) is not None:
        return Judged(Phase.BLOCKED, lost, run, End(run.session, lost))
    silent_until = None
    if spec.watchdog_ms is not None and run.state == "running" and not unit.rests:
        silent_until = max(run.updated_ms, unit.seen_ms) + spec.watchdog_ms
        if now_ms >= silent_until:
            why = f"it has said nothing for {spec.watchdog_ms // 1000} s"
            return Judged(Phase.RESTARTING, why, run, End(run.session, f"watchdog: {why}", WATCHDOG))
    ready = spec.ready_after is ReadyAfter.CREATED or run.turned
    why = "" if ready else "its first turn is not complete"
    if not unit.switches.enabled:
        why = f"is not begun again: {unit.switches.why}"
    return Judged(Phase.ACTIVE if ready else Phase.STARTING, unit.held or why, run, act, silent_until)


def _dead(unit: Unit, now_ms: int, others: Mapping[str, Judged], units: Mapping[str, Unit]) -> Judged:
    """It has no session."""
    spec, switches = unit.spec, unit.switches
    if switches.stopped or not switches.enabled:
        return Judged(Phase.STOPPED, switches.why)
    last = unit.runs[0] if unit.runs else None
    due = 0
    if last is not None and last.updated_ms > switches.reset_ms:
        after = _after(unit, last)
        if isinstance(after, Judged):
            return after
        due = after
    if (lost := next(_lost(spec, others, units), None)) is not None:
        return Judged(Phase.BLOCKED, lost)
    if now_ms < due:
        return Judged(Phase.RESTARTING, _ended(last), next_ms=due)
    if (late := next(_late(spec, others), None)) is not None:
        return Judged(Phase.WAITING, late)
    if unit.held:
        return Judged(Phase.WAITING, unit.held, next_ms=unit.held_until_ms)
    return Judged(Phase.STARTING, _ended(last), act=Begin("" if last is None else last.session, _as_of(last, now_ms)))


def _after(unit: Unit, last: Run) -> Judged | int:
    """What follows the end of its last session: when the next one is due, or that there is none."""
    spec, ending = unit.spec, _ending(last)
    match ending:
        case _Ending.HALTED:
            return Judged(Phase.FAILED, "policy halted its session: only a person starts it again")
        case _Ending.CLEAN if spec.restart is not Restart.ALWAYS:
            return Judged(Phase.FINISHED, _ended(last))
        case _Ending.FAILURE if spec.restart is Restart.NO:
            return Judged(Phase.FAILED, _ended(last))
    due = last.updated_ms + (0 if ending is _Ending.OURS else pause_ms(spec, _failures(unit)))
    # As of when it was due: once given up it stays so, however long ago its starts are.
    since = max(unit.switches.reset_ms, due - spec.limit_within_ms)
    starts = sum(run.created_ms >= since for run in unit.runs)
    if starts >= spec.limit_starts:
        within = f"{spec.limit_within_ms // 1000} s"
        return Judged(Phase.FAILED, f"started {starts} times within {within}, given up; {_ended(last)}")
    return due


def pause_ms(spec: StandingSpec, failures: int) -> int:
    """How long after the last of so many failures in a row the next session begins."""
    return int(min(spec.backoff_ms << min(max(failures - 1, 0), 30), spec.max_backoff_ms))


def _failures(unit: Unit) -> int:
    """Failures in a row, newest first. One that came after a long life is the first of its row."""
    number = 0
    for run in unit.runs:
        if run.live or run.updated_ms <= unit.switches.reset_ms:
            break
        match _ending(run):
            case _Ending.FAILURE:
                number += 1
            case _Ending.OURS:
                continue
            case _:
                break
        if run.updated_ms - run.created_ms >= unit.spec.limit_within_ms:
            break
    return number


def _ending(run: Run) -> _Ending:
    if run.state == "finished" or (run.state == "cancelled" and run.by.startswith("principal/")):
        return _Ending.CLEAN
    if run.state == "cancelled" and run.by == SUPERVISOR:
        return _Ending.OURS
    return _Ending.HALTED if run.state == "halted" else _Ending.FAILURE


def _ended(run: Run | None) -> str:
    """How it ended, in words of the runtime's own."""
    if run is None:
        return ""
    match run.state:
        case "cancelled":
            return f"session {run.session} was cancelled by {run.by or 'somebody'}"
        case "halted":
            return f"session {run.session} was halted by policy"
        case "failed":
            return f"session {run.session} failed{f' ({run.code})' if run.code else ''}"
        case state:
            return f"session {run.session} {state}"


def _lost(spec: StandingSpec, others: Mapping[str, Judged], units: Mapping[str, Unit]) -> Iterator[str]:
    """What it requires and does not have, nor will have by itself."""
    for name in spec.requires:
        if name not in units:
            yield f"agent {name}, which it requires, is no standing agent"
        elif name in others and others[name].gone:
            yield f"agent {name}, which it requires, is {others[name].phase}"


def _late(spec: StandingSpec, others: Mapping[str, Judged]) -> Iterator[str]:
    """What it has to wait for before it begins."""
    for name in spec.requires:
        if name in others and not others[name].ready:
            yield f"for agent {name}, which it requires and which is {others[name].phase}"
    for name in spec.after:
        if name in others and others[name].phase in {Phase.STARTING, Phase.RESTARTING, Phase.WAITING}:
            yield f"for agent {name}, which is begun first and is {others[name].phase}"


def _as_of(last: Run | None, now_ms: int) -> int:
    """The time in the id of a session that follows `last`: the same however often, and after whatever crash, it is begun.

    It is when `last` ended, but no earlier than this month began: a month that is over may be retired, and takes no events.
    """
    return max(0 if last is None else last.updated_ms, period_start(now_ms))


def session_id(tenant: str, agent: str, begin: Begin) -> str:
    """The id of its next session: only one session can follow the one before, however often that is tried."""
    return derived_id("s", begin.at_ms, tenant, agent, begin.after)


@dataclass(frozen=True, slots=True)
class Kept:
    """A standing agent as it was looked at last."""

    unit: Unit
    judged: Judged
