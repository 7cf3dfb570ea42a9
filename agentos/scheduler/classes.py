"""Priority classes: how urgent the turns of one are, and by how much those of another have to be older to go first.

>>> head_starts({"high": PriorityClass("high", rank=1), "low": PriorityClass("low", aging_ms=1000)})
{'low': 0, 'high': 1000}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """How urgent a turn is. `rank`: higher goes first.

    `aging_ms` None: it never rises, and only gets what is left. `patience_ms`: how long one waits before it may take the slot of
    a `preemptible` one of lower rank; None: never. `slots`: the most of the endpoint that it may have at one time. `leave`:
    percent of the endpoint's rates that it may not use.
    """

    name: str
    rank: int = 0
    aging_ms: int | None = 60_000
    patience_ms: int | None = None
    preemptible: bool = False
    slots: int | None = None
    leave: int = 0

    @property
    def height(self) -> tuple[bool, int]:
        """What classes are compared by: one that does not age is below all that do, whatever its rank."""
        return self.aging_ms is not None, self.rank


def head_starts(classes: Mapping[str, PriorityClass]) -> dict[str, int]:
    """By how many ms the turns of each class that ages count as older than they are; the lowest by none.

    A turn goes before one of the next class that came `aging_ms` times the distance of their ranks later, and so on upwards,
    however many of those there are and however long they wait: nobody starves.
    """
    ages = sorted((one.rank, one.aging_ms, name) for name, one in classes.items() if one.aging_ms is not None)
    starts: dict[str, int] = {}
    start, below = 0, None
    for rank, aging_ms, name in ages:
        if below is not None:
            start += (rank - below[0]) * below[1]
        starts[name] = start
        # Of classes of one rank the one that ages slowest says how far the next is.
        below = (rank, aging_ms)
    return starts
