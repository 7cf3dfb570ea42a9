"""The circuit of an endpoint: when calls go out to one that fails."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentos.scheduler.circuit import LONGEST_REST_MS, Breaker, CircuitState
from agentos.scheduler.declared import Circuit

TWO = Circuit(failures=2, open_ms=1000)


def broken() -> Breaker:
    """One that has opened at 0."""
    one = Breaker(TWO)
    for _ in range(2):
        one.failed(0, tried=one.began(0))
    return one


def test_failures_in_a_row_open_it() -> None:
    """One answer between them and it stays closed; at the declared count nobody asks it any more."""
    one = Breaker(TWO)
    one.failed(0, tried=one.began(0))
    one.began(0)
    one.succeeded()
    one.failed(0, tried=one.began(0))
    assert (one.state(0), one.may(0), one.failures) == (CircuitState.CLOSED, True, 1)
    one.failed(0, tried=one.began(0))
    assert (one.state(0), one.may(999), one.may_at(5)) == (CircuitState.OPEN, False, 1000)


def test_one_call_tries_it() -> None:
    """Half open it lets one call out; its answer closes the circuit, its failure opens it anew from then."""
    one = broken()
    assert one.state(1000) is CircuitState.HALF_OPEN
    assert one.began(1000)
    assert (one.may(1500), one.may_at(1500)) == (False, None)
    one.failed(1600, tried=True)
    assert (one.may(2599), one.may(2600)) == (False, True)
    assert one.began(2600)
    one.succeeded()
    assert (one.state(2600), one.may(2600), one.began(2600)) == (CircuitState.CLOSED, True, False)


def test_a_try_that_was_stopped_leaves_it_to_another() -> None:
    """A call that ends without a word about the endpoint neither closes nor opens it."""
    one = broken()
    one.released(tried=one.began(1000))
    assert (one.state(1000), one.may(1000)) == (CircuitState.HALF_OPEN, True)


def test_calls_from_before_do_not_keep_it_open() -> None:
    """A failure of a call that began before the circuit opened moves nothing, and does not end the try either."""
    one = broken()
    one.failed(500, tried=False)
    assert one.may_at(500) == 1000
    assert one.began(1000)
    one.failed(1100, tried=False)
    assert (one.may_at(1100), one.state(1100)) == (None, CircuitState.HALF_OPEN)


def test_it_rests_when_it_asks_to() -> None:
    """An endpoint that says when to come again is left alone until then, at most a minute, whatever the count."""
    one = Breaker(TWO)
    one.failed(0, tried=one.began(0), retry_after_ms=300)
    assert (one.state(0), one.may(299), one.may(300)) == (CircuitState.CLOSED, False, True)
    one.succeeded()
    one.failed(400, tried=False, retry_after_ms=10**9)
    assert one.may_at(400) == 400 + LONGEST_REST_MS


@given(st.lists(st.tuples(st.sampled_from(["ask", "ok", "fail", "drop", "wait"]), st.integers(0, 1500)), max_size=60))
def test_it_never_stays_shut(steps: list[tuple[str, int]]) -> None:
    """Whatever happened: while no call tries it, some time lets a call out; and never are two calls trying it."""
    one, now, out = Breaker(TWO), 0, list[bool]()
    for step, pick in steps:
        if step == "wait":
            now += pick
        elif step == "ask" and one.may(now):
            out.append(one.began(now))
            assert sum(out) <= 1
        elif out:
            tried = out.pop(pick % len(out))
            match step:
                case "ok":
                    one.succeeded()
                case "fail":
                    one.failed(now, tried=tried)
                case _:
                    one.released(tried=tried)
        when = one.may_at(now)
        assert any(out) if when is None else one.may(max(when, now))
