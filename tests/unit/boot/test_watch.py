"""A server that dies is started again, unless it dies again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.abi.errors import Unavailable
from agentos.boot.watch import RESTARTS, WITHIN_S, keep_alive


class Timer:
    def __init__(self) -> None:
        self.now_us = 0

    def now_ms(self) -> int:
        return self.now_us // 1000

    def monotonic_us(self) -> int:
        return self.now_us

    async def sleep(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


class Server:
    """Dies every `lives_s`; the starts in `refused` fail."""

    def __init__(self, timer: Timer, lives_s: float, *, lives: int = 1000, refused: tuple[int, ...] = ()) -> None:
        self._timer, self._lives_s, self._lives, self._refused = timer, lives_s, lives, refused
        self.starts = 0

    async def died(self) -> str:
        self._lives -= 1
        if self._lives < 0:
            raise StopAsyncIteration
        await self._timer.sleep(self._lives_s)
        return "signal 9"

    async def restart(self) -> None:
        self.starts += 1
        if self.starts in self._refused:
            raise Unavailable("the port is taken")


async def test_a_server_that_dies_now_and_then_is_started_for_ever() -> None:
    """It is a rate, not a number: a runtime that runs for a year may lose its server a hundred times."""
    timer = Timer()
    server = Server(timer, WITHIN_S / RESTARTS + 1, lives=100)
    with pytest.raises(StopAsyncIteration):
        await keep_alive(server, timer, Path("/home"))
    assert server.starts == 100


async def test_a_server_that_dies_at_once_is_given_up() -> None:
    """What starting again does not mend ends the runtime, which says where to look."""
    timer = Timer()
    server = Server(timer, 0.1)
    with pytest.raises(Unavailable, match=f"died {RESTARTS + 1} times within {WITHIN_S} s") as told:
        await keep_alive(server, timer, Path("/home"))
    assert server.starts == RESTARTS
    assert "/home/nats.log" in str(told.value.mend)


async def test_a_start_that_fails_is_tried_again() -> None:
    """Killed while it comes up: that counts as one more death."""
    timer = Timer()
    server = Server(timer, 1.0, lives=2, refused=(1, 2))
    with pytest.raises(StopAsyncIteration):
        await keep_alive(server, timer, Path("/home"))
    assert server.starts == 4
