"""Figures that are computed from the rows of a run alone: Jain's index over windows, the largest lag, inversions.

Nothing here asks the scheduler: what it did is in the rows, and whether that was right is computed again from them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm
from typing import Final

from agentos.scheduler.arbiter import PriorityClass, head_starts
from agentos.scheduler.share import Path, prefixes
from agentos.scheduler.simulate import Left, Row

WINDOW: Final = 100
"""Turns of each sibling that a window has at least."""


def jain(amounts: Sequence[float]) -> float:
    """Jain's index of fairness; 1 for nobody and for nothing."""
    squares = sum(amount * amount for amount in amounts)
    return 1.0 if not squares else sum(amounts) ** 2 / (len(amounts) * squares)


def worst_window(got: Sequence[tuple[Path, int]], weights: Mapping[Path, int], *, turns: int = WINDOW) -> float | None:
    """The least index of what siblings received per weight, over every shortest run of rows in which each ended `turns` turns.

    `got`: who received how much, in order. None: there is no such run.
    """
    scale = lcm(*weights.values())
    amounts, ended, left = dict.fromkeys(weights, 0), dict.fromkeys(weights, 0), 0
    short = len(weights)
    worst: float | None = None
    for path, tokens in got:
        amounts[path] += tokens * (scale // weights[path])
        ended[path] += 1
        short -= ended[path] == turns
        while not short:
            found = jain(list(amounts.values()))
            worst = found if worst is None else min(worst, found)
            first, back = got[left]
            amounts[first] -= back * (scale // weights[first])
            ended[first] -= 1
            short += ended[first] == turns - 1
            left += 1
    return worst


def largest_lag(got: Sequence[tuple[Path, int]], weights: Mapping[Path, int]) -> float:
    """The most by which what two siblings received per weight differs, over every interval."""
    scale = lcm(*weights.values())
    sums = dict.fromkeys(weights, 0)
    low = {path: dict.fromkeys(weights, 0) for path in weights}
    most = 0
    for path, tokens in got:
        sums[path] += tokens * (scale // weights[path])
        mine, lows = sums[path], low[path]
        for other, theirs in sums.items():
            lead = mine - theirs
            # The largest difference of two prefixes is the largest of any interval; the other's lead is this one's, negated.
            low[other][path] = min(low[other][path], -lead)
            most = max(most, lead - lows[other])
    return most / scale


@dataclass(frozen=True, slots=True)
class Inversions:
    """How often a turn went out while one of a higher class waited that could have gone; see `inversions`.

    `longest_ms`: the longest time that a turn waited while one of a lower class ran that had not gone out by its age.
    `longest_turn_ms`: the longest time that such a lower turn ran.
    """

    count: int
    longest_ms: int
    longest_turn_ms: int


@dataclass(slots=True)
class _State:
    """Who waits and runs at one endpoint, at one moment of its rows."""

    classes: Mapping[str, PriorityClass]
    quotas: Mapping[Path, int]
    waiting: dict[str, dict[str, tuple[Path, int]]]
    used: Counter[Path]
    running: Counter[str]
    starts: Mapping[str, int]

    def oldest(self, name: str) -> int | None:
        """When the oldest turn of a class came, of those that quotas let go; None: there is none, or its slots are used up."""
        slots = self.classes[name].slots
        if slots is not None and self.running[name] >= slots:
            return None
        for path, came in self.waiting[name].values():
            if not self.quotas or all(self.used[prefix] < self.quotas.get(prefix, 2**62) for prefix in prefixes(path)):
                return came
        return None

    def overtakes(self, name: str) -> str | None:
        """How a class goes out now: `aged` when it has risen above a higher one that waits, `wrong` when it has not."""
        declared, mine = self.classes[name], self.oldest(name)
        told = None
        for other, above in self.classes.items():
            if above.height <= declared.height or above.leave > declared.leave:
                continue
            theirs = self.oldest(other)
            if theirs is None:
                continue
            if mine is None or declared.aging_ms is None:
                return "wrong"
            if mine - self.starts[name] > theirs - self.starts[other]:
                return "wrong"
            told = "aged"
        return told


def inversions(
    rows: Sequence[Row], left: Sequence[Left], classes: Mapping[str, PriorityClass], quotas: Mapping[Path, int]
) -> Inversions:
    """Inversions at one endpoint, by the order of what happened.

    None is: what went out by the age of the oldest turn of its class; or while those of the higher class that waited were held
    by a quota, or had the slots of their class, or by `leave`.
    """
    state = _State(classes, quotas, {name: {} for name in classes}, Counter(), Counter(), head_starts(classes))
    wrong, aged = 0, set()
    for _, what, row in sorted(_moments(rows, left), key=lambda moment: moment[0]):
        if what == "came":
            state.waiting[row.priority][row.turn] = (row.path, row.came_ms)
            continue
        if what == "began":
            told = state.overtakes(row.priority)
            wrong += told == "wrong"
            if told == "aged":
                aged.add(row.turn)
            del state.waiting[row.priority][row.turn]
        by = 1 if what == "began" else -1
        state.running[row.priority] += by
        for prefix in prefixes(row.path):
            state.used[prefix] += by
    longest, turn = _longest(rows, classes, quotas, aged)
    return Inversions(wrong, longest, turn)


def _moments(rows: Sequence[Row], left: Sequence[Left]) -> Iterator[tuple[int, str, Row | Left]]:
    for row in rows:
        came, began, ended = row.order
        yield from ((came, "came", row), (began, "began", row), (ended, "ended", row))
    for one in left:
        yield one.order[0], "came", one
        if one.order[1] is not None:
            yield one.order[1], "began", one


def _longest(
    rows: Sequence[Row], classes: Mapping[str, PriorityClass], quotas: Mapping[Path, int], aged: Collection[str]
) -> tuple[int, int]:
    longest = turn = 0
    for name, declared in classes.items():
        below = [row for row in rows if classes[row.priority].height < declared.height and row.turn not in aged]
        times, sums = _busy(below)
        for row in rows:
            if row.priority != name or declared.slots is not None or any(prefix in quotas for prefix in prefixes(row.path)):
                continue
            longest = max(longest, _until(row.began_ms, times, sums) - _until(row.came_ms, times, sums))
            turn = max(turn, *(one.ended_ms - one.began_ms for one in below)) if below and not turn else turn
    return longest, turn


def _busy(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Times at which it changes whether any of `rows` runs, and how long any had run until each of them; beginning at 0."""
    changes = Counter[int]()
    for row in rows:
        changes[row.began_ms] += 1
        changes[row.ended_ms] -= 1
    times, sums, busy, running = [0], [0], 0, changes.pop(0, 0)
    for before, now in pairwise([0, *sorted(changes)]):
        busy += now - before if running else 0
        running += changes[now]
        times.append(now)
        sums.append(busy)
    return times, sums


def _until(when: int, times: Sequence[int], sums: Sequence[int]) -> int:
    """For how long any of them had run until `when`."""
    at = bisect_right(times, when) - 1
    if at + 1 >= len(times) or sums[at + 1] == sums[at]:
        return sums[at]
    return sums[at] + when - times[at]
