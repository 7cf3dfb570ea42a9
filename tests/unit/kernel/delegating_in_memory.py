"""A kernel in memory whose agents delegate: the real gate, delegator, receiver and workspaces; a queue that is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from kernel_in_memory import FakeRandom, Kernel, ListModel
from manual_clock import ManualClock

from agentos.abi.envelope import Envelope, signed, task_subject
from agentos.abi.syscall import Result, ToolEffect
from agentos.boot.budgets import budgeted_events
from agentos.boot.charges import charged_events
from agentos.drivers.adapters.delegate import DelegateDriver
from agentos.drivers.delegating import input_schema
from agentos.drivers.dispatch import Drivers
from agentos.drivers.port import CallContext, ModelReply, ModelSpec, ToolSpec
from agentos.drivers.primitives import perform
from agentos.eventlog.adapters.credentials import create_seed
from agentos.eventlog.adapters.tasks import is_signed
from agentos.files.guard import Guard
from agentos.kernel.admission import Admissions
from agentos.kernel.arguments import compile_check
from agentos.kernel.budgets import Budgets
from agentos.kernel.charges import Charges
from agentos.kernel.delegation import Delegator
from agentos.kernel.gate import Gate
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.receiving import Received, Receiver
from agentos.kernel.runner import Runner
from agentos.kernel.sessions import Sessions
from agentos.kernel.waits import Waits
from agentos.projections.session import SessionState

AGENTS = ("boss", "writer", "checker", "editor")


def hand(name: str = "hand", *, seconds: int = 3600, **declared: Any) -> ToolSpec:
    """A tool that delegates to the writer and the checker."""
    body = {"agents": ["writer", "checker"], **declared}
    driver = {"delegate": body}
    return ToolSpec(name, "hands it on", ToolEffect.WRITE, True, input_schema(body), driver, timeout_ms=seconds * 1000)


class Plays(ListModel):
    """Each agent has replies of its own, or a function of the request that gives one."""

    def __init__(self) -> None:
        super().__init__()
        self.plays: dict[str, Any] = {}

    async def complete(self, model: ModelSpec, request: Any, on_text: object = None) -> ModelReply:
        play = self.plays.get(request.system, [])
        self.replies = play(request) if callable(play) else play
        if asyncio.iscoroutine(self.replies):
            self.replies = await self.replies
        return await super().complete(model, request, on_text)


class Files:
    """The file primitives, and calls held or answered by the test (`answers[tool]`)."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        self.calls.append((context.agent, tool.name, dict(args)))
        if tool.name in self.answers:
            return await self.answers[tool.name](context)
        return perform(str(tool.driver["builtin"]["primitive"]), context.workspace, args, Guard())

    async def release(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


class House:
    """Runtimes over one log, one after the other: `start` gives a fresh one, `kill` ends it without a word."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.clock = kernel.timer = ManualClock()  # type: ignore[assignment]
        self.model = kernel.model = Plays()
        self.answers: dict[str, Any] = {}
        self.files = Files(self.answers)
        self.key = create_seed(FakeRandom(5))
        self.queue: list[tuple[str, bytes, bytes]] = []
        self.delivers = True
        self.received: list[Received] = []
        self.joined: list[tuple[str, str]] = []
        self.sent: list[str] = []
        self._receipts: set[asyncio.Task[None]] = set()
        self.most = 100
        file = {"type": "object", "properties": {"path": {"type": "string"}, "content": {"type": "string"}}}
        for name, primitive in (("read", "read"), ("write", "write")):
            effect = ToolEffect(name)
            kernel.tools[name] = ToolSpec(name, name, effect, True, file, {"builtin": {"primitive": primitive}})
        kernel.tools["hand"] = hand()
        self.offered: dict[str, tuple[str, ...]] = {}
        kernel.current = self.current  # type: ignore[method-assign]
        self.start()

    def current(self, tenant: str) -> Configuration:
        kernel = self.kernel
        return Configuration(
            tenant=tenant,
            revision=kernel.revision,
            policy_digest=kernel.policy_digest,
            max_sessions=self.most,
            agents={
                name: AgentSpec(name, "m", name, self.offered.get(name, tuple(kernel.tools)), {}, goal_labels=(f"of-{name}",))
                for name in AGENTS
            },
            tools=kernel.tools,
            models={"m": ModelSpec("m", "list", {})},
            checks={name: compile_check(item.input_schema) for name, item in kernel.tools.items()},
            decider=kernel.policy,
        )

    def start(self) -> None:
        """A runtime over the log as it is."""
        kernel = self.kernel
        kernel.seed += 1
        admissions = Admissions(kernel.timer)
        self.waits = Waits(admissions)
        self.delegator = Delegator(kernel, lambda _: kernel.log, kernel.workspaces, kernel.timer, self.waits)
        drivers = Drivers(builtin=self.files, delegate=DelegateDriver(self.delegator))
        charges, budgets = Charges(charged_events(lambda _: kernel.log)), Budgets(budgeted_events(lambda _: kernel.log))
        gate = Gate(drivers, self.model, kernel.workspaces, kernel.timer, charges, budgets=budgets)
        gate.hear = self.delegator.besides(gate.hear)
        runner = Runner(gate, kernel, kernel.spawner, kernel.timer, admissions)
        random = FakeRandom(kernel.seed)
        logs: Callable[[str], Any] = lambda _: kernel.log  # noqa: E731
        self.sessions = Sessions(
            logs, kernel, gate, runner, drivers, kernel.workspaces, kernel.timer, random, kernel.snapshots, self.waits
        )
        self.delegator.attach(self.sessions)
        self.delegator.outbox = self
        self.receiver = Receiver(
            self.sessions,
            kernel,
            self.delegator,
            kernel.timer,
            streams=logs,
            trusted=lambda _: (self.key.public_key,),
            verify=is_signed,
            join=self._join,
            frozen=lambda _state, _configuration: False,
        )

    async def _join(self, _tenant: str, child: str, parent: str) -> None:
        self.joined.append((child, parent))

    async def send(self, _tenant: str, envelope: Envelope) -> None:
        """`Outbox.send`: the message is received in a task of its own, unless the queue is held."""
        self.sent.append(envelope.child)
        body, subject = envelope.to_bytes(), task_subject(self.key.public_key, envelope.child)
        self.queue.append((subject, body, self.key.sign(signed(subject, body))))
        if self.delivers:
            self.deliver()

    def deliver(self) -> None:
        """Have everything that is in the queue received."""
        while self.queue:
            task = asyncio.create_task(self._receive(*self.queue.pop(0)))
            self._receipts.add(task)
            task.add_done_callback(self._receipts.discard)

    async def _receive(self, subject: str, body: bytes, signature: bytes) -> None:
        self.received.append(await self.receiver.receive("default", subject, body, signature))

    async def run(self, agent: str = "boss", goal: str = "go") -> str:
        return (await self.sessions.create("default", agent, goal, None, "principal/op")).id

    async def state(self, session: str) -> SessionState:
        return await self.sessions.state("default", session)

    async def over(self, session: str) -> SessionState:
        """The session once it is over."""
        async with asyncio.timeout(30):
            while not (state := await self.state(session)).over:
                await asyncio.sleep(0.002)
            return state

    async def until(self, met: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not met():
                await asyncio.sleep(0.002)

    def seats(self) -> set[str]:
        """The sessions that hold a place with a harness in it."""
        return {seat.session for seat in self.sessions._places._seats}

    async def children(self, session: str) -> list[str]:
        return [child for found in (await self.state(session)).delegations.values() for child in found]

    async def stop(self) -> None:
        """Stop the runtime as on a shutdown."""
        for task in self._receipts:
            task.cancel()
        await asyncio.gather(*self._receipts, return_exceptions=True)
        await self.sessions.close()
        await self.delegator.close()

    async def restart(self, *sessions: str) -> None:
        """Stop, start a fresh one, and have it resume `sessions`."""
        await self.stop()
        self.start()
        found = [(session, await self.state(session)) for session in sessions]
        live = [(one, state.delegated["parent"]) for one, state in found if state.delegated and not state.over]
        await self.delegator.cascade.recover("default", live)
        for session, _ in found:
            await self.sessions.resume("default", session)
