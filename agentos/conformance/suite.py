"""Runs the cases against a harness and makes the report.

report = await check(Surroundings(sandboxes, launch, patience=10), all_cases())
report.passed, report.failed, report.to_dict()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agentos.abi import rpc
from agentos.abi.canonical import Json
from agentos.conformance.cases import Case, NotSeen
from agentos.conformance.frames import Failed
from agentos.conformance.process import Surroundings, started
from agentos.conformance.stage import Stage

AT_ONCE: Final = 4
"""Cases that are tried beside each other."""


class Verdict(StrEnum):
    """What came of a case."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case, tried. `why` is empty where it passed."""

    case: Case
    verdict: Verdict
    why: str
    ms: int

    def to_dict(self) -> dict[str, Json]:
        """For programs."""
        told = {"id": self.case.id, "group": self.case.group, "title": self.case.title, "verdict": str(self.verdict)}
        return {**told, "why": self.why, "ms": self.ms}


@dataclass(frozen=True, slots=True)
class Report:
    """All cases that were tried. `sandbox`: what set the harness apart, as a Sandbox declares it."""

    command: tuple[str, ...]
    sandbox: str
    outcomes: tuple[Outcome, ...]

    def number(self, verdict: Verdict) -> int:
        """How many cases came to it."""
        return sum(one.verdict is verdict for one in self.outcomes)

    @property
    def sound(self) -> bool:
        """Whether nothing failed, and something passed."""
        return self.number(Verdict.PASSED) > 0 and self.number(Verdict.FAILED) == 0

    def to_dict(self) -> dict[str, Json]:
        """For programs (`schemas/v1/harness-check.json`)."""
        tried = self.number(Verdict.PASSED) + self.number(Verdict.FAILED)
        return {
            "abi": rpc.ABI,
            "command": list(self.command),
            "sandbox": self.sandbox,
            "passed": self.number(Verdict.PASSED),
            "failed": self.number(Verdict.FAILED),
            "not_tried": self.number(Verdict.NOT_TRIED),
            "score": round(100 * self.number(Verdict.PASSED) / tried) if tried else 0,
            "cases": [one.to_dict() for one in self.outcomes],
        }


async def check(
    surroundings: Surroundings, cases: Sequence[Case], told: Callable[[Outcome], None] | None = None, at_once: int = AT_ONCE
) -> Report:
    """Try the cases, each with a fresh process; `told` hears of each as it ends.

    Raises SandboxUnavailable, DriverError, OSError.
    """
    seats, outcomes = asyncio.Semaphore(at_once), dict[str, Outcome]()

    async def one(case: Case) -> None:
        async with seats:
            outcomes[case.id] = await attempt(case, surroundings)
            if told is not None:
                told(outcomes[case.id])

    try:
        async with asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(one(case))
    except ExceptionGroup as several:
        # All of them could not be started for the same reason.
        raise several.exceptions[0] from None
    launch = surroundings.launch
    return Report(launch.command, str(launch.profile.isolation), tuple(outcomes[case.id] for case in cases))


async def attempt(case: Case, surroundings: Surroundings) -> Outcome:
    """Try one case."""
    begun, verdict, why = time.monotonic_ns(), Verdict.PASSED, ""
    async with started(surroundings) as harness:
        stage = Stage(harness)
        try:
            await case.play(stage)
            await stage.end()
        except Failed as failed:
            verdict, why = Verdict.FAILED, str(failed)
        except NotSeen as unseen:
            verdict, why = Verdict.NOT_TRIED, str(unseen)
        except TimeoutError:
            verdict, why = Verdict.FAILED, f"it said nothing for {harness.patience:g} s"
    return Outcome(case, verdict, why, (time.monotonic_ns() - begun) // 1_000_000)
