"""The boundary between kernel and harness: what a turn costs in a process that is there already, how much more a syscall takes
through the pipe than without one, and how many processes a thousand live sessions need.

    python -m benchmarks.boundary [SESSIONS]

**Alone.** The built-in loop as the pool starts it, in a place of its own; the kernel's side serves it as ever, and answers from
memory at once. A turn takes a process that other sessions have left, and lets it go again: greeting, view, a model's reply with a
call in it, the call, the model again, which parks the session. Its floor is the same four requests answered without a process. A
syscall is timed in the middle of a session, two at a time (a call, and the model's next reply), in turn with the same two without
a process.

**In a runtime.** Everything real: gate, policy, durable log. First turns of sessions, one after the other: from the taking of a
process until the loop asks the model the next time, and the letting go of it; less the time in which the model is asked. Four
durable events are in that; its floor are four bare publishes with acknowledgement to the same server, in turn. Then a thousand
sessions of one tenant, all of them live, each in the middle of a call of the model, which answers nobody before it was asked by
all; then each makes a call and ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from agentos.abi import rpc
from agentos.abi.canonical import Json
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.syscall import Result
from agentos.boot.harness_place import PlacedSpawner
from agentos.boot.harness_pool import MOST, HarnessPool
from agentos.boot.home import Home
from agentos.boot.runtime import Runtime, open_runtime
from agentos.boot.system import settle_heap
from agentos.control.client import Client, find_identity, open_client
from agentos.drivers.port import CallContext, ModelReply, ModelRequest, ModelSpec, ToolSpec
from agentos.kernel.port import Brief, HarnessProcess, Left
from agentos.kernel.serving import Leave, serve
from agentos.sandbox.adapters.chooser import HostSandboxes
from benchmarks.crowd import Crowd, rss, watch
from benchmarks.measure import Figure, figure, in_turn

SESSIONS: Final = 1000
ROUNDS: Final = 1000
TURNS: Final = 300
"""Turns in a runtime."""

WARMUP: Final = 20

TURN: Final = "turn, process from the pool"
IN_HERE: Final = "floor: its four requests without a process"
COLD: Final = "the same in a fresh process"
PIPED: Final = "two syscalls through the pipe"
DIRECT: Final = "floor: the same two without a process"
WHOLE: Final = "turn in a runtime, process from the pool"
PUBLISHES: Final = "floor: its four durable events, bare"

MOST_TURN_MS: Final = 5.0
MOST_MORE_MS: Final = 0.3
MOST_MIB: Final = 1024

DECLARED: Final = """
apiVersion: agentos/v1
kind: Tenant
metadata: {name: default}
spec: {limits: {sessions: 10000, requestsPerSecond: 100000, eventsPerSecond: 100000}}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: steps}
spec:
  provider: scripted
  scripted:
    play:
      name: steps
      rules:
        - {id: write, when: "not results", call: [{tool: write, args: {path: a.txt, content: x}}]}
        - {id: done, when: "true", say: done}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Write.
  model: steps
  tools: [write]
  governance: {owner: bench, purpose: measuring, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: writes}
spec: {agents: [worker], tools: [write]}
"""

VIEW: Final[dict[str, Json]] = {"session": "s-1", "agent": "worker", "goal": "work", "pending": [], "final": None}
BRIEF: Final = Brief("default", "s-1")


def reply(number: int) -> dict[str, Json]:
    """A reply of a model with a call in it."""
    use = {"type": "tool_use", "id": f"c-{number}", "name": "write", "input": {"path": "a.txt", "content": "x"}}
    return {"content": [use], "stop_reason": "tool_use"}


class Kernel:
    """Answers at once, from memory. An `Answers`. `turns`: model calls until the session is parked."""

    session = "s-1"

    def __init__(self, turns: int, between: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        self._left = turns
        self._between = between
        """Waited for before each answer of the model."""

    async def handle(self, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """See `Answers`."""
        match method:
            case "session.view":
                return VIEW
            case "tool.call":
                return {"call": params["call"], "content": "written", "is_error": False}
            case _:
                if self._between is not None:
                    await self._between()
                if self._left == 0:
                    raise Leave(rpc.PARKED, "enough")
                self._left -= 1
                return reply(self._left)

    def at_once(self, method: str, params: dict[str, Json]) -> Coroutine[Any, Any, dict[str, Json]] | None:
        """Nothing."""

    def no_more(self) -> None:
        """Nothing to do."""

    def rest(self) -> asyncio.Future[None] | None:
        """Nobody else needs the place."""

    def rise(self, *, gone: bool) -> None:
        """Nothing to do."""


async def drive(process: HarnessProcess, kernel: Kernel) -> Left:
    """One session from its greeting until the process is let go of, as `kernel.runner` does it."""
    served = await serve(process, kernel)
    return await process.stop(reuse=frozenset() if served.reuse else None)


async def alone(rounds: int = ROUNDS) -> list[Figure]:
    """Figures of turns and of pairs of syscalls, in memory."""
    spawner = PlacedSpawner(HostSandboxes(None))
    pools = [pool := HarnessPool(spawner.start)]

    async def turn() -> None:
        left = await drive(await pool.spawn(BRIEF), Kernel(1))
        assert left == Left(None), left

    async def cold() -> None:
        pools.append(HarnessPool(spawner.start))
        await drive(await pools[-1].spawn(BRIEF), Kernel(1))

    async def in_here() -> None:
        kernel = Kernel(2)
        await kernel.handle("session.view", {})
        await pair(kernel)
        await kernel.handle("model.call", {})

    async def pair(kernel: Kernel) -> None:
        asked = (await kernel.handle("model.call", {}))["content"][0]
        await kernel.handle("tool.call", {"call": asked["id"], "tool": asked["name"], "args": asked["input"]})

    try:
        turns = await in_turn({IN_HERE: in_here, TURN: turn}, rounds=rounds)
        turns |= await in_turn({COLD: cold}, rounds=max(10, rounds // 40), warmup=2)
        # In the middle of a session: it stands at the model's door until a round lets it go on to the next time.
        doors = Doors()
        standing = Kernel(rounds + WARMUP, doors.stand)
        driven = asyncio.create_task(drive(await pool.spawn(BRIEF), standing))
        await doors.reached()
        straight = Kernel(rounds + WARMUP)
        pairs = await in_turn({DIRECT: lambda: pair(straight), PIPED: doors.go_on}, rounds=rounds, warmup=WARMUP)
        await doors.open()
        await driven
    finally:
        for one in pools:
            await one.close()
    return [*turns.values(), *pairs.values()]


class Doors:
    """Where a session stands until it is told to go on."""

    def __init__(self) -> None:
        self._standing: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self._now: asyncio.Future[None] | None = None

    async def stand(self) -> None:
        """Stand here until told."""
        told = asyncio.get_running_loop().create_future()
        self._standing.put_nowait(told)
        await told

    async def reached(self) -> None:
        """Wait until it stands here."""
        self._now = await self._standing.get()

    async def open(self) -> None:
        """Let it go on."""
        assert self._now is not None
        self._now.set_result(None)

    async def go_on(self) -> None:
        """Let it go on, and wait until it stands here the next time."""
        await self.open()
        await self.reached()


class Held:
    """The scripted model, which can be held back."""

    def __init__(self, runtime: Runtime) -> None:
        self._ask = runtime.models.complete
        self.spent_ns = 0
        self.asked = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.go.set()

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """See `ModelProvider`."""
        begun = time.perf_counter_ns()
        self.asked.release()
        await self.go.wait()
        try:
            return await self._ask(model, request, on_text)
        finally:
            self.spent_ns += time.perf_counter_ns() - begun


async def in_a_runtime(folder: Path, sessions: int = SESSIONS, turns: int = TURNS) -> tuple[list[Figure], Crowd]:
    """Figures of sessions of one turn, and of many at once; raises RuntimeError if a session does not do what it should."""
    home = Home(folder)
    async with open_runtime(home) as runtime:
        client = await open_client(runtime.url, find_identity(home.root, None, None))
        try:
            manifests: list[Any] = list(yaml.safe_load_all(DECLARED))
            applied = {"manifests": manifests, "reason": "bench", "allow_widen": True, "allow_destroy": True}
            await client.call("registry.apply", applied, within=60)
            held = Held(runtime)
            runtime.models.complete = held.complete  # type: ignore[method-assign]
            runtime.drivers.call = nothing  # type: ignore[method-assign]
            settle_heap()
            figures = await _turns(runtime, client, held, turns)
            return figures, await _crowd(client, held, sessions)
        finally:
            await client.close()


async def nothing(tool: ToolSpec, args: Any, context: CallContext) -> Result:
    """A tool that takes no time."""
    return Result("written")


async def _turns(runtime: Runtime, client: Client, held: Held, turns: int) -> list[Figure]:
    """Of the first turn of each session the time without the model's, and of bare publishes in turn."""
    spawn, times, floors = runtime.harnesses.spawn, list[float](), list[float]()
    left_one = asyncio.Semaphore(0)

    async def timed(brief: Brief) -> HarnessProcess:
        begun, spent, asked = time.perf_counter_ns(), held.spent_ns, list[int]()
        process = await spawn(brief)
        read, stop = process.read_frame, process.stop

        async def noted() -> bytes:
            frame = await read()
            if b'"model.call"' in frame:
                asked.append(time.perf_counter_ns() - begun - (held.spent_ns - spent))
            return frame

        async def stopped(*, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
            at = time.perf_counter_ns()
            left = await stop(reuse=reuse, finished=finished)
            times.append((asked[1] + time.perf_counter_ns() - at) / 1000)
            process.read_frame, process.stop = read, stop  # type: ignore[method-assign]
            left_one.release()
            return left

        process.read_frame, process.stop = noted, stopped  # type: ignore[method-assign]
        return process

    bare = (await runtime.backend.connect(DEFAULT_TENANT)).jetstream()
    await bare.add_stream(name="FLOOR", subjects=["floor"])
    runtime.harnesses.spawn = timed  # type: ignore[method-assign]
    for _ in range(WARMUP + turns):
        begun = time.perf_counter_ns()
        for _ in range(4):
            await bare.publish("floor", b"x" * 900)
        floors.append((time.perf_counter_ns() - begun) / 1000)
        session = (await client.call("session.create", {"agent": "worker", "goal": "work"}))["session"]
        # A client that follows the session would be answered beside it, at each event.
        await left_one.acquire()
        await _finished(client, session)
    runtime.harnesses.spawn = spawn  # type: ignore[method-assign]
    if runtime.harnesses.processes != 1:
        raise RuntimeError(f"sessions one after the other took {runtime.harnesses.processes} processes")
    return [figure(PUBLISHES, floors[WARMUP:]), figure(WHOLE, times[WARMUP:])]


async def _crowd(client: Client, held: Held, sessions: int) -> Crowd:
    found = Crowd(sessions, idle_mib=rss([os.getpid()]))
    held.asked, held.go = asyncio.Semaphore(0), asyncio.Event()
    watching = asyncio.create_task(watch(found))
    try:
        begun = time.perf_counter()
        names: list[str] = []
        for first in range(0, sessions, 50):
            made = [
                client.call("session.create", {"agent": "worker", "goal": "work"}, within=60)
                for _ in range(min(50, sessions - first))
            ]
            names += [one["session"] for one in await asyncio.gather(*made)]
        async with asyncio.timeout(300):
            for _ in range(sessions):
                await held.asked.acquire()
        found.asked_s = time.perf_counter() - begun
        await asyncio.sleep(1)
        begun = time.perf_counter()
        held.go.set()
        for name in names:
            await _finished(client, name)
        found.ended_s = time.perf_counter() - begun
    finally:
        watching.cancel()
    return found


async def _finished(client: Client, session: str) -> None:
    """Wait for the end of a session. Raises RuntimeError unless it has finished as it should."""
    position = 0
    while True:
        found = await client.call("session.get", {"session": session})
        if found["state"] in {"finished", "failed"}:
            break
        more = {"session": session, "seq": found["seq"], "position": position, "wait_ms": 10_000}
        position = (await client.call("session.events", more, within=60))["position"]
    if found.get("result") != "done" or found["calls"] != 1:
        raise RuntimeError(f"session {session} ended with {found.get('result')!r}, {found.get('error')!r}")


def lines(figures: Sequence[Figure], crowd: Crowd) -> list[str]:
    """The tables for the report."""
    by_name = {one.name: one for one in figures}
    turn, more = by_name[TURN].p50 / 1000, (by_name[PIPED].p50 - by_name[DIRECT].p50) / 2000
    floors = {TURN: IN_HERE, COLD: TURN, PIPED: DIRECT, WHOLE: PUBLISHES}
    table = ["| what | p50 ms | p99 ms | to its floor |", "| --- | ---: | ---: | ---: |"]
    for one in figures:
        floor = floors.get(one.name)
        told = "" if floor is None else f"+{(one.p50 - by_name[floor].p50) / 1000:.2f} ms"
        table.append(f"| {one.name} | {one.p50 / 1000:.3f} | {one.p99 / 1000:.3f} | {told} |")
    return [
        f"A turn in a process that is there already takes **{turn:.2f} ms** (target ≤ {MOST_TURN_MS:g}), the log apart.",
        f"A syscall takes **{more:.3f} ms** more through the pipe than without it (target ≤ {MOST_MORE_MS:g}).",
        "",
        *table,
        "",
        f"{crowd.sessions:,} live sessions of one tenant, without labels, the model asked by all of them:",
        "",
        "| what | figure |",
        "| --- | ---: |",
        f"| harness processes, at most (target ≤ {MOST}) | {crowd.processes} |",
        f"| memory of runtime and harnesses, at most, MiB (target < {MOST_MIB}) | {crowd.mib:.0f} |",
        f"| of that: harnesses, with what sets them apart | {crowd.harnesses_mib:.0f} |",
        f"| of that: the runtime, and this program | {crowd.runtime_mib:.0f} |",
        f"| the same before the sessions came | {crowd.idle_mib:.0f} |",
        f"| s from the first one created until all have asked the model | {crowd.asked_s:.1f} |",
        f"| s from its answers until all have finished | {crowd.ended_s:.1f} |",
    ]


def sound(figures: Sequence[Figure], crowd: Crowd) -> bool:
    """Whether all targets are met."""
    by_name = {one.name: one.p50 / 1000 for one in figures}
    return (
        by_name[TURN] <= MOST_TURN_MS
        and (by_name[PIPED] - by_name[DIRECT]) / 2 <= MOST_MORE_MS
        and 0 < crowd.processes <= MOST
        and crowd.mib < MOST_MIB
    )


async def run(folder: Path, sessions: int = SESSIONS) -> tuple[list[Figure], Crowd]:
    """All figures."""
    figures = await alone()
    more, crowd = await in_a_runtime(folder, sessions)
    return [*figures, *more], crowd


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    logging.getLogger("agentos").setLevel(logging.CRITICAL)
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as folder:
        figures, crowd = asyncio.run(run(Path(folder) / "home", sessions))
    print("\n".join(lines(figures, crowd)))
    return 0 if sound(figures, crowd) else 1


if __name__ == "__main__":
    sys.exit(main())
