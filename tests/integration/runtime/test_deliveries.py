"""The loop that receives delegations, on a real server: many at a time, and no message stands in the way of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentos.abi.envelope import Envelope
from agentos.boot import delegations
from agentos.boot.backend import Embedded
from agentos.boot.delegations import AT_ONCE, MOST_TRIES, Deliveries
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.eventlog.adapters.tasks import STREAM
from agentos.kernel.receiving import Received, Verdict


def envelope(child: str) -> Envelope:
    return Envelope("default", "s-parent", "c1", 0, child, 2, "sha256:" + "a" * 64, 1, 1000)


class Desk:
    """Receives as it is told, by child, and counts what was refused."""

    def __init__(self) -> None:
        self.came: Counter[str] = Counter()
        self.says: dict[str, Any] = {}
        self.counted: list[tuple[str, str]] = []
        self.now = self.most = 0
        self.gate: asyncio.Event | None = None

    async def receive(self, tenant: str, subject: str, body: bytes, signature: bytes | None) -> Received:
        child = Envelope.from_bytes(body).child
        self.came[child] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.now -= 1
        said = self.says.get(child, Received(Verdict.BEGUN))
        if isinstance(said, Exception):
            raise said
        return said  # type: ignore[no-any-return]

    def count(self, tenant: str, code: str, message: str) -> None:
        self.counted.append((tenant, code))

    async def close(self) -> None:
        return


class Post:
    """A tenant on a server, and what is made for it."""

    def __init__(self, backend: Embedded, client: Any) -> None:
        self.backend, self.client, self.desk = backend, client, Desk()
        self.tenant: Any = SimpleNamespace(name="default", client=client, streams=SimpleNamespace(replicas=1))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Deliveries]:
        """A runtime's wire; opened as at its start."""
        tenants: Any = SimpleNamespace(get=lambda _: self.tenant)
        desk: Any = self.desk
        made = Deliveries(tenants, self.backend, desk, SystemTimer())
        made.serve(desk)
        await made.open(self.tenant)
        try:
            yield made
        finally:
            await made.close()

    async def left(self, most: int) -> None:
        """Wait until the queue holds no more than so many."""
        async with asyncio.timeout(30):
            while (await self.client.jetstream().stream_info(STREAM)).state.messages > most:
                await asyncio.sleep(0.01)


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    backend = Embedded(tmp_path / "nats", tmp_path / "keys", SystemRandom(), 0)
    await backend.start(("default",))
    client = await backend.connect("default")
    yield Post(backend, client)
    await client.close()
    await backend.stop()


async def test_many_are_dealt_with_at_a_time_and_each_once(post: Post) -> None:
    """So many and no more are under way; the others follow as places come free."""
    post.desk.gate = asyncio.Event()
    async with post.open() as wire:
        await asyncio.gather(*(wire.send("default", envelope(f"s-{number}")) for number in range(2 * AT_ONCE)))
        async with asyncio.timeout(30):
            while post.desk.now < AT_ONCE:
                await asyncio.sleep(0.01)
        post.desk.gate.set()
        await post.left(0)
    assert post.desk.most == AT_ONCE
    assert post.desk.came == Counter({f"s-{number}": 1 for number in range(2 * AT_ONCE)})


async def test_what_is_put_off_and_what_is_refused_hold_up_nobody(post: Post) -> None:
    """One that waits for something comes again and again beside the others; refusals that nobody was told of are counted."""
    post.desk.says = {
        "s-later": Received(Verdict.LATER, message="frozen"),
        "s-forged": Received(Verdict.REFUSED, "delegation.forged", "no"),
        "s-told": Received(Verdict.REFUSED, "delegation.closed", "no", told=True),
        "s-known": Received(Verdict.KNOWN),
    }
    async with post.open() as wire:
        for child in (*post.desk.says, *(f"s-{number}" for number in range(20))):
            await wire.send("default", envelope(child))
        await post.left(1)
        async with asyncio.timeout(30):
            while post.desk.came["s-later"] < 3:
                await asyncio.sleep(0.01)
        del post.desk.says["s-later"]
        await post.left(0)
    assert post.desk.counted == [("default", "delegation.forged")]
    assert all(times == 1 for child, times in post.desk.came.items() if child != "s-later")


async def test_a_message_at_which_the_runtime_itself_fails_is_given_up(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is tried again a few times, then counted; what comes behind it goes on."""
    monkeypatch.setattr(delegations, "FIRST_PAUSE_S", 0.001)
    post.desk.says = {"s-poison": RuntimeError("a bug")}
    async with post.open() as wire:
        await wire.send("default", envelope("s-poison"))
        await wire.send("default", envelope("s-good"))
        await post.left(0)
    assert post.desk.came == Counter({"s-poison": MOST_TRIES, "s-good": 1})
    assert post.desk.counted == [("default", "delegation.internal")]


async def test_what_was_under_way_when_the_runtime_stopped_is_received_by_the_next(post: Post) -> None:
    """Nothing is waited for that nobody does any more, and a tenant without a queue has none made for it."""
    post.desk.gate = asyncio.Event()
    async with post.open() as wire:
        await wire.send("default", envelope("s-1"))
        async with asyncio.timeout(30):
            while not post.desk.now:
                await asyncio.sleep(0.01)
    post.desk.gate.set()
    async with post.open():
        await post.left(0)
    assert post.desk.came == Counter({"s-1": 2})


async def test_a_tenant_that_never_delegated_has_no_queue(post: Post) -> None:
    """Not before its first delegation."""
    async with post.open():
        names = [stream.config.name for stream in await post.client.jetstream().streams_info()]
    assert STREAM not in names
