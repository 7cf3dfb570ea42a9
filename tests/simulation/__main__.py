"""Run seeds: `make simulate SEEDS=1000..+300`.

Prints progress and seeds per second; stops at the first seed that fails, with its trace and the command that repeats it.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from multiprocessing import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sim_world import Plan, Report, simulate

BLOCK = 25


def seeds_of(text: str) -> range:
    """`7`, `10..19` (both included) or `1000..+300` (so many from there)."""
    match = re.fullmatch(r"(\d+)(?:\.\.(\+?)(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of seeds: say 7, 10..19 or 1000..+300")
    first = int(match[1])
    if match[3] is None:
        return range(first, first + 1)
    return range(first, first + int(match[3])) if match[2] else range(first, int(match[3]) + 1)


def block(work: tuple[range, Plan]) -> tuple[int, int, int, Report | None]:
    """Run some seeds; how many, their events and effects, and the first that failed."""
    seeds, plan = work
    events = effects = 0
    for done, seed in enumerate(seeds, 1):
        report = simulate(seed, plan)
        events, effects = events + report.events, effects + report.effects
        if report.violations:
            return done, events, effects, report
    return len(seeds), events, effects, None


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("seeds", type=seeds_of, help="7, 10..19 or 1000..+300")
    parser.add_argument("--trace", action="store_true", help="print the trace of each seed")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    plan = Plan()
    if given.trace:
        for seed in given.seeds:
            print("\n".join(simulate(seed, plan).trace))
        return 0
    started, blocks = time.monotonic(), [given.seeds[at : at + BLOCK] for at in range(0, len(given.seeds), BLOCK)]
    done = events = effects = 0
    with Pool(given.jobs) as pool:
        for many, of_events, of_effects, failed in pool.imap(block, [(one, plan) for one in blocks]):
            done, events, effects = done + many, events + of_events, effects + of_effects
            speed = done / (time.monotonic() - started)
            print(f"{done} of {len(given.seeds)} seeds, {speed:.1f} seeds/s, {events} events, {effects} effects", flush=True)
            if failed is not None:
                print("\n".join(failed.trace))
                print(f"seed {failed.seed} failed: {'; '.join(failed.violations)}")
                print(f'repeat it with: make simulate SEEDS="{failed.seed}"')
                return 1
    print(f"all well in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
