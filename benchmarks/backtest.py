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
from pathlib import Path
from typing import Any, Final

from agentos.abi.event import rfc3339
from agentos.boot.home import Home
from agentos.boot.runtime import Runtime, open_runtime
from agentos.control.client import find_identity, open_client
from agentos.control.identity import Identity
from agentos.eventlog.adapters.credentials import create_seed
from benchmarks.fabricate import fabricate

AGENTOS = Path(sys.executable).with_name("agentos")

SESSIONS: Final = 2000
TURNS: Final = 25
"""Turns of a session; each is a model call and a tool call."""

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
        log = runtime.tenants.log("default")
        events = await fabricate(log, sessions, turns=TURNS, until_ms=until_ms, policy=digest)
        wrote = time.perf_counter() - started
        await runtime.tenants.get("default").projector.caught_up()
        figures: dict[str, float] = {"decisions": sessions * TURNS * 2, "events/s written": events / wrote}
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
