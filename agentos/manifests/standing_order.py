"""The order in which standing agents are begun: what they name stands too, and nobody waits for himself in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Final

from agentos.manifests.document import Document
from agentos.manifests.fault import Path, Problem, shown

ORDERS: Final = ("after", "requires")
"""Fields of `spec.standing` that name agents that are begun first."""

_Edges = dict[str, dict[str, Path]]
"""By agent: whom it names, and where."""


def check_standing(documents: Sequence[Document]) -> Iterator[tuple[Document, Problem]]:
    """Problems between the standing agents of each tenant; references that lead nowhere are told elsewhere."""
    tenants: dict[str, dict[str, Document]] = {}
    for document in documents:
        if document.kind == "Agent":
            tenants.setdefault(document.tenant, {}).setdefault(document.name, document)
    for agents in tenants.values():
        edges = {name: dict(_edges(document)) for name, document in agents.items()}
        yield from _check_named(agents, edges)
        yield from _check_circles(agents, edges)


def _edges(document: Document) -> Iterator[tuple[str, Path]]:
    standing = document.spec.get("standing")
    for field in ORDERS:
        named = standing.get(field) if isinstance(standing, dict) else None
        for index, name in enumerate(named if isinstance(named, list) else ()):
            if isinstance(name, str):
                yield name, ("spec", "standing", field, index)


def _check_named(agents: Mapping[str, Document], edges: _Edges) -> Iterator[tuple[Document, Problem]]:
    for agent, named in edges.items():
        for name, path in named.items():
            if name in agents and "standing" not in agents[name].spec:
                message = f"agent {shown(name)} is no standing agent, so nothing can be begun after it"
                yield agents[agent], Problem("agent.standing", path, message, f"declare spec.standing of {name}, or remove it")


def _check_circles(agents: Mapping[str, Document], edges: _Edges) -> Iterator[tuple[Document, Problem]]:
    graph = {agent: [name for name in named if name in agents] for agent, named in edges.items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            # Each comes before the next, and the first stands at the end again.
            circle: list[str] = list(reversed(error.args[1]))
            agent, name = min(pairwise(circle))
            way = " → ".join([*_from(circle[:-1], agent), agent])
            message = f"these agents are to be begun after each other: {way}"
            yield agents[agent], Problem("agent.order", edges[agent][name], message, "remove one of these references")
            graph[agent] = [one for one in graph[agent] if one != name]
        else:
            return


def _from(circle: Sequence[str], first: str) -> list[str]:
    """The circle, begun at `first`."""
    place = circle.index(first)
    return [*circle[place:], *circle[:place]]
