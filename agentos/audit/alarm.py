"""What shows that a log is not what it was, in words: a stream or the checkpoints were cut, rewritten, or are gone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alarm:
    """What shows that the log is not what it was: which check saw it (`streams`, `checkpoints`), where, and what it is."""

    check: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Found(Exception):
    """Carries an alarm to where it is raised. Never seen outside of `agentos.audit`."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(str(alarm))
        self.alarm = alarm


def gap(stream: str, expected: int, found: int) -> Alarm:
    """What a jump of the positions of `stream` from below `expected` to `found` says."""
    missing = f"position {expected}" if found == expected + 1 else f"positions {expected} to {found - 1}"
    return Alarm("streams", f"{stream} position {expected}", f"{missing}: what was stored here is missing, it was deleted")


def cut(stream: str, end: int, said: str) -> Alarm:
    """What a stream says that ends at `end`, before what was there; `said` tells how much that was."""
    if end == 0:
        return Alarm("streams", stream, f"the stream is empty or gone and was not retired, {said}: it was deleted")
    return Alarm("streams", f"{stream} position {end + 1}", f"the stream ends at {end}, {said}: it was cut")


def rewritten(stream: str, size: int) -> Alarm:
    """What the first `size` events say that do not lead to the signed root."""
    return Alarm("streams", stream, f"its first {size} events are not those that were signed: the stream was rewritten")
