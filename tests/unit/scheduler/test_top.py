"""How an endpoint stands: what runs, waits, was deserved and received, and who is next."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from agentos.scheduler.arbiter import Arbiter, Limits, Turn
from agentos.scheduler.declared import BUILT_IN, UNBOUNDED
from agentos.scheduler.top import OTHERS, EndpointView, Top, endpoint_view, only, to_dict
from agentos.scheduler.window import Window

SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "v1" / "top.json").read_text())
WEIGHTS = {("acme",): 3}


def turn(name: str, path: str, priority: str = "standard", at_ms: int = 0) -> Turn:
    tenant, program, agent = path.split("/")
    return Turn(name, f"s-{name}", (tenant, program, agent), priority, tokens=100, at_ms=at_ms)


def busy() -> EndpointView:
    """One slot, taken by acme; two of globex and one of acme wait; acme received 300 tokens, globex 100."""
    arbiter, window = (
        Arbiter("default/large", Limits(1, requests_per_minute=60, tokens_per_minute=6000), BUILT_IN),
        Window(60_000),
    )
    arbiter.weigh(("acme",), 3)
    for name, path in (("a1", "acme/desk/x"), ("g1", "globex/ops/y"), ("g2", "globex/ops/z"), ("a2", "acme/desk/x")):
        arbiter.enqueue(turn(name, path))
    first = arbiter.next(0)
    assert first is not None
    window.admitted(first.priority, waited_ms=first.waited_ms, now_ms=0)
    window.ended(("acme", "desk", "x"), "standard", tokens=300, now_ms=10)
    window.ended(("globex", "ops", "y"), "standard", tokens=100, now_ms=10)
    return endpoint_view("model", "default/large", arbiter, window, weights=WEIGHTS, now_ms=500)


def test_it_tells_who_runs_waits_deserves_and_is_next() -> None:
    view = busy()
    assert [(one.turn, one.for_ms) for one in view.running] == [("a1", 500)]
    assert [(one.priority, one.waiting, one.oldest_ms, one.admitted) for one in view.queues] == [("standard", 3, 500, 1)]
    shares = {one.path: one for one in view.shares}
    assert (shares["acme",].deserved, shares["acme",].received) == (0.75, 0.75)
    assert (shares["globex",].deserved, shares["globex",].received) == (0.25, 0.25)
    assert shares["globex", "ops", "z"].deserved == 0.125
    assert view.next is not None
    assert view.next.session == "s-g1"
    assert "furthest behind" in view.next.why
    assert view.requests is not None
    assert (view.requests.per_minute, view.requests.left) == (60, 59)


def test_looking_changes_nothing() -> None:
    """The turn that was told to be next is the one that goes."""
    arbiter = Arbiter("e", Limits(1), BUILT_IN)
    arbiter.enqueue(turn("one", "a/p/x"))
    arbiter.enqueue(turn("two", "b/p/x", "interactive"))
    views = [endpoint_view("model", "e", arbiter, Window(1), weights={}, now_ms=0) for _ in range(2)]
    assert views[0] == views[1]
    admitted = arbiter.next(0)
    assert admitted is not None
    assert views[0].next is not None
    assert views[0].next.session == admitted.turn.session == "s-two"


def test_a_tenant_sees_of_others_that_they_are_and_nothing_else() -> None:
    view = only(busy(), "globex")
    told = json.dumps(to_dict(Top(0, 1, (view,))))
    assert "acme" not in told
    assert "s-a1" not in told
    assert (view.running, view.running_others) == ((), 1)
    assert {one.path for one in view.shares if one.path[0] == OTHERS} == {(OTHERS,)}
    others = next(one for one in view.shares if one.path == (OTHERS,))
    assert (others.weight, others.waiting, others.tokens) == (3, 1, 300)
    assert view.next is not None
    assert view.next.session == "s-g1"
    hidden = only(busy(), "initech").next
    assert hidden is not None
    assert (hidden.session, hidden.path) == ("", (OTHERS,))


def test_the_document_is_what_its_schema_says() -> None:
    idle = endpoint_view("tool", "t/x", Arbiter("x", Limits(UNBOUNDED), BUILT_IN), Window(1), weights={}, now_ms=0)
    assert idle.slots is None
    jsonschema.validate(to_dict(Top(5, 60_000, (busy(), idle, only(busy(), "globex")))), SCHEMA)
