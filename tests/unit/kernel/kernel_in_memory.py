"""A kernel in memory: the real gate, runner and built-in loop; scripted model, recording driver, policy by a function."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import DriverError
from agentos.abi.event import Event
from agentos.abi.record import decode
from agentos.abi.syscall import Result, Syscall, ToolEffect
from agentos.boot.charges import charged_events
from agentos.drivers.port import CallContext, ModelReply, ModelSpec, ToolSpec
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.subject import session_subject
from agentos.harness import loop as harness
from agentos.kernel.arguments import compile_check
from agentos.kernel.charges import Charges
from agentos.kernel.gate import Gate
from agentos.kernel.journal import Journal
from agentos.kernel.port import AgentSpec, Brief, Configuration, Left
from agentos.kernel.runner import Runner
from agentos.kernel.sessions import Sessions
from agentos.kernel.snapshot import Snapshots
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import Call
from agentos.sandbox.profile import Profile

EVENTS = Draft202012Validator(json.loads((asset("schemas") / "v1" / "event.json").read_text()))
ALLOW = Decision(Verdict.ALLOW, ("grants.allow",), ())


class FakeTimer:
    """A clock that moves by one millisecond at each look; sleeping jumps it."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms

    def monotonic_us(self) -> int:
        return self.now_ms() * 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        await asyncio.sleep(0)


class FakeRandom:
    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class InlineSpawner:
    """Runs the real built-in loop in a thread, over a socket pair."""

    def __init__(self) -> None:
        self.spawned = 0

    async def spawn(self, brief: Brief) -> InlineHarness:
        del brief
        self.spawned += 1
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=_loop, args=(theirs,), daemon=True)
        thread.start()
        reader, writer = await asyncio.open_connection(sock=ours)
        return InlineHarness(reader, writer, thread)


def _loop(end: socket.socket) -> None:
    # Closing an end that nobody reads complains once more of what the loop could not write.
    with suppress(BrokenPipeError), end, end.makefile("rb") as reader, end.makefile("wb") as writer:
        harness.main(reader, writer)


class Alone:
    """Parts of a `HarnessProcess` that drives one session."""

    def rest(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def rise(self) -> None:
        pass

    def hint(self, frame: bytes) -> None:
        pass


class InlineHarness(Alone):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, thread: threading.Thread) -> None:
        self._reader, self._writer, self._thread = reader, writer, thread

    async def read_frame(self) -> bytes:
        return (await self._reader.readline()).rstrip(b"\n")

    async def write_frame(self, frame: bytes) -> None:
        self._writer.write(frame)
        await self._writer.drain()

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        self._writer.close()
        await self._writer.wait_closed()
        await asyncio.to_thread(self._thread.join)
        return Left(0)


class PolicyByFunction:
    """Decides by `decide`; a person's yes counts as `count` says."""

    engine = "a function"
    data_digest = "sha256:" + "d" * 64

    def __init__(self, decide: Callable[[Mapping[str, Any]], Decision]) -> None:
        self.decide = decide
        self.count: Callable[[Mapping[str, Any]], Decision] = lambda _: ALLOW
        self.asked: list[Mapping[str, Any]] = []

    async def approve(self, document: Mapping[str, Any]) -> Decision:
        return self.count(document)

    async def decide_syscall(self, document: Mapping[str, Any]) -> Decision:
        self.asked.append(document)
        return self.decide(document)


class RecordingDriver:
    """Acts by returning `answers[tool]`, an exception to raise, or a coroutine function to await."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.sandboxes: list[str] = []
        self.answers: dict[str, Any] = {}

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        self.calls.append((tool.name, dict(args)))
        self.sandboxes.append(context.profile.name)
        answer = self.answers.get(tool.name, Result("done"))
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def release(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


class ListModel:
    """Says what it was given, one reply after the other, chosen by how many replies the conversation already holds."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.seen: list[Any] = []

    async def complete(self, model: ModelSpec, request: Any, on_text: object = None) -> ModelReply:
        self.seen.append(request)
        number = sum(1 for message in request.messages if message["role"] == "assistant")
        reply = self.replies[number] if number < len(self.replies) else text("done")
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if isinstance(reply, DriverError):
            raise reply
        return reply

    async def close(self) -> None:
        return


def text(words: str) -> ModelReply:
    return ModelReply([{"type": "text", "text": words}], "end_turn", 10, 5)


def calls(*proposals: tuple[str, str, dict[str, Any]]) -> ModelReply:
    blocks = [{"type": "tool_use", "id": call, "name": tool, "input": args} for call, tool, args in proposals]
    return ModelReply(blocks, "tool_use", 10, 5)


def tool(name: str, *, effect: ToolEffect = ToolEffect.WRITE, idempotent: bool = False) -> ToolSpec:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": False}
    return ToolSpec(name, f"the tool {name}", effect, idempotent, schema, {"builtin": {"primitive": "write"}})


TOOLS = {
    item.name: item
    for item in (
        tool("read", effect=ToolEffect.READ),
        tool("write", idempotent=True),
        tool("send", effect=ToolEffect.EXTERNAL),
    )
}


@dataclass
class Kernel:
    """The parts of a kernel, and what tests ask of it."""

    workspaces: Workspaces
    log: MemoryLog = field(default_factory=MemoryLog)
    timer: FakeTimer = field(default_factory=FakeTimer)
    driver: RecordingDriver = field(default_factory=RecordingDriver)
    model: ListModel = field(default_factory=ListModel)
    spawner: Any = field(default_factory=InlineSpawner)
    policy: PolicyByFunction = field(default_factory=lambda: PolicyByFunction(lambda _: ALLOW))
    policy_digest: str = "sha256:" + "a" * 64
    tools: dict[str, ToolSpec] = field(default_factory=lambda: dict(TOOLS))
    sandboxes: dict[str, Profile] = field(default_factory=dict)
    revision: int = 1
    seed: int = 7
    snapshots: Snapshots | None = None

    def current(self, tenant: str) -> Configuration:
        return Configuration(
            tenant=tenant,
            revision=self.revision,
            policy_digest=self.policy_digest,
            max_sessions=10,
            agents={"worker": AgentSpec("worker", "m", "You work.", tuple(self.tools), {})},
            tools=self.tools,
            models={"m": ModelSpec("m", "list", {})},
            checks={name: compile_check(item.input_schema) for name, item in self.tools.items()},
            decider=self.policy,
            sandboxes=self.sandboxes,
        )

    def gate(self) -> Gate:
        """A fresh gate over the same log, as after a restart."""
        charges = Charges(charged_events(lambda _tenant: self.log))
        return Gate(self.driver, self.model, self.workspaces, self.timer, charges)

    async def journal(self, session: str = "s-1", **created: Any) -> Journal:
        """A new session that nobody runs, to take calls of through a gate."""
        self.seed += 1
        journal = Journal(self.log, "default", session, self.timer, FakeRandom(self.seed))
        data = {"agent": "worker", "goal": "work", "inputs": [], **created}
        await journal.record(ev.SESSION_CREATED, data, actor="principal/op", revision=1, policy=self.policy_digest)
        return journal

    async def perform(self, gate: Gate, journal: Journal, call: str, name: str, **args: Any) -> Call:
        """Take one call through the gate, under the configuration in force."""
        return await gate.perform(journal, self.current("default"), Syscall(call, name, args))

    def sessions(self) -> Sessions:
        """A fresh runtime over the same log, as after a restart."""
        self.seed += 1
        gate = self.gate()
        runner = Runner(gate, self, self.spawner, self.timer)
        random, snapshots = FakeRandom(self.seed), self.snapshots
        return Sessions(lambda _tenant: self.log, self, gate, runner, self.driver, self.workspaces, self.timer, random, snapshots)

    async def events(self, session: str) -> list[Event]:
        return [Event.from_bytes(stored.data) async for stored in self.log.read(session_subject(session))]

    async def published(self, session: str = "s-1") -> list[Event]:
        """The session's events, each of which is what the published schema says."""
        async for stored in self.log.read(session_subject(session)):
            EVENTS.validate(decode(stored.data))
        return await self.events(session)

    async def types(self, session: str) -> list[str]:
        return [event.type.removeprefix("agentos.") for event in await self.events(session)]


async def settled(sessions: Sessions) -> None:
    """Return when no session runs."""
    while sessions.running():
        await asyncio.wait(list(sessions._tasks.values()))
        await asyncio.sleep(0)
