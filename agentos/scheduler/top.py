"""How an endpoint stands now: what runs and waits, who received which part of late and deserved which, who goes next and why.

`endpoint_view` is pure: it looks at an arbiter and its window and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agentos.abi.canonical import Json
from agentos.scheduler.arbiter import Arbiter, PriorityClass
from agentos.scheduler.declared import UNBOUNDED
from agentos.scheduler.share import Path, prefixes
from agentos.scheduler.window import Window


@dataclass(frozen=True, slots=True)
class Running:
    """A turn that runs: of which session and path (tenant, program, agent), in which class, for how long."""

    turn: str
    session: str
    path: Path
    priority: str
    for_ms: int
    tokens: int
    """What it is estimated to use."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The turns of one class: how many wait, since when the first does, and how long those waited that went out of late."""

    priority: str
    waiting: int
    oldest_ms: int | None
    admitted: int
    p50_ms: int | None
    p95_ms: int | None


@dataclass(frozen=True, slots=True)
class Share:
    """A node of the share tree in one class. `deserved` and `received` are parts of what its class received within the window.

    Deserved is by weight, among the siblings that waited, ran or received something within it.
    """

    priority: str
    path: Path
    weight: int
    waiting: int
    tokens: int
    deserved: float
    received: float


@dataclass(frozen=True, slots=True)
class Next:
    """The turn that goes out as soon as there is a slot, and why it is the one."""

    session: str
    path: Path
    priority: str
    waited_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of an endpoint: so many a minute, and how many may go out at once now (below 0: used beyond)."""

    per_minute: int
    left: int


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint. `kind`: `model`, `tool` or `harness`. `slots` None: not limited. `circuit`: `closed`, `open`, `half-open`."""

    kind: str
    name: str
    slots: int | None
    running: tuple[Running, ...]
    running_others: int
    """Turns of other tenants that run and are not shown."""
    queues: tuple[Queue, ...]
    shares: tuple[Share, ...]
    next: Next | None
    requests: Rate | None
    tokens: Rate | None
    circuit: str


@dataclass(frozen=True, slots=True)
class Top:
    """All endpoints at `now_ms`; what is of late is of the last `window_ms`."""

    now_ms: int
    window_ms: int
    endpoints: tuple[EndpointView, ...]


def endpoint_view(
    kind: str,
    name: str,
    arbiter: Arbiter,
    window: Window,
    *,
    weights: Mapping[Path, int],
    now_ms: int,
    circuit: str = "closed",
) -> EndpointView:
    """How `arbiter` stands. A limit of UNBOUNDED slots or more is shown as none."""
    running = tuple(
        Running(turn.id, turn.session, turn.path, priority, now_ms - since, turn.tokens)
        for turn, priority, since in arbiter.running()
    )
    first = arbiter.preview(now_ms)
    requests, tokens = arbiter.rates(now_ms)
    limits = arbiter.limits
    return EndpointView(
        kind=kind,
        name=name,
        slots=limits.slots if limits.slots < UNBOUNDED else None,
        running=running,
        running_others=0,
        queues=tuple(_queues(arbiter, window, running, now_ms)),
        shares=tuple(_shares(arbiter, window, running, weights, now_ms)),
        next=None if first is None else Next(first.turn.session, first.turn.path, first.priority, first.waited_ms, first.why),
        requests=Rate(limits.requests_per_minute, requests) if limits.requests_per_minute and requests is not None else None,
        tokens=Rate(limits.tokens_per_minute, tokens) if limits.tokens_per_minute and tokens is not None else None,
        circuit=circuit,
    )


def _queues(arbiter: Arbiter, window: Window, running: tuple[Running, ...], now_ms: int) -> Iterator[Queue]:
    """Of the classes that have something to tell, the highest first."""
    run, depth = {one.priority for one in running}, arbiter.depth()
    for declared in sorted(arbiter.classes(), key=_height, reverse=True):
        name = declared.name
        waits, waiting, oldest = window.waits(name, now_ms), depth[name], arbiter.oldest_ms(name)
        if waiting or waits.admitted or name in run:
            since = None if oldest is None else now_ms - oldest
            yield Queue(name, waiting, since, waits.admitted, waits.p50_ms, waits.p95_ms)


def _shares(
    arbiter: Arbiter, window: Window, running: tuple[Running, ...], weights: Mapping[Path, int], now_ms: int
) -> Iterator[Share]:
    """Class by class, parents before their children."""
    received: dict[str, Counter[Path]] = {}
    for (priority, path), tokens in window.received(now_ms).items():
        sums = received.setdefault(priority, Counter())
        for node in prefixes(path):
            sums[node] += tokens
    for declared in sorted(arbiter.classes(), key=_height, reverse=True):
        name = declared.name
        sums = received.get(name, Counter())
        waiting = {one.path: one.waiting for one in arbiter.standings(name) if one.waiting}
        runs = {node for one in running if one.priority == name for node in prefixes(one.path)}
        active = {*sums, *waiting, *runs}
        total = sum(tokens for path, tokens in sums.items() if len(path) == 1)
        siblings: Counter[Path] = Counter()
        for path in active:
            siblings[path[:-1]] += weights.get(path, 1)
        deserved: dict[Path, float] = {(): 1.0}
        for path in sorted(active, key=lambda node: (len(node), node)):
            deserved[path] = deserved[path[:-1]] * weights.get(path, 1) / siblings[path[:-1]]
        for path in sorted(active):
            got = sums[path]
            part = got / total if total else 0.0
            yield Share(name, path, weights.get(path, 1), waiting.get(path, 0), got, deserved[path], part)


def _height(declared: PriorityClass) -> tuple[tuple[bool, int], str]:
    return declared.height, declared.name


def only(view: EndpointView, tenant: str) -> EndpointView:
    """What somebody of `tenant` may see of an endpoint that tenants share: its own turns and shares, of the others that they are.

    Others' turns are counted and not listed; their shares are added up and named `(others)`.
    """
    mine = view.next is None or view.next.path[0] == tenant
    running = tuple(one for one in view.running if one.path[0] == tenant)
    return EndpointView(
        kind=view.kind,
        name=view.name,
        slots=view.slots,
        running=running,
        running_others=view.running_others + len(view.running) - len(running),
        queues=view.queues,
        shares=tuple(_merged(view.shares, tenant)),
        next=view.next if mine or view.next is None else Next("", (OTHERS,), view.next.priority, view.next.waited_ms, _HIDDEN),
        requests=view.requests,
        tokens=view.tokens,
        circuit=view.circuit,
    )


OTHERS = "(others)"
_HIDDEN = "a turn of another tenant goes first"


def _merged(shares: tuple[Share, ...], tenant: str) -> Iterator[Share]:
    others: dict[str, list[Share]] = {}
    for one in shares:
        if one.path[0] == tenant:
            yield one
        elif len(one.path) == 1:
            others.setdefault(one.priority, []).append(one)
    for priority, found in others.items():
        yield Share(
            priority,
            (OTHERS,),
            sum(one.weight for one in found),
            sum(one.waiting for one in found),
            sum(one.tokens for one in found),
            sum(one.deserved for one in found),
            sum(one.received for one in found),
        )


def to_dict(top: Top) -> dict[str, Json]:
    """As `schemas/v1/top.json` has it. Parts of a whole are in permille, since canonical JSON holds no fractions."""
    return {
        "now": top.now_ms,
        "window_ms": top.window_ms,
        "endpoints": [
            {
                "kind": one.kind,
                "name": one.name,
                "slots": one.slots,
                "circuit": one.circuit,
                "requests": _rate(one.requests),
                "tokens": _rate(one.tokens),
                "running": [
                    {
                        "turn": run.turn,
                        "session": run.session,
                        "path": list(run.path),
                        "class": run.priority,
                        "for_ms": run.for_ms,
                        "tokens": run.tokens,
                    }
                    for run in one.running
                ],
                "running_others": one.running_others,
                "queues": [
                    {
                        "class": queue.priority,
                        "waiting": queue.waiting,
                        "oldest_ms": queue.oldest_ms,
                        "admitted": queue.admitted,
                        "p50_ms": queue.p50_ms,
                        "p95_ms": queue.p95_ms,
                    }
                    for queue in one.queues
                ],
                "shares": [
                    {
                        "class": share.priority,
                        "path": list(share.path),
                        "weight": share.weight,
                        "waiting": share.waiting,
                        "tokens": share.tokens,
                        "deserved_permille": round(share.deserved * 1000),
                        "received_permille": round(share.received * 1000),
                    }
                    for share in one.shares
                ],
                "next": None
                if one.next is None
                else {
                    "session": one.next.session,
                    "path": list(one.next.path),
                    "class": one.next.priority,
                    "waited_ms": one.next.waited_ms,
                    "why": one.next.why,
                },
            }
            for one in top.endpoints
        ],
    }


def _rate(rate: Rate | None) -> Json:
    return None if rate is None else {"per_minute": rate.per_minute, "left": rate.left}
