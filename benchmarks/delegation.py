"""A delegation on the wire, from the decision to the child's answer, against a bare JetStream work queue on the same server.

    python -m benchmarks.delegation

The child is in this process and says nothing: what a model and a harness take is not measured.

    floor         a publish with acknowledgement to a work queue, delivered to a worker, answered to an inbox, acknowledged;
                  nothing is signed or looked up
    wire          signed, sent by a user of its own, delivered, verified, judged by the parent's log, answered; no child is stored
    delegation    the child's first and last events are durable as well, as two publishes after another are in its floor
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.envelope import Envelope
from agentos.abi.ids import new_id
from agentos.abi.syscall import ToolEffect
from agentos.boot.backend import Embedded
from agentos.boot.delegations import Deliveries
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.drivers.port import ToolSpec
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.tasks import is_signed
from agentos.kernel.journal import Journal
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.receiving import Handover, Receiver, Refusal
from agentos.projections.session import SessionState
from benchmarks.measure import Figure, in_turn

ROUNDS = 300
TASKS = 16
IN_FLIGHT = 128
TOGETHER = 2560
"""Delegations of the measurement of many at once."""

_AGENT = AgentSpec("worker", "m", "Work.", (), {})
_HAND = ToolSpec("hand", "", ToolEffect.WRITE, True, {}, {"delegate": {"agents": ["worker"], "maxTasks": TASKS}})


class Children:
    """As much of `kernel.sessions.Sessions` as the receiver needs: parents that are held, children that answer at once."""

    def __init__(self, log: JetStreamLog, timer: SystemTimer, random: SystemRandom) -> None:
        self._log, self._timer, self._random = log, timer, random
        self.parents: dict[str, Journal] = {}
        self.answers: dict[str, asyncio.Future[None]] = {}
        self.stores = True

    @asynccontextmanager
    async def journal(self, tenant: str, session: str) -> AsyncIterator[Journal]:
        yield self.parents[session]

    def live(self, tenant: str) -> frozenset[str]:
        return frozenset(self.parents)

    async def create(self, tenant: str, agent: str, goal: str, archive: object, actor: str, **words: Any) -> SessionState:
        child, origin = words["session"], words["origin"]
        data = {"agent": agent, "goal": goal, "inputs": [], **origin}
        state = SessionState(id=child, delegated=origin["delegated"], seq=1)
        if self.stores:
            journal = Journal(self._log, tenant, child, self._timer, self._random)
            await words["prepare"](child)
            state = await journal.record(ev.SESSION_CREATED, data, actor=actor, revision=1, policy=None)
            await journal.record(ev.SESSION_FINISHED, {"result": "done"}, actor="agent/worker", revision=1, policy=None)
        self.answers[child].set_result(None)
        return state


class Desk:
    """The side that delegates."""

    def has_refused(self, tenant: str, child: str) -> bool:
        return False

    async def hand_over(self, tenant: str, parent: SessionState, call: str, index: int) -> Handover:
        return Handover()

    async def refused(self, refusal: Refusal) -> None:
        raise RuntimeError(refusal.message)

    async def began(self, tenant: str, parent: str, call: str, child: str) -> None:
        return


class Floor:
    """A bare work queue and its worker: two clients of the runtime's own user, as fast as the client library is."""

    def __init__(self, sender: Client, worker: Client) -> None:
        self._sender, self._worker = sender, worker
        self._numbers = iter(range(10**9))
        self._answers: dict[str, asyncio.Future[None]] = {}

    async def open(self) -> None:
        js = self._worker.jetstream()
        await js.add_stream(name="FLOOR", subjects=["floor.*"], retention="workqueue", storage="file")
        await js.subscribe("floor.*", durable="floor", cb=self._work, manual_ack=True)
        await self._sender.subscribe("answer.*", cb=self._answered)
        await self._sender.flush()

    async def _work(self, message: Msg) -> None:
        await self._worker.publish(f"answer.{message.subject.partition('.')[2]}", b"done")
        await message.ack()

    async def _answered(self, message: Msg) -> None:
        self._answers.pop(message.subject).set_result(None)

    async def request(self) -> None:
        """One request and its answer."""
        number = str(next(self._numbers))
        answered = self._answers[f"answer.{number}"] = asyncio.get_running_loop().create_future()
        await self._sender.jetstream().publish(f"floor.{number}", b"x" * 400, headers={"Nats-Msg-Id": number})
        await answered


class Bench:
    """A server, a wire, and parents that have decided."""

    def __init__(self, backend: Embedded, client: Client) -> None:
        self.timer, self.random = SystemTimer(), SystemRandom()
        self.log = JetStreamLog(client)
        self.children = Children(self.log, self.timer, self.random)
        self.client = client
        served = SimpleNamespace(name="default", client=client, streams=self.log)
        tenants: Any = SimpleNamespace(get=lambda _: served)
        refusals: Any = SimpleNamespace(count=self._refused, close=self._nothing)
        self.deliveries = Deliveries(tenants, backend, refusals, self.timer)
        sessions: Any = self.children
        receiver = Receiver(
            sessions,
            self,
            Desk(),
            self.timer,
            streams=lambda _: self.log,
            trusted=self.deliveries.trusted,
            verify=is_signed,
            join=self._nothing,
            frozen=lambda *_: False,
        )
        self.deliveries.serve(receiver)
        self._ready: list[Envelope] = []

    def current(self, tenant: str) -> Configuration:
        decider: Any = None
        return Configuration(tenant, 1, "", 10**6, {"worker": _AGENT}, {"hand": _HAND}, {}, {}, decider)

    @staticmethod
    def _refused(tenant: str, code: str, message: str) -> None:
        raise RuntimeError(f"{code}: {message}")

    @staticmethod
    async def _nothing(*_: object) -> None:
        return

    async def prepare(self, count: int) -> None:
        """Have parents decide to delegate to so many children; that is not measured."""
        args: dict[str, Any] = {"tasks": [{"goal": f"task {number}"} for number in range(TASKS)]}
        for _ in range(-(-count // TASKS)):
            children = [new_id("s", self.timer, self.random) for _ in range(TASKS)]
            journal = Journal(self.log, "default", new_id("s", self.timer, self.random), self.timer, self.random)
            record = journal.record
            created = {"agent": "worker", "goal": "have it done", "inputs": []}
            await record(ev.SESSION_CREATED, created, actor="principal/bench", revision=1, policy=None)
            decided = {
                "call": "c1",
                "tool": "hand",
                "effect": "write",
                "turn": 1,
                "args": args,
                "args_digest": digest_of(args),
                "decision": {"effect": "allow", "rules": [], "reasons": [], "obligations": []},
                "children": children,
            }
            await record(ev.SYSCALL_DECIDED, decided, actor="agent/worker", revision=1, policy=None)
            self.children.parents[journal.session] = journal
            now, head = self.timer.now_ms(), journal.head
            self._ready += [
                Envelope("default", journal.session, "c1", index, child, head.seq, head.hash, now, now + 600_000)
                for index, child in enumerate(children)
            ]

    async def delegate(self) -> None:
        """Send one, and wait for its child's answer."""
        envelope = self._ready.pop()
        answered = self.children.answers[envelope.child] = asyncio.get_running_loop().create_future()
        await self.deliveries.send("default", envelope)
        await answered
        del self.children.answers[envelope.child]


async def per_second(subject: Callable[[], Awaitable[None]], count: int) -> float:
    """How many of it are done in a second with IN_FLIGHT under way."""

    async def on(times: int) -> None:
        for _ in range(times):
            await subject()

    started = time.perf_counter()
    await asyncio.gather(*(on(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - started)


async def run(folder: Path) -> tuple[list[Figure], dict[str, float]]:
    """Measure; return the figures of one after the other, and how many a second with IN_FLIGHT at once."""
    backend = Embedded(folder / "nats", folder / "keys", SystemRandom(), 0)
    await backend.start(("default",))
    try:
        client, asking, working = [await backend.connect("default") for _ in range(3)]
        floor, bench = Floor(asking, working), Bench(backend, client)
        await floor.open()
        await bench.prepare(2 * (ROUNDS + 20) + 2 * TOGETHER + 4 * TASKS)
        await bench.delegate()
        js = asking.jetstream()

        async def request_and_two() -> None:
            await floor.request()
            for subject in ("FLOOR2.a", "FLOOR2.b"):
                await js.publish(subject, b"x" * 900)

        await js.add_stream(name="FLOOR2", subjects=["FLOOR2.*"], storage="file")

        async def wire() -> None:
            bench.children.stores = False
            await bench.delegate()

        async def delegation() -> None:
            bench.children.stores = True
            await bench.delegate()

        subjects = {
            "floor: a bare work queue": floor.request,
            "wire: a signed envelope, judged by the parent's log": wire,
            "floor: a bare work queue, then two publishes": request_and_two,
            "delegation: the child's two events durable": delegation,
        }
        figures = list((await in_turn(subjects, rounds=ROUNDS)).values())
        rates = {name: await per_second(subject, TOGETHER) for name, subject in subjects.items()}
        await bench.deliveries.close()
        for one in (client, asking, working):
            await one.close()
        return figures, rates
    finally:
        await backend.stop()


def lines(figures: list[Figure], rates: dict[str, float]) -> list[str]:
    """A table; each ratio is to the floor before it."""
    found = [
        f"| what | p50 µs | p99 µs | ratio | a second, {IN_FLIGHT} at once | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for floor, subject in zip(figures[::2], figures[1::2], strict=True):
        found.append(f"| {floor.name} | {floor.p50:.0f} | {floor.p99:.0f} | | {rates[floor.name]:.0f} | |")
        ratio, rate = subject.p50 / floor.p50, rates[subject.name] / rates[floor.name]
        found.append(
            f"| {subject.name} | {subject.p50:.0f} | {subject.p99:.0f} | {ratio:.2f} | {rates[subject.name]:.0f} | {rate:.2f} |"
        )
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as place:
        print("\n".join(lines(*asyncio.run(run(Path(place))))))
