"""Refused delegations in the audit chain: all are counted, and however many come, one event a minute is made of them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from agentos.abi.errors import LogUnavailable
from agentos.abi.event import Event
from agentos.audit.audit_chain import AuditChain
from agentos.boot.refusals import EVERY_S, Refusals
from agentos.eventlog.adapters.faults import Fault, Kind, Script
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.subject import AUDIT_CHAIN


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.ms = 1_000
        self.slept: list[float] = []
        self.woken = asyncio.Event()

    def now_ms(self) -> int:
        return self.ms

    def monotonic_us(self) -> int:
        return self.ms * 1000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.woken.wait()
        self.woken.clear()


class Seeded:
    def __init__(self) -> None:
        self._random = random.Random(3)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class Desk:
    """Refusals over a log in memory."""

    def __init__(self) -> None:
        self.log, self.clock = MemoryLog(), Clock()
        chain = AuditChain(self.log, "acme", self.clock, Seeded())
        self.refusals = Refusals(lambda _: chain, lambda _: 4, self.clock)

    async def told(self) -> list[tuple[str, int, int, int]]:
        """Code, count, first and last of each event."""
        events = [Event.from_bytes(stored.data) async for stored in self.log.read(AUDIT_CHAIN)]
        return [tuple(event.data[name] for name in ("code", "count", "first_ms", "last_ms")) for event in events]

    async def minute(self) -> None:
        self.clock.woken.set()
        await self.breathe()

    async def breathe(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
async def desk() -> Any:
    made = Desk()
    yield made
    await made.refusals.close()


async def test_a_flood_is_one_event_a_minute(desk: Desk) -> None:
    """The first at once; thousands within the minute together at its end, code after code, with their times."""
    desk.refusals.count("acme", "delegation.forged", "no")
    await desk.breathe()
    assert await desk.told() == [("delegation.forged", 1, 1_000, 1_000)]
    for number in range(2_000):
        desk.clock.ms += 1
        desk.refusals.count("acme", "delegation.forged" if number % 2 else "delegation.sender", "no")
    await desk.breathe()
    assert len(await desk.told()) == 1
    await desk.minute()
    assert (await desk.told())[1:] == [("delegation.sender", 1_000, 1_001, 2_999)]
    await desk.minute()
    assert (await desk.told())[2:] == [("delegation.forged", 1_000, 1_002, 3_000)]
    assert set(desk.clock.slept) == {EVERY_S}


async def test_what_waits_for_its_minute_is_told_at_the_end(desk: Desk) -> None:
    """A runtime that stops leaves nothing uncounted."""
    for code in ("a", "b", "a", "c"):
        desk.refusals.count("acme", code, "no")
        await desk.breathe()
    await desk.refusals.close()
    assert [(code, count) for code, count, _, _ in await desk.told()] == [("a", 1), ("b", 1), ("a", 1), ("c", 1)]


async def test_a_log_that_is_away_loses_no_count(desk: Desk) -> None:
    """What could not be stored is told with what came since."""
    desk.log._faults = Script([Fault(Kind.LOST)])
    desk.refusals.count("acme", "a", "no")
    await desk.breathe()
    assert await desk.told() == []
    desk.clock.ms = 2_000
    desk.refusals.count("acme", "a", "no")
    await desk.minute()
    assert await desk.told() == [("a", 2, 1_000, 2_000)]


async def test_a_chain_that_cannot_be_had_yet_loses_no_count(desk: Desk) -> None:
    """A runtime that is not ready: counted on, told later, and its end is not held up."""
    chain, ready = desk.refusals._chain, False

    def later(tenant: str) -> AuditChain:
        if not ready:
            raise LogUnavailable("not ready")
        return chain(tenant)

    desk.refusals._chain = later
    desk.refusals.count("acme", "a", "no")
    await desk.breathe()
    async with asyncio.timeout(10):
        await desk.refusals.close()
    ready = True
    await desk.refusals.close()
    assert [(code, count) for code, count, _, _ in await desk.told()] == [("a", 1)]
