"""Routing: which models a call may go to."""

from __future__ import annotations

from agentos.scheduler.declared import Arbitration, Endpoint, ModelClass, Price, Route, When
from agentos.scheduler.routing import Asked, models_for

ENDPOINTS = {
    "small": Endpoint(("a", "small"), price=Price(output=1_000_000), context_tokens=1000),
    "large": Endpoint(("a", "large"), price=Price(output=15_000_000)),
    "house": Endpoint(("a", "house")),
}


def routed(*routes: Route, **asked: object) -> tuple[str, ...]:
    declared = Arbitration(endpoints=ENDPOINTS, model_classes={"any": ModelClass("any", routes)})
    return models_for("any", declared, Asked(**{"first": True, **asked}))  # type: ignore[arg-type]


def test_a_model_stands_for_itself() -> None:
    """A name that is no class is not routed."""
    assert models_for("large", Arbitration(endpoints=ENDPOINTS), Asked(first=True)) == ("large",)


def test_the_first_route_that_holds() -> None:
    """Routes are tried in order; each condition has to hold, one that is left out always does."""
    start, rest = Route(("small",), When(steps=("start",), max_tokens=100)), Route(("large", "small", "large"))
    assert routed(start, rest, tokens=100) == ("small",)
    assert routed(start, rest, tokens=101) == ("large", "small")
    assert routed(start, rest, first=False, tokens=5) == ("large", "small")
    assert routed(start, tokens=101) == ()


def test_data_stays_where_it_may_go() -> None:
    """A route for labelled data takes sessions with all of the labels; one without them none that carries one."""
    routes = Route(("house",), When(labels=frozenset({"pii"}))), Route(("large",), When(without=frozenset({"secret", "pii"})))
    assert routed(*routes, labels=frozenset({"pii", "x"})) == ("house",)
    assert routed(*routes, labels=frozenset({"x"})) == ("large",)
    assert routed(*routes, labels=frozenset({"secret"})) == ()


def test_models_that_do_not_fit_are_passed_over() -> None:
    """Beyond the price ceiling, beyond the context, or not declared: the next model of the route, then the next route."""
    cheap = Route(("large", "small"), When(max_output_price=1_000_000))
    assert routed(cheap) == ("small",)
    assert routed(cheap, tokens=900, output=101) == ()
    assert routed(cheap, Route(("gone", "house")), tokens=2000) == ("house",)
