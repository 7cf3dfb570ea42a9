"""One case: some bytes are given to a target, and nothing but what is documented may come of it, soon, and without growing.

A target says what has to hold of its part of the product for any bytes whatever, and whether those were taken or refused. Whoever
runs cases, hypothesis or the guided fuzzer, runs them through `Watch`, which turns whatever went wrong into a `Finding`.
"""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"

MOST_SECONDS: Final = 1.0
"""Time of the processor that a case may take: a machine that others use as well does not make it longer."""

MOST_GROWTH: Final = 64 * 1024 * 1024
"""Bytes of memory that all cases of a target together may take beyond what the first ones took."""

SETTLED: Final = 50
"""Cases after which all that is made once (compiled schemas, caches) has been made."""

LONGEST: Final = 16 * 1024
"""Bytes of a case that is made up; seeds may be longer."""


class Broken(AssertionError):
    """Something that has to hold for any bytes did not."""


@dataclass(frozen=True, slots=True)
class Target:
    """A part of the product that reads what strangers wrote. `check` gives a word for what came of the bytes, or raises."""

    name: str
    check: Callable[[bytes], str]
    cases: int
    """How many the guided fuzzer runs of it in CI."""
    words: tuple[bytes, ...] = ()
    """What its input is made of."""
    taken: str = "taken"
    """The word for bytes that were believed; a run without any has tried nothing."""
    made: Callable[[], Sequence[bytes]] = tuple
    """Seeds beside those in its folder of the corpus, made from what the product writes itself."""
    longest: int = LONGEST

    def seeds(self) -> list[bytes]:
        """What cases are made from, the first ones to be run."""
        kept = sorted((CORPUS / self.name).iterdir()) if (CORPUS / self.name).is_dir() else []
        return [*(path.read_bytes() for path in kept), *self.made()]


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong, and the bytes that it went wrong with."""

    target: str
    what: str
    data: bytes

    def __str__(self) -> str:
        shown = self.data if len(self.data) <= 2000 else self.data[:2000] + b"..."
        return f"{self.target}: {self.what}\nwith {len(self.data)} bytes: {shown!r}"


@dataclass(slots=True)
class Watch:
    """Runs cases of a target, and looks at what each one takes."""

    target: Target
    cases: int = 0
    came: Counter[str] = field(default_factory=Counter)
    """How many cases had which outcome."""
    slowest: float = 0.0
    """Seconds of the processor."""
    settled: int = 0
    peak: int = 0

    def run(self, data: bytes) -> Finding | None:
        """One case; None where all is well."""
        began = time.process_time()
        try:
            came = self.target.check(data)
        except Broken as error:
            return Finding(self.target.name, f"it does not hold: {error}", data)
        except Exception:  # noqa: BLE001 - that any is a finding is the point
            return Finding(self.target.name, f"a traceback came out:\n{traceback.format_exc()}", data)
        took = time.process_time() - began
        if took > MOST_SECONDS:
            # What the collector or a first import took once is not what these bytes cost.
            took = min(self._again(data), self._again(data))
        self.cases += 1
        self.came[came] += 1
        self.slowest = max(self.slowest, took)
        if took > MOST_SECONDS:
            return Finding(self.target.name, f"it took {took:.1f} s of the processor", data)
        self.peak = _peak()
        if self.cases <= SETTLED:
            self.settled = self.peak
        elif self.peak - self.settled > MOST_GROWTH:
            return Finding(self.target.name, f"memory grew by {(self.peak - self.settled) >> 20} MiB", data)
        return None

    @property
    def growth(self) -> int:
        """Bytes that the process grew by since the first cases."""
        return self.peak - self.settled

    def _again(self, data: bytes) -> float:
        began = time.process_time()
        self.target.check(data)
        return time.process_time() - began


_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def _peak() -> int:
    """The most memory that this program has held; `getrusage` would tell that of the one which started it."""
    found = _PEAK.search(Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) * 1024 if found else 0
