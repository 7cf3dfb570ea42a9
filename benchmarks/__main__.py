"""Run every benchmark and write the report."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks import (
    append,
    boundary,
    commands,
    decision,
    delegation,
    freeze,
    provisioning,
    query,
    restart,
    resume,
    sandbox,
    scheduling,
    syscall,
)

REPORT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"

BASE = {
    "floor: two publishes": "floor: one JetStream publish with ack",
    "decision, not cached": "floor: OPA evaluates the decision",
    "decision, cached": "floor: OPA evaluates the decision",
}


def main() -> int:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as folder:
        figures, rates = asyncio.run(syscall.run(Path(folder) / "syscall"))
        decisions = asyncio.run(decision.run(Path(folder) / "decision"))
        appends = asyncio.run(append.run(Path(folder) / "append"))
        seconds = commands.run(Path(folder) / "commands")
        queries = query.run(Path(folder) / "query")
        figures_frozen, decided, late = asyncio.run(freeze.run(Path(folder) / "freeze"))
        delegations = delegation.lines(*asyncio.run(delegation.run(Path(folder) / "delegation")))
        placed = asyncio.run(sandbox.run(Path(folder) / "sandbox"))
        resumed = asyncio.run(resume.run(Path(folder) / "resume"))
        bounds = boundary.lines(*asyncio.run(boundary.run(Path(folder) / "boundary")))
        hands = provisioning.lines(asyncio.run(provisioning.run(Path(folder) / "provisioning")))
        starts = asyncio.run(restart.run(Path(folder) / "restart"))
    chosen = scheduling.lines(scheduling.run())
    by_name = {figure.name: figure for figure in figures}
    publishes, evaluation = by_name["floor: two publishes"].p50, by_name["floor: OPA evaluates the decision"].p50
    cached = ("syscall, decision cached", "the same, paid from budgets", "the same, of a child, with its parent's session")
    sums = {"syscall, decision not cached": publishes + evaluation, **dict.fromkeys(cached, publishes)}
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`, which writes this file. Times depend on the machine; what counts is the ratio to the floor, and",
        "floor and subject were measured in turn in the same run.",
        "",
        f"Machine: {os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()},",
        "`sync_interval: always`.",
        "",
        "## One syscall through the gate",
        "",
        f"One session, a tool that takes no time, {syscall.GRANTS} grants indexed by agent and tool. An allowed syscall makes",
        "two durable events, one after the other: the decision (which is the record of intent), then the outcome. Its floor is",
        "the sum of two bare publishes with acknowledgement to the same server and, where nothing is cached, of OPA's own",
        "evaluation.",
        "",
        "| what | p50 µs | p99 µs | ratio to its floor |",
        "| --- | ---: | ---: | ---: |",
    ]
    for figure in figures:
        base = sums.get(figure.name) or (by_name[BASE[figure.name]].p50 if figure.name in BASE else None)
        ratio = f"{figure.p50 / base:.2f}" if base else ""
        lines.append(f"| {figure.name} | {figure.p50:.0f} | {figure.p99:.0f} | {ratio} |")
    lines += ["", "## Many sessions at once", "", "Every call decided by Rego without a cache hit, every event durable.", ""]
    lines += ["| what | figure |", "| --- | ---: |", *(f"| {name} | {rate:.0f} |" for name, rate in rates.items())]
    lines += ["", "## One decision", "", *decisions]
    lines += ["", "## Who runs next", "", *chosen]
    lines += ["", "## Commands", "", "Whole processes, interpreter start included; medians.", ""]
    lines += ["| command | s |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.2f} |" for name, value in seconds.items()]
    lines += ["", "## Durable appends", "", *appends]
    lines += ["", "## Delegation", "", "`python -m benchmarks.delegation`", "", *delegations]
    lines += ["", "## Hands on demand", "", "`python -m benchmarks.provisioning`", "", *hands]
    lines += ["", "## Kernel and harness", "", "`python -m benchmarks.boundary`", "", *bounds]
    lines += ["", "## A kill switch", "", "`python -m benchmarks.freeze`", ""]
    lines += freeze.lines(figures_frozen, freeze.SESSIONS, decided, late)
    lines += ["", "## A process in a sandbox", "", "`python -m benchmarks.sandbox`", "", *sandbox.lines(placed)]
    lines += ["", "## Read models of a million events", "", "`python -m benchmarks.query`", "", *queries]
    lines += ["", f"## Resume of a session of {resume.EVENTS:,} events", "", "`python -m benchmarks.resume`", "", *resumed]
    lines += ["", "## Start with a long history", "", "`python -m benchmarks.restart`: `100000` is a million events.", ""]
    lines += starts
    text = "\n".join(lines) + "\n"
    print(text)
    REPORT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
