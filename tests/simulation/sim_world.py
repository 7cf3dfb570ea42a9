"""The whole simulated world of one seed: runtimes that come and go, people, an operator, a network, and who looks on.

    report = simulate(1007)
    report.violations, report.trace

First a time of trouble: crashes between any two steps, runtimes that stand still while another takes over, every fault there is.
Then a time of peace, in which each session must come to its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sim_loop import Stuck, VirtualLoop
from sim_observer import Observer, Seen, waiting
from sim_play import APPROVAL_TIMEOUT_MS, EPOCH_MS, Knobs, configuration, dice
from sim_runtime import Runtime

from agentos.abi.errors import AgentOSError
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.snapshots import Snapshot
from agentos.eventlog.subject import stream_of
from agentos.kernel.approvals import Scope
from agentos.kernel.port import Configuration
from agentos.kernel.sessions import Sessions
from agentos.projections.session import State

PEACE_S = 3600.0
"""Within so many virtual seconds after the last fault every session is over."""

PEOPLE = ("principal/ann", "principal/bob", "principal/cleo", "principal/op")
"""Who answers questions; the last one has started the sessions, and never approves."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one seed."""

    seed: int
    violations: tuple[str, ...]
    trace: tuple[str, ...]
    sessions: int
    events: int
    effects: int
    runtimes: int
    out_of_turn: int
    """What runtimes did that stood still while a newer one began to serve: sessions they took, acts they began."""

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a world is to suffer; `None` leaves it to the seed."""

    die_at: tuple[int, ...] | None = None
    """The first runtime dies at its first of these steps, the second at the second …"""
    faults: bool = True
    late: bool = True
    """Appends that are stored when the session has been read again already: given up before, or sent by who is dead now."""
    frozen: bool = True
    """Whether it is a failure, and not only counted, that a runtime which stood still takes a session or acts on waking up."""


class World:
    """One seed's world. All of it runs in one `VirtualLoop`."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.plan = plan
        self.trace: list[str] = []
        self.log = MemoryLog()
        self.observer = Observer(self)
        self.peace = False
        self.knobs = Knobs(1)
        self.runtimes: list[Runtime] = []
        self._dice: dict[str, random.Random] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._tasks: list[asyncio.Task[Any]] = []
        self._stirred = asyncio.Event()
        self._configurations: dict[Knobs, Configuration] = {}
        self._answering: set[str] = set()
        self.snapshots: dict[str, list[Snapshot]] = {}
        """Those of each session that were ever kept, the last one last."""
        self.under_way: set[str] = set()
        """Ids of messages on the wire that wake a session."""
        # How bad this world is: some seeds are calm, so that long runs are seen too.
        self._badness = dice(seed, "badness").choice((0.0, 0.5, 1.0, 1.0, 2.0)) if plan.faults else 0.0

    # -- what the parts ask of the world

    def dice(self, name: str) -> random.Random:
        if name not in self._dice:
            self._dice[name] = dice(self.seed, name)
        return self._dice[name]

    def fault(self, name: str, probability: float) -> bool:
        return not self.peace and self.dice(name).random() < probability * self._badness

    def fate(self, name: str, **probabilities: float) -> str:
        roll = self.dice(name).random()
        for what, probability in probabilities.items():
            roll -= probability * (0.0 if self.peace else self._badness)
            if roll < 0:
                return what
        return "well"

    def between(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * self.dice(f"{name} time").random()

    def slow(self, name: str) -> float:
        """A delay in seconds: mostly none or little, now and then long (a disk, a network, a busy machine)."""
        roll = self.dice(f"{name} time").random()
        if roll < 0.5:
            return 0.0
        return roll * 0.02 if roll < 0.95 or self.peace else roll * 3.0

    def count(self, name: str) -> int:
        self._counts[name] += 1
        return self._counts[name]

    def say(self, text: str) -> None:
        self.trace.append(f"{asyncio.get_running_loop().time():10.3f} {text}")

    def short(self, session: str) -> str:
        seen = self.observer.sessions.get(session)
        return seen.name if seen is not None else "a new session"

    def name(self, subject: str) -> str:
        return self.short(subject.rpartition(".")[2])

    def current(self, tenant: str) -> Configuration:
        del tenant
        if self.knobs not in self._configurations:
            self._configurations[self.knobs] = configuration(self.seed, self.knobs)
        return self._configurations[self.knobs]

    async def store(self, runtime: Runtime, subject: str, messages: Sequence[Message], after: int) -> int:
        """The server stores an append. Nothing comes between."""
        stream = stream_of(subject)
        before = await self.log.end(stream)
        position = await self.log.append(subject, messages, after=after)
        if await self.log.end(stream) > before:
            for message in messages:
                self.observer.event(runtime, subject, message)
        return position

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task beside the story. What a runtime that has died left behind stands still at its next step."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, act)

    def wake(self) -> None:
        self._stirred.set()

    # -- the story

    async def run(self) -> None:
        roll = self.dice("story")
        trouble = roll.uniform(30.0, 300.0)
        self.spawn(self._machines())
        self.spawn(self._people())
        self.spawn(self._clients(roll.randint(1, 4)))
        if self.plan.faults:
            self.spawn(self._operator(trouble))
        await self._until(trouble, lambda: False)
        self.peace = True
        self.say("peace")
        for runtime in self.runtimes:
            if runtime._awake is None:
                runtime._pause_at = runtime._die_at = None
        if not await self._until(PEACE_S, lambda: self._clients_done and self.observer.resting()):
            if not self.observer.violations:
                self.observer.wrong("no end within the hour: " + ", ".join(self.observer.unfinished()))
        elif not self.observer.violations:
            # Long enough for what is still on its way, and for who stood still, to arrive.
            await self._until(120.0, lambda: False)
            self.observer.at_the_end()

    async def _until(self, seconds: float, done: Callable[[], bool]) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end and not self.observer.violations:
            if done():
                return True
            self._stirred.clear()
            try:
                async with asyncio.timeout(2.0):
                    await self._stirred.wait()
            except TimeoutError:
                pass
            for runtime in self.runtimes:
                if not runtime.dead and runtime._awake is None:
                    self.observer.compare(runtime)
        return not self.observer.violations and done()

    _clients_done = False

    async def _machines(self) -> None:
        """Keep a runtime up: a new one some time after the last has died, or has been given up because it stands still."""
        roll = self.dice("machines")
        while True:
            number = len(self.runtimes) + 1
            die_at = pause_at = None
            if self.plan.die_at is not None:
                die_at = self.plan.die_at[number - 1] if number <= len(self.plan.die_at) else None
            elif not self.peace and self._badness and number < 8:
                fate = roll.random()
                if fate < 0.55:
                    die_at = roll.randint(1, roll.choice((10, 40, 150)))
                elif fate < 0.8:
                    pause_at = roll.randint(1, roll.choice((10, 40, 150)))
            runtime = Runtime(self, number, die_at, pause_at, roll.uniform(5.0, 90.0))
            self.runtimes.append(runtime)
            self.say(f"runtime {number} starts")
            self.wake()
            self.spawn(self._resume_all(runtime))
            await runtime.gone.wait()
            await asyncio.sleep(roll.uniform(0.0, 5.0))
            while self.under_way and not self.plan.late:
                await asyncio.sleep(0.1)

    async def _resume_all(self, runtime: Runtime) -> None:
        """What the composition root does at start: adopt who waits, take over who runs."""
        for session, seen in list(self.observer.sessions.items()):
            if seen.state.over:
                continue
            if seen.state.state is not State.RUNNING:
                runtime.sessions.adopt("default", [session])
                continue
            await self._resume(runtime, session, seen)
        self.spawn(self._look_around(runtime))

    async def _look_around(self, runtime: Runtime) -> None:
        """What the composition root does all the time: a session that runs nowhere is taken over."""
        while True:
            await runtime.sleep(5.0)
            for session, seen in list(self.observer.sessions.items()):
                if seen.state.state is State.RUNNING and not runtime.sessions.runs("default", session):
                    await self._resume(runtime, session, seen)

    async def _resume(self, runtime: Runtime, session: str, seen: Seen) -> None:
        try:
            await runtime.sessions.resume("default", session)
        except AgentOSError as error:
            self.say(f"{seen.name} cannot be resumed: {type(error).__name__} {error.message}")

    async def _ask(self, what: str, act: Callable[[Sessions], Coroutine[Any, Any, Any]]) -> str:
        """A client's command to the runtime that serves; how it ended: `done`, `gone`, or the class of the error."""
        runtime = self.runtimes[-1] if self.runtimes else None
        if runtime is None or runtime.gone.is_set():
            return "gone"
        task = self.spawn(act(runtime.sessions))
        gone = self.spawn(runtime.gone.wait())
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not task.done():
            self.say(f"{what}: no answer")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return "gone"
        if task.cancelled():
            return "cancelled"
        error = task.exception()
        if error is None:
            self.say(f"{what}: done")
            return "done"
        if not isinstance(error, AgentOSError):
            self.observer.wrong(f"{what} failed with {error!r}")
        self.say(f"{what}: {type(error).__name__} {str(error)[:80]}")
        return type(error).__name__

    async def _clients(self, many: int) -> None:
        """Start sessions, and again where nobody answered (which may make two of one)."""
        roll = self.dice("clients")
        for number in range(many):
            await asyncio.sleep(roll.uniform(0.0, 20.0))
            for _ in range(50):
                goal = f"goal {number}"
                made = await self._ask(goal, lambda s, goal=goal: s.create("default", "worker", goal, None, PEOPLE[-1]))  # type: ignore[misc]
                if made not in {"gone", "cancelled"}:
                    break
                await asyncio.sleep(1.0)
        self._clients_done = True

    async def _people(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for session, seen in list(self.observer.sessions.items()):
                if waiting(seen) and session not in self._answering:
                    self._answering.add(session)
                    self.spawn(self._answer(session, seen))

    async def _answer(self, session: str, seen: Seen) -> None:
        """Somebody answers a question: yes, no, late, never, twice, for the session, or looking at something old."""
        roll, number = self.dice("people"), seen.state.seq
        asked = seen.state.calls[seen.state.waiting_for or ""]
        ends = seen.state.waiting["expires"] if seen.state.waiting else 0
        mood = roll.choices(("yes", "no", "late", "never", "old", "session"), (10, 1, 1, 1, 1, 3))[0]
        wait = roll.uniform(0.0, 60.0) if mood != "late" else (APPROVAL_TIMEOUT_MS / 1000 - roll.uniform(-2.0, 2.0))
        await asyncio.sleep(wait)
        digest = "sha256:old" if mood == "old" else asked.args_digest
        scope, by = (Scope.SESSION if mood == "session" else Scope.ONCE), roll.choice(PEOPLE)
        valid = roll.choice((None, 1_000, 30_000))
        if mood != "never":
            twice = roll.random() < 0.1
            for _ in range(1 + twice):
                await self._ask(
                    f"{by} says {mood} to {seen.name} {asked.call}",
                    lambda s: s.answer(
                        "default", session, granted=mood != "no", reason=mood, actor=by, call=asked.call, digest=digest,
                        scope=scope, valid_ms=valid, max_uses=None if scope is Scope.ONCE else 2,
                    ),
                )  # fmt: skip
        now = EPOCH_MS + round(asyncio.get_running_loop().time() * 1000)
        if seen.state.seq == number and now >= ends:
            await self._ask(f"{seen.name} expires", lambda s: s.expire("default", session))
        self._answering.discard(session)

    async def _operator(self, until: float) -> None:
        """Changes policy, takes the agent away for a moment, cancels."""
        roll, loop = self.dice("operator"), asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(roll.uniform(5.0, 120.0))
            if self.peace:
                return
            match roll.choices(("policy", "rate", "cancel", "agent"), (4, 2, 3, 0.3))[0]:
                case "policy":
                    self.knobs = Knobs(self.knobs.revision + 1, self.knobs.per, self.knobs.policy + 1)
                case "rate":
                    self.knobs = Knobs(self.knobs.revision + 1, roll.choice(("tenant", "agent", "session")), self.knobs.policy)
                case "agent":
                    self.knobs = Knobs(self.knobs.revision + 1, self.knobs.per, self.knobs.policy, agent=not self.knobs.agent)
                case _:
                    live = [(one, seen.name) for one, seen in self.observer.sessions.items() if not seen.state.over]
                    if live:
                        session, name = roll.choice(live)
                        await self._ask(
                            f"cancel {name}",
                            lambda s, session=session: s.cancel("default", session, reason="enough", actor=PEOPLE[0]),  # type: ignore[misc]
                        )
                    continue
            self.say(f"revision {self.knobs.revision}")
        if not self.knobs.agent:
            self.knobs = Knobs(self.knobs.revision + 1, self.knobs.per, self.knobs.policy)

    async def bury(self) -> None:
        """End every task; nothing that still moves is part of the story."""
        for runtime in self.runtimes:
            runtime.dead = runtime.buried = True
        me = asyncio.current_task()
        for _ in range(100):
            left = [task for task in asyncio.all_tasks() if task is not me]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left)
        raise RuntimeError("tasks that do not end")


class _Trace(logging.Handler):
    """What the kernel logs is part of the trace."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        for session, seen in self._world.observer.sessions.items():
            text = text.replace(session, seen.name)
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"[:200]
        self._world.say(f"  kernel: {text}")


def simulate(seed: int, plan: Plan | None = None) -> Report:
    """Run one seed from the beginning to its end."""
    loop = VirtualLoop(seed)
    kernel_log = logging.getLogger("agentos.kernel")
    loop.set_exception_handler(lambda _loop, _context: None)

    async def story() -> World:
        world = World(seed, plan or Plan())
        handler = _Trace(world)
        kernel_log.addHandler(handler)
        kernel_log.propagate = False
        try:
            await world.run()
        finally:
            told = list(world.trace)
            kernel_log.removeHandler(handler)
            kernel_log.addHandler(logging.NullHandler())
            await world.bury()
            kernel_log.handlers.clear()
            kernel_log.propagate = True
            world.trace = told
        return world

    try:
        world = loop.run_until_complete(story())
    except Stuck as error:
        return Report(seed, (f"stuck: {error}",), (), 0, 0, 0, 0, 0)
    finally:
        loop.close()
    observer = world.observer
    return Report(
        seed,
        tuple(observer.violations),
        tuple(world.trace),
        len(observer.sessions),
        sum(len(seen.events) for seen in observer.sessions.values()),
        len(observer.ledger),
        len(world.runtimes),
        observer.out_of_turn,
    )
