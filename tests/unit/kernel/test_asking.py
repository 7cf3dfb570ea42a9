"""What a model call is charged to the share of who made it, whatever came of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentos.abi.errors import DriverError
from agentos.kernel.admission import Admissions, Request
from agentos.kernel.asking import PREEMPTED, used_by
from agentos.projections.session import Call, Step
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.declared import Arbitration, Endpoint
from agentos.scheduler.estimate import Expected

EXPECTED = Expected(100, 40)
ONE = ("default", "one")


def call(step: Step, *, error: dict[str, Any] | None = None, result: dict[str, Any] | None = None) -> Call:
    return Call("model-1", "model-call", {}, "", step, 1, error=error, result=result)


REPLY = call(Step.FINISHED, result={"data": {"input_tokens": 12, "output_tokens": 3}})
PARTLY = call(Step.FAILED, error={"code": PREEMPTED, "partial": "x" * 8})
FAILED = call(Step.FAILED, error={"code": DriverError.code})


@pytest.mark.parametrize(
    ("made", "billed", "lost", "used"),
    [
        (REPLY, (12, 3), False, 15),
        (FAILED, (12, 3), False, 15),
        (PARTLY, None, True, 102),
        (FAILED, None, True, 140),
        (FAILED, None, False, 0),
        (call(Step.UNKNOWN), None, True, 140),
        (call(Step.DENIED), None, False, 0),
    ],
)
async def test_a_call_that_failed_is_charged_what_the_provider_bills(
    made: Call, billed: tuple[int, int] | None, lost: bool, used: int
) -> None:
    """A reply of no use costs what was counted; one that broke off what was expected; one that was refused nothing."""
    admissions = Admissions(_Timer())
    admissions.declare("default", Arbitration(endpoints={"one": Endpoint(ONE, Limits(1))}))
    with await admissions.admit(Request("default", "s", "c", "a", "standard", (ONE,))) as ticket:
        ticket.billed, ticket.lost = billed, lost
        assert used_by(made, EXPECTED, ticket) == used


class _Timer:
    """Time that stands still."""

    def now_ms(self) -> int:
        return 1_795_000_000_000

    def monotonic_us(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()
