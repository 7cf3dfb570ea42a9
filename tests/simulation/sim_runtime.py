"""One runtime of the simulated world: the real kernel, and ports that can be cut off between any two steps.

A port calls `step` whenever it crosses the border of the process. A runtime that has died never comes back from a step: its tasks
stand still, nothing of theirs reaches the world any more, and all that is left of it is what it had sent before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim_harness import SimulatedHarness
from sim_play import EPOCH_MS, dice, reply

from agentos.abi.errors import DriverError, LogUnavailable, OutcomeUnknown, SequenceConflict, Unavailable
from agentos.abi.syscall import Result
from agentos.boot.charges import charged_events
from agentos.drivers.port import CallContext, ModelReply, ModelRequest, ModelSpec, ToolSpec
from agentos.eventlog.port import Message, Stored
from agentos.eventlog.snapshots import Snapshot
from agentos.kernel.charges import Charges
from agentos.kernel.gate import Gate
from agentos.kernel.port import Brief
from agentos.kernel.runner import Runner
from agentos.kernel.sessions import Sessions
from agentos.kernel.snapshot import Snapshots
from agentos.kernel.tenure import Watched

if TYPE_CHECKING:
    from sim_world import World


WAKING = (b'"agentos.session.created"', b'"agentos.approval.')
"""What somebody has to act on: stored while nobody looks, it waits for the next look (see `Plan.late`)."""

LEAST = 4
"""Events after which a session gets a snapshot, so that short sessions have some."""


class Runtime:
    """A runtime process. `number` counts them from 1."""

    def __init__(self, world: World, number: int, die_at: int | None, pause_at: int | None, pause_s: float) -> None:
        self.world = world
        self.number = number
        self.steps = 0
        self.dead = False
        self.buried = False
        self.stood_still = False
        self.gone = asyncio.Event()
        """Set once it serves no more: it has died, or it stands still."""
        self._die_at, self._pause_at, self._pause_s = die_at, pause_at, pause_s
        self._awake: asyncio.Event | None = None
        self._never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        driver, folders = SimulatedTools(self), NoWorkspaces()
        charges = Charges(charged_events(lambda _tenant: Wire(self)))
        self.gate = Gate(driver, SimulatedModel(self), folders, self, charges, Watched(self._serves, self))
        self.sessions = Sessions(
            lambda _tenant: Wire(self),
            world,
            self.gate,
            Runner(self.gate, world, self, self),
            driver,
            folders,
            self,
            Tokens(world.seed, number),
            Snapshots(lambda _tenant: Disk(self), least=LEAST),
        )

    async def step(self, what: str, *, may_pause: bool = True) -> None:
        """Cross the border of the process; here it dies or stands still if that is its fate."""
        if self.buried:
            raise asyncio.CancelledError
        self.steps += 1
        if self.steps == self._die_at:
            self.die(what)
        if self.dead:
            await self._never
        if may_pause and self._pause_at is not None and self.steps >= self._pause_at:
            self._pause_at = None
            self.pause(what)
        if self._awake is not None:
            await self._awake.wait()
            if self.dead:
                await self._never

    def die(self, where: str) -> None:
        if not self.dead:
            self.world.say(f"runtime {self.number} dies at step {self.steps}: {where}")
            self.dead = True
            self.gone.set()

    def pause(self, where: str) -> None:
        self.world.say(f"runtime {self.number} stands still at step {self.steps}: {where}")
        self._awake = asyncio.Event()
        self.stood_still = True
        self.gone.set()
        self.world.later(self._pause_s, self._wake)

    def _wake(self) -> None:
        if self._awake is not None:
            self.world.say(f"runtime {self.number} wakes up")
            self._awake.set()
            self._awake = None

    async def _serves(self, tenant: str) -> bool:
        """Whether no newer runtime has put its claim into the log."""
        del tenant
        await self.step("claim")
        if self.world.fault("read", 0.02):
            raise LogUnavailable("the event log does not answer")
        newest = len(self.world.runtimes)
        await self.step("have the claim")
        return newest == self.number

    def now_ms(self) -> int:
        return EPOCH_MS + round(asyncio.get_running_loop().time() * 1000)

    def monotonic_us(self) -> int:
        return round(asyncio.get_running_loop().time() * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        await self.step("sleep")
        await asyncio.sleep(seconds)
        await self.step("slept")

    async def spawn(self, brief: Brief) -> SimulatedHarness:
        session = brief.session
        await self.step(f"spawn {self.world.short(session)}")
        if self.world.fault("spawn", 0.03):
            raise Unavailable("no process can be started")
        return SimulatedHarness(self, session)


class Wire:
    """The event log over a network that loses, delays, repeats and leaves unanswered."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._world = runtime.world

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        world, runtime = self._world, self._runtime
        await runtime.step("append")
        fate = world.fate("append", lost=0.02, unanswered=0.03, late=0.02 if world.plan.late else 0.0, repeated=0.05)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if fate != "lost":
            world.spawn(self._deliver(subject, messages, after, fate, answer))
        if fate in {"lost", "late", "unanswered"}:
            await asyncio.sleep(world.between("timeout", 0.1, 2.0))
            await runtime.step("no answer")
            world.say(f"runtime {runtime.number} hears nothing of {world.name(subject)} ({fate})")
            answer.cancel()
            raise LogUnavailable("the event log does not answer", where=subject)
        try:
            position = await answer
        finally:
            await runtime.step("answer")
        world.observer.acknowledged(messages)
        return position

    async def _deliver(
        self, subject: str, messages: Sequence[Message], after: int, fate: str, answer: asyncio.Future[int]
    ) -> None:
        world = self._world
        if fate != "unanswered":
            world.under_way.update(message.id for message in messages if any(mark in message.data for mark in WAKING))
            await asyncio.sleep(world.between("wire", 2.0, 8.0) if fate == "late" else world.slow("wire"))
            world.under_way.difference_update(message.id for message in messages)
        try:
            position = await world.store(self._runtime, subject, messages, after)
        except SequenceConflict as error:
            world.say(f"runtime {self._runtime.number} has a conflict on {world.name(subject)}")
            if not answer.done():
                answer.set_exception(error)
                answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            return
        await asyncio.sleep(world.slow("ack"))
        if not answer.done():
            answer.set_result(position)
        if fate == "repeated":
            await asyncio.sleep(world.between("wire", 0.0, 1.0))
            try:
                await world.store(self._runtime, subject, messages, after)
            except SequenceConflict:
                world.say("a repeated message is refused")

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        await self._runtime.step("read")
        if self._world.fault("read", 0.02):
            raise LogUnavailable("the event log does not answer", where=subject)
        found = [stored async for stored in self._world.log.read(subject, after=after)]
        await asyncio.sleep(self._world.slow("read"))
        await self._runtime.step("have read")
        for stored in found:
            yield stored

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        await self._runtime.step("scan")
        if self._world.fault("read", 0.02):
            raise LogUnavailable("the event log does not answer", where=stream)
        for stored in [stored async for stored in self._world.log.scan(stream, after=after)]:
            yield stored

    async def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        async for stored in self._world.log.follow(stream, after=after):
            yield stored

    async def last(self, subject: str) -> Stored | None:
        await self._runtime.step("last")
        if self._world.fault("read", 0.02):
            raise LogUnavailable("the event log does not answer", where=subject)
        found = await self._world.log.last(subject)
        await self._runtime.step("have looked")
        return found

    async def end(self, stream: str) -> int:
        await self._runtime.step("end")
        return await self._world.log.end(stream)

    async def ends(self) -> dict[str, int]:
        await self._runtime.step("ends")
        if self._world.fault("read", 0.02):
            raise LogUnavailable("the event log does not answer")
        return await self._world.log.ends()

    async def streams(self) -> tuple[str, ...]:
        return tuple(await self.ends())

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        return await self._world.log.new_streams(known)


class Disk:
    """Snapshots on the disk that all runtimes share, and that now and then loses one, is full, or has an older one again."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._world = runtime.world

    async def find(self, session: str) -> Snapshot | None:
        await self._runtime.step("read a snapshot")
        kept = self._world.snapshots.get(session, [])
        fate = self._world.fate("disk", lost=0.05, older=0.1)
        if not kept or fate == "lost":
            return None
        return kept[0] if fate == "older" else kept[-1]

    async def keep(self, snapshot: Snapshot) -> None:
        await self._runtime.step("write a snapshot")
        if self._world.fault("disk", 0.05):
            raise Unavailable("no space left on the disk")
        await asyncio.sleep(self._world.slow("disk"))
        await self._runtime.step("put a snapshot in its place")
        self._world.snapshots.setdefault(snapshot.session, []).append(snapshot)
        self._world.say(f"runtime {self._runtime.number} keeps {self._world.short(snapshot.session)} at {snapshot.head.seq}")

    async def drop(self, session: str) -> None:
        self._world.observer.wrong(f"the log does not agree with the snapshot of {self._world.short(session)}")

    async def sweep(self, streams: Collection[str]) -> int:
        del streams
        return 0


class SimulatedTools:
    """Tools whose effects stand in the world's ledger. An effect that was sent out happens, whatever becomes of the runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        world, runtime = self._runtime.world, self._runtime
        # A step in which it may die but not stand still: a request that is on its way cannot be called back by anybody.
        await runtime.step(f"act {tool.name}", may_pause=False)
        if context.still is not None:
            await context.still()
        world.observer.begun(runtime, context.session, context.call, tool.name, args)
        fate = world.fate(
            "tool", fails=0.06, unknown=0.05, unknown_after=0.05, breaks=0.01, huge=0.01, odd=0.01, error=0.05, slow=0.15
        )
        if fate == "fails":
            raise DriverError("the tool is not there")
        if fate == "unknown":
            raise OutcomeUnknown("the connection was lost")
        done = world.spawn(self._effect(world.slow("tool"), tool, args, context))
        if fate == "unknown_after":
            await asyncio.sleep(world.between("timeout", 0.0, 1.0))
            await runtime.step("tool lost")
            raise OutcomeUnknown("the connection was lost")
        if fate == "slow":
            await asyncio.sleep(world.between("tool", 1.0, 20.0))
        await asyncio.shield(done)
        await runtime.step(f"acted {tool.name}")
        match fate:
            case "breaks":
                raise ZeroDivisionError("a driver that breaks its contract")
            case "huge":
                return Result("x" * (2 * 1024 * 1024 + 1))
            case "odd":
                return Result("done", {"number": 2**60})
        return Result(f"{tool.name} is done", {"n": args.get("n", 0)}, fate == "error", tool.labels)

    async def _effect(self, seconds: float, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> None:
        await asyncio.sleep(seconds)
        self._runtime.world.observer.effect(self._runtime, context.session, context.call, tool.name, args)

    async def release(self, session: str) -> None:
        await self._runtime.step(f"release {self._runtime.world.short(session)}")

    async def close(self) -> None:
        return


class SimulatedModel:
    """A model whose replies follow from the seed, the goal and how long the conversation is."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: object = None) -> ModelReply:
        del model, on_text
        world = self._runtime.world
        await self._runtime.step("model")
        await asyncio.sleep(world.slow("model"))
        await self._runtime.step("model answers")
        return reply(world, request)

    async def close(self) -> None:
        return


class NoWorkspaces:
    """Folders that nobody looks into."""

    def path(self, tenant: str, session: str) -> Path:
        return Path("/nowhere") / tenant / session

    def create(self, tenant: str, session: str, archive: bytes | None) -> tuple[()]:
        del tenant, session, archive
        return ()

    def remove(self, tenant: str, session: str) -> None:
        del tenant, session


class Tokens:
    """Random bytes of one runtime, the same for the same seed."""

    def __init__(self, seed: int, number: int) -> None:
        self._random = dice(seed, "tokens", number)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)
