"""The clock of all questions: what is over is ended once, what cannot be ended holds up nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentos.abi.errors import ChainBroken
from agentos.boot.expiry import LEAVE_MS, Expiry
from agentos.projections import read


class Timer:
    def __init__(self) -> None:
        self.ms = 0
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ms += round(seconds * 1000)
        if self.ms > 3000:
            raise KeyboardInterrupt


class Sessions:
    """Ends every session but the broken one."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    async def expire(self, tenant: str, session: str) -> bool:
        self.ended.append((tenant, session))
        if session == "s-broken":
            raise ChainBroken("its chain is broken")
        return True


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What waits, and until when."""
    waiting: dict[str, int] = {}

    def due(_store: Path, *, now_ms: int) -> tuple[list[str], int | None]:
        over = sorted(name for name, ends in waiting.items() if ends <= now_ms)
        return over, min((ends for ends in waiting.values() if ends > now_ms), default=None)

    monkeypatch.setattr(read, "due", due)
    return waiting


def clock(sessions: Sessions, timer: Timer) -> Expiry:
    tenants: Any = SimpleNamespace(all=lambda: [SimpleNamespace(name="default", store=None)])
    kernel: Any = sessions
    return Expiry(kernel, tenants, timer)  # type: ignore[arg-type]


async def test_it_looks_every_second_and_when_the_next_question_ends(questions: dict[str, int]) -> None:
    """A question that ends between two looks is looked at when it ends."""
    questions |= {"s-soon": 1400}
    timer, sessions = Timer(), Sessions()
    with pytest.raises(KeyboardInterrupt):
        await clock(sessions, timer).run()
    assert timer.slept[:2] == [1.0, 0.4]
    assert sessions.ended[0] == ("default", "s-soon")


async def test_what_cannot_be_ended_is_left_alone_for_a_while(questions: dict[str, int]) -> None:
    """It holds up no other, and is tried again later."""
    questions |= {"s-broken": 1, "s-sound": 2}
    timer, sessions = Timer(), Sessions()
    timer.ms = 10
    expiry = clock(sessions, timer)
    assert await expiry.look() is None
    assert sessions.ended == [("default", "s-broken"), ("default", "s-sound")]
    del questions["s-sound"]
    await expiry.look()
    assert len(sessions.ended) == 2
    timer.ms += LEAVE_MS
    await expiry.look()
    assert sessions.ended[2:] == [("default", "s-broken")]
