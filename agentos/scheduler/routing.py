"""Routing: which models a call may go to, in which order. A model class such as `large` names them by declared routes.

    models_for("large", arbitration, Asked(first=True, tokens=900))      # ("claude", "spare")

The first route that holds is taken, and of it the models that the call fits and whose price is within the ceiling. A name that
is no class is a model, and stands for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentos.scheduler.declared import Arbitration, When


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a call before it is routed. `tokens` is the estimate of its request, `output` that of its answer."""

    first: bool
    """Whether it is the session's first model call."""
    tokens: int = 0
    output: int = 0
    labels: frozenset[str] = frozenset()


def models_for(name: str, arbitration: Arbitration, asked: Asked) -> tuple[str, ...]:
    """The models that a call to `name` may go to, the first choice first; empty when no route of a class holds."""
    declared = arbitration.model_classes.get(name)
    if declared is None:
        return (name,)
    for route in declared.routes:
        if _holds(route.when, asked):
            found = tuple(model for model in dict.fromkeys(route.models) if _takes(model, route.when, arbitration, asked))
            if found:
                return found
    return ()


def _holds(when: When, asked: Asked) -> bool:
    step = "start" if asked.first else "continue"
    return (
        (not when.steps or step in when.steps)
        and (when.max_tokens is None or asked.tokens <= when.max_tokens)
        and when.labels <= asked.labels
        and not when.without & asked.labels
    )


def _takes(model: str, when: When, arbitration: Arbitration, asked: Asked) -> bool:
    """Whether a model of a route is within its price ceiling and has room for the call."""
    endpoint = arbitration.endpoints.get(model)
    if endpoint is None:
        return False
    if when.max_output_price is not None and endpoint.price.output > when.max_output_price:
        return False
    return endpoint.context_tokens is None or asked.tokens + asked.output <= endpoint.context_tokens
