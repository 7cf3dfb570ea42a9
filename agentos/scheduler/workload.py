"""A workload as it is written down: endpoints, classes, weights, quotas, budgets, and agents that want turns.

    seconds: 3600                       # how long, on the virtual clock
    seed: 7
    endpoints:
      - {name: large, slots: 8, tokensPerSecond: 60, requestsPerMinute: 600}
    classes:
      - {name: interactive, rank: 10, patienceSeconds: 5}
      - {name: batch, aging: false, preemptible: true, leave: 20}
    weights: {acme: 2, acme/support: 3}
    quotas: {acme/support: {slots: 2}}
    budgets: {acme: {tokens: 1000000}}
    agents:
      - {tenant: acme, program: support, name: triage, count: 40, class: interactive, endpoint: large,
         arrivals: {perMinute: 2}, tokens: [200, 2000], estimate: 1.0, deadlineSeconds: 30}

`arrivals: saturated`: each agent has its next turn waiting as soon as the last one went out. `estimate` is what is said of a turn
over what it uses. `failFast: true` gives each turn a risk, and the likely to fail go first among those of one agent. Anything
unknown is refused; the error's first fault holds the `path` of what is wrong, for whoever knows the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import ManifestError
from agentos.scheduler.arbiter import Limits, PriorityClass
from agentos.scheduler.share import Path

_SECOND: Final = 1000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers: its limits, and how fast one slot of it writes."""

    name: str
    limits: Limits
    tokens_per_second: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """Agents of one kind: `count` of them, each `path`, with its number when there are several."""

    path: Path
    count: int
    priority: str
    endpoint: str
    per_minute: float | None
    """Turns that come to each of them in a minute, at random; None: saturated."""
    tokens: tuple[int, int]
    estimate: float
    from_ms: int
    until_ms: int
    deadline_ms: int | None = None
    """How long after it came a turn is due."""
    fail_fast: bool = False

    def paths(self) -> list[Path]:
        """Where each of its agents stands in the tree."""
        if self.count == 1:
            return [self.path]
        return [(*self.path[:-1], f"{self.path[-1]}-{number}") for number in range(self.count)]


@dataclass(frozen=True, slots=True)
class Workload:
    """See the module. `quotas` in slots of each endpoint, `budgets` in tokens."""

    duration_ms: int
    seed: int
    endpoints: tuple[Endpoint, ...]
    classes: Mapping[str, PriorityClass]
    weights: Mapping[Path, int]
    crowds: tuple[Crowd, ...]
    quotas: Mapping[Path, int] = field(default_factory=dict)
    budgets: Mapping[Path, int] = field(default_factory=dict)


def read_workload(body: Json) -> Workload:
    """The workload of a decoded YAML document. Raises ManifestError that says which field is wrong, and what it may be."""
    take = _Fields(body, ())
    duration = take.whole("seconds", 1, 10_000_000) * _SECOND
    seed = take.whole("seed", 0, 2**53, default=1)
    endpoints: dict[str, Endpoint] = {}
    for one in take.fields("endpoints"):
        end = _endpoint(one, endpoints)
        endpoints[end.name] = end
    classes: dict[str, PriorityClass] = {}
    for one in take.fields("classes"):
        made = _class(one, classes)
        classes[made.name] = made
    crowds: dict[Path, Crowd] = {}
    for one in take.fields("agents"):
        crowd = _crowd(one, duration, classes, endpoints, crowds)
        crowds[crowd.path] = crowd
    known = {path[:depth] for crowd in crowds.values() for path in [crowd.path, *crowd.paths()] for depth in (1, 2, 3)}
    weights = {path: inner.whole(name, 1, 10**6) for path, name, inner in take.by_path("weights", known)}
    quotas = {path: _only(inner.inner(name), "slots", 1, 100_000) for path, name, inner in take.by_path("quotas", known)}
    budgets = {path: _only(inner.inner(name), "tokens", 0, 10**15) for path, name, inner in take.by_path("budgets", known)}
    take.end()
    return Workload(duration, seed, tuple(endpoints.values()), classes, weights, tuple(crowds.values()), quotas, budgets)


def _only(take: _Fields, name: str, lowest: int, highest: int) -> int:
    value = take.whole(name, lowest, highest)
    take.end()
    return value


def _endpoint(take: _Fields, known: Collection[str]) -> Endpoint:
    name, slots = take.fresh("name", known), take.whole("slots", 1, 100_000)
    speed = take.whole("tokensPerSecond", 1, 1_000_000)
    requests = take.maybe("requestsPerMinute", 1, 10**9)
    tokens = take.maybe("tokensPerMinute", 1, 10**12)
    take.end()
    return Endpoint(name, Limits(slots, requests, tokens), speed)


def _class(take: _Fields, known: Collection[str]) -> PriorityClass:
    name, rank = take.fresh("name", known), take.whole("rank", -1000, 1000, default=0)
    ages = take.flag("aging", default=True)
    aging = take.whole("agingSeconds", 1, 10**6, default=60)
    patience = take.maybe("patienceSeconds", 0, 10**6)
    preemptible, slots = take.flag("preemptible", default=False), take.maybe("slots", 1, 100_000)
    leave = take.whole("leave", 0, 99, default=0)
    take.end()
    return PriorityClass(
        name,
        rank,
        aging_ms=aging * _SECOND if ages else None,
        patience_ms=None if patience is None else patience * _SECOND,
        preemptible=preemptible,
        slots=slots,
        leave=leave,
    )


def _crowd(
    take: _Fields,
    duration: int,
    classes: Collection[str],
    endpoints: Collection[str],
    known: Mapping[Path, Crowd],
) -> Crowd:
    path = (take.name("tenant"), take.name("program"), take.name("name"))
    if path in known:
        raise take.wrong("name", f"{'/'.join(path)} is there already", "give each entry a name of its own", at="value")
    count = take.whole("count", 1, 1_000_000, default=1)
    priority, endpoint = take.choice("class", classes), take.choice("endpoint", endpoints)
    per_minute = take.arrivals("arrivals")
    tokens = take.span("tokens")
    estimate = take.ratio("estimate", default=1.0)
    deadline = take.maybe("deadlineSeconds", 1, 10**7)
    fail_fast = take.flag("failFast", default=False)
    begin = take.whole("from", 0, 10**7, default=0) * _SECOND
    until = take.maybe("until", 0, 10**7)
    take.end()
    end = duration if until is None else until * _SECOND
    due = None if deadline is None else deadline * _SECOND
    return Crowd(path, count, priority, endpoint, per_minute, tokens, estimate, begin, end, due, fail_fast)


class _Fields:
    """Takes fields of one object; `end` refuses what nobody took."""

    def __init__(self, body: Json, path: tuple[str | int, ...]) -> None:
        self._path = path
        if not isinstance(body, dict):
            raise _wrong(path, "expected a mapping of fields", "write `field: value` for each of its fields")
        self._body: dict[str, Json] = dict(body)
        self._taken: dict[str, None] = {}

    def wrong(self, name: str, message: str, mend: str, *, at: str = "") -> ManifestError:
        """The error about one field; `at` value or key, or whichever there is."""
        return _wrong((*self._path, name), message, mend, at=at)

    def end(self) -> None:
        for name in self._body:
            known = ", ".join(sorted(self._taken))
            raise self.wrong(name, f"unknown field {name}", f"fields here: {known}", at="key")

    def fields(self, name: str) -> list[_Fields]:
        items = self._pop(name)
        if not isinstance(items, list) or not items:
            raise self.wrong(name, f"`{name}` is missing or no list", f"write a list of at least one below `{name}:`")
        return [_Fields(item, (*self._path, name, number)) for number, item in enumerate(items)]

    def inner(self, name: str) -> _Fields:
        return _Fields(self._pop(name), (*self._path, name))

    def by_path(self, name: str, known: Collection[Path]) -> list[tuple[Path, str, _Fields]]:
        """The fields of an object whose names are paths such as acme/support: each path, its name, and who can take it."""
        inner = _Fields(self._pop(name, {}), (*self._path, name))
        found = [(tuple(key.split("/")), key, inner) for key in inner._body]
        for path, key, _ in found:
            if path not in known:
                mend = "name a tenant, tenant/program or tenant/program/agent of `agents`"
                raise inner.wrong(key, f"no agent is at or below {key}", mend, at="key")
        return found

    def name(self, name: str) -> str:
        value = self._pop(name)
        if not isinstance(value, str) or not value or "/" in value or not value.isprintable():
            raise self.wrong(name, f"`{name}` is missing or no name", "write a word without a slash")
        return value

    def fresh(self, name: str, known: Collection[str]) -> str:
        value = self.name(name)
        if value in known:
            raise self.wrong(name, f"{value} is there already", "give each entry a name of its own")
        return value

    def choice(self, name: str, known: Collection[str]) -> str:
        value = self.name(name)
        if value not in known:
            raise self.wrong(name, f"`{name}` is none of those declared: {value}", f"one of {', '.join(sorted(known))}")
        return value

    def whole(self, name: str, lowest: int, highest: int, *, default: int | None = None) -> int:
        value = self._pop(name, default)
        if type(value) is not int or not lowest <= value <= highest:
            raise self.wrong(name, f"`{name}` is missing or out of range", f"write a whole number from {lowest} to {highest}")
        return value

    def maybe(self, name: str, lowest: int, highest: int) -> int | None:
        self._taken[name] = None
        return self.whole(name, lowest, highest) if name in self._body else None

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._pop(name, default)
        if type(value) is not bool:
            raise self.wrong(name, f"`{name}` is true or false", "write one of the two")
        return value

    def ratio(self, name: str, *, default: float | None = None) -> float:
        value = self._pop(name, default)
        if type(value) not in {int, float} or not 0 < value <= 1000:
            raise self.wrong(name, f"`{name}` is missing or out of range", "write a number above 0, at most 1000")
        return float(value)

    def arrivals(self, name: str) -> float | None:
        value = self._pop(name, "saturated")
        if value == "saturated":
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, f"`{name}` is none that is known", "write `saturated` or {perMinute: N}")
        inner = _Fields(value, (*self._path, name))
        found = inner.ratio("perMinute")
        inner.end()
        return found

    def span(self, name: str) -> tuple[int, int]:
        value = self._pop(name)
        pair = [value, value] if type(value) is int else value
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(type(one) is int for one in pair)
            or not 1 <= pair[0] <= pair[1] <= 10**9
        ):
            raise self.wrong(name, f"`{name}` is missing or no span", "write a whole number from 1 on, or [lowest, highest]")
        return pair[0], pair[1]

    def _pop(self, name: str, default: Json = None) -> Json:
        self._taken[name] = None
        return self._body.pop(name, default)


def _wrong(path: tuple[str | int, ...], message: str, mend: str, *, at: str = "") -> ManifestError:
    told = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return ManifestError(message, where=told or None, mend=mend, faults=[{"path": path, "at": at, "text": message}])
