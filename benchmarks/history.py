"""How often the cache answers, on questions that were really asked: those that the quickstart's demo left in its log.

    python -m benchmarks.history

They are asked again in their order, of a fresh decider with the policies and facts of the revision that decided them. The long
log holds the same sessions many times over, sixteen at a time, each with an id, times and model inputs of its own.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from agentos.abi.syscall import MODEL_CALL
from agentos.control.client import find_identity, find_server, open_client
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.bundle import axioms
from agentos.policy.decide import Decider
from agentos.policy.port import Module

ROOT = Path(__file__).resolve().parents[1]
AGENTOS = Path(sys.executable).with_name("agentos")
SESSIONS = 2000
AT_A_TIME = 16
LATER_MS = 1_296_000
"""How much later than the one before it a session of the long log starts: 2,000 of them take a month."""


@dataclass(frozen=True)
class Log:
    """What was recorded: the questions of each session in order, with the effect that was decided, and what decides."""

    sessions: Sequence[Sequence[Mapping[str, Any]]]
    modules: Sequence[Module]
    data: Mapping[str, Any]


def record(state: Path) -> Log:
    """Run the demo and read its decisions back through the door that operators have."""
    home = state / "home"
    environment = {**os.environ, "AGENTOS_HOME": str(home)}
    demo = [sys.executable, str(ROOT / "examples/quickstart/demo.py"), "--state", str(state)]
    subprocess.run(demo, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([AGENTOS, "up", "--detach"], env=environment, capture_output=True, check=True)
    try:
        return asyncio.run(_read(home))
    finally:
        subprocess.run([AGENTOS, "down"], env=environment, capture_output=True, check=True)


async def _read(home: Path) -> Log:
    client = await open_client(find_server(home, None), find_identity(home, None, None))
    try:
        rows = await client.call("session.list", {"all": True})
        facts = await client.call("policy.facts", {})
        found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        answer = await client.call("policy.recorded", {"sessions": [row["id"] for row in rows]}, within=120)
        for item in answer["decisions"]:
            found[item["question"]["session"]["id"]].append(item)
        modules = [Module(item["path"], item["source"]) for item in facts["modules"]]
        return Log(list(found.values()), modules, facts["data"])
    finally:
        await client.close()


def long(log: Log) -> Iterator[Mapping[str, Any]]:
    """The questions of many sessions like the recorded ones, interleaved."""
    waiting = (_again(session, number) for number, session in enumerate(islice(cycle(log.sessions), SESSIONS)))
    running = list(islice(waiting, AT_A_TIME))
    while running:
        for session in list(running):
            question = next(session, None)
            if question is not None:
                yield question
                continue
            running.remove(session)
            running += islice(waiting, 1)


def _again(session: Sequence[Mapping[str, Any]], number: int) -> Iterator[Mapping[str, Any]]:
    for place, item in enumerate(session):
        asked = copy.deepcopy(item["question"])
        asked["session"]["id"] = f"s-{number}"
        asked["now"] += number * LATER_MS
        for approval in asked["approvals"]:
            approval["at"] += number * LATER_MS
            approval["expires"] += number * LATER_MS
        if asked["syscall"]["tool"] == MODEL_CALL:
            digest = hashlib.sha256(f"{number}/{place}".encode()).hexdigest()
            asked["syscall"]["args"]["input_digest"] = asked["syscall"]["args_digest"] = f"sha256:{digest}"
        yield asked


async def replay(log: Log, questions: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """By tool: how many decisions, and how many of them the cache gave."""
    decider = await Decider.load(EmbeddedFactory(), log.modules, log.data, decision_seconds=30.0)
    found: dict[str, tuple[int, int]] = {}
    for asked in questions:
        before = decider.stats().hits
        decision = await decider.decide_syscall(asked)
        assert not decision.failed, decision
        count, hits = found.get(asked["syscall"]["tool"], (0, 0))
        found[asked["syscall"]["tool"]] = count + 1, hits + decider.stats().hits - before
    decider.close()
    return found


async def lines(log: Log) -> list[str]:
    """The table: decisions and hits, by tool, in the demo's log and in the long one."""
    demo = await replay(log, (item["question"] for session in log.sessions for item in session))
    many = await replay(log, long(log))
    shipped = Log(log.sessions, [module for module in log.modules if module in set(axioms())], log.data)
    alone = await replay(shipped, long(log))
    tools = [*((f"`{tool}`", tool) for tool in sorted(demo)), ("all", None)]
    return [
        f"How often the cache answers, on the questions that the demo's {len(log.sessions)} sessions recorded, and on",
        f"{SESSIONS:,} sessions like them ({AT_A_TIME} at a time, each with its own id, times and model inputs, all over",
        "the same inbox). The demo's own policy reads every argument, so that no two calls of the model are the same",
        "question to it; the shipped rules read those that grants constrain. Asking a person is never kept.",
        "",
        "| tool | demo's log | from the cache | long log | from the cache | by the shipped rules alone |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {_count(demo, tool)} | {_share(demo, tool)} | {_count(many, tool)} | {_share(many, tool)} "
            f"| {_share(alone, tool)} |"
            for name, tool in tools
        ),
    ]


Counts = Mapping[str, tuple[int, int]]


def _of(counts: Counts, tool: str | None) -> tuple[int, int]:
    if tool is not None:
        return counts[tool]
    return sum(count for count, _ in counts.values()), sum(hits for _, hits in counts.values())


def _count(counts: Counts, tool: str | None) -> str:
    return f"{_of(counts, tool)[0]:,}"


def _share(counts: Counts, tool: str | None) -> str:
    count, hits = _of(counts, tool)
    return f"{hits / count:.1%}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as scratch:
        print("\n".join(asyncio.run(lines(record(Path(scratch) / "demo")))))
