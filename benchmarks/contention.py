"""200 agents, 3 tenants, 2 endpoints, three schedulers: writes docs/contention.md and docs/contention.svg, the same each time.

`make contention` runs it. Everything happens on a virtual clock and by the seed of the workload, so nothing depends on the
machine. Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentos.cli.sched import load_workload
from agentos.scheduler.report import Report, Waits, report
from agentos.scheduler.simulate import SCHEDULERS, Row, Run, simulate
from agentos.scheduler.workload import Workload

ROOT = Path(__file__).resolve().parents[1]
WORKLOAD = ROOT / "examples" / "contention" / "workload.yaml"
TABLE, PLOT = ROOT / "docs" / "contention.md", ROOT / "docs" / "contention.svg"
FORKED = ("globex", "ops", "worker")
COLOURS = {"acme": "#0b6e99", "globex": "#b4531b", "initech": "#4b7f3a"}
POINTS = 120


def main() -> int:
    """Simulate, check, write."""
    workload = load_workload(WORKLOAD)
    runs = {name: simulate(workload, name) for name in SCHEDULERS}
    shown = {name: report(run) for name, run in runs.items()}
    checks = _checks(workload, shown["fair"])
    TABLE.write_text("\n".join(_page(workload, shown, checks)) + "\n", encoding="utf-8")
    PLOT.write_text(_plot(workload, runs), encoding="utf-8")
    for what, figure, bound, met in checks:
        print(f"{'met   ' if met else 'MISSED'}  {what}: {figure} (bound: {bound})")
    return 0 if all(met for *_, met in checks) else 1


def _checks(workload: Workload, fair: Report) -> list[tuple[str, str, str, bool]]:
    """What was promised, what came out, the bound, whether it is met."""
    windows = [one.worst for one in fair.fairness if one.worst is not None]
    nearest = max(fair.fairness, key=lambda one: one.lag / one.bound if one.bound else 0)
    changed, _ = _forking(workload, "fair")
    without, with_ = _flood(workload)
    longest = fair.inversions
    asks = next(one for one in workload.crowds if (one.endpoint, one.priority) == ("small", "interactive"))
    turn = sum(asks.tokens) / 2 * 1000 / _speed(workload, "small")
    return [
        (
            "Jain's index, least over every window of 100 turns per sibling",
            f"{min(windows):.4f} in {len(windows)} groups",
            "0.99",
            min(windows) >= 0.99,
        ),
        (
            "lag over every interval, nearest to its bound",
            f"{nearest.lag:,.0f} tokens per weight",
            f"{nearest.bound:,.0f}",
            nearest.lag <= nearest.bound,
        ),
        ("change of a rival's share when a tenant forks 100 children", f"{changed:.2%}", "1 %", changed < 0.01),
        (
            "p99 wait of the interactive class under a batch flood",
            f"{with_ / 1000:.1f} s ({without / 1000:.1f} s without)",
            f"1.2 x {without / 1000:.1f} s + a mean turn of its own, {turn / 1000:.1f} s",
            with_ <= 1.2 * without + turn,
        ),
        ("turns that went out before a higher class that waited", str(longest.count), "0", longest.count == 0),
        (
            "longest wait while a lower class ran",
            f"{longest.longest_ms / 1000:.1f} s",
            f"its longest turn, {longest.longest_turn_ms / 1000:.1f} s",
            longest.longest_ms <= longest.longest_turn_ms,
        ),
        ("budgets exceeded", str(fair.overdrafts), "0", fair.overdrafts == 0),
    ]


def _speed(workload: Workload, endpoint: str) -> int:
    return next(one.tokens_per_second for one in workload.endpoints if one.name == endpoint)


def _forking(workload: Workload, scheduler: str) -> tuple[float, dict[str, float]]:
    """By how much of itself a rival's share of `large` changes at most, and by how much each's does, as one crowd forks 100."""
    more = [replace(one, count=one.count + 100) if one.path == FORKED else one for one in workload.crowds]
    got = []
    for crowds in (workload.crowds, tuple(more)):
        sums: dict[str, int] = {}
        for row in simulate(replace(workload, crowds=crowds), scheduler).rows:
            if row.endpoint == "large" and row.priority == "standard":
                sums[row.path[0]] = sums.get(row.path[0], 0) + row.tokens
        total = sum(sums.values())
        got.append({tenant: tokens / total for tenant, tokens in sums.items()})
    before, after = got
    changes = {tenant: after[tenant] / before[tenant] - 1 for tenant in sorted(before)}
    return max(abs(change) for tenant, change in changes.items() if tenant != FORKED[0]), changes


def _flood(workload: Workload) -> tuple[int, int]:
    """p99 of the interactive class on `small` in ms: without the batch class, and with it."""
    calm = replace(workload, crowds=tuple(one for one in workload.crowds if one.priority != "batch"))
    return _wait(report(simulate(calm))).p99, _wait(report(simulate(workload))).p99


def _wait(shown: Report) -> Waits:
    return next(one for one in shown.waits if (one.endpoint, one.priority) == ("small", "interactive"))


def _page(workload: Workload, shown: dict[str, Report], checks: Sequence[tuple[str, str, str, bool]]) -> list[str]:
    agents, hours = sum(one.count for one in workload.crowds), workload.duration_ms / 3_600_000
    lines = [
        "# Contention",
        "",
        "Made by `make contention`, which writes this file and the plot from `examples/contention/workload.yaml`:",
        f"{agents} agents, {len({one.path[0] for one in workload.crowds})} tenants, {len(workload.endpoints)} endpoints,",
        f"{hours:g} hours of a virtual clock. `docs/scheduling.md` says what is arbitrated and derives the bounds. For every",
        "turn: `agentos sched simulate examples/contention/workload.yaml --rows rows.jsonl`.",
        "",
        "## Bounds",
        "",
        "| what | measured | bound | |",
        "| --- | ---: | ---: | --- |",
        *(f"| {what} | {figure} | {bound} | {'met' if met else '**missed**'} |" for what, figure, bound, met in checks),
        "",
        "## Shares of the standard class on `large`, which always has more to do than it can",
        "",
        "Tokens received; deserved is by weight.",
        "",
        f"| who | weight | deserved | {' | '.join(shown)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(shown)}",
    ]
    received = {
        name: {one.path: one.received for one in each.shares if (one.endpoint, one.priority) == ("large", "standard")}
        for name, each in shown.items()
    }
    for one in shown["fair"].shares:
        if (one.endpoint, one.priority) == ("large", "standard") and len(one.path) < 3:
            got = " | ".join(f"{each.get(one.path, 0):,}" for each in received.values())
            lines.append(f"| {'/'.join(one.path)} | {one.weight} | {one.deserved:,.0f} | {got} |")
    lines += [
        "",
        "## Jain's index of tokens per weight",
        "",
        "Over the whole run, among siblings that always had work.",
        "",
        f"| siblings | of | {' | '.join(shown)} |",
        f"| --- | ---: |{' ---: |' * len(shown)}",
    ]
    indices = {name: {(one.endpoint, one.priority, one.parent): one for one in each.fairness} for name, each in shown.items()}
    for key, fairness in indices["fair"].items():
        got = " | ".join(f"{each[key].jain:.4f}" for each in indices.values())
        where = f"{key[0]}, {key[1]}, {'/'.join(key[2]) or 'tenants'}"
        lines.append(f"| {where} | {fairness.siblings} | {got} |")
    lines += ["", "## Waits", "", "Seconds until a turn went out. FIFO and round-robin stop nobody and know no class.", ""]
    lines += [
        "| endpoint, class | scheduler | turns | left | p50 | p95 | p99 | longest | stopped |",
        f"| --- | --- |{' ---: |' * 7}",
    ]
    for wait in shown["fair"].waits:
        for name, each in shown.items():
            one = next(other for other in each.waits if (other.endpoint, other.priority) == (wait.endpoint, wait.priority))
            times = " | ".join(f"{ms / 1000:,.1f}" for ms in (one.p50, one.p95, one.p99, one.longest))
            told = f"{one.turns:,} | {one.left} | {times} | {one.stopped}"
            lines.append(f"| {one.endpoint}, {one.priority} | {name} | {told} |")
    lines += ["", "## A tenant forks 100 children", "", "Change of each tenant's part of the standard class on `large`.", ""]
    tenants = sorted(COLOURS)
    lines += [f"| scheduler | {' | '.join(tenants)} |", f"| --- |{' ---: |' * len(tenants)}"]
    for name in shown:
        changes = _forking(workload, name)[1]
        lines.append(f"| {name} | {' | '.join(f'{changes[tenant]:+.1%}' for tenant in tenants)} |")
    inverted = ", ".join(f"{name} {each.inversions.count:,}" for name, each in shown.items())
    lines += ["", f"Turns that went out before one of a higher class that waited: {inverted}."]
    lines += ["", "![Tokens per unit of weight over time, by scheduler](contention.svg)"]
    return lines


def _plot(workload: Workload, runs: dict[str, Run]) -> str:
    """Three panels, one for each scheduler: tokens per unit of weight that each tenant's standard turns received on `large`."""
    wide, high, left, top, gap = 300, 240, 70, 60, 24
    curves = {name: _curves(workload, run.rows) for name, run in runs.items()}
    most = max(curve[-1] for each in curves.values() for curve in each.values())
    title = "Tokens per unit of weight, standard class on large: with a fair scheduler the three lines are one"
    size = f'width="{left + 3 * (wide + gap)}" height="{top + high + 60}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="22" font-size="14">{title}</text>',
    ]
    for panel, (name, each) in enumerate(curves.items()):
        begin = left + panel * (wide + gap)
        parts.append(f'<rect x="{begin}" y="{top}" width="{wide}" height="{high}" fill="none" stroke="#999"/>')
        parts.append(f'<text x="{begin + 4}" y="{top - 6}">{name}</text>')
        for tick in range(5):
            y = top + high - high * tick // 4
            parts.append(f'<line x1="{begin}" x2="{begin + wide}" y1="{y}" y2="{y}" stroke="#e4e4e4"/>')
            if not panel:
                parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{most * tick / 4 / 1e6:.1f} M</text>')
        for hour in range(0, workload.duration_ms // 3_600_000 + 1, 2):
            x = begin + wide * hour * 3_600_000 // workload.duration_ms
            parts.append(f'<text x="{x}" y="{top + high + 16}" text-anchor="middle">{hour} h</text>')
        for number, (tenant, curve) in enumerate(each.items()):
            points = " ".join(
                f"{begin + wide * at / POINTS:.1f},{top + high - high * value / most:.1f}" for at, value in enumerate(curve)
            )
            # Thinner lines on top of thicker ones, so that those that are one can all be seen.
            width = 6 - 2 * number
            parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[tenant]}" stroke-width="{width}"/>')
    for number, (tenant, colour) in enumerate(COLOURS.items()):
        x, y = left + number * 110, top + high + 40
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="18" height="9" fill="{colour}"/><text x="{x + 24}" y="{y}">{tenant}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _curves(workload: Workload, rows: Sequence[Row]) -> dict[str, list[float]]:
    found = {}
    for tenant in COLOURS:
        sums = [0] * (POINTS + 1)
        for row in rows:
            if row.endpoint == "large" and row.priority == "standard" and row.path[0] == tenant:
                sums[min(POINTS, -(-row.ended_ms * POINTS // workload.duration_ms))] += row.tokens
        weight, total, curve = workload.weights.get((tenant,), 1), 0, []
        for amount in sums:
            total += amount
            curve.append(total / weight)
        found[tenant] = curve
    return found


if __name__ == "__main__":
    sys.exit(main())
