"""A run of the corpora: all of them beside a healthy agent, then the ones that guards are taken away for."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import rt_canary
import rt_files
import rt_mcp
import rt_net
import rt_sandbox
import rt_words
from rt_case import Group, Outcome
from rt_mutants import Mutant
from rt_tools import everything
from rt_world import Processes, World, latency, open_world

CORPORA = (rt_files, rt_words, rt_net, rt_mcp, rt_sandbox, rt_canary)
TURNS = 60
"""Turns of the healthy agent in one of its sessions."""

MOST = 2.0
"""How much longer a turn of the healthy agent may take beside all this than alone, by the median."""


@dataclass
class Run:
    """What came of it. Times are milliseconds of one turn of the healthy agent."""

    outcomes: list[Outcome] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    looked: int = 0
    processes: int = 0
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    seconds: float = 0.0
    hung: list[str] = field(default_factory=list)

    @property
    def counted(self) -> list[Outcome]:
        """Without the steps that prepare."""
        return [one for one in self.outcomes if not one.step.laying]

    @property
    def faults(self) -> list[str]:
        """All that was not held."""
        return [f"{one.step.id}: {fault}" for one in self.outcomes for fault in one.faults] + self.leaks

    @property
    def ratio(self) -> float:
        """The median beside the attacks over that alone."""
        return statistics.median(self.beside) / statistics.median(self.alone) if self.alone and self.beside else 0.0


@asynccontextmanager
async def declared() -> AsyncIterator[tuple[World, list[Group]]]:
    """A world in which all is declared, and all groups."""
    async with open_world(Path(tempfile.mkdtemp(prefix="agentos-redteam-"))) as world:
        more = [one for corpus in CORPORA if hasattr(corpus, "declarations") for one in corpus.declarations(world)]
        await world.declare(everything(world.site.port, more))
        yield world, [group for corpus in CORPORA for group in corpus.groups(world)]


async def everything_beside(say: Callable[[str], None], only: Sequence[str] = ()) -> Run:
    """Play all groups (or those of the corpora `only`) while a healthy agent works."""
    run, began = Run(), time.monotonic()
    async with declared() as (world, groups), Processes() as processes:
        await latency(world, 10)
        run.alone = await latency(world, TURNS)
        done = asyncio.Event()

        async def healthy() -> None:
            while not done.is_set():
                run.beside += await latency(world, TURNS)

        neighbour = asyncio.create_task(healthy())
        for group in groups:
            if only and group.corpus not in only:
                continue
            since = time.monotonic()
            found = await world.play(group)
            run.outcomes += found
            held = sum(one.held for one in found)
            say(f"{group.name}: {held} of {len(found)} held, {time.monotonic() - since:.1f} s")
            for one in found:
                for fault in one.faults:
                    say(f"    {one.step.id}: {fault}")
        done.set()
        await neighbour
        run.alone += await latency(world, TURNS)
        if not only or "canary" in only:
            run.leaks = await rt_canary.after(world, processes)
            run.looked, run.processes = world.looked, len(processes.seen)
            say(f"the credential: {run.looked} places looked through, {len(run.leaks)} leaks")
            for leak in run.leaks:
                say(f"    {leak}")
    run.seconds = time.monotonic() - began
    return run


async def notices(mutant: Mutant) -> list[str]:
    """What fails without the guard; empty: nobody has noticed."""
    found: list[str] = []
    with mutant.without():
        async with declared() as (world, groups):
            for group in groups:
                if group.name in mutant.groups:
                    outcomes = await world.play(picked(group, mutant.only))
                    found += [f"{one.step.id}: {one.faults[0]}" for one in outcomes if one.faults and not one.step.laying]
            if mutant.canary:
                found += await rt_canary.after(world, least=0)
    return found


def picked(group: Group, only: Sequence[str]) -> Group:
    """The group with the steps that have one of `only` in their ids, and those that prepare."""
    steps = [step for step in group.steps if step.laying or not only or any(word in step.id for word in only)]
    return replace(group, steps=steps)


def thinned(group: Group, every: int) -> Group:
    """Every so many of its steps, and those that prepare."""
    return replace(group, steps=[step for at, step in enumerate(group.steps) if step.laying or at % every == 0])


def by_corpus(outcomes: Sequence[Outcome]) -> dict[str, Counter[str]]:
    """How often the calls of each corpus ended in which way."""
    found: dict[str, Counter[str]] = {}
    for one in outcomes:
        found.setdefault(one.corpus, Counter())[str(one.told.how)] += 1
    return found
