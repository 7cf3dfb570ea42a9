"""Locks of sessions: one holder, tokens that only grow, the queue, leases, what a crash leaves, deadlocks, and inheritance."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lock_store import Hands, Lent, MemoryLocks, Source, settle

from agentos.abi.errors import DriverError, LogUnavailable, NotFound
from agentos.drivers.locks import Freed, Grant, Holder, Lock, LockDeadlock, LockHeld, LockLost, LockUnreadable
from agentos.drivers.port import CallContext
from agentos.kernel.admission import Admissions, Request
from agentos.kernel.locks import MOST_HELD, TIDY_MS, LockKeeper
from agentos.kernel.seat import Displaced
from agentos.kernel.waits import Waits
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.declared import Arbitration, Endpoint
from agentos.scheduler.waits import Wait

MINUTE = 60_000


@dataclass
class Desk:
    """A keeper on a store in memory, and the calls of sessions on it. Sessions `s-1`, `s-2` are of agents `a-1`, `a-2`."""

    store: MemoryLocks = field(default_factory=MemoryLocks)
    hands: Hands = field(default_factory=Hands)
    lent: Any = field(default_factory=Lent)
    victim: str = "requester"
    keeper: LockKeeper = field(init=False)
    waits_all: Waits = field(init=False)
    calls: int = 0

    def __post_init__(self) -> None:
        configuration = SimpleNamespace(agents={}, lock_victim=self.victim)
        self.waits_all = Waits(self.lent)
        self.keeper = LockKeeper(lambda _: self.store, Source(cast("Any", configuration)), self.hands, self.waits_all)

    def place(self, session: str, call: str = "", priority: str = "standard") -> CallContext:
        self.calls += 1
        agent = session.replace("s-", "a-")
        return CallContext("acme", session, call or f"call-{self.calls}", Path("/"), agent=agent, priority=priority)

    async def lock(
        self, session: str, resource: str, *, wait: int = 0, lease: int = MINUTE, call: str = "", priority: str = "standard"
    ) -> Grant:
        place = self.place(session, call, priority)
        return await self.keeper.lock(place, resource, wait_ms=wait, lease_ms=lease)

    async def waits(self, session: str, resource: str, *, wait: int = 10 * MINUTE, **more: Any) -> asyncio.Task[Grant]:
        """A call that waits by now."""
        task = asyncio.create_task(self.lock(session, resource, wait=wait, **more))
        await settle()
        assert not task.done()
        return task

    async def unlock(self, session: str, resource: str, token: int) -> None:
        await self.keeper.unlock(self.place(session), resource, token)
        await settle()

    def holder(self, resource: str) -> str | None:
        lock = self.store.locks.get(resource)
        return lock.holder.session if lock is not None and lock.holder is not None else None


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.keeper.close()


async def test_one_holds_and_the_other_is_told_who(desk: Desk) -> None:
    """Whoever does not wait is refused with the holder's name; after the unlock it gets a higher token."""
    mine = await desk.lock("s-1", "ledger")
    assert mine.expires_ms == desk.hands.ms + MINUTE
    with pytest.raises(LockHeld, match="ledger is held by s-1"):
        await desk.lock("s-2", "ledger")
    await desk.unlock("s-1", "ledger", mine.token)
    assert (await desk.lock("s-2", "ledger")).token > mine.token


async def test_a_call_that_is_made_again_gets_the_same_token(desk: Desk) -> None:
    """After a crash the call comes again; so does a renewal: the token stays, the lease is counted from now."""
    first = await desk.lock("s-1", "ledger", call="call-1-1")
    await desk.hands.move(1000)
    again = await desk.lock("s-1", "ledger", call="call-1-1")
    other = await desk.lock("s-1", "ledger", call="call-2-1")
    assert first.token == again.token == other.token
    assert again.expires_ms == other.expires_ms == first.expires_ms + 1000


async def test_an_unlock_that_is_made_again_is_done_already(desk: Desk) -> None:
    """Also when somebody else has taken the lock in between; of that one nothing is taken."""
    mine = await desk.lock("s-1", "ledger")
    await desk.unlock("s-1", "ledger", mine.token)
    await desk.unlock("s-1", "ledger", mine.token)
    await desk.lock("s-2", "ledger")
    await desk.unlock("s-1", "ledger", mine.token)
    assert desk.holder("ledger") == "s-2"


@pytest.mark.parametrize("who", ["s-1", "s-2", "s-3"])
async def test_a_token_that_does_not_count_lets_go_of_nothing(desk: Desk, who: str) -> None:
    """A wrong token of the holder, the holder's token in other hands, and a stranger's are all refused."""
    mine = await desk.lock("s-1", "ledger")
    with pytest.raises(LockLost, match=f"holds it with token {mine.token}"):
        await desk.unlock(who, "ledger", mine.token + (who == "s-1"))
    with pytest.raises(LockLost, match="nobody holds it"):
        await desk.unlock(who, "stock", 7)
    assert desk.holder("ledger") == "s-1"


async def test_a_lease_that_is_over_is_taken_over_and_fences_the_former_holder_off(desk: Desk) -> None:
    """The waiter gets the lock at the end of the lease, not before; unlock and renewal of the former holder fail from then on."""
    slow = await desk.lock("s-1", "ledger", lease=MINUTE)
    waiting = await desk.waits("s-2", "ledger")
    await desk.hands.move(MINUTE - 1)
    assert not waiting.done()
    await desk.hands.move(10)
    fresh = await waiting
    assert fresh.token > slow.token
    with pytest.raises(LockLost, match=f"s-2 holds it with token {fresh.token}"):
        await desk.unlock("s-1", "ledger", slow.token)
    with pytest.raises(LockHeld):
        await desk.lock("s-1", "ledger")


async def test_a_renewal_keeps_the_waiter_waiting(desk: Desk) -> None:
    """The end of the lease is where the last renewal put it."""
    mine = await desk.lock("s-1", "ledger", lease=MINUTE)
    waiting = await desk.waits("s-2", "ledger")
    await desk.hands.move(MINUTE - 1)
    await desk.lock("s-1", "ledger", lease=MINUTE)
    await desk.hands.move(MINUTE - 1)
    assert not waiting.done()
    await desk.hands.move(100)
    assert (await waiting).token > mine.token


async def test_a_lapsed_lease_that_nobody_took_is_renewed_with_its_token(desk: Desk) -> None:
    """Nobody can have changed anything under a newer token, so the old one still counts."""
    mine = await desk.lock("s-1", "ledger", lease=MINUTE)
    await desk.hands.move(2 * MINUTE)
    assert (await desk.lock("s-1", "ledger")).token == mine.token
    await desk.unlock("s-1", "ledger", mine.token)


async def test_the_queue_goes_by_class_then_by_arrival(desk: Desk) -> None:
    """Each hand-over wakes one, the first; who comes after it did not overtake."""
    held = await desk.lock("s-0", "ledger")
    order = [("s-1", "batch"), ("s-2", "standard"), ("s-3", "interactive"), ("s-4", "standard"), ("s-5", "interactive")]
    tasks = {session: await desk.waits(session, "ledger", priority=priority) for session, priority in order}
    token, holder = held.token, "s-0"
    for expected in ("s-3", "s-5", "s-2", "s-4", "s-1"):
        writes = len(desk.store.written)
        await desk.unlock(holder, "ledger", token)
        assert [session for session, task in tasks.items() if task.done()] == [expected]
        assert len(desk.store.written) == writes + 2, "one write lets go, one takes: nobody else tried"
        token, holder = (await tasks.pop(expected)).token, expected


async def test_a_wait_ends_at_its_time(desk: Desk) -> None:
    """Then the call is told who holds the lock, and the next one is not held up by it."""
    mine = await desk.lock("s-1", "ledger", lease=60 * MINUTE)
    short = await desk.waits("s-2", "ledger", wait=5000)
    long = await desk.waits("s-3", "ledger")
    await desk.hands.move(5000)
    with pytest.raises(LockHeld, match="s-1, for the 5 s"):
        await short
    await desk.unlock("s-1", "ledger", mine.token)
    assert (await long).token > mine.token


async def test_who_is_cancelled_leaves_the_queue(desk: Desk) -> None:
    """Before its turn and in its very turn: the lock goes on to the next one."""
    mine = await desk.lock("s-1", "ledger")
    gone, next_ = await desk.waits("s-2", "ledger"), await desk.waits("s-3", "ledger")
    unlocking = asyncio.create_task(desk.keeper.unlock(desk.place("s-1"), "ledger", mine.token))
    while desk.holder("ledger") != "s-2":
        await asyncio.sleep(0)
    gone.cancel()
    await unlocking
    await settle()
    assert desk.holder("ledger") == "s-3"
    assert next_.done()
    assert (await asyncio.gather(gone, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_the_end_of_a_session_lets_go_of_everything_it_holds(desk: Desk) -> None:
    """Whoever waits gets it at once, whatever the lease; what others hold stays."""
    await desk.lock("s-1", "ledger", lease=60 * MINUTE)
    await desk.lock("s-1", "stock", lease=60 * MINUTE)
    await desk.lock("s-2", "till")
    waiting = await desk.waits("s-3", "ledger")
    desk.keeper.ended("acme", "s-1")
    desk.keeper.ended("acme", "s-1")
    await settle()
    assert waiting.done()
    assert (desk.holder("ledger"), desk.holder("stock"), desk.holder("till")) == ("s-3", None, "s-2")


async def test_an_ended_session_is_let_go_of_when_the_store_is_back(desk: Desk) -> None:
    """It is tried again until it is done."""
    await desk.lock("s-1", "ledger")
    desk.store.away = True
    desk.keeper.ended("acme", "s-1")
    await settle()
    desk.store.away = False
    await desk.hands.move(2000)
    assert desk.holder("ledger") is None


async def test_a_fresh_runtime_finds_what_is_held(desk: Desk) -> None:
    """Sessions that ended before it started hold nothing any more; of the others the token stays, and their end lets go."""
    dead, alive = await desk.lock("s-1", "ledger"), await desk.lock("s-2", "stock")

    async def over(session: str) -> bool:
        return session == "s-1"

    fresh = Desk(store=desk.store, hands=desk.hands)
    await fresh.keeper.recover("acme", over)
    await settle()
    assert fresh.holder("ledger") is None
    assert (await fresh.lock("s-2", "stock")).token == alive.token
    assert (await fresh.lock("s-3", "ledger")).token > dead.token
    fresh.keeper.ended("acme", "s-2")
    await settle()
    assert fresh.holder("stock") is None
    await fresh.keeper.close()


async def test_a_store_that_is_away_leaves_calls_open(desk: Desk) -> None:
    """Whoever asks and whoever waits gets LogUnavailable, by which the call is made again; nothing is half done."""
    await desk.lock("s-1", "ledger", lease=MINUTE)
    waiting = await desk.waits("s-2", "ledger")
    desk.store.away = True
    with pytest.raises(LogUnavailable):
        await desk.lock("s-3", "stock")
    await desk.hands.move(2 * MINUTE)
    with pytest.raises(LogUnavailable):
        await waiting
    desk.store.away = False
    assert (await desk.lock("s-2", "ledger")).token


async def test_a_broken_lock_goes_to_the_next_and_fences_its_holder_off(desk: Desk) -> None:
    """It is recorded before it is done; a record that fails leaves the lock where it is."""
    mine = await desk.lock("s-1", "ledger", lease=60 * MINUTE)
    waiting = await desk.waits("s-2", "ledger")
    seen: list[Lock] = []

    async def record(lock: Lock) -> None:
        assert desk.holder("ledger") == "s-1"
        seen.append(lock)

    async def refuse(_: Lock) -> None:
        raise LogUnavailable("no room")

    with pytest.raises(LogUnavailable):
        await desk.keeper.break_open("acme", "ledger", refuse)
    assert desk.holder("ledger") == "s-1"
    was = await desk.keeper.break_open("acme", "ledger", record)
    await settle()
    assert [was] == seen
    assert was.token == mine.token
    assert (await waiting).token > mine.token
    with pytest.raises(LockLost):
        await desk.unlock("s-1", "ledger", mine.token)
    with pytest.raises(NotFound, match="nobody holds stock"):
        await desk.keeper.break_open("acme", "stock", record)


async def test_a_cycle_is_told_to_the_one_who_closes_it(desk: Desk) -> None:
    """The error names sessions, agents and resources all the way round; the other ones wait on, and get their lock."""
    a, b, c = await desk.lock("s-1", "ledger"), await desk.lock("s-2", "stock"), await desk.lock("s-3", "till")
    first, second = await desk.waits("s-1", "stock"), await desk.waits("s-2", "till")
    with pytest.raises(LockDeadlock) as caught:
        await desk.lock("s-3", "ledger", wait=MINUTE)
    assert caught.value.code == "lock.deadlock"
    for part in (
        "s-3 (agent a-3) waits for lock ledger, which s-1 (agent a-1) holds",
        "s-1 (agent a-1) waits for lock stock, which s-2 (agent a-2) holds",
        "s-2 (agent a-2) waits for lock till, which s-3 (agent a-3) holds",
    ):
        assert part in caught.value.message
    await desk.unlock("s-3", "till", c.token)
    await desk.unlock("s-2", "till", (await second).token)
    await desk.unlock("s-2", "stock", b.token)
    assert (await first).token > a.token


async def test_a_wait_that_cannot_end_comes_before_one_for_a_lock() -> None:
    """A session that waits for its children, and comes after the wait of one of them for its lock, has that one told."""
    desk = Desk()
    await desk.lock("s-1", "ledger")
    child, other = await desk.waits("s-2", "ledger"), await desk.waits("s-3", "ledger")
    assert desk.waits_all.insist("s-1", {"s-2"}, "delegation c1", "standard") is None
    with pytest.raises(LockDeadlock) as caught:
        await child
    for part in (
        "s-1 waits for delegation c1, which s-2 (agent a-2) holds",
        "s-2 (agent a-2) waits for lock ledger, which s-1 holds",
        "this call, for ledger, was given up",
    ):
        assert part in caught.value.message
    assert not other.done()
    other.cancel()
    await desk.keeper.close()


@pytest.mark.parametrize(
    ("victim", "classes", "told"),
    [
        ("lowest", ("batch", "interactive"), "s-1"),
        ("lowest", ("interactive", "batch"), "s-2"),
        ("lowest", ("standard", "standard"), "s-2"),
        ("youngest", ("interactive", "standard"), "s-2"),
        ("requester", ("batch", "interactive"), "s-2"),
    ],
)
async def test_the_tenant_says_who_is_told(victim: str, classes: tuple[str, str], told: str) -> None:
    """s-2 closes the cycle; where s-1 is the victim its waiting call is given up, and s-2 waits until s-1 lets go."""
    desk = Desk(victim=victim)
    mine, _ = await desk.lock("s-1", "ledger", priority=classes[0]), await desk.lock("s-2", "stock", priority=classes[1])
    first = await desk.waits("s-1", "stock", priority=classes[0])
    second = asyncio.create_task(desk.lock("s-2", "ledger", wait=MINUTE, priority=classes[1]))
    await settle()
    ended, other = (first, second) if told == "s-1" else (second, first)
    with pytest.raises(LockDeadlock):
        await ended
    assert not other.done()
    if told == "s-1":
        await desk.unlock("s-1", "ledger", mine.token)
        assert (await second).token > mine.token
    other.cancel()
    await desk.keeper.close()


async def test_a_session_waits_for_one_lock_at_a_time(desk: Desk) -> None:
    """A second wait of the same session is refused, and the first one goes on."""
    await desk.lock("s-1", "ledger")
    await desk.lock("s-1", "stock")
    waiting = await desk.waits("s-2", "ledger")
    with pytest.raises(DriverError, match="waits for ledger already"):
        await desk.lock("s-2", "stock", wait=MINUTE)
    assert not waiting.done()
    waiting.cancel()


async def test_who_waits_lends_its_class_to_all_it_waits_for(desk: Desk) -> None:
    """Through a chain, for exactly as long as it waits, and to the next holder after a hand-over."""
    low = await desk.lock("s-1", "ledger", priority="batch")
    await desk.lock("s-2", "stock", priority="batch")
    middle = await desk.waits("s-2", "ledger", priority="batch")
    assert desk.lent.all == {("s-1", "batch")}
    urgent = await desk.waits("s-3", "stock", priority="interactive")
    assert desk.lent.all == {("s-1", "interactive"), ("s-2", "interactive")}
    other = await desk.waits("s-4", "ledger", priority="standard")
    await desk.unlock("s-1", "ledger", low.token)
    assert middle.done(), "what was lent counts in the queue of the lock as well"
    assert desk.lent.all == {("s-2", "interactive")}
    urgent.cancel()
    await settle()
    assert desk.lent.all == {("s-2", "standard")}
    other.cancel()
    await settle()
    assert desk.lent.all == set()


async def test_a_holder_goes_before_others_on_its_endpoint_while_somebody_urgent_waits() -> None:
    """With the real admissions: of two batch sessions that queue for a model the later one goes first, as it holds the lock."""
    hands = Hands()
    admissions = Admissions(hands)
    admissions.declare("acme", Arbitration(endpoints={"m": Endpoint(("acme", "m"), Limits(1))}))
    desk = Desk(hands=hands, lent=admissions)

    def request(session: str) -> Request:
        return Request("acme", session, "model-1", "a", "batch", (("acme", "m"),))

    running = await admissions.admit(request("s-0"))
    first = asyncio.create_task(admissions.admit(request("s-1")))
    await settle()
    second = asyncio.create_task(admissions.admit(request("s-2")))
    await desk.lock("s-2", "ledger", priority="batch")
    urgent = await desk.waits("s-9", "ledger", priority="interactive")
    running.release()
    await settle()
    assert (first.done(), second.done()) == (False, True)
    (await second).release()
    (await first).release()
    urgent.cancel()
    await settle()
    assert admissions.effective("s-2", "batch") == "batch"
    await desk.keeper.close()
    await admissions.close()


async def test_who_waits_is_shown(desk: Desk) -> None:
    """Of those that are asked about, who waits for whom, and who gets the lock next."""
    await desk.lock("s-1", "ledger")
    waiting = await desk.waits("s-2", "ledger")
    assert desk.waits_all.waits({"s-1", "s-2"}) == [Wait("s-2", "s-1", "lock ledger")]
    assert desk.waits_all.waits({"s-1", "s-3"}) == []
    (standing,) = await desk.keeper.standing("acme")
    assert standing.waiters == (("s-2", "a-2"),)
    waiting.cancel()


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"[]",
        b"{}",
        b'{"v":2,"resource":"ledger"}',
        b'{"v":1,"resource":7}',
        b'{"v":1,"resource":"ledger","holder":{"session":"s-1"}}',
        b'{"v":1,"resource":"ledger","freed":{"session":"s-1","token":"7","at":1}}',
        b'{"v":1,"resource":"ledger","holder":[]}',
    ],
)
def test_a_record_that_is_none_is_refused_with_its_revision(stored: bytes) -> None:
    """So that nobody gets the lock, and a person can break it."""
    with pytest.raises(LockUnreadable) as caught:
        Lock.from_bytes(stored, 42)
    assert caught.value.revision == 42


def test_a_record_is_read_as_it_was_written() -> None:
    """With and without a token of its own, and with what was let go of before."""
    holder = Holder("s-1", "call-1-1", "a", 5, 10, 7)
    for lock in (Lock("a"), Lock("a", 9, holder), Lock("a", 9, Holder("s-1", "c", "a", 5, 10), Freed("s-0", 6, 4))):
        assert Lock.from_bytes(lock.to_bytes(), lock.revision) == lock
    assert (Lock("a", 9, holder).token, Lock("a", 9, Holder("s-1", "c", "a", 5, 10)).token) == (7, 9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_one_holds_tokens_grow_and_nobody_is_forgotten(seed: int) -> None:
    """Random sessions lock, wait, unlock, are cancelled, end, and lose the store. Throughout, each resource has one holder and a
    new one a higher token; at the end, when all let go and the store is there, every wait ends, and nothing is lent."""
    asyncio.run(_storm(random.Random(seed)))


def _collect(tasks: dict[str, asyncio.Task[Grant]], tokens: dict[tuple[str, str], int]) -> None:
    """Move the tokens of calls that have ended to `tokens`."""
    for session in [session for session, task in tasks.items() if task.done()]:
        task = tasks.pop(session)
        if not task.cancelled() and task.exception() is None:
            tokens[session, task.result().resource] = task.result().token


async def _storm(dice: random.Random) -> None:
    desk = Desk(victim=dice.choice(["requester", "lowest", "youngest"]))
    sessions = [f"s-{number}" for number in range(5)]
    priorities = {session: dice.choice(["interactive", "standard", "batch"]) for session in sessions}
    resources = ["ledger", "stock", "till"]
    tasks: dict[str, asyncio.Task[Grant]] = {}
    tokens: dict[tuple[str, str], int] = {}
    for _ in range(40):
        _collect(tasks, tokens)
        session, resource = dice.choice(sessions), dice.choice(resources)
        roll = dice.random()
        if session in tasks:
            if roll < 0.3:
                tasks[session].cancel()
        elif roll < 0.6:
            wait, lease = dice.choice([0, 1000, MINUTE]), dice.choice([2000, MINUTE])
            tasks[session] = asyncio.create_task(
                desk.lock(session, resource, wait=wait, lease=lease, priority=priorities[session])
            )
        elif roll < 0.8 and (session, resource) in tokens:
            with contextlib.suppress(LockLost, LogUnavailable):
                await desk.keeper.unlock(desk.place(session), resource, tokens.pop((session, resource)))
        elif roll < 0.85:
            desk.store.away = not desk.store.away
        elif roll < 0.92:
            desk.keeper.ended("acme", session)
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        if dice.random() < 0.3:
            await desk.hands.move(dice.choice([10, 1500, MINUTE]))

    desk.store.away = False
    for _ in range(20):
        for session in sessions:
            if session not in tasks or tasks[session].done():
                desk.keeper.ended("acme", session)
        await desk.hands.move(MINUTE)
    assert all(task.done() for task in tasks.values()), "a wait was forgotten"
    _collect(tasks, tokens)
    assert desk.lent.all == set()
    assert not desk.waits_all.waits(set(tasks))
    await desk.keeper.close()
    _check(desk.store.written)


def _check(written: list[Lock]) -> None:
    """Every hand-over gave a token higher than all before, none before the lease was over; no renewal changed a token."""
    highest: dict[str, int] = {}
    holding: dict[str, Holder] = {}
    for lock in written:
        if lock.holder is None:
            holding.pop(lock.resource, None)
            continue
        before = holding.get(lock.resource)
        holding[lock.resource] = lock.holder
        if before is not None and before.session == lock.holder.session:
            assert lock.token == highest[lock.resource], "a renewal changed the token"
            continue
        assert before is None or before.expires_ms <= lock.holder.since_ms, "two held it at one time"
        assert lock.token > highest.get(lock.resource, 0), "a token did not grow"
        highest[lock.resource] = lock.token


class Landlord:
    """Where sessions wait: `needed` has whoever waits give its place up."""

    def __init__(self) -> None:
        self.needed = asyncio.Event()

    async def idle(self, session: str, done: asyncio.Future[Any]) -> None:
        del session
        needed = asyncio.ensure_future(self.needed.wait())
        await asyncio.wait((done, needed), return_when=asyncio.FIRST_COMPLETED)
        needed.cancel()
        if not done.done():
            raise Displaced


@pytest.mark.parametrize("meanwhile", ["nothing", "granted", "lapsed", "timed out", "ended"])
async def test_who_waits_without_a_place_keeps_its_turn(desk: Desk, meanwhile: str) -> None:
    """Displaced, it stays in the queue before those that come later; the same call goes on where it was, whatever came of it."""
    landlord = Landlord()
    desk.keeper.idle = landlord.idle
    mine = await desk.lock("s-1", "ledger", lease=60 * MINUTE)
    first = await desk.waits("s-2", "ledger", call="call-2-1", lease=MINUTE)
    landlord.needed.set()
    with pytest.raises(Displaced):
        await first
    landlord.needed.clear()
    later = await desk.waits("s-3", "ledger")
    if meanwhile in {"granted", "lapsed"}:
        await desk.unlock("s-1", "ledger", mine.token)
        assert desk.holder("ledger") == "s-2"
    if meanwhile == "lapsed":
        await desk.hands.move(2 * MINUTE)
        assert desk.holder("ledger") == "s-3"
    if meanwhile == "timed out":
        await desk.hands.move(11 * MINUTE)
    if meanwhile == "ended":
        desk.keeper.ended("acme", "s-2")
        await desk.unlock("s-1", "ledger", mine.token)
        assert desk.holder("ledger") == "s-3"
        return
    again = asyncio.create_task(desk.lock("s-2", "ledger", wait=10 * MINUTE, call="call-2-1"))
    await settle()
    if meanwhile == "timed out":
        with pytest.raises(LockHeld, match="for the 600 s"):
            await again
    elif meanwhile == "granted":
        assert (await again).token > mine.token
    elif meanwhile == "nothing":
        assert not again.done()
        await desk.unlock("s-1", "ledger", mine.token)
        assert (await again).token > mine.token
    else:
        assert not again.done(), "its lease was over, so it waits again"
        again.cancel()
    if meanwhile != "lapsed":
        later.cancel()


async def test_a_call_that_is_cancelled_twice_does_not_wait_as_a_ghost(desk: Desk) -> None:
    """Its session may lock again, and nobody hands the lock to who is gone, over and over."""
    mine = await desk.lock("s-1", "ledger")
    read, go_on = desk.store.read, asyncio.Event()

    async def slow(resource: str) -> Lock:
        await go_on.wait()
        return await read(resource)

    desk.store.read = slow  # type: ignore[method-assign]
    task = asyncio.create_task(desk.lock("s-2", "ledger", wait=10 * MINUTE))
    for _ in range(2):
        await settle()
        task.cancel()
    await settle()
    assert task.cancelled()
    go_on.set()
    await settle()
    assert [one.waiters for one in await desk.keeper.standing("acme")] == [()]
    written = len(desk.store.written)
    await desk.unlock("s-1", "ledger", mine.token)
    assert (desk.holder("ledger"), len(desk.store.written)) == (None, written + 1)
    await desk.lock("s-2", "ledger")


async def test_a_lock_of_which_nobody_knows_ends_with_its_session(desk: Desk) -> None:
    """The store kept it and did not say so; the session ended before it could ask again."""
    write = desk.store.write

    async def unanswered(lock: Lock) -> Lock:
        await write(lock)
        raise LogUnavailable("the store does not answer")

    desk.store.write = unanswered  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        await desk.lock("s-1", "ledger")
    desk.store.write = write  # type: ignore[method-assign]
    assert desk.holder("ledger") == "s-1"
    desk.keeper.ended("acme", "s-1")
    await settle()
    assert desk.holder("ledger") is None


async def test_a_lock_that_cannot_be_read_keeps_no_other_one(desk: Desk) -> None:
    """Of an ended session all that can be read is let go of."""
    await desk.lock("s-1", "a")
    await desk.lock("s-1", "b")
    read = desk.store.read

    async def torn(resource: str) -> Lock:
        if resource == "a":
            raise LockUnreadable("no record", revision=1)
        return await read(resource)

    desk.store.read = torn  # type: ignore[method-assign]
    desk.keeper.ended("acme", "s-1")
    await settle()
    assert desk.holder("b") is None


async def test_a_session_holds_a_bounded_number(desk: Desk) -> None:
    """A flood of names is refused; what is held can be renewed, and one that was let go of makes room."""
    grants = [await desk.lock("s-1", f"r{number}") for number in range(MOST_HELD)]
    with pytest.raises(DriverError, match="holds 256 locks"):
        await desk.lock("s-1", "one-more")
    await desk.lock("s-1", "r0")
    await desk.lock("s-2", "one-more")
    await desk.unlock("s-1", "r1", grants[1].token)
    await desk.lock("s-1", "another")


async def test_what_nobody_holds_is_forgotten_while_the_runtime_runs(desk: Desk) -> None:
    """Not only at its start: names that are made up as they go do not pile up."""
    tidied = 0

    async def tidy() -> int:
        nonlocal tidied
        tidied += 1
        return 0

    desk.store.tidy = tidy  # type: ignore[method-assign]
    for _ in range(3):
        grant = await desk.lock("s-1", "ledger")
        await desk.unlock("s-1", "ledger", grant.token)
        await desk.hands.move(TIDY_MS // 2 + 1)
    assert tidied == 1
