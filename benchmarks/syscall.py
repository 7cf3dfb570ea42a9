"""One syscall through the gate, per stage, against its floors on the same server and engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentos.abi.resource import Resource
from agentos.abi.syscall import Result, Syscall
from agentos.boot.backend import Embedded
from agentos.boot.budgets import budgeted_events
from agentos.boot.charges import charged_events
from agentos.boot.configuration import configure
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.drivers.dispatch import Providers
from agentos.drivers.port import CallContext, ToolSpec
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.kernel.admission import Admissions, Request
from agentos.kernel.budgets import Budgets
from agentos.kernel.charges import Charges
from agentos.kernel.gate import Gate
from agentos.kernel.journal import Journal
from agentos.kernel.port import Configuration
from agentos.kernel.workspace import Workspaces
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.bundle import axioms
from agentos.policy.data import build_data
from agentos.registry.state import Entry, State
from benchmarks.measure import Figure, in_turn

GRANTS = 1000


class Nothing:
    """A driver that takes no time."""

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        return Result("ok")

    async def release(self, session: str) -> None:
        return

    async def close(self) -> None:
        return


def fleet(grants: int, *, budgets: bool = False) -> list[Resource]:
    """One agent with one tool, among `grants` grants of other agents; `budgets`: bounded in every unit, and by the day."""
    most = {"calls": 10**9, "tokens": 10**9}
    more = {"dollars": "1000000.00", "seconds": 10**9, "bytes": 10**12, "perDay": most} if budgets else {}
    agent = {
        "instructions": "work",
        "model": "m",
        "tools": ["write"],
        "budget": {**most, **more},
        "governance": {"owner": "bench", "purpose": "bench", "risk": "minimal"},
    }
    tool = {"description": "write", "effect": "write", "driver": {"builtin": {"primitive": "write"}}}
    model = {"provider": "scripted", "scripted": {"play": {"name": "none", "rules": []}}}
    found = [_resource("Model", "m", model), _resource("Tool", "write", tool)]
    for number in range(grants):
        found.append(_resource("Agent", f"worker-{number}", agent))
        constraint = {"path": {"glob": "out/**"}}
        spec = {"agents": [f"worker-{number}"], "tools": ["write"], "args": constraint, "approval": "none"}
        found.append(_resource("ToolGrant", f"grant-{number}", spec))
    return found


def _resource(kind: str, name: str, spec: dict[str, Any]) -> Resource:
    return Resource.from_dict({"kind": kind, "metadata": {"name": name, "tenant": "default"}, "spec": spec})


def state(resources: list[Resource]) -> State:
    """A revision that holds `resources`."""
    return State.of(1, {item.key: Entry(item, item.digest(), "principal/bench", 1) for item in resources})


async def run(folder: Path) -> tuple[list[Figure], dict[str, float]]:
    """Measure; return the figures and derived numbers."""
    random, timer = SystemRandom(), SystemTimer()
    backend = Embedded(folder / "nats", folder / "keys", random, 0)
    await backend.start(("default",))
    try:
        client = await backend.connect("default")
        await ensure_streams(client, ["EV_000000_0"])
        log = JetStreamLog(client)
        factory = EmbeddedFactory()
        resources = fleet(GRANTS)
        configuration, decider = await configure(factory, state(resources), "default")
        tight, tight_decider = await configure(factory, state(fleet(GRANTS, budgets=True)), "default")
        charges, books = Charges(charged_events(lambda _tenant: log)), Budgets(budgeted_events(lambda _tenant: log))
        gate = Gate(Nothing(), Providers(), Workspaces(folder / "work"), timer, charges, budgets=books)
        journal = await _session(log, configuration, timer, random)
        budgeted = await _session(log, tight, timer, random)
        child = await _session(log, configuration, timer, random, delegated=True)
        admissions = Admissions(timer)
        asked = Request("default", "s-1", "model-1", "worker-7", "standard", (("default", "m"),))
        payload = b"x" * 900
        js = client.jetstream()
        engine = await factory.load(axioms("syscall"), build_data(resources, "default", granted_by={}))
        numbers = iter(range(10**9))
        document = _document("out/engine.txt")

        async def publish() -> None:
            await js.publish("ev.000000.0.floor", payload)

        async def floor_of_two() -> None:
            await js.publish("ev.000000.0.floor", payload)
            await js.publish("ev.000000.0.floor", payload)

        async def evaluate() -> None:
            await engine.evaluate("agentos.syscall.decision", document)

        async def decide_fresh() -> None:
            await decider.decide_syscall(_document(f"out/{next(numbers)}.txt"))

        async def decide_again() -> None:
            await decider.decide_syscall(document)

        async def syscall() -> None:
            number = next(numbers)
            args = {"path": f"out/{number}.txt", "content": "hello"}
            await gate.perform(journal, configuration, Syscall(f"c{number}", "write", args))

        async def syscall_cached() -> None:
            args = {"path": "out/same.txt", "content": "hello"}
            await gate.perform(journal, configuration, Syscall(f"c{next(numbers)}", "write", args))

        async def syscall_budgeted() -> None:
            args = {"path": "out/same.txt", "content": "hello"}
            await gate.perform(budgeted, tight, Syscall(f"c{next(numbers)}", "write", args))

        async def syscall_of_a_child() -> None:
            args = {"path": "out/same.txt", "content": "hello"}
            await gate.perform(child, configuration, Syscall(f"c{next(numbers)}", "write", args))

        async def admit() -> None:
            with await admissions.admit(asked) as ticket:
                ticket.release(1)

        subjects = {
            "floor: one JetStream publish with ack": publish,
            "floor: two publishes": floor_of_two,
            "floor: OPA evaluates the decision": evaluate,
            "decision, not cached": decide_fresh,
            "decision, cached": decide_again,
            "syscall, decision not cached": syscall,
            "syscall, decision cached": syscall_cached,
            "the same, paid from budgets": syscall_budgeted,
            "the same, of a child, with its parent's session": syscall_of_a_child,
            "admission to an endpoint without limits": admit,
        }
        figures = list((await in_turn(subjects, rounds=400)).values())
        together = {count: await _together(log, gate, configuration, timer, random, count) for count in (16, 128)}
        await admissions.close()
        engine.close()
        decider.close()
        tight_decider.close()
        await client.close()
        return figures, {f"syscalls/s, {count} sessions": rate for count, rate in together.items()}
    finally:
        await backend.stop()


async def _session(
    log: JetStreamLog, configuration: Configuration, timer: SystemTimer, random: SystemRandom, *, delegated: bool = False
) -> Journal:
    journal = Journal(log, "default", f"s-{random.token(8).hex()}", timer, random)
    data: dict[str, Any] = {"agent": "worker-7", "goal": "bench", "inputs": []}
    if delegated:
        above = f"s-{random.token(8).hex()}"
        # An agent that delegates to its like, with the tool itself: who may call it may do so for another one.
        link = {"session": above, "agent": "worker-7", "labels": {}, "tool": "write", "tools": None}
        places = {"parent": above, "call": "c1", "index": 0, "decided": 2, "tool": "write"}
        data |= {
            "parent": above,
            "delegated": {**places, "lineage": [above], "delegators": [link], "tools": None, "budget": None},
        }
    await journal.record("agentos.session.created", data, actor="principal/bench", revision=1, policy=configuration.policy_digest)
    return journal


async def _together(
    log: JetStreamLog, gate: Gate, configuration: Configuration, timer: SystemTimer, random: SystemRandom, count: int
) -> float:
    """Durable syscalls per second with `count` sessions at once, each call decided."""
    journals = [await _session(log, configuration, timer, random) for _ in range(count)]
    each = max(4, 1600 // count)

    async def work(journal: Journal) -> None:
        for number in range(each):
            args = {"path": f"out/{journal.session}-{number}.txt", "content": "hello"}
            await gate.perform(journal, configuration, Syscall(f"c{number}", "write", args))

    started = time.perf_counter()
    await asyncio.gather(*(work(journal) for journal in journals))
    return count * each / (time.perf_counter() - started)


def _document(path: str) -> dict[str, Any]:
    return {
        "abi": "agentos/v1",
        "syscall": {
            "tool": "write",
            "effect": "write",
            "args": {"path": path, "content": "hello"},
            "args_digest": "sha256:" + "0" * 64,
        },
        "agent": {"name": "worker-7", "labels": {}},
        "session": {"id": "s-1", "tenant": "default", "actor": "principal/bench", "labels": [], "delegation": []},
        "budget": {"calls": 3, "tokens": 100},
        "approvals": [],
        "config_revision": 1,
        "policy_digest": "sha256:" + "1" * 64,
        "spent": [],
        "now": 1_700_000_000_000,
    }
