"""The verbs about locks: what is shown, and that a break is on record before it is done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import LogUnavailable, UsageError
from agentos.audit.audit_chain import Entry
from agentos.control.lock_verbs import LockVerbs
from agentos.control.principal import Caller
from agentos.drivers.locks import Holder, Lock
from agentos.kernel.locks import Standing
from agentos.scheduler.waits import Wait

NOW = 1_795_283_194_000
ANN = Caller("ann", ("operator",), "acme", fleet=False)


class Keeper:
    """A `LockKeeper` that holds one lock."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self.broken: list[str] = []

    async def standing(self, tenant: str) -> list[Standing]:
        assert tenant == "acme"
        return [Standing(self.lock, (("s-2", "packer"),))]

    async def break_open(self, tenant: str, resource: str, record: Any) -> Lock:
        assert tenant == "acme"
        await record(self.lock)
        self.broken.append(resource)
        return self.lock


class Chain:
    """An audit chain that keeps entries, unless it is full."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.kept: list[tuple[str, int, Entry]] = []

    async def append(self, decide: Any, *, actor: str, revision: int) -> None:
        if self.full:
            raise LogUnavailable("no room")
        self.kept += [(actor, revision, entry) for entry in await decide(None)]


def verbs(keeper: Keeper, chain: Chain) -> LockVerbs:
    async def approvals(tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        assert (tenant, waiting_only) == ("acme", True)
        return [{"session": "s-1", "call": "call-2-1"}, {"session": "s-7", "call": "call-1-1"}]

    def waits(tenant: str) -> list[Wait]:
        assert tenant == "acme"
        return [Wait("s-2", "s-1", "lock ledger")]

    reader: Any = SimpleNamespace(approvals=approvals)
    doors: Any = (keeper, reader, lambda _: chain, lambda _: 12, SimpleNamespace(now_ms=lambda: NOW), waits)
    return LockVerbs(*doors)


HELD = Lock("ledger", 17, Holder("s-1", "call-1-1", "clerk", NOW - 5000, NOW))


async def test_what_is_held_and_who_waits() -> None:
    """Times as text, a lease that is over is said; of people only those that a holder waits for."""
    keeper = Keeper(HELD)
    answer = await verbs(keeper, Chain()).list(ANN, {})
    assert answer == {
        "locks": [
            {
                "resource": "ledger",
                "session": "s-1",
                "agent": "clerk",
                "call": "call-1-1",
                "token": 17,
                "since": "2026-11-21T17:46:29.000Z",
                "expires": "2026-11-21T17:46:34.000Z",
                "expired": True,
                "waiters": [{"session": "s-2", "agent": "packer"}],
            }
        ],
        "waits": [
            {"waiter": "s-1", "holder": "a person", "reason": "approval of call-2-1"},
            {"waiter": "s-2", "holder": "s-1", "reason": "lock ledger"},
        ],
    }


async def test_a_break_is_recorded_without_the_name_of_the_resource() -> None:
    """By the principal, with the holder and its token; the name stands there as a digest."""
    keeper, chain = Keeper(HELD), Chain()
    answer = await verbs(keeper, chain).break_open(ANN, {"resource": "ledger", "reason": "stuck"})
    assert answer == {"resource": "ledger", "session": "s-1", "agent": "clerk", "token": 17}
    data = {"lock": digest(b"ledger"), "session": "s-1", "token": 17, "reason": "stuck"}
    assert chain.kept == [("principal/ann", 12, ("agentos.audit.unlocked", data))]
    assert keeper.broken == ["ledger"]


async def test_an_unreadable_lock_is_broken_too() -> None:
    """Nobody is known to hold it, and the record says so by saying nothing."""
    chain = Chain()
    assert await verbs(Keeper(Lock("ledger", 17)), chain).break_open(ANN, {"resource": "ledger", "reason": "r"}) == {
        "resource": "ledger"
    }
    assert chain.kept[0][2][1] == {"lock": digest(b"ledger"), "reason": "r"}


async def test_what_cannot_be_recorded_is_not_done() -> None:
    """A chain that takes nothing keeps the lock where it is; so does a request that makes no sense."""
    keeper = Keeper(HELD)
    with pytest.raises(LogUnavailable):
        await verbs(keeper, Chain(full=True)).break_open(ANN, {"resource": "ledger", "reason": "r"})
    for params in ({"resource": "ledger"}, {"resource": "", "reason": "r"}, {"resource": "ledger", "reason": "r", "all": True}):
        with pytest.raises(UsageError):
            await verbs(keeper, Chain()).break_open(ANN, params)
    assert keeper.broken == []
