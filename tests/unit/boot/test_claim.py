"""The claim to an account: one that answers keeps others out, one that stands still loses it and ends; silence proves nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from agentos.abi.errors import Conflict, LogUnavailable
from agentos.boot.claim import BUCKET, KEY, LOOK_S, PING, Claim, make_claim


class Dice:
    def token(self, size: int) -> bytes:
        return bytes(range(size))


@dataclass
class Entry:
    revision: int


@dataclass
class Account:
    """An account on a server of somebody else's: its one entry, and whether another runtime answers, or nothing does."""

    answers: bool = False
    silent: Exception = field(default_factory=NoRespondersError)
    away: Exception | None = None
    revision: int = 0
    puts: list[bytes] = field(default_factory=list)
    connected_url: Any = None

    async def request(self, subject: str, _data: bytes, *, timeout: float) -> bytes:
        assert (subject, timeout > 0) == (PING, True)
        if not self.answers:
            raise self.silent
        return b"{}"

    def jetstream(self) -> Account:
        return self

    async def create_key_value(self, config: Any) -> Account:
        assert config.bucket == BUCKET
        return self

    async def put(self, key: str, value: bytes) -> int:
        assert key == KEY
        if self.away is not None:
            raise self.away
        self.puts.append(value)
        self.revision += 1
        return self.revision

    async def get(self, key: str) -> Entry:
        assert key == KEY
        if self.away is not None:
            raise self.away
        return Entry(self.revision)


async def claim(account: Any) -> Claim:
    return await make_claim(account, Dice())


@pytest.mark.parametrize("silent", [NoRespondersError(), NatsTimeout()], ids=["nobody is there", "nobody answers"])
async def test_where_nobody_answers_it_is_made(silent: Exception) -> None:
    """It is the newest until another one is made; one that answers too late is taken to stand still."""
    account = Account(silent=silent)
    first = await claim(account)
    assert await first.newest()
    second = await claim(account)
    assert (await first.newest(), await second.newest()) == (False, True)
    assert len(account.puts) == 2


async def test_one_that_answers_keeps_others_out() -> None:
    """Nothing is written: the one that serves goes on."""
    account = Account(answers=True)
    with pytest.raises(Conflict, match="another runtime serves this account"):
        await claim(account)
    assert account.puts == []


@pytest.mark.parametrize("error", [OSError("gone"), TimeoutError(), NatsTimeout()], ids=repr)
async def test_a_server_that_is_away_tells_nothing(error: Exception) -> None:
    """Neither that the claim is made, nor that it holds: both are said to be unknown."""
    account = Account(away=error)
    with pytest.raises(LogUnavailable):
        await claim(account)
    account.away = None
    made = await claim(account)
    account.away = error
    with pytest.raises(LogUnavailable):
        await made.newest()


class Looks:
    """A timer that does something at each look, and never really waits."""

    def __init__(self, *happens: Any) -> None:
        self.happens = list(happens)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.happens.pop(0)()


async def test_whoever_wakes_up_behind_a_newer_one_ends() -> None:
    """It looks again and again; a server that is away meanwhile is no newer runtime."""
    account = Account()
    made = await claim(account)

    def away() -> None:
        account.away = OSError("gone")

    def newer() -> None:
        account.away, account.revision = None, account.revision + 1

    looks: Any = Looks(lambda: None, away, newer)
    with pytest.raises(Conflict, match="a newer runtime"):
        await made.lost(looks)
    assert looks.slept == [LOOK_S] * 3
