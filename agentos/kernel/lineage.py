"""Who pays with a session that was delegated to: the sessions above it, and what each of them was given.

    paying = paying_with(state)          # of a child: its parent first, the top last
    delegated |= given_to_child(parent.state, {"tokens": 5000})

A call of a descendant is paid by every session above it, so each of their limits has to be known where only the descendant is.
The agents stand in `delegated.delegators`. What a session was given itself stands in its own `delegated.budget`; what those above
it were given is copied down as `delegated.budgets`, by session. Both come from the log, so they are the same after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken
from agentos.projections.session_state import SessionState
from agentos.scheduler.budget import UNITS

Amounts = Mapping[str, int]
"""Amounts by unit, one of `UNITS`; a unit that is left out is not limited."""


@dataclass(frozen=True, slots=True)
class Paying:
    """Of one session. `lineage`: the sessions above it, its parent first. `agents`: which agent each of those runs.

    `given`: by session, itself among them, what it was given when it was delegated to; absent: nothing was said.
    """

    lineage: tuple[str, ...] = ()
    agents: Mapping[str, str] = field(default_factory=dict, hash=False)
    given: Mapping[str, Amounts] = field(default_factory=dict, hash=False)


ALONE: Final = Paying((), MappingProxyType({}), MappingProxyType({}))
"""Of a session that nobody delegated to."""


def paying_with(state: SessionState) -> Paying:
    """Who pays for the calls of a session.

    Raises ChainBroken for a record of another shape: overlooked, it would let more through.
    """
    if state.delegated is None:
        return ALONE
    try:
        return _paying(state.id, state.delegated)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ChainBroken(f"who pays for a session cannot be told: {error!r}", where=state.id) from error


def _paying(session: str, delegated: Mapping[str, Json]) -> Paying:
    lineage = tuple(str(name) for name in reversed(delegated["lineage"]))
    agents = {str(one["session"]): str(one["agent"]) for one in delegated["delegators"]}
    if agents.keys() != set(lineage) or not lineage:
        raise ValueError("its delegators are not those of its lineage")
    given = {str(name): _amounts(one) for name, one in delegated.get("budgets", {}).items()}
    if (own := delegated.get("budget")) is not None:
        given[session] = _amounts(own)
    return Paying(lineage, agents, given)


def given_to_child(parent: SessionState, budget: Amounts | None) -> dict[str, Json]:
    """The fields `budget` and `budgets` of the `delegated` of a child to which `parent` gives `budget` (None: nothing is said).

    Raises ChainBroken as `paying_with`, and ValueError for what is no amount of a unit.
    """
    above = paying_with(parent).given
    told: dict[str, Json] = {"budget": None if budget is None else dict(_amounts(budget))}
    return told | ({"budgets": {name: dict(one) for name, one in above.items()}} if above else {})


def _amounts(told: Mapping[str, Json]) -> dict[str, int]:
    for unit, amount in told.items():
        if unit not in UNITS or type(amount) is not int or amount < 0:
            raise ValueError(f"{amount!r} {unit} is no amount that can be given")
    return dict(told)
