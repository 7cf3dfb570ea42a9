"""What is declared about arbitration: endpoints with their limits and prices, routes of a model class, budgets, weights.

Values only. The composition root reads them from the declarations (kinds Model, ModelClass, PriorityClass, Tenant, Agent, Tool);
the kernel arbitrates by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from agentos.scheduler.arbiter import Limits, PriorityClass
from agentos.scheduler.share import Path

EndpointKey = tuple[str, str]
"""Tenant that declares the model, and its name there. Tenants that were lent a model share one endpoint."""

UNBOUNDED: Final = 1_000_000
"""Turns at one time of an endpoint for which no concurrency is declared."""


@dataclass(frozen=True, slots=True)
class Price:
    """Microdollars per million tokens (3 dollars per million tokens are 3,000,000)."""

    input: int = 0
    output: int = 0

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """What a call costs in microdollars, rounded up."""
        return -(-(input_tokens * self.input + output_tokens * self.output) // 1_000_000)

    def at(self, percent: int) -> Price:
        """`percent` of it, rounded up to a microdollar per million tokens."""
        return Price(-(-self.input * percent // 100), -(-self.output * percent // 100))


@dataclass(frozen=True, slots=True)
class Batch:
    """How calls of a class that never ages are collected: for so long or until so many are there.

    A call that is due sooner than in `expect_ms` does not wait for a batch. `percent`: what it costs of the price.
    """

    window_ms: int = 30_000
    most: int = 100
    expect_ms: int = 86_400_000
    percent: int = 100


@dataclass(frozen=True, slots=True)
class Circuit:
    """After so many failures in a row that an endpoint is to blame for, it is not asked for `open_ms`; then one call tries it."""

    failures: int = 5
    open_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is arbitrated about one model."""

    key: EndpointKey
    limits: Limits = field(default_factory=lambda: Limits(UNBOUNDED))
    price: Price = Price()
    circuit: Circuit = Circuit()
    context_tokens: int | None = None
    """The most tokens of a request with its answer; None: not declared."""
    max_output: int = 4096
    """The most tokens of one answer."""
    continues: bool = False
    """Whether the provider goes on from the beginning of an answer that it is shown."""
    batch: Batch | None = None
    """How calls that are not urgent are submitted together; None: each is asked by itself."""
    added_tokens: int = 0
    """The most tokens that the provider puts around any request."""


@dataclass(frozen=True, slots=True)
class When:
    """When a route of a model class holds; what is None or empty holds always.

    `steps`: `start` is a session's first model call, `continue` any later one. `max_tokens`: the request is estimated to have at
    most as many. `labels`: the session carries all of these; `without`: none of these. `max_output_price` bounds the models of
    the route: microdollars per million tokens of output.
    """

    steps: tuple[str, ...] = ()
    max_tokens: int | None = None
    labels: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    max_output_price: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Models to ask, in this order, when `when` holds."""

    models: tuple[str, ...]
    when: When = When()


@dataclass(frozen=True, slots=True)
class ModelClass:
    """A name such as `large` that stands for one of several models: the first route that holds says which."""

    name: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be used; None: not limited. `milliseconds`: wall time of calls. `bytes`: what calls write."""

    tokens: int | None = None
    microdollars: int | None = None
    calls: int | None = None
    milliseconds: int | None = None
    bytes: int | None = None

    def limits(self) -> dict[str, int]:
        """The limits that are set, by unit."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


STANDARD: Final = "standard"

BUILT_IN: Final = {
    one.name: one
    for one in (
        PriorityClass("interactive", rank=100, patience_ms=10_000),
        PriorityClass(STANDARD, rank=0),
        PriorityClass("batch", rank=-100, aging_ms=None, preemptible=True),
    )
}
"""Classes that are there without being declared; a PriorityClass of the same name takes the place of one."""


@dataclass(frozen=True, slots=True)
class Arbitration:
    """Everything that one tenant's declarations say about arbitration, at one revision."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict, hash=False)
    """By the name under which agents of the tenant know the model: its own, and those it was lent."""
    model_classes: Mapping[str, ModelClass] = field(default_factory=dict, hash=False)
    priorities: Mapping[str, PriorityClass] = field(default_factory=lambda: dict(BUILT_IN), hash=False)
    """Of the whole fleet, the same for every tenant."""
    allowed: frozenset[str] | None = None
    """The classes that agents and runs of the tenant may have; None: all."""
    deadlines: Mapping[str, int] = field(default_factory=dict, hash=False)
    """By class: how many ms after it comes a turn is due, unless its agent or its run says so; absent: never."""
    weights: Mapping[Path, int] = field(default_factory=dict, hash=False)
    """Of (tenant), (tenant, program), (tenant, program, agent); absent: 1."""
    tool_limits: Mapping[str, Limits] = field(default_factory=dict, hash=False)
    """Tools of the tenant with a limit of their own: calls at one time, calls a minute (`requests_per_minute`)."""
    per_session: Mapping[str, Budget] = field(default_factory=dict, hash=False)
    """By agent: what one session of it may use, with its descendants."""
    per_day: Mapping[tuple[str, str], Budget] = field(default_factory=dict, hash=False)
    """By kind and name, `("agent", "triage")`, `("program", "support")`, `("tenant", "")`: what may be used in one UTC day."""
    in_all: Mapping[tuple[str, str], Budget] = field(default_factory=dict, hash=False)
    """The same, for all time."""
