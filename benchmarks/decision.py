"""One decision, from the input in Python to the checked decision in Python, on each engine and beside what others do.

    python -m benchmarks.decision

The peers have an environment of their own, because what they need contradicts what we need:
`python -m venv .venv/peers && .venv/peers/bin/pip install --require-hashes -r requirements/bench.txt`. They decide an equivalent
of the grants alone: no Rego, no reasons, no second rule.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
from benchmarks.measure import Figure, Subject, in_turn

GRANTS = 1000
PATIENT = 30.0
PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
MAKE_PEERS = "python -m venv .venv/peers && .venv/peers/bin/pip install --require-hashes -r requirements/bench.txt"
ALLOWED = "worker-7"


def facts(grants: int) -> dict[str, Any]:
    """Data in which `grants` agents may each write below out/."""
    names = [f"worker-{number}" for number in range(grants)]
    agent = {"model": "m", "tools": ["write"], "budget": {"calls": 10**9, "tokens": 10**9}, "governance": {"risk": "minimal"}}
    tool = {
        "effect": "write",
        "labels": [],
        "idempotent": True,
        "driver": "builtin",
        "primitive": "write",
        "workspace_args": ["path"],
    }
    grant = {"args": {"path": {"glob": "out/**"}}, "approval": False, "by": "principal/bench"}
    return {
        "agentos": {
            "tenant": {"name": "default", "limits": {"sessions": 100}},
            "agents": dict.fromkeys(names, agent),
            "tools": {"write": tool},
            "grants": {name: {"write": [grant | {"name": f"grant-{name}"}]} for name in names},
            "policies": {},
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
        "now": 1_700_000_000_000,
    }


async def run(folder: Path) -> list[str]:
    """The lines of the section: a table of figures, most of them taken in turn."""
    numbers = iter(range(10**9))
    modules, data = axioms("syscall"), facts(GRANTS)
    rules = sum(syntax.rule_name(rule) == "results" for module in modules for rule in syntax.rules(opa.parse(module)))
    inside = await Decider.load(EmbeddedFactory(), modules, data, cache_size=0, decision_seconds=PATIENT)
    cached = await Decider.load(EmbeddedFactory(), modules, data, decision_seconds=PATIENT)
    managed = await Decider.load(ManagedFactory(), modules, data, cache_size=0, decision_seconds=PATIENT)
    empty = await ManagedFactory().load([Module("empty.rego", "package agentos.syscall\n\ndecision := 1\n")], {})
    few = await Decider.load(EmbeddedFactory(), modules, facts(10), cache_size=0, decision_seconds=PATIENT)
    many = await Decider.load(EmbeddedFactory(), modules, facts(10_000), cache_size=0, decision_seconds=PATIENT)
    same = question(0)
    assert (await cached.decide_syscall(same)).effect == "allow"

    def deciding(decider: Decider) -> Subject:
        return lambda: decider.decide_syscall(question(next(numbers)))

    subjects: dict[str, Subject] = {
        "in process": deciding(inside),
        "in process, 10 grants": deciding(few),
        "in process, 10,000 grants": deciding(many),
        "in process, kept answer": lambda: cached.decide_syscall(same),
        "managed server": deciding(managed),
        "floor: the managed server's round trip with an empty policy": lambda: _bare(empty, next(numbers)),
    }
    figures = await in_turn(subjects, rounds=1000, warmup=50)
    figures |= await in_turn({"`opa eval`, a process per decision": _process(folder, modules, data)}, rounds=20, warmup=2)
    figures |= await asyncio.to_thread(_peers)
    spread = await _together(inside, numbers), await _together(managed, numbers)
    for decider in (inside, cached, managed, few, many):
        decider.close()
    empty.close()
    return [
        f"{rules} rules, {GRANTS:,} grants indexed by agent and tool unless a line says otherwise; µs.",
        "",
        "| what decides | p50 µs | p99 µs | to in process |",
        "| --- | ---: | ---: | ---: |",
        *(_line(figure, figures["in process"].p50) for figure in figures.values()),
        "",
        f"32 decisions in flight block the event loop for at most {spread[0]:.1f} ms in process, {spread[1]:.1f} ms on a server.",
    ]


def _line(figure: Figure, base: float) -> str:
    return f"| {figure.name} | {figure.p50:.0f} | {figure.p99:.0f} | {figure.p50 / base:.2f} |"


async def _bare(engine: ManagedEngine, number: int) -> None:
    await engine.evaluate(SYSCALL, question(number), within=PATIENT)


async def _together(decider: Decider, numbers: Iterator[int]) -> float:
    """The longest time in ms that the event loop does not come round while 32 decisions are under way."""
    loop, longest, last, over = asyncio.get_running_loop(), 0.0, 0.0, False

    def tick() -> None:
        nonlocal longest, last
        now = loop.time()
        longest, last = max(longest, now - last), now
        if not over:
            loop.call_soon(tick)

    last = loop.time()
    tick()
    for _ in range(10):
        await asyncio.gather(*(decider.decide_syscall(question(next(numbers))) for _ in range(32)))
    over = True
    return longest * 1000


def _process(folder: Path, modules: tuple[Module, ...], data: Mapping[str, Any]) -> Subject:
    """What comparable runtimes do: start `opa eval` for each decision."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle, document = folder / "bundle.tar.gz", folder / "input.json"
    bundle.write_bytes(build_bundle(modules, data).content)
    document.write_bytes(orjson.dumps(question(0)))
    command = [str(find_opa()), "eval", "--bundle", str(bundle), "--input", str(document), f"data.{SYSCALL}"]

    async def decide() -> None:
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await child.communicate()
        assert orjson.loads(said)["result"][0]["expressions"][0]["value"]["effect"] == "allow"

    return decide


def _peers() -> dict[str, Figure]:
    """Other evaluators on an equivalent of the grants, measured right after ours; without their environment, none."""
    if not PEERS.exists():
        print(f"no peers: {MAKE_PEERS}", file=sys.stderr)
        return {}
    script = Path(__file__).with_name("peers.py")
    done = subprocess.run([PEERS, "-W", "ignore", script, str(GRANTS)], capture_output=True, check=True)
    return {name: Figure(name, times["p50"], times["p99"], times["count"]) for name, times in orjson.loads(done.stdout).items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as scratch:
        print("\n".join(asyncio.run(run(Path(scratch)))))
