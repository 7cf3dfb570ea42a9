"""What an endpoint did lately: how long turns waited and who received what, within a window of time.

    window = Window(length_ms=300_000)
    window.admitted("standard", waited_ms=120, now_ms=0)
    window.ended(("acme", "support", "triage"), "standard", tokens=412, now_ms=1800)
    window.waits("standard", now_ms=2000)                        # Waits(admitted=1, p50_ms=120, p95_ms=120)

It holds the newest `MOST` of each and drops what is older than the window; it decides nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from agentos.scheduler.share import Path

MOST: Final = 10_000
"""Admissions, and ends, that are held at most; with more in the window the oldest of them are left out."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the turns of one class waited that went out within the window; None where none did."""

    admitted: int
    p50_ms: int | None
    p95_ms: int | None


class Window:
    """See the module. The clock may stand still, and never goes back."""

    def __init__(self, length_ms: int) -> None:
        self.length_ms = length_ms
        self._admitted: deque[tuple[int, str, int]] = deque(maxlen=MOST)
        self._ended: deque[tuple[int, str, Path, int]] = deque(maxlen=MOST)

    def admitted(self, priority: str, *, waited_ms: int, now_ms: int) -> None:
        """A turn went out."""
        self._admitted.append((now_ms, priority, waited_ms))

    def ended(self, path: Path, priority: str, *, tokens: int, now_ms: int) -> None:
        """A turn ended, having used `tokens`."""
        self._ended.append((now_ms, priority, path, tokens))

    def waits(self, priority: str, now_ms: int) -> Waits:
        """Of the turns of a class that went out within the window."""
        self._drop(now_ms)
        found = sorted(waited for _, name, waited in self._admitted if name == priority)
        if not found:
            return Waits(0, None, None)
        return Waits(len(found), *(found[min(len(found) - 1, len(found) * part // 100)] for part in (50, 95)))

    def received(self, now_ms: int) -> dict[tuple[str, Path], int]:
        """Tokens by class and path (tenant, program, agent) of the turns that ended within the window."""
        self._drop(now_ms)
        sums: Counter[tuple[str, Path]] = Counter()
        for _, priority, path, tokens in self._ended:
            sums[priority, path] += tokens
        return dict(sums)

    def _drop(self, now_ms: int) -> None:
        since = now_ms - self.length_ms
        for held in (self._admitted, self._ended):
            while held and held[0][0] < since:
                held.popleft()
