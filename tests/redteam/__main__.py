"""`make redteam`: play all corpora, take guards away one at a time, write docs/redteam.md.

`python tests/redteam [--only CORPUS …] [--no-mutants] [--mutant WORD] [--report FILE]`. Exit code 1 when something was not held,
a guard's loss was not noticed, or the healthy agent was slowed down too much.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from rt_mutants import MUTANTS, Mutant
from rt_report import page
from rt_run import MOST, Run, everything_beside, notices

MOST_S = 900
"""Seconds that all corpora together, or one mutant, may take."""


def say(line: str) -> None:
    """Tell at once, and never too much."""
    print(line[:600], flush=True)


async def bounded(only: list[str]) -> Run:
    async with asyncio.timeout(MOST_S):
        return await everything_beside(say, only)


async def tried(mutant: Mutant) -> list[str]:
    async with asyncio.timeout(MOST_S):
        return await notices(mutant)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make redteam")
    parser.add_argument("--only", action="append", default=[], help="a corpus; without it all of them")
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--mutant", default="", help="only guards with this in their names, and no corpora")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    run = Run() if given.mutant else asyncio.run(bounded(given.only))
    mutants = () if given.no_mutants else tuple(one for one in MUTANTS if given.mutant in one.name)
    noticed = {}
    for mutant in mutants:
        since = time.monotonic()
        found = noticed[mutant.name] = asyncio.run(tried(mutant))
        word = f"noticed by {len(found)}" if found else "NOT NOTICED"
        say(f"without a guard: {mutant.name}: {word}, {time.monotonic() - since:.1f} s{'; ' + found[0] if found else ''}")
    slow = run.ratio > MOST
    if run.outcomes:
        held = sum(one.held for one in run.counted)
        say(f"{held} of {len(run.counted)} calls held in {run.seconds:.0f} s; a healthy agent beside them: {run.ratio:.2f} x")
        if given.report is not None:
            given.report.write_text(page(run, noticed, mutants))
    missed = [name for name, found in noticed.items() if not found]
    return 1 if run.faults or missed or slow else 0


if __name__ == "__main__":
    sys.exit(main())
