"""What a change permits in shares, limits and budgets that was not permitted before: sentences for `registry.widening`.

A limit that is raised or taken away, a share that grows, a class that goes before others. That others get less, because somebody
gets more, is not said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from agentos.abi.canonical import Json
from agentos.policy.data import DEFAULT_CALLS, DEFAULT_TOKENS
from agentos.registry.diff import same
from agentos.registry.priority import priority_class
from agentos.scheduler.classes import PriorityClass
from agentos.scheduler.declared import BUILT_IN, STANDARD

Spec = Mapping[str, Json]

_UNITS: Final = ("calls", "tokens", "dollars", "seconds", "bytes")
_SPANS: Final = (("perDay", " a day"), ("total", " in all"))
_NOTHING: Final[Spec] = {}
_PER_SESSION: Final = {"calls": DEFAULT_CALLS, "tokens": DEFAULT_TOKENS}
"""What a session may use where its agent does not say."""


def of_agent(before: Spec, after: Spec) -> Iterator[str]:
    """The agent's budget, share, program and class. How one class stands to another is not known here: any other one counts."""
    old, new = before.get("budget", _NOTHING), after.get("budget", _NOTHING)
    yield from _amounts(_PER_SESSION | old, _PER_SESSION | new, "", "")
    yield from _amounts(old.get("perDay", _NOTHING), new.get("perDay", _NOTHING), "", " a day")
    yield from _weight(before, after, "")
    for name, what, default in (
        ("priorityClass", "is of priority class", STANDARD),
        ("program", "belongs to program", "default"),
    ):
        one, other = before.get(name, default), after.get(name, default)
        if one != other:
            yield f"{what} {other} (was {one})"


def lent(before: Spec, after: Spec) -> Iterator[str]:
    """Models of the default tenant that a tenant may use."""
    more = [name for name in after.get("models", ()) if name not in before.get("models", ())]
    if more:
        yield f"may use {', '.join(more)} of tenant default, with the limits and the key of others"


def of_tenant(before: Spec, after: Spec) -> Iterator[str]:
    """Budgets and shares of a tenant and its programs, and the classes that it may have."""
    yield from _weight(before, after, "")
    yield from _budget(before, after, "")
    old, new = before.get("programs", _NOTHING), after.get("programs", _NOTHING)
    for name in sorted({*old, *new}):
        yield from _weight(old.get(name, _NOTHING), new.get(name, _NOTHING), f"program {name} ")
        yield from _budget(old.get(name, _NOTHING), new.get(name, _NOTHING), f"program {name} ")
    allowed, now = before.get("priorityClasses"), after.get("priorityClasses")
    if allowed is not None and now is None:
        yield f"may have any priority class (was {', '.join(allowed)})"
    elif allowed is not None and now is not None and (gained := [name for name in now if name not in allowed]):
        yield f"may have the priority classes {', '.join(gained)} too"


def of_model(before: Spec, after: Spec) -> Iterator[str]:
    """The limits of an endpoint, and its price, by which budgets in dollars are counted."""
    what = {"concurrency": "calls at one time", "requestsPerMinute": "calls a minute", "tokensPerMinute": "tokens a minute"}
    yield from _limits(before, after, what)
    old, new = before.get("price", _NOTHING), after.get("price", _NOTHING)
    for name, tokens in (("inputPerMillion", "input"), ("outputPerMillion", "output")):
        if name in old and Decimal(new.get(name, "0")) < Decimal(old[name]):
            yield f"a million tokens of {tokens} count as {new.get(name, '0')} dollars (was {old[name]})"


def of_model_class(before: Spec, after: Spec) -> Iterator[str]:
    """The models that a class may stand for; of other routes to the same models it cannot be told what they permit."""
    old, new = (list(dict.fromkeys(model for route in side["routes"] for model in route["models"])) for side in (before, after))
    more = [model for model in new if model not in old]
    if more:
        yield f"may stand for {', '.join(more)} too"
    elif not same(before["routes"], after["routes"]):
        yield "chooses among its models by other rules"


def of_tool(before: Spec, after: Spec) -> Iterator[str]:
    """How often a tool may be called, and whether its calls may run at once."""
    yield from _limits(before, after, {"concurrency": "calls at one time", "callsPerMinute": "calls a minute"})
    if after.get("commutes", False) and not before.get("commutes", False):
        yield "calls of one turn may run at once"


def of_priority_class(name: str, before: Spec | None, after: Spec | None) -> Iterator[str]:
    """What turns of a class may do that they could not. One that is built in takes the place of one that is not declared."""
    old, new = (BUILT_IN.get(name) if side is None else priority_class(name, side) for side in (before, after))
    if old is None or new is None:
        return
    if new.rank > old.rank:
        yield f"goes before others with rank {new.rank} (was {old.rank})"
    if old.aging_ms is None and new.aging_ms is not None:
        yield "no longer takes only what others leave"
    elif old.aging_ms is not None and new.aging_ms is not None and new.aging_ms < old.aging_ms:
        yield f"rises by a rank for each {new.aging_ms // 1000} s (was {old.aging_ms // 1000} s)"
    if old.preemptible and not new.preemptible:
        yield "is no longer cut off for others"
    yield from _patience(old, new)
    if old.slots is not None and (new.slots is None or new.slots > old.slots):
        yield f"may run {'any number of' if new.slots is None else new.slots} calls of an endpoint at one time (was {old.slots})"
    if new.leave < old.leave:
        yield f"leaves {new.leave} percent of the rates to others (was {old.leave})"


def _patience(old: PriorityClass, new: PriorityClass) -> Iterator[str]:
    if new.patience_ms is not None and (old.patience_ms is None or new.patience_ms < old.patience_ms):
        was = "never" if old.patience_ms is None else f"{old.patience_ms // 1000} s"
        yield f"takes the place of others after {new.patience_ms // 1000} s (was {was})"


def _weight(before: Spec, after: Spec, who: str) -> Iterator[str]:
    old, new = before.get("weight", 1), after.get("weight", 1)
    if new > old:
        yield f"{who}has a share of weight {new} (was {old})"


def _budget(before: Spec, after: Spec, who: str) -> Iterator[str]:
    old, new = before.get("budget", _NOTHING), after.get("budget", _NOTHING)
    for name, span in _SPANS:
        yield from _amounts(old.get(name, _NOTHING), new.get(name, _NOTHING), who, span)


def _amounts(old: Spec, new: Spec, who: str, span: str) -> Iterator[str]:
    for unit in _UNITS:
        if unit in old and unit not in new:
            yield f"{who}has no budget of {unit}{span} any more (was {old[unit]})"
        elif unit in old and Decimal(new[unit]) > Decimal(old[unit]):
            yield f"{who}may spend {new[unit]} {unit}{span} (was {old[unit]})"


def _limits(before: Spec, after: Spec, what: Mapping[str, str]) -> Iterator[str]:
    old, new = before.get("limits", _NOTHING), after.get("limits", _NOTHING)
    for name, calls in what.items():
        if name in old and name not in new:
            yield f"takes any number of {calls} (was {old[name]})"
        elif name in old and new[name] > old[name]:
            yield f"takes {new[name]} {calls} (was {old[name]})"
