"""Batches over a provider and a store in memory: what is submitted, who gets what, what a restart finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from agentos.abi.errors import DriverError, LogUnavailable
from agentos.drivers.batch_desk import Batches
from agentos.drivers.batch_flight import GIVEN_UP_MS, Patience
from agentos.drivers.batching import BatchCall, BatchGone, BatchUnsure, Seen, Submission
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec, ModelUnavailable, ReplyBroken

MODEL = ModelSpec("claude", "anthropic", {"model": "m"})
WINDOW_MS = 30_000


class Clock:
    """Sleeping waits until the time was set ahead."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self.tokens = 0

    def now_ms(self) -> int:
        return self.ms

    def token(self, size: int) -> bytes:
        self.tokens += 1
        return self.tokens.to_bytes(size, "big")

    async def sleep(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.ms + int(seconds * 1000), done))
        await done

    async def ahead(self, seconds: float) -> None:
        """Let time pass, in steps in which everybody who wakes up goes on."""
        until = self.ms + int(seconds * 1000)
        while True:
            await settle()
            due = sorted(((at, one) for at, one in self._sleepers if at <= until and not one.done()), key=lambda item: item[0])
            if not due:
                break
            self.ms = max(self.ms, due[0][0])
            due[0][1].set_result(None)
        self.ms = until
        await settle()


async def settle() -> None:
    """Let everybody who can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)


@dataclass
class Made:
    """A batch at the provider."""

    name: str
    requests: list[tuple[str, ModelRequest]]
    at_ms: int
    ended: bool = False
    outcomes: dict[str, ModelReply | DriverError] = field(default_factory=dict)


class Provider:
    """`BatchEndpoint`. `fails` is raised by the next creation, which `counts` or not; `broken` by everything else."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.made: list[Made] = []
        self.cancelled: list[str] = []
        self.fails: DriverError | None = None
        self.counts = True
        self.broken: DriverError | None = None
        self.looks = 0

    def end(self, batch: Made, **outcomes: ModelReply | DriverError) -> None:
        """Have it end; each request is answered with its own words unless `outcomes` says something else by session."""
        for name, request in batch.requests:
            words = request.messages[0]["content"]
            outcome = outcomes.get(words, ModelReply([{"type": "text", "text": words}], "end_turn", 1, 1))
            batch.outcomes[name] = outcome
        batch.ended = True

    async def create(self, model: ModelSpec, requests: Sequence[tuple[str, ModelRequest]]) -> str:
        assert model == MODEL
        error, self.fails = self.fails, None
        made = Made(f"b{len(self.made) + 1}", list(requests), self.clock.now_ms())
        if error is None or self.counts:
            self.made.append(made)
        if error is not None:
            raise error
        return made.name

    async def ended(self, model: ModelSpec, batch: str) -> bool:
        del model
        self.looks += 1
        return self._find(batch).ended

    async def results(self, model: ModelSpec, batch: str) -> AsyncGenerator[tuple[str, ModelReply | DriverError]]:
        del model
        for name, outcome in self._find(batch).outcomes.items():
            yield name, outcome

    async def recent(self, model: ModelSpec, since_ms: int) -> list[Seen]:
        del model
        if self.broken is not None:
            raise self.broken
        newest = reversed(self.made)
        return [Seen(one.name, one.at_ms, len(one.requests), one.ended) for one in newest if one.at_ms >= since_ms]

    async def cancel(self, model: ModelSpec, batch: str) -> None:
        del model
        self.cancelled.append(batch)

    async def close(self) -> None:
        return

    def _find(self, batch: str) -> Made:
        if self.broken is not None:
            raise self.broken
        found = next((one for one in self.made if one.name == batch), None)
        if found is None:
            raise BatchGone("no such batch")
        return found


class Store:
    """`BatchStore`; `away` has it fail."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.away = False

    async def put(self, submission: Submission) -> None:
        if self.away:
            raise LogUnavailable("the log is away")
        self.kept[submission.token] = submission.to_bytes()

    async def delete(self, token: str) -> None:
        self.kept.pop(token, None)

    async def all(self) -> list[Submission]:
        return [Submission.from_bytes(one) for one in self.kept.values()]

    @property
    def batches(self) -> list[str | None]:
        return [Submission.from_bytes(one).batch for one in self.kept.values()]


@dataclass
class World:
    """A provider and a store that outlive every runtime."""

    clock: Clock
    provider: Provider
    store: Store
    runtimes: list[Batches] = field(default_factory=list)
    tasks: list[asyncio.Task[ModelReply]] = field(default_factory=list)

    def runtime(self) -> Batches:
        """A fresh one, as after a restart."""

        async def endpoint(name: str) -> Provider:
            assert name == "anthropic"
            return self.provider

        made = Batches(lambda _: self.store, endpoint, self.clock, self.clock, Patience(first_s=10.0, most_s=60.0))
        self.runtimes.append(made)
        return made

    async def kill(self) -> None:
        """The newest runtime is gone, with everybody who waited."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        await self.runtimes[-1].close()

    async def ask(
        self, batches: Batches, *names: str, most: int = 100, still: DriverError | None = None
    ) -> list[asyncio.Task[ModelReply]]:
        """Calls of sessions, each with its name as its only word; they have come when this returns."""

        async def check() -> None:
            if still is not None:
                raise still

        made = []
        for name in names:
            request = ModelRequest("", [{"role": "user", "content": name}], [])
            call = BatchCall("default", f"s-{name}", f"id{name}", MODEL, request, WINDOW_MS, most, check)
            made.append(asyncio.create_task(batches.ask(call)))
        self.tasks += made
        await settle()
        return made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = Clock()
    made = World(clock, Provider(clock), Store())
    yield made
    await made.kill()


def said(task: asyncio.Task[ModelReply]) -> str:
    return str(task.result().content[0]["text"])


async def test_calls_of_a_window_are_one_batch(world: World) -> None:
    """Nothing goes out before its end; each gets its own result, and the record is there until all are settled."""
    batches = world.runtime()
    first = await world.ask(batches, "a")
    await world.clock.ahead(29)
    late = await world.ask(batches, "b")
    assert world.provider.made == []
    await world.clock.ahead(2)
    [batch] = world.provider.made
    assert len(batch.requests) == 2
    assert world.store.batches == ["b1"]
    world.provider.end(batch)
    await world.clock.ahead(60)
    assert [said(task) for task in (*first, *late)] == ["a", "b"]
    batches.settled("default", "s-a")
    await settle()
    assert world.store.batches == ["b1"]
    batches.settled("default", "s-b")
    await settle()
    assert (world.store.kept, world.provider.cancelled) == ({}, [])


async def test_a_full_window_goes_out_at_once(world: World) -> None:
    """And who comes then opens the next one."""
    batches = world.runtime()
    await world.ask(batches, "a", "b", "c", most=2)
    assert [len(one.requests) for one in world.provider.made] == [2]
    await world.clock.ahead(30)
    assert [len(one.requests) for one in world.provider.made] == [2, 1]


async def test_a_batch_is_looked_at_ever_more_rarely(world: World) -> None:
    """In a day some hundreds of looks at the longest pause, not thousands."""
    await world.ask(world.runtime(), "a", most=1)
    await world.clock.ahead(60)
    early = world.provider.looks
    await world.clock.ahead(600)
    assert early == 4
    assert world.provider.looks - early == 10


async def test_who_leaves_before_the_submission_is_not_submitted(world: World) -> None:
    """A window that everybody has left submits nothing."""
    batches = world.runtime()
    gone, stays = await world.ask(batches, "a", "b")
    gone.cancel()
    await world.clock.ahead(30)
    assert [request.messages[0]["content"] for _, request in world.provider.made[0].requests] == ["b"]
    [last] = await world.ask(batches, "c")
    last.cancel()
    await world.clock.ahead(30)
    assert len(world.provider.made) == 1
    assert not stays.done()


async def test_who_may_not_go_out_any_more_is_left_out(world: World) -> None:
    """The session was taken over by another runtime while the window was open."""
    batches = world.runtime()
    [barred] = await world.ask(batches, "a", still=DriverError("not ours"))
    await world.ask(batches, "b")
    await world.clock.ahead(30)
    assert len(world.provider.made[0].requests) == 1
    with pytest.raises(DriverError, match="not ours"):
        barred.result()


async def test_a_batch_that_nobody_waits_for_is_cancelled(world: World) -> None:
    """Only when all of its sessions are over; their record goes with it."""
    batches = world.runtime()
    tasks = await world.ask(batches, "a", "b", most=2)
    for name, task in zip("ab", tasks, strict=True):
        assert world.provider.cancelled == []
        task.cancel()
        await settle()
        batches.ended("default", f"s-{name}")
        await settle()
    assert world.provider.cancelled == ["b1"]
    assert world.store.kept == {}


async def test_one_call_failing_is_its_own(world: World) -> None:
    """What the provider says of one is told to that one, a result that is missing to the one that misses it."""
    batches = world.runtime()
    a, b, c = await world.ask(batches, "a", "b", "c", most=3)
    [batch] = world.provider.made
    world.provider.end(batch, a=ModelUnavailable("overloaded"))
    del batch.outcomes[batch.requests[1][0]]
    await world.clock.ahead(60)
    with pytest.raises(ModelUnavailable, match="overloaded"):
        a.result()
    with pytest.raises(ReplyBroken, match="no result"):
        b.result()
    assert said(c) == "c"


async def test_a_call_that_failed_and_is_made_again_is_in_a_new_batch(world: World) -> None:
    """Once its failure is settled; until then it is told the same failure again."""
    batches = world.runtime()
    [task] = await world.ask(batches, "a", most=1)
    world.provider.end(world.provider.made[0], a=ModelUnavailable("overloaded"))
    await world.clock.ahead(60)
    assert isinstance(task.exception(), ModelUnavailable)
    [again] = await world.ask(batches, "a", most=1)
    assert isinstance(again.exception(), ModelUnavailable)
    assert len(world.provider.made) == 1
    batches.settled("default", "s-a")
    await settle()
    await world.ask(batches, "a", most=1)
    assert len(world.provider.made) == 2


async def test_after_a_restart_the_same_batch_is_waited_for(world: World) -> None:
    """Each call that is made again finds its own, also one that comes when the results were read already."""
    await world.ask(world.runtime(), "a", "b", most=2)
    await world.kill()
    batches = world.runtime()
    [a] = await world.ask(batches, "a", most=2)
    world.provider.end(world.provider.made[0])
    await world.clock.ahead(60)
    assert said(a) == "a"
    [b] = await world.ask(batches, "b", most=2)
    assert said(b) == "b"
    assert len(world.provider.made) == 1


@pytest.mark.parametrize("restart", [False, True])
async def test_a_batch_whose_making_nobody_heard_of_is_found(world: World, restart: bool) -> None:
    """Among those that the provider lists, by the ids of its results; batches of others, as large, are not taken for it."""
    world.provider.fails = BatchUnsure("connection reset")
    batches = world.runtime()
    tasks = await world.ask(batches, "a", "b", most=2)
    assert world.store.batches == [None]
    others = Made("other", [("x-1", world.provider.made[0].requests[0][1])] * 2, world.clock.now_ms(), ended=True)
    others.outcomes = {"x-1": ModelReply([], "end_turn", 1, 1)}
    world.provider.made.append(others)
    if restart:
        await world.kill()
        tasks = await world.ask(world.runtime(), "a", "b", most=2)
    await world.clock.ahead(600)
    assert world.store.batches == [None]
    world.provider.end(world.provider.made[0])
    await world.clock.ahead(120)
    assert [said(task) for task in tasks] == ["a", "b"]
    assert world.store.batches == ["b1"]
    assert len(world.provider.made) == 2


async def test_a_batch_that_was_not_made_is_told_so(world: World) -> None:
    """Not before a minute has passed, in which it may still have come into the list; the calls can be made again."""
    world.provider.fails, world.provider.counts = BatchUnsure("connection reset"), False
    [task] = await world.ask(world.runtime(), "a", most=1)
    await world.clock.ahead(50)
    assert not task.done()
    await world.clock.ahead(60)
    with pytest.raises(ModelUnavailable, match="connection reset"):
        task.result()
    assert world.store.kept == {}


async def test_what_was_about_to_be_submitted_at_a_crash_is_submitted(world: World) -> None:
    """Once it is sure that it was not."""
    world.provider.fails, world.provider.counts = BatchUnsure("killed"), False
    await world.ask(world.runtime(), "a", most=1)
    await world.kill()
    [task] = await world.ask(world.runtime(), "a", most=1)
    assert world.provider.made == []
    await world.clock.ahead(120)
    world.provider.end(world.provider.made[0])
    await world.clock.ahead(120)
    assert said(task) == "a"


async def test_a_refused_batch_fails_its_calls(world: World) -> None:
    """As the provider says, and nothing stays of it."""
    world.provider.fails, world.provider.counts = DriverError("no such model"), False
    [task] = await world.ask(world.runtime(), "a", most=1)
    with pytest.raises(DriverError, match="no such model"):
        task.result()
    assert world.store.kept == {}


async def test_nothing_goes_out_that_could_not_be_kept(world: World) -> None:
    """While the log is away its callers are told that, and nothing was submitted."""
    world.store.away = True
    [task] = await world.ask(world.runtime(), "a", most=1)
    with pytest.raises(LogUnavailable):
        task.result()
    assert world.provider.made == []


async def test_of_two_records_of_a_call_the_one_that_was_made_counts(world: World) -> None:
    """A record that was stored although nobody heard so does not hide the batch that came after it; it is forgotten."""
    await world.ask(world.runtime(), "a", most=1)
    [kept] = world.store.kept.values()
    made = Submission.from_bytes(kept)
    await world.kill()
    for token, at in (("00", made.at_ms - 1000), ("ff", made.at_ms + 1000)):
        world.store.kept[token] = replace(made, token=token, at_ms=at, batch=None).to_bytes()
    [task] = await world.ask(world.runtime(), "a", most=1)
    world.provider.end(world.provider.made[0])
    await world.clock.ahead(300)
    assert said(task) == "a"
    assert len(world.provider.made) == 1
    assert world.provider.cancelled == []
    assert set(world.store.kept) == {made.token}


async def test_an_endpoint_that_is_away_is_waited_for(world: World) -> None:
    """The batch goes on meanwhile; also where the key is refused for a time."""
    [task] = await world.ask(world.runtime(), "a", most=1)
    world.provider.broken = DriverError("401")
    world.provider.end(world.provider.made[0])
    await world.clock.ahead(7200)
    assert not task.done()
    world.provider.broken = None
    await world.clock.ahead(60)
    assert said(task) == "a"


@pytest.mark.parametrize("gone", [True, False])
async def test_a_batch_that_is_gone_or_never_ends_is_given_up(world: World, gone: bool) -> None:
    """After more than a day, or at once when the provider knows nothing of it."""
    [task] = await world.ask(world.runtime(), "a", most=1)
    if gone:
        world.provider.made.clear()
    await world.clock.ahead(120 if gone else GIVEN_UP_MS // 1000)
    assert task.done() is gone
    await world.clock.ahead(120)
    assert isinstance(task.exception(), BatchGone if gone else ModelUnavailable)
    assert world.store.kept == {}


async def test_sessions_that_ended_while_no_runtime_was_there(world: World) -> None:
    """Their calls are forgotten at the start, and a batch that is theirs alone is cancelled."""
    await world.ask(world.runtime(), "a", "b", most=2)
    await world.kill()
    over = {"s-a"}

    async def is_over(session: str) -> bool:
        return session in over

    batches = world.runtime()
    await batches.recover("default", is_over)
    await settle()
    assert (world.store.batches, world.provider.cancelled) == (["b1"], [])
    over.add("s-b")
    await batches.recover("default", is_over)
    await settle()
    assert (world.store.batches, world.provider.cancelled) == ([], ["b1"])
