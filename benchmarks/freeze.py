"""The kill switch with many live sessions: how long until every gate sees it, until nothing is on its way, until it lasts.

    python -m benchmarks.freeze [SESSIONS]

A runtime with real parts runs 1,000 sessions that write one file after the other for as long as they are let. The tenant is
frozen and thawed again and again, by a client over NATS as `agentos freeze` does it, in turn with the floor: one durable append
to the same audit chain, while the same sessions run. A decision that is stored after an answer is counted: there must be none.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import yaml

from agentos.abi import event as ev
from agentos.abi.event import Event
from agentos.abi.ids import DEFAULT_TENANT
from agentos.audit.audit_chain import AuditRecord, Entry, switched_entry
from agentos.boot.home import Home
from agentos.boot.runtime import Runtime, open_runtime
from agentos.control.client import Client, find_identity, open_client
from benchmarks.measure import Figure, figure

SESSIONS: Final = 1000
ROUNDS: Final = 30
PAUSE_S: Final = 0.5
"""Seconds that the sessions run between two freezes."""

WATCH_S: Final = 0.2
"""Seconds after an answer for which late decisions are looked for."""

FLOOR: Final = "floor: one append to the audit chain"

WRITER: Final = """
apiVersion: agentos/v1
kind: Tenant
metadata: {name: default}
spec: {limits: {sessions: 10000}}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: endless}
spec:
  provider: scripted
  scripted:
    play:
      name: endless
      rules: [{id: write, when: "true", call: [{tool: write, args: {path: a.txt, content: x}}]}]
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: writer}
spec:
  instructions: Write.
  model: endless
  tools: [write]
  budget: {calls: 1000000, tokens: 1000000000}
  governance: {owner: bench, purpose: measuring, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: writes}
spec: {agents: [writer], tools: [write]}
"""


async def run(folder: Path, sessions: int = SESSIONS) -> tuple[list[Figure], int, int]:
    """The figures, decisions of all sessions while it ran, and those that were stored after an answer (which must be none)."""
    home = Home(folder)
    async with open_runtime(home) as runtime:
        client = await open_client(runtime.url, find_identity(home.root, None, None))
        try:
            return await _measure(runtime, client, sessions)
        finally:
            await client.close()


async def _measure(runtime: Runtime, client: Client, sessions: int) -> tuple[list[Figure], int, int]:
    manifests: list[Any] = list(yaml.safe_load_all(WRITER))
    await client.call(
        "registry.apply", {"manifests": manifests, "reason": "bench", "allow_widen": True, "allow_destroy": True}, within=60
    )
    names = set[str]()
    for first in range(0, sessions, 50):
        made = [
            client.call("session.create", {"agent": "writer", "goal": "write"}, within=60)
            for _ in range(min(50, sessions - first))
        ]
        names |= {one["session"] for one in await asyncio.gather(*made)}
    decided: list[int] = []
    gate = runtime.sessions._gate  # noqa: SLF001 - whoever wants to see every decision has to listen where they are recorded
    hear = gate.hear

    def heard(event: Event) -> None:
        if event.type == ev.SYSCALL_DECIDED:
            decided.append(time.perf_counter_ns())
        hear(event)

    gate.hear = heard
    times: dict[str, list[float]] = {FLOOR: [], "in force": [], "quiet": [], "durable": [], "answered": []}
    late = 0
    for number in range(ROUNDS):
        await asyncio.sleep(PAUSE_S)
        begun = time.perf_counter_ns()
        await _floor(runtime, number)
        times[FLOOR].append((time.perf_counter_ns() - begun) / 1000)
        begun = time.perf_counter_ns()
        told = await client.call("freeze.set", {"scope": {"kind": "tenant"}, "reason": "bench"}, within=60)
        answered = time.perf_counter_ns()
        times["answered"].append((answered - begun) / 1000)
        for name in ("in_force", "quiet", "durable"):
            times[name.replace("_", " ")].append(told[f"{name}_us"])
        await asyncio.sleep(WATCH_S)
        late += sum(at > answered for at in decided)
        await client.call("freeze.lift", {"all": True, "reason": "bench"}, within=60)
    return [figure(name, values) for name, values in times.items()], len(decided), late


async def _floor(runtime: Runtime, number: int) -> None:
    """One append to the audit chain, as a freeze makes one."""

    async def entry(_: AuditRecord) -> tuple[Entry, ...]:
        return (switched_entry("agent", "writer", f"round {number}", on=True),)

    assert runtime.erasures is not None
    await runtime.erasures.chain(DEFAULT_TENANT).append(entry, actor="principal/bench", revision=1)


def lines(figures: list[Figure], sessions: int, decided: int, late: int) -> list[str]:
    """The figures as a table."""
    floor = figures[0].p50
    return [
        f"{sessions:,} live sessions, {decided:,} decisions in all, {late} stored after an answer.",
        "",
        "| what | p50 µs | p99 µs | ratio to its floor |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {one.name} | {one.p50:.0f} | {one.p99:.0f} | {one.p50 / floor:.2f} |" for one in figures),
    ]


def main() -> int:
    """Measure and print."""
    logging.getLogger("agentos").setLevel(logging.CRITICAL)
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as folder:
        figures, decided, late = asyncio.run(run(Path(folder) / "home", sessions))
    print("\n".join(lines(figures, sessions, decided, late)))
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
