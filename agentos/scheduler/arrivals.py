"""The oldest turn of a class that may go: those that a quota holds back are passed over, and lift nobody by their age.

Turns are kept by *domain*: the quotas that they are under. A domain is open while all of its quotas have a slot free. Only the
head of each open domain is compared, so that a thousand turns behind a quota cost no more than one. Every operation is O(log n).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from agentos.scheduler.share import Path

Domain = tuple[Path, ...]
"""Nodes with a quota that a turn is below, the topmost first; empty for most."""

_SLACK: Final = 64
"""Void entries that a heap may hold beside as many as it has valid ones."""


@dataclass(slots=True)
class _Line:
    """The turns of one domain: a heap of (came at, number, turn)."""

    heap: list[tuple[int, int, str]] = field(default_factory=list)
    shut: int = 0
    """How many quotas of it are used up."""
    shown: tuple[int, int] | None = None
    """The entry that stands for it among the heads."""


class Arrivals:
    """Turns of one class by when they came."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._here: dict[str, int] = {}
        self._lines: dict[Domain, _Line] = {}
        self._below: dict[Path, list[Domain]] = {}
        self._heads: list[tuple[int, int, Domain]] = []

    def add(self, turn: str, domain: Domain, at_ms: int, full: Callable[[Path], bool]) -> None:
        """A turn came. `full` says whether a quota is used up; it is asked for a domain that is new."""
        line = self._lines.get(domain)
        if line is None:
            line = self._lines[domain] = _Line(shut=sum(full(path) for path in domain))
            for path in domain:
                self._below.setdefault(path, []).append(domain)
        number = self._here[turn] = next(self._numbers)
        heapq.heappush(line.heap, (at_ms, number, turn))
        self._show(domain, line)

    def drop(self, turn: str, domain: Domain) -> None:
        """A turn waits no longer. Raises KeyError for one that did not."""
        del self._here[turn]
        line = self._lines[domain]
        if len(line.heap) > 2 * len(self._here) + _SLACK:
            line.heap = [entry for entry in line.heap if self._here.get(entry[2]) == entry[1]]
            heapq.heapify(line.heap)

    def shut(self, quota: Path, by: int) -> None:
        """A quota was used up (`by` 1), or has a slot again (`by` -1)."""
        for domain in self._below.get(quota, ()):
            line = self._lines[domain]
            line.shut += by
            self._show(domain, line)

    def oldest(self) -> str | None:
        """The turn that came first of those that no quota holds back; None when there is none."""
        while self._heads:
            at_ms, number, domain = self._heads[0]
            line = self._lines[domain]
            if line.shown == (at_ms, number):
                head = self._head(line)
                if not line.shut and head is not None and head[1] == number:
                    return head[2]
                line.shown = None
            heapq.heappop(self._heads)
            self._show(domain, line)
        return None

    def _head(self, line: _Line) -> tuple[int, int, str] | None:
        while line.heap:
            if self._here.get(line.heap[0][2]) == line.heap[0][1]:
                return line.heap[0]
            heapq.heappop(line.heap)
        return None

    def _show(self, domain: Domain, line: _Line) -> None:
        head = None if line.shut else self._head(line)
        if head is not None and line.shown != head[:2]:
            line.shown = head[:2]
            heapq.heappush(self._heads, (*head[:2], domain))
