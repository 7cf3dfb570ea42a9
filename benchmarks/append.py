"""Durable appends against their floors on the same server, measured in turn: one session, 64 and 1,000 sessions waiting.

    python -m benchmarks.append

Every message is synced before it is acknowledged (`sync_interval: always`). The floors are nats-py without us: a publish after
the other, publishes side by side, and atomic batches in which every session has one message with its expected sequence.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import orjson
from nats.aio.client import Client
from nats.nuid import NUID

from agentos.boot.system import SystemRandom
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import create_seed
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, ServerConfig, User
from agentos.eventlog.port import Message
from agentos.eventlog.subject import SHARDS, TIMELESS
from benchmarks.measure import Figure, in_turn

PAYLOAD = b"x" * 900
TURNS = 9
WAITING = {64: 40, 1000: 10}
"""Sessions at once, and how many events each appends in a turn."""

ONE = {"a bare publish": "floor: publish, acknowledged", "an append": "append, one session"}
Load = Callable[[], Awaitable[None]]


class Sessions:
    """`count` sessions that append one event after the other, spread over `streams`; `times` are µs of each append."""

    def __init__(self, client: Client, name: str, count: int, events: int, streams: int = 1) -> None:
        self._log = JetStreamLog(client)
        self._ends = {f"ev.{TIMELESS}.{number % streams}.{name}-{number}": 0 for number in range(count)}
        self._events = events
        self._numbers = iter(range(10**9))
        self._name = name
        self.times: list[float] = []

    async def run(self) -> None:
        await asyncio.gather(*(self._session(subject) for subject in self._ends))

    async def _session(self, subject: str) -> None:
        for _ in range(self._events):
            message = Message(f"{self._name}-{next(self._numbers)}", PAYLOAD)
            started = time.perf_counter_ns()
            self._ends[subject] = await self._log.append(subject, [message], after=self._ends[subject])
            self.times.append((time.perf_counter_ns() - started) / 1000)


class Batches:
    """The floor: batches of `count` messages to as many subjects of one stream, by nats-py's own publish."""

    def __init__(self, client: Client, count: int, events: int) -> None:
        self._client = client
        self._ends = [0] * count
        self._events = events
        self._nuid = NUID()

    async def run(self) -> None:
        for _ in range(self._events):
            await self._batch()

    async def _batch(self) -> None:
        batch, count = self._nuid.next().decode("ascii"), len(self._ends)
        for number, end in enumerate(self._ends, start=1):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number), "Nats-Msg-Id": f"{batch}-{number}"}
            headers["Nats-Expected-Last-Subject-Sequence"] = str(end)
            subject = f"ev.000000.0.batch-{count}-{number}"
            if number < count:
                await self._client.publish(subject, PAYLOAD, headers=headers)
            else:
                found = await self._client.request(subject, PAYLOAD, timeout=30, headers=headers | {"Nats-Batch-Commit": "1"})
        last = orjson.loads(found.data)["seq"]
        self._ends = [last - count + number for number in range(1, count + 1)]


class Publishes:
    """The floor without batches: `count` publishes under way at a time."""

    def __init__(self, client: Client, count: int, events: int) -> None:
        self._stream = client.jetstream()
        self._count = count
        self._events = events

    async def run(self) -> None:
        async def publisher(number: int) -> None:
            for _ in range(self._events):
                await self._stream.publish(f"ev.000000.0.plain-{number}", PAYLOAD, timeout=30)

        await asyncio.gather(*(publisher(number) for number in range(self._count)))


async def run(folder: Path) -> list[str]:
    """Measure; the section for the report."""
    key = create_seed(SystemRandom())
    server = NatsServer(folder / "append", ServerConfig((Account("BENCH", (User(key.public_key),)),)), random=SystemRandom())
    await server.start()
    try:
        client = await connect(server.url, key, name="bench", reconnect=True)
        await ensure_streams(client, [f"EV_{TIMELESS}_{shard}" for shard in range(SHARDS)])
        one = await _one(client)
        many = [line for count, events in WAITING.items() for line in await _many(client, count, events)]
        await client.close()
    finally:
        await server.stop()
    floor = one[ONE["a bare publish"]].p50
    return [
        "| one session, one event after the other | p50 µs | p99 µs | to the floor |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {one[key].p50:.0f} | {one[key].p99:.0f} | {one[key].p50 / floor:.2f} |" for name, key in ONE.items()),
        "",
        "| sessions at once | durable events/s | to the batch floor | to publishes | p50 ms | p99 ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *many,
    ]


async def _one(client: Client) -> dict[str, Figure]:
    log, stream = JetStreamLog(client), client.jetstream()
    end, numbers = 0, iter(range(10**9))

    async def publish() -> None:
        await stream.publish("ev.000000.0.one-bare", PAYLOAD)

    async def append() -> None:
        nonlocal end
        end = await log.append("ev.000000.0.one", [Message(f"one-{next(numbers)}", PAYLOAD)], after=end)

    return await in_turn({ONE["a bare publish"]: publish, ONE["an append"]: append}, rounds=400)


async def _many(client: Client, count: int, events: int) -> list[str]:
    inside, spread = Sessions(client, f"in-{count}", count, events), Sessions(client, f"over-{count}", count, events, SHARDS)
    loads: dict[str, Load] = {
        f"floor: publishes, {count} side by side": Publishes(client, count, max(1, events // 8)).run,
        f"floor: atomic batches of {count}": Batches(client, count, events).run,
        f"{count} sessions in one stream": inside.run,
        f"{count} sessions over {SHARDS} streams": spread.run,
    }
    size = dict.fromkeys(loads, count * events)
    plain, batches, *subjects = loads
    size[plain] = count * max(1, events // 8)
    rates = await _rates(loads, size)
    latency = dict(zip(subjects, (inside.times, spread.times), strict=True))
    return [
        _line(name, median(rates[name]), median(rates[batches]), median(rates[plain]), sorted(latency.get(name, ())))
        for name in loads
    ]


async def _rates(loads: dict[str, Load], size: dict[str, int]) -> dict[str, list[float]]:
    """Events per second of each load, per turn; the first turn warms up."""
    rates: dict[str, list[float]] = {name: [] for name in loads}
    for turn in range(TURNS + 1):
        for name, load in loads.items():
            started = time.perf_counter()
            await load()
            if turn:
                rates[name].append(size[name] / (time.perf_counter() - started))
    return rates


def _line(name: str, rate: float, batches: float, plain: float, times: list[float]) -> str:
    tail = f"{median(times) / 1000:.1f} | {times[int(len(times) * 0.99)] / 1000:.1f}" if times else " | "
    return f"| {name} | {rate:,.0f} | {rate / batches:.2f} | {rate / plain:.1f} | {tail} |"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as scratch:
        print("\n".join(asyncio.run(run(Path(scratch)))))
