"""Fabricated histories: whole sessions, event by event as the kernel writes them, appended to a real log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of, trace_of
from agentos.abi.canonical import digest_of
from agentos.abi.chain import Head
from agentos.abi.event import Event
from agentos.abi.ids import new_id
from agentos.abi.record import SALT_BYTES
from agentos.abi.syscall import MODEL_CALL
from agentos.boot.system import SystemRandom
from agentos.eventlog.port import EventLog, Message
from agentos.eventlog.subject import session_subject

APART: Final = 16
"""Sessions written at one time: events of several sessions alternate in the log, as they do in life."""

STEP_MS: Final = 40
"""Between two events of a session."""

SALT: Final = bytes(SALT_BYTES)


@dataclass
class Chain:
    """Fabricates the events of one session, as the kernel writes them."""

    session: str
    now_ms: int
    policy: str
    head: Head = field(default_factory=Head.empty)

    def event(self, kind: str, data: dict[str, Any], actor: str = "system/kernel") -> Message:
        """The next event of the chain."""
        self.now_ms += STEP_MS
        seq = self.head.seq + 1
        name = f"{self.session}-{seq}"
        told: dict[str, str | int] = {"agent": "worker", "onbehalfof": "principal/operator"}
        told["traceparent"] = trace_of(self.session, digest_of(name).removeprefix("sha256:"))
        told |= attributes_of(kind, data)
        made = Event(name, kind, "default", self.session, seq, self.head.hash, self.now_ms, actor, 1, self.policy, data, told)
        stored = made.to_record(SALT)
        self.head = made.head(stored)
        return Message(name, stored)

    def decided(
        self, call: str, tool: str, effect: str, args: dict[str, Any], turn: int, rule: str, verdict: str = "allow"
    ) -> Message:
        """A decision about a call."""
        data = {
            "call": call,
            "tool": tool,
            "effect": effect,
            "args": args,
            "args_digest": digest_of(args),
            "agent": {"name": "worker", "labels": {}},
            "now": self.now_ms,
            "turn": turn,
            "decision": {"effect": verdict, "rules": [rule], "reasons": ["as it was"]},
        }
        return self.event(ev.SYSCALL_DECIDED, data, "agent/worker")

    def finished(self, call: str, tool: str, result: dict[str, Any]) -> Message:
        """An outcome."""
        data = {"call": call, "tool": tool, "result": result, "result_digest": digest_of(result), "duration_us": 900}
        return self.event(ev.SYSCALL_FINISHED, data)

    def created(self) -> Message:
        """The first event."""
        return self.event(ev.SESSION_CREATED, {"agent": "worker", "goal": "work " * 20, "inputs": []}, "principal/operator")

    def whole(self, turns: int) -> Iterator[Message]:
        """A session from beginning to end: `4 * turns + 2` events."""
        yield self.created()
        for turn in range(turns):
            call = f"model-{turn + 1}"
            args = {"model": "m", "input_digest": self.head.hash}
            yield self.decided(call, MODEL_CALL, "external", args, turn + 1, "grants.model")
            block = {"type": "text", "text": "I write the next file. " * 10}
            said = {"content": [block], "stop_reason": "tool_use", "input_tokens": 900, "output_tokens": 40}
            yield self.finished(call, MODEL_CALL, {"content": "", "data": said, "is_error": False})
            call = f"call-{turn + 1}"
            path = f"out/{self.session}-{turn}.txt"
            args = {"path": path, "content": "A line of what an agent writes. " * 12}
            yield self.decided(call, "write", "write", args, turn + 1, "grants.allowed")
            yield self.finished(call, "write", {"content": f"wrote {path}", "is_error": False})
        yield self.event(ev.SESSION_FINISHED, {"result": "done"})

    def parked(self) -> Iterator[Message]:
        """A session that waits for a person's answer: five events."""
        yield self.created()
        args: dict[str, Any] = {"model": "m", "input_digest": self.head.hash}
        yield self.decided("model-1", MODEL_CALL, "external", args, 1, "grants.model")
        said = {"content": [], "stop_reason": "tool_use", "input_tokens": 900, "output_tokens": 40}
        yield self.finished("model-1", MODEL_CALL, {"content": "", "data": said, "is_error": False})
        args = {"path": f"out/{self.session}.txt", "content": "A line of what an agent writes. " * 12}
        yield self.decided("call-1", "write", "write", args, 1, "grants.approval", verdict="ask")
        expires = self.now_ms + 7 * 86_400_000
        waiting = {"call": "call-1", "args_digest": digest_of(args), "expires": expires, "needed": 1, "given": 0}
        yield self.event(ev.SESSION_WAITING, waiting)


@dataclass(frozen=True)
class Then:
    """A clock that stands at a moment."""

    ms: int

    def now_ms(self) -> int:
        """The moment."""
        return self.ms


async def fabricate(
    log: EventLog, sessions: int, *, turns: int, until_ms: int, policy: str, apart: int = APART, parked: bool = False
) -> int:
    """Write `sessions` sessions, the last of which end at `until_ms`; return how many events they have.

    A `parked` one waits for a person with its first tool call.
    """
    random = SystemRandom()
    events = 5 if parked else 4 * turns + 2
    each = events * STEP_MS
    for start in range(0, sessions, apart):
        begin = until_ms - (sessions - start) * each // apart - each
        names = [new_id("s", Then(begin), random) for _ in range(min(apart, sessions - start))]
        chains = [Chain(name, begin, policy) for name in names]
        await asyncio.gather(*(_write(log, one, list(one.parked() if parked else one.whole(turns))) for one in chains))
    return sessions * events


async def _write(log: EventLog, chain: Chain, messages: list[Message]) -> None:
    subject, after = session_subject(chain.session), 0
    for start in range(0, len(messages), 20):
        after = await log.append(subject, messages[start : start + 20], after=after)
