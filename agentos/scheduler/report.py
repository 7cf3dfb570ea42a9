"""What a simulated run shows: shares deserved and received at every level, waits per class, inversions, budgets.

Deserved: what a node would have got had its class's part of the endpoint been shared like water among siblings, by weight, none
of whom gets more than it asked for, nor more than its quota let through. Received: what its turns used that ended. `jain` is
Jain's index of what siblings that always had work received per unit of weight: 1 when it is the same for all, 1/n when one got
everything; `worst` the least of it over every window in which each of them ended a hundred turns. `lag` is the most by which two
of them differ, over every interval; `bound` is what `docs/scheduling.md` allows. `measures` says what an inversion is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.scheduler.measures import Inversions, inversions, jain, largest_lag, worst_window
from agentos.scheduler.share import Path, prefixes
from agentos.scheduler.simulate import Left, Row, Run, Spent

PERCENTILES: Final = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Share:
    """One node on one endpoint within one class. Amounts in tokens."""

    endpoint: str
    priority: str
    path: Path
    weight: int
    asked: int
    deserved: float
    received: int
    saturated: bool
    """Whether it had a turn waiting all the time."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the turns of a class waited for an endpoint, in ms. `left` still waited at the end, and are not among the
    others.
    """

    endpoint: str
    priority: str
    turns: int
    left: int
    p50: int
    p95: int
    p99: int
    longest: int
    stopped: int
    late: int
    """Turns that ended behind their deadline."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """How evenly the siblings below `parent` were served that always had work. `lag` and `bound` in tokens per weight.

    `worst` is None where no window is long enough.
    """

    endpoint: str
    priority: str
    parent: Path
    siblings: int
    jain: float
    worst: float | None
    lag: float
    bound: float


@dataclass(frozen=True, slots=True)
class Report:
    """See the module. `fairness` is by endpoint, class and parent, for parents with at least two saturated children."""

    scheduler: str
    shares: tuple[Share, ...]
    fairness: tuple[Fairness, ...]
    waits: tuple[Waits, ...]
    inversions: Inversions
    budgets: tuple[Spent, ...]
    came: int
    ended: int
    stopped: int
    left: int
    refused: int
    woken: int

    @property
    def jain(self) -> float:
        """The least index of any siblings over the whole run."""
        return min((one.jain for one in self.fairness), default=1.0)

    @property
    def overdrafts(self) -> int:
        """How many budgets were exceeded."""
        return sum(one.used > one.limit for one in self.budgets)

    def to_dict(self) -> dict[str, Json]:
        """JSON form, without the rows."""
        return {
            "scheduler": self.scheduler,
            "jain": round(self.jain, 6),
            "inversions": self.inversions.count,
            "longest_inversion_ms": self.inversions.longest_ms,
            "longest_lower_turn_ms": self.inversions.longest_turn_ms,
            "overdrafts": self.overdrafts,
            "turns": {name: getattr(self, name) for name in ("came", "ended", "stopped", "left", "refused")},
            "woken": self.woken,
            "shares": [_told(one, deserved=round(one.deserved)) for one in self.shares],
            "fairness": [
                _told(
                    one,
                    jain=round(one.jain, 6),
                    worst=None if one.worst is None else round(one.worst, 6),
                    lag=round(one.lag),
                    bound=round(one.bound),
                )
                for one in self.fairness
            ],
            "waits": [
                {f"{name}_ms" if name in _TIMES else name: value for name, value in _told(one).items()} for one in self.waits
            ],
            "budgets": [_told(one) for one in self.budgets],
        }


_TIMES: Final = frozenset({"p50", "p95", "p99", "longest"})


def _told(one: Share | Waits | Fairness | Spent, **better: Json) -> dict[str, Json]:
    """The fields of a figure by the names that a workload has for them."""
    body = asdict(one) | better
    for name in ("path", "parent"):
        if name in body:
            body[name] = "/".join(body[name])
    return {"class" if name == "priority" else name: value for name, value in body.items()}


def row_to_dict(row: Row) -> dict[str, Json]:
    """JSON form of a row, from which everything else can be computed again."""
    return {
        "turn": row.turn,
        "job": row.job,
        "endpoint": row.endpoint,
        "path": "/".join(row.path),
        "class": row.priority,
        "tokens": row.tokens,
        "said": row.said,
        "came_ms": row.came_ms,
        "began_ms": row.began_ms,
        "ended_ms": row.ended_ms,
        "order": list(row.order),
        "stopped": row.stopped,
        "due_ms": row.due_ms,
    }


def report(run: Run) -> Report:
    """What `run` shows."""
    full = _saturated(run)
    stopped = sum(row.stopped for row in run.rows)
    return Report(
        run.scheduler,
        tuple(_shares(run, full)),
        tuple(_fairness(run, full)),
        tuple(_waits(run)),
        _inversions(run),
        run.budgets,
        run.came,
        len(run.rows) - stopped,
        stopped,
        len(run.left),
        run.refused,
        run.woken,
    )


def _shares(run: Run, full: set[tuple[str, str, Path]]) -> list[Share]:
    received: defaultdict[tuple[str, str, Path], int] = defaultdict(int)
    asked: defaultdict[tuple[str, str, Path], int] = defaultdict(int)
    for row in run.rows:
        for prefix in prefixes(row.path):
            received[row.endpoint, row.priority, prefix] += row.tokens
            asked[row.endpoint, row.priority, prefix] += row.tokens
    for turn in run.left:
        for prefix in prefixes(turn.path):
            asked[turn.endpoint, turn.priority, prefix] += turn.tokens
    found: list[Share] = []
    groups: defaultdict[tuple[str, str, Path], list[Path]] = defaultdict(list)
    for endpoint, priority, path in sorted(asked):
        groups[endpoint, priority, path[:-1]].append(path)
    given: dict[tuple[str, str, Path], float] = {}
    for (endpoint, priority, parent), children in sorted(groups.items(), key=lambda item: len(item[0][2])):
        at = (endpoint, priority)
        # Within a class, what its parent deserves is shared; at the top it is what the class got.
        total = given[(*at, parent)] if parent else float(sum(received[(*at, path)] for path in children))
        needs = {
            path: float(received[(*at, path)])
            if path in run.workload.quotas
            else float("inf")
            if (*at, path) in full
            else float(asked[(*at, path)])
            for path in children
        }
        weights = {path: run.workload.weights.get(path, 1) for path in children}
        for path, deserved in _water(total, needs, weights).items():
            given[(*at, path)] = deserved
            key = (*at, path)
            found.append(Share(*at, path, weights[path], asked[key], deserved, received[key], key in full))
    return found


def _water(total: float, needs: dict[Path, float], weights: dict[Path, int]) -> dict[Path, float]:
    """`total` shared by weight, nobody getting more than it needs and what it leaves going to the others."""
    given = dict.fromkeys(needs, 0.0)
    open_ = sorted(needs, key=lambda path: needs[path] / weights[path])
    weight = sum(weights.values())
    for path in open_:
        part = min(needs[path], total * weights[path] / weight)
        given[path] = part
        total -= part
        weight -= weights[path]
    return given


def _saturated(run: Run) -> set[tuple[str, str, Path]]:
    """Nodes that had a turn waiting from the beginning to the end, which no quota or budget held back."""
    found: set[tuple[str, str, Path]] = set()
    for crowd in run.workload.crowds:
        always = crowd.per_minute is None and crowd.from_ms == 0 and crowd.until_ms >= run.workload.duration_ms
        for path in crowd.paths() if always else ():
            if any(prefix in run.workload.budgets for prefix in prefixes(path)):
                continue
            for prefix in reversed(list(prefixes(path))):
                if prefix in run.workload.quotas:
                    break
                found.add((crowd.endpoint, crowd.priority, prefix))
    return found


def _fairness(run: Run, full: set[tuple[str, str, Path]]) -> list[Fairness]:
    slots = {one.name: one.limits.slots for one in run.workload.endpoints}
    groups: defaultdict[tuple[str, str, Path], dict[Path, int]] = defaultdict(dict)
    for endpoint, priority, path in sorted(full):
        groups[endpoint, priority, path[:-1]][path] = run.workload.weights.get(path, 1)
    served: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in run.rows:
        served[row.endpoint, row.priority].append(row)
    found = []
    for (endpoint, priority, parent), weights in sorted(groups.items()):
        if len(weights) < 2:
            continue
        depth = len(parent) + 1
        rows = [row for row in served[endpoint, priority] if row.path[:depth] in weights]
        got = [(row.path[:depth], row.tokens) for row in rows]
        sums = dict.fromkeys(weights, 0)
        for path, tokens in got:
            sums[path] += tokens
        index = jain([amount / weights[path] for path, amount in sums.items()])
        turn = max((max(row.tokens, row.said) for row in rows), default=0)
        bound = 2 * slots[endpoint] * turn / min(weights.values())
        lag = largest_lag(got, weights)
        found.append(Fairness(endpoint, priority, parent, len(weights), index, worst_window(got, weights), lag, bound))
    return found


def _waits(run: Run) -> list[Waits]:
    rows: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    left: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in run.rows:
        rows[row.endpoint, row.priority].append(row)
    for turn in run.left:
        left[turn.endpoint, turn.priority] += turn.began_ms is None
    found = []
    for key in sorted({*rows, *left}):
        times = sorted(row.began_ms - row.came_ms for row in rows[key])
        p50, p95, p99 = (times[min(len(times) - 1, len(times) * part // 100)] if times else 0 for part in PERCENTILES)
        stopped = sum(row.stopped for row in rows[key])
        late = sum(row.due_ms is not None and row.ended_ms > row.due_ms and not row.stopped for row in rows[key])
        found.append(Waits(*key, len(times), left[key], p50, p95, p99, times[-1] if times else 0, stopped, late))
    return found


def _inversions(run: Run) -> Inversions:
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    left: defaultdict[str, list[Left]] = defaultdict(list)
    for row in run.rows:
        rows[row.endpoint].append(row)
    for turn in run.left:
        left[turn.endpoint].append(turn)
    classes, quotas = run.workload.classes, run.workload.quotas
    all_ = [inversions(rows[one.name], left[one.name], classes, quotas) for one in run.workload.endpoints]
    return Inversions(
        sum(one.count for one in all_),
        max((one.longest_ms for one in all_), default=0),
        max((one.longest_turn_ms for one in all_), default=0),
    )
