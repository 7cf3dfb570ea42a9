"""`policy backtest` over 100,000 recorded decisions: a real nats-server, a log fabricated event by event, and the command.

`python -m benchmarks.backtest [SESSIONS]` prints the figures. Each of the sessions makes 25 model calls and 25 tool calls, on
arguments of its own, so that the decision cache can answer next to none of them: the slowest history there is.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.chain import Head
from agentos.abi.event import Event, rfc3339
from agentos.abi.ids import new_id
from agentos.abi.syscall import MODEL_CALL
from agentos.boot.home import Home
from agentos.boot.runtime import Runtime, open_runtime
from agentos.boot.system import SystemRandom
from agentos.control.client import find_identity, open_client
from agentos.control.identity import Identity
from agentos.eventlog.adapters.credentials import create_seed
from agentos.eventlog.port import EventLog, Message
from agentos.eventlog.subject import session_subject

AGENTOS = Path(sys.executable).with_name("agentos")

SESSIONS: Final = 2000
TURNS: Final = 25
"""Turns of a session; each is a model call and a tool call."""

APART: Final = 16
"""Sessions written at one time: events of several sessions alternate in the log, as they do in life."""

STEP_MS: Final = 40
"""Between two events of a session."""

FLEET: Final = """
[{"apiVersion": "agentos/v1", "kind": "Model", "metadata": {"name": "m"},
  "spec": {"provider": "scripted",
           "scripted": {"play": {"name": "none", "rules": [{"id": "end", "when": "true", "say": "."}]}}}},
 {"apiVersion": "agentos/v1", "kind": "Tool", "metadata": {"name": "write"},
  "spec": {"description": "Write a file.", "effect": "write", "driver": {"builtin": {"primitive": "write"}}}},
 {"apiVersion": "agentos/v1", "kind": "Agent", "metadata": {"name": "worker"},
  "spec": {"instructions": "work", "model": "m", "tools": ["write"],
           "governance": {"owner": "bench", "purpose": "bench", "risk": "minimal"}}},
 {"apiVersion": "agentos/v1", "kind": "ToolGrant", "metadata": {"name": "writes"},
  "spec": {"agents": ["worker"], "tools": ["write"], "args": {"path": {"glob": "out/**"}}}}]
"""

STRICTER: Final = """# METADATA
# title: drafts
# description: no call writes a draft
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.drafts

# METADATA
# title: denied
# description: the path ends in -7.txt
results contains {"rule": "drafts.denied", "effect": "deny", "reason": "no drafts"} if {
	endswith(input.syscall.args.path, "-7.txt")
}
"""
"""One call in every session would be denied by it: the eighth."""


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
        made = Event(name, kind, "default", self.session, seq, self.head.hash, self.now_ms, actor, 1, self.policy, data)
        stored = made.to_bytes()
        self.head = made.head(stored)
        return Message(name, stored)

    def decided(self, call: str, tool: str, effect: str, args: dict[str, Any], turn: int, rule: str) -> Message:
        """A decision that let the call through."""
        data = {
            "call": call,
            "tool": tool,
            "effect": effect,
            "args": args,
            "args_digest": digest_of(args),
            "agent": {"name": "worker", "labels": {}},
            "now": self.now_ms,
            "turn": turn,
            "decision": {"effect": "allow", "rules": [rule], "reasons": ["as it was"]},
        }
        return self.event(ev.SYSCALL_DECIDED, data, "agent/worker")

    def finished(self, call: str, tool: str, result: dict[str, Any]) -> Message:
        """An outcome."""
        data = {"call": call, "tool": tool, "result": result, "result_digest": digest_of(result), "duration_us": 900}
        return self.event(ev.SYSCALL_FINISHED, data)

    def whole(self) -> Iterator[Message]:
        """A session from beginning to end."""
        created = {"agent": "worker", "goal": "work " * 20, "inputs": []}
        yield self.event(ev.SESSION_CREATED, created, "principal/operator")
        for turn in range(TURNS):
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


@dataclass(frozen=True)
class Then:
    """A clock that stands at a moment."""

    ms: int

    def now_ms(self) -> int:
        """The moment."""
        return self.ms


async def fabricate(log: EventLog, sessions: int, *, until_ms: int, policy: str) -> int:
    """Write `sessions` sessions, the last of which end at `until_ms`; return how many decisions they hold."""
    random = SystemRandom()
    each = (4 * TURNS + 2) * STEP_MS
    for start in range(0, sessions, APART):
        begin = until_ms - (sessions - start) * each // APART - each
        names = [new_id("s", Then(begin), random) for _ in range(min(APART, sessions - start))]
        await asyncio.gather(*(_write(log, Chain(name, begin, policy)) for name in names))
    return sessions * TURNS * 2


async def _write(log: EventLog, chain: Chain) -> None:
    subject, after = session_subject(chain.session), 0
    messages = list(chain.whole())
    for start in range(0, len(messages), 20):
        after = await log.append(subject, messages[start : start + 20], after=after)


async def run(folder: Path, sessions: int) -> dict[str, float]:
    """Measure; return the figures by name."""
    home = Home(folder / "home")
    rules = folder / "stricter"
    rules.mkdir(parents=True)
    (rules / "drafts.rego").write_text(STRICTER)
    async with open_runtime(home) as runtime:
        stop = asyncio.Event()
        served = asyncio.create_task(runtime.run_until(stop))
        digest = await _prepare(runtime)
        started = time.perf_counter()
        until_ms = runtime.timer.now_ms()
        decisions = await fabricate(runtime.tenants.log("default"), sessions, until_ms=until_ms, policy=digest)
        wrote = time.perf_counter() - started
        await runtime.tenants.get("default").projector.caught_up()
        figures: dict[str, float] = {"decisions": decisions, "events/s written": (4 * TURNS + 2) * sessions / wrote}
        for name, words in (("all", []), ("the last 10 s", ["--since", rfc3339(until_ms - 10_000)])):
            ours, theirs = time.process_time(), _cpu_of_commands()
            started = time.perf_counter()
            body = await _command(folder, "policy", "backtest", str(rules), "-o", "json", *words)
            took = time.perf_counter() - started
            figures |= {
                f"{name}: decisions": body["decided"],
                f"{name}: flips": body["flipped"],
                f"{name}: seconds": took,
                f"{name}: decisions/s": body["decided"] / took,
                f"{name}: CPU seconds of the command": _cpu_of_commands() - theirs,
                f"{name}: CPU seconds of the runtime": time.process_time() - ours,
            }
        figures["MiB at most in the command"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        stop.set()
        await served
    return figures


def _cpu_of_commands() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _prepare(runtime: Runtime) -> str:
    client = await open_client(runtime.url, find_identity(runtime.home.root, None, None))
    try:
        await client.call("registry.apply", {"manifests": json.loads(FLEET), "allow_widen": True})
        key = create_seed(runtime.random)
        await client.call(
            "principal.create", {"name": "cora", "roles": ["compliance"], "tenant": "*", "public_key": key.public_key}
        )
        Identity("cora", "*", key.seed).save(runtime.home.identities / "cora.json")
        facts = await client.call("policy.facts", {})
        return str(facts["digest"])
    finally:
        await client.close()


async def _command(folder: Path, *words: str) -> Any:
    environment = {**os.environ, "AGENTOS_HOME": str(folder / "home")}
    done = await asyncio.create_subprocess_exec(
        AGENTOS, "--as", "cora", *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await done.communicate()
    if done.returncode != 2:
        raise RuntimeError(f"agentos {' '.join(words)} ended with {done.returncode}: {err.decode()}")
    return json.loads(out)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = asyncio.run(run(Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS))
    for title, value in found.items():
        sys.stdout.write(f"{title:40} {value:12,.1f}\n")
