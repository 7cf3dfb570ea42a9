"""The bucket of locks on a real server: compare and set, and revisions that only grow, whatever becomes of bucket and server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentos.abi.errors import DriverError, LogUnavailable
from agentos.drivers.adapters.locks_nats import BUCKET, KEPT_MS, NatsLocks
from agentos.drivers.locks import Freed, Holder, Lock, LockUnreadable, Moved, key_of
from agentos.drivers.port import CallContext
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import NKey
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, User
from agentos.kernel.locks import LockKeeper
from agentos.kernel.waits import Waits
from agentos.scheduler.declared import BUILT_IN

STREAM = f"KV_{BUCKET}"
PREFIX = f"$KV.{BUCKET}."


class System:
    """The real clock and randomness; `ms` may be set ahead."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def token(self, size: int) -> bytes:
        return os.urandom(size)


class Nobody:
    """`Boosts` where nothing is arbitrated."""

    def boost(self, session: str, priority: str) -> None: ...

    def unboost(self, session: str, priority: str) -> None: ...

    def height(self, priority: str) -> tuple[bool, int]:
        return BUILT_IN[priority].height


def holder(session: str, now: int, lease: int = 60_000) -> Holder:
    return Holder(session, "call-1-1", "a", now, now + lease)


def keeper_on(store: NatsLocks, system: System) -> LockKeeper:
    configuration = SimpleNamespace(agents={}, lock_victim="requester")
    return LockKeeper(lambda _: store, cast("Any", SimpleNamespace(current=lambda _: configuration)), system, Waits(Nobody()))


def place(session: str) -> CallContext:
    return CallContext("acme", session, "call-1-1", Path("/"), agent="a", priority="standard")


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
async def store(open_account: Any, system: System) -> AsyncIterator[NatsLocks]:
    async with open_account() as door:
        yield NatsLocks(door.client, system, system)


async def test_what_is_written_is_read_and_a_stale_write_is_refused(store: NatsLocks, system: System) -> None:
    """Behind exactly the revision that was read, nothing else; another resource has its own entry, and the same count."""
    assert await store.read("ledger") == Lock("ledger")
    first = await store.write(replace(Lock("ledger"), holder=holder("s-1", system.now_ms())))
    assert await store.read("ledger") == first
    for stale in (Lock("ledger"), replace(first, revision=first.revision - 1), replace(first, revision=first.revision + 1)):
        with pytest.raises(Moved):
            await store.write(stale)
    other = await store.write(replace(Lock("räum/auf :>*"), holder=holder("s-2", system.now_ms())))
    assert other.revision > first.revision
    assert [one.resource for one in await store.all()] == ["ledger", "räum/auf :>*"]


async def test_tokens_grow_over_a_bucket_that_was_lost(store: NatsLocks, system: System) -> None:
    """A bucket that is made anew, as on a restored server, begins above everything that the old one gave."""
    old = Lock("ledger")
    for number in range(20):
        old = await store.write(replace(old, holder=holder(f"s-{number}", system.now_ms())))
    await store._bucket._link.api(f"STREAM.DELETE.{STREAM}", {})
    assert await store.read("ledger") == Lock("ledger")
    system.ahead_ms = 1000  # time enough for its 20 changes
    fresh = await store.write(replace(Lock("ledger"), holder=holder("s-9", system.now_ms())))
    assert fresh.revision > old.revision


async def test_of_many_that_write_at_once_one_wins(store: NatsLocks, system: System) -> None:
    """Compare and set, on the first write too, when the bucket is not there yet."""
    wanted = [replace(Lock("ledger"), holder=holder(f"s-{number}", system.now_ms())) for number in range(16)]
    done = await asyncio.gather(*map(store.write, wanted), return_exceptions=True)
    won = [one for one in done if isinstance(one, Lock)]
    assert len(won) == 1
    assert all(isinstance(one, Moved) for one in done if not isinstance(one, Lock))
    assert await store.read("ledger") == won[0]


async def test_a_record_that_is_none_locks_the_resource_until_it_is_broken(store: NatsLocks, system: System) -> None:
    """It is refused to everybody, left out of the list, and a person can take it away."""
    await store.write(replace(Lock("stock"), holder=holder("s-1", system.now_ms())))
    await store._bucket._client.request(PREFIX + key_of("ledger"), b"{}")
    keeper = keeper_on(store, system)
    with pytest.raises(LockUnreadable):
        await keeper.lock(place("s-2"), "ledger", wait_ms=1000, lease_ms=1000)
    assert [one.resource for one in await store.all()] == ["stock"]

    async def record(lock: Lock) -> None:
        assert lock.holder is None

    await keeper.break_open("acme", "ledger", record)
    assert await keeper.lock(place("s-2"), "ledger", wait_ms=0, lease_ms=1000)
    await keeper.close()


async def test_old_entries_that_nobody_holds_are_forgotten(store: NatsLocks, system: System) -> None:
    """After a day, but the newest, and never one that is held; the count goes on."""
    now = system.now_ms()
    for name in ("a", "b", "c", "d"):
        taken = await store.write(replace(Lock(name), holder=holder("s-1", now)))
        if name != "b":
            await store.write(replace(taken, holder=None, freed=Freed("s-1", taken.token, now - (name == "a"))))
    newest = (await store.read("d")).revision
    system.ahead_ms = KEPT_MS - 1000
    assert await store.tidy() == 0
    system.ahead_ms = KEPT_MS + 60_000
    assert await store.tidy() == 2
    assert [one.resource for one in await store.all()] == ["b", "d"]
    assert (await store.write(replace(Lock("a"), holder=holder("s-2", now)))).revision == newest + 1


async def test_a_server_that_is_restarted_keeps_locks_and_waiters(
    own_server: Callable[..., NatsServer], new_key: Callable[[], NKey], system: System
) -> None:
    """Killed while one waits: the holder lets go afterwards with its token, and the waiter gets the lock."""
    key = new_key()
    server = own_server(Account("T-1", (User(key.public_key),)))
    await server.start()
    client = await connect(server.url, key, name="test", reconnect=True)
    keeper = keeper_on(NatsLocks(client, system, system), system)
    mine = await keeper.lock(place("s-1"), "ledger", wait_ms=0, lease_ms=60_000)
    waiting = asyncio.create_task(keeper.lock(place("s-2"), "ledger", wait_ms=60_000, lease_ms=60_000))
    await asyncio.sleep(0.05)
    os.kill(server.pid or 0, 9)
    await server.wait()
    await server.stop()
    await server.start()
    await keeper.unlock(place("s-1"), "ledger", mine.token)
    assert (await waiting).token > mine.token
    await keeper.close()
    await client.close()


async def test_a_server_that_is_away_is_told_and_one_that_refuses_is_told_otherwise(
    own_server: Callable[..., NatsServer], new_key: Callable[[], NKey], system: System
) -> None:
    """By the first the call is made again once the server is back; by the second it fails, and is not tried for ever."""
    key = new_key()
    server = own_server(Account("T-1", (User(key.public_key),)))
    await server.start()
    client = await connect(server.url, key, name="test", reconnect=True)
    store = NatsLocks(client, system, system)
    await client.jetstream().add_stream(name="TAKEN", subjects=["$KV.LOCKS.>"])
    with pytest.raises(DriverError, match="bucket LOCKS cannot be used"):
        await store.write(replace(Lock("ledger"), holder=holder("s-1", system.now_ms())))
    await server.stop()
    with pytest.raises(LogUnavailable):
        await store.read("ledger")
    await client.close()
