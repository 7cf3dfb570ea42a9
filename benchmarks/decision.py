"""One decision, from the input in Python to the checked decision in Python, on each engine and beside what others do.

    python -m benchmarks.decision

The peers get an environment of their own (`.venv/peers`, made here when it is missing), because what they need contradicts what
we need. They decide an equivalent of the grants alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.adapters.managed import ManagedEngine, ManagedFactory
from agentos.policy.adapters.opa_bundle import build_bundle
from agentos.policy.adapters.opa_program import find_opa
from agentos.policy.bundle import axioms
from agentos.policy.decide import SYSCALL, Decider
from agentos.policy.port import Module
from benchmarks import history, interruption
from benchmarks.measure import Figure, Subject, figure, in_turn

GRANTS = 1000
PATIENT = 30.0
ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(sys.prefix) / "peers"
PINNED = ROOT / "requirements" / "bench.txt"
ALLOWED = "worker-7"
OWN = "the engine's own evaluation, called without a thread (floor)"


def facts(grants: int) -> dict[str, Any]:
    """Data in which `grants` agents may each write below out/."""
    names = [f"worker-{number}" for number in range(grants)]
    agent = {
        "model": "m",
        "models": ["m"],
        "tools": ["write"],
        "budget": {"calls": 10**9, "tokens": 10**9},
        "governance": {"risk": "minimal"},
    }
    tool = {
        "effect": "write",
        "labels": [],
        "idempotent": True,
        "driver": "builtin",
        "primitive": "write",
        "workspace_args": ["path"],
    }
    grant = {
        "args": {"path": {"glob": "out/**"}},
        "approval": False,
        "by": "principal/bench",
        "digest": "sha256:" + "0" * 64,
    }
    tails = sorted({syntax.package(opa.parse(module))[-1] for module in axioms("syscall")} - {"syscall"})
    return {
        "agentos": {
            "tenant": {"name": "default", "limits": {"sessions": 100}},
            "agents": dict.fromkeys(names, agent),
            "tools": {"write": tool},
            "grants": {name: {"write": [grant | {"name": f"grant-{name}"}]} for name in names},
            "policies": {},
            "rules": {"syscall": tails, "admission": [], "approval": []},
            "roles": {},
        }
    }


def question(number: int) -> dict[str, Any]:
    """A call that is allowed; another path each time, so that no cache answers."""
    return {
        "abi": "agentos/v1",
        "syscall": {
            "tool": "write",
            "effect": "write",
            "args": {"path": f"out/{number}.txt", "content": "hello"},
            "args_digest": "sha256:" + "0" * 64,
        },
        "agent": {"name": ALLOWED, "labels": {}},
        "session": {"id": "s-1", "tenant": "default", "actor": "principal/bench", "labels": [], "delegation": []},
        "budget": {"calls": 3, "tokens": 100},
        "approvals": [],
        "config_revision": 1,
        "policy_digest": "sha256:" + "1" * 64,
        "spent": [],
        "now": 1_700_000_000_000,
    }


async def run(folder: Path) -> list[str]:
    """The lines of the section: a table of figures, most of them taken in turn."""
    numbers = iter(range(10**9))
    modules, data = axioms("syscall"), facts(GRANTS)
    rules = sum(syntax.rule_name(rule) == "results" for module in modules for rule in syntax.rules(opa.parse(module)))
    inside = await _load(EmbeddedFactory(), modules, data)
    managed = await _load(ManagedFactory(), modules, data)
    few = await _load(EmbeddedFactory(), modules, facts(10))
    many = await _load(EmbeddedFactory(), modules, facts(10_000))
    empty = await ManagedFactory().load([Module("empty.rego", "package agentos.syscall\n\ndecision := 1\n")], {})
    bare = opa.build(modules, data)

    def deciding(decider: Decider) -> Subject:
        return lambda: decider.decide_syscall(question(next(numbers)))

    async def evaluate() -> None:
        bare.eval_document(SYSCALL, question(next(numbers)))

    async with _server(folder, modules, data) as raw:
        subjects: dict[str, Subject] = {
            OWN: evaluate,
            "in process": deciding(inside),
            "in process, 10 grants": deciding(few),
            "in process, 10,000 grants": deciding(many),
            "managed server": deciding(managed),
            "round trip to the managed server, empty policy (floor)": lambda: _bare(empty, next(numbers)),
            "OPA over HTTP on loopback, no more than that: not checked, no token": lambda: raw(question(next(numbers))),
        }
        figures = await in_turn(subjects, rounds=600, warmup=50)
    spread = [await interruption.together(decider, lambda: question(next(numbers))) for decider in (inside, managed)]
    for decider in (inside, managed, few, many):
        decider.close()
    empty.close()
    bare.close()
    kept, rate = await _kept(modules, data)
    figures |= {kept.name: kept}
    figures |= await in_turn({"`opa eval`, a process per decision": _process(folder, modules, data)}, rounds=20, warmup=2)
    figures |= await asyncio.to_thread(_peers)
    swap = await interruption.swap(modules, facts(10_000), lambda: question(next(numbers)))
    log = await asyncio.to_thread(history.record, folder / "demo")
    return [
        f"{rules} rules, {GRANTS:,} grants indexed by agent and tool unless a line says otherwise; µs from the input in Python",
        "to the checked decision in Python.",
        "",
        "| what decides | p50 µs | p99 µs | to in process |",
        "| --- | ---: | ---: | ---: |",
        *(_line(figure, figures["in process"].p50) for figure in figures.values()),
        "",
        f"A decision takes {_ratio(figures, 'in process', OWN)} of the engine's own evaluation: what is added is the way to",
        "a thread and back.",
        "With 10,000 grants it takes",
        f"{_ratio(figures, 'in process, 10,000 grants', 'in process, 10 grants')} of the time with 10.",
        f"{rate:,.0f} kept answers are given in a second.",
        "",
        "While 32 decisions are in flight a tick that is due in the event loop every ms comes late by",
        f"{spread[0]}, with OPA in process, and by",
        f"{spread[1]}, with a managed server.",
        "",
        *swap,
        "",
        *await history.lines(log),
    ]


async def _load(factory: EmbeddedFactory | ManagedFactory, modules: tuple[Module, ...], data: Mapping[str, Any]) -> Decider:
    return await Decider.load(factory, modules, data, cache_size=0, decision_seconds=PATIENT)


async def _kept(modules: tuple[Module, ...], data: Mapping[str, Any]) -> tuple[Figure, float]:
    """An answer that is kept, asked for again and again; and how many there are of them in a second."""
    decider = await Decider.load(EmbeddedFactory(), modules, data, decision_seconds=PATIENT)
    same = question(0)
    assert (await decider.decide_syscall(same)).effect == "allow"
    times = []
    for _ in range(20_000):
        started = time.perf_counter_ns()
        await decider.decide_syscall(same)
        times.append((time.perf_counter_ns() - started) / 1000)
    started = time.perf_counter_ns()
    for _ in range(100_000):
        await decider.decide_syscall(same)
    rate = 100_000 / (time.perf_counter_ns() - started) * 1e9
    assert decider.stats().misses == 1
    decider.close()
    return figure("in process, a kept answer", times), rate


def _ratio(figures: Mapping[str, Figure], of: str, to: str) -> str:
    return f"{figures[of].p50 / figures[to].p50:.2f}"


def _line(figure: Figure, base: float) -> str:
    return f"| {figure.name} | {figure.p50:,.0f} | {figure.p99:,.0f} | {figure.p50 / base:,.2f} |"


async def _bare(engine: ManagedEngine, number: int) -> None:
    await engine.evaluate(SYSCALL, question(number), within=PATIENT)


@contextlib.asynccontextmanager
async def _server(
    folder: Path, modules: tuple[Module, ...], data: Mapping[str, Any]
) -> AsyncIterator[Callable[[Mapping[str, Any]], Any]]:
    """An `opa run --server` as anybody would start it; asks it over one connection that stays open."""
    bundle = await asyncio.to_thread(_bundle, folder, modules, data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(find_opa()), "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error", "--bundle", str(bundle)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL, env={"GOGC": "400", **os.environ})
    url = f"http://127.0.0.1:{port}/v1/data/{SYSCALL.replace('.', '/')}"
    session = aiohttp.ClientSession()

    async def ask(document: Mapping[str, Any]) -> Any:
        async with session.post(url, data=orjson.dumps({"input": document})) as response:
            return orjson.loads(await response.read())["result"]

    try:
        while True:
            with contextlib.suppress(aiohttp.ClientError, KeyError):
                assert (await ask(question(0)))["effect"] == "allow"
                break
            await asyncio.sleep(0.05)
        yield ask
    finally:
        await session.close()
        process.terminate()
        await process.wait()


def _bundle(folder: Path, modules: tuple[Module, ...], data: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / "bundle.tar.gz"
    bundle.write_bytes(build_bundle(modules, data).content)
    return bundle


def _process(folder: Path, modules: tuple[Module, ...], data: Mapping[str, Any]) -> Subject:
    """What comparable runtimes do: start `opa eval` for each decision."""
    bundle, document = _bundle(folder, modules, data), folder / "input.json"
    document.write_bytes(orjson.dumps(question(0)))
    command = [str(find_opa()), "eval", "--bundle", str(bundle), "--input", str(document), f"data.{SYSCALL}"]

    async def decide() -> None:
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await child.communicate()
        assert orjson.loads(said)["result"][0]["expressions"][0]["value"]["effect"] == "allow"

    return decide


def _peers() -> dict[str, Figure]:
    """Other evaluators on an equivalent of the grants, measured right after ours, in the environment that is theirs."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        print(f"making {PEERS} for the engines that are measured beside ours", file=sys.stderr)
        venv.create(PEERS, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(PINNED)]
        subprocess.run([str(python), *install], check=True)
    script = Path(__file__).with_name("peers.py")
    done = subprocess.run([python, "-W", "ignore", script, str(GRANTS)], capture_output=True, check=True)
    return {name: Figure(name, times["p50"], times["p99"], times["count"]) for name, times in orjson.loads(done.stdout).items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as scratch:
        print("\n".join(asyncio.run(run(Path(scratch)))))
