"""What a firing does while earlier runs of its trigger are not over. Pure.

>>> overlapping(Overlap.SKIP, ["s-1"])
Skip(why='run s-1 is not over')
>>> overlapping(Overlap.QUEUE, ["s-1"])
Start(after=('s-1',), replaces=())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentos.kernel.firing import Overlap

MOST_QUEUED: Final = 100
"""Runs that wait in line for the one that runs; what comes then is skipped."""


@dataclass(frozen=True, slots=True)
class Start:
    """A run is started: it begins once those in `after` are over; those in `replaces` are cancelled before."""

    after: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """No run is started."""

    why: str


def overlapping(overlap: Overlap, live: Sequence[str]) -> Start | Skip:
    """`live` are the runs that are not over, those that wait in line among them, the oldest first."""
    if not live or overlap is Overlap.ALLOW:
        return Start()
    match overlap:
        case Overlap.SKIP:
            more = f", and {len(live) - 1} more" if len(live) > 1 else ""
            return Skip(f"run {live[0]} is not over{more}")
        case Overlap.QUEUE if len(live) > MOST_QUEUED:
            return Skip(f"{MOST_QUEUED} runs wait in line already")
        case Overlap.QUEUE:
            return Start(after=tuple(live))
        case Overlap.REPLACE:
            return Start(replaces=tuple(live))
