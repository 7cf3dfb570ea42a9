"""What can go wrong with an append, as a port: the log in memory asks before each one, so that a simulation can plan it.

    log = MemoryLog(faults=Seeded(7, lost=0.01, unanswered=0.01, delay=4))
    log = MemoryLog(faults=Script([Fault(Kind.UNANSWERED)]))            # the first append is stored, its caller is not told

A seed and the same appends in the same order give the same faults. What a real server does is shown by the conformance body
(`tests/integration/eventlog/test_log_faults.py`): both adapters fail alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol


class Kind(Enum):
    """How an append fails. In each case its caller gets LogUnavailable."""

    LOST = "lost"
    """Nothing is stored."""

    UNANSWERED = "unanswered"
    """All of it is stored."""

    FULL = "full"
    """There is no room. Nothing is stored."""

    TORN = "torn"
    """There was no room in the middle of it: its first message is stored, nothing of an append of one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one append: how it fails (None: it does not), and for how many turns of the event loop it is under way.

    Appends to other subjects overtake a delayed one; those to its own subject wait behind it.
    """

    kind: Kind | None = None
    delay: int = 0


NONE: Final = Fault()


class Faults(Protocol):
    """Decides the fate of appends."""

    def next(self, subject: str, messages: int) -> Fault:
        """What happens to the next append: of so many messages, to `subject`."""


class Script:
    """The faults of a list, one append after the other; nothing fails behind its end."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults: Iterator[Fault] = iter(faults)

    def next(self, subject: str, messages: int) -> Fault:
        """See `Faults.next`."""
        return next(self._faults, NONE)


class Seeded:
    """Faults at random. `lost`, `unanswered`, `full` and `torn` are probabilities; `delay` is the longest delay in turns."""

    def __init__(
        self, seed: int, *, lost: float = 0.0, unanswered: float = 0.0, full: float = 0.0, torn: float = 0.0, delay: int = 0
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation has to repeat itself
        self._kinds = (Kind.LOST, Kind.UNANSWERED, Kind.FULL, Kind.TORN, None)
        self._weights = (lost, unanswered, full, torn, 1.0 - lost - unanswered - full - torn)
        if min(self._weights) < 0:
            raise ValueError("probabilities lie between 0 and 1, and so does their sum")
        self._delay = delay

    def next(self, subject: str, messages: int) -> Fault:
        """See `Faults.next`."""
        (kind,) = self._random.choices(self._kinds, self._weights)
        return Fault(kind, self._random.randint(0, self._delay))
