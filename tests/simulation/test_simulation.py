"""Seeds of the simulation: safety at every step, and an end for every session once the trouble is over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim_bugs import BUGS
from sim_world import Plan, simulate

BLOCK = 20
SEEDS = 300
PARTS = 6
MOST_SEEDS_FOR_A_BUG = 150

CALM = 59
"""A seed whose world is short, asks people, and makes calls at once."""


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_seeds(first: int) -> None:
    """Whatever is lost, late, repeated, slow, crashed or taken over: nothing acknowledged is lost, nothing is done twice."""
    failed = {seed: report.violations for seed in range(first, first + BLOCK) if (report := simulate(seed)).violations}
    assert not failed, 'see the trace with: make simulate SEEDS="SEED --trace"'


@pytest.mark.parametrize("part", range(PARTS))
def test_a_crash_between_every_two_steps(part: int) -> None:
    """One world without other faults, stopped once at each of its steps and resumed: it always comes to its end."""
    steps = 0
    for step in range(1 + part, 400, PARTS):
        report = simulate(CALM, Plan(die_at=(step,), faults=False))
        assert not report.violations, f"step {step}: {report.violations}"
        if report.runtimes == 1:
            break
        steps += 1
    assert 100 < steps * PARTS < 396


@pytest.mark.parametrize("first", range(20, 120, 10))
def test_a_second_crash_while_resuming(first: int) -> None:
    """The same, and the runtime that takes over dies as well, at one of its first steps."""
    for second in range(1, 12):
        report = simulate(CALM, Plan(die_at=(first, second), faults=False))
        assert not report.violations, f"steps {first}, {second}: {report.violations}"


@pytest.mark.parametrize("seed", [1, 5, 17, 26, 80])
def test_a_seed_is_its_trace(seed: int) -> None:
    """The same seed gives the same trace of events, effects and messages, byte for byte."""
    once, again = simulate(seed), simulate(seed)
    assert once.trace == again.trace
    assert len(once.trace) > 20


def test_the_trace_is_the_same_in_every_process() -> None:
    """Neither the hash seed of the process nor what ran before in it is part of a trace."""
    program = "from sim_world import simulate; print([simulate(seed).digest for seed in (5, 17, 26)])"
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert printed == {f"{[simulate(seed).digest for seed in (5, 17, 26)]}\n"}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    """The simulation sees when a guarantee is missing."""
    with BUGS[name]():
        found = next((seed for seed in range(MOST_SEEDS_FOR_A_BUG) if simulate(seed).violations), None)
    assert found is not None
