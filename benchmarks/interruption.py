"""What decisions, and the loading of other policies, do to everything else that the event loop has to do."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from typing import Any

from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.decide import Decider
from agentos.policy.port import Module

EVERY = 0.001
PATIENT = 30.0

Question = Callable[[], Mapping[str, Any]]


async def late(work: Callable[[], Awaitable[object]]) -> list[float]:
    """By how many ms each tick of a clock that ticks every ms in this loop comes late while `work` goes on."""
    loop, found, over = asyncio.get_running_loop(), [], False
    due = loop.time() + EVERY

    def tick() -> None:
        nonlocal due
        found.append((loop.time() - due) * 1000)
        due = loop.time() + EVERY
        if not over:
            loop.call_at(due, tick)

    loop.call_at(due, tick)
    await work()
    over = True
    return found


async def together(decider: Decider, question: Question) -> str:
    """How long the loop is held up at most, in ms, while 32 decisions are in flight: the median and the worst of 20 rounds."""

    async def round_() -> None:
        await asyncio.gather(*(decider.decide_syscall(question()) for _ in range(32)))

    await round_()
    worst = [max(await late(round_)) for _ in range(20)]
    return f"at most {statistics.median(worst):.1f} ms in the median of 20 rounds and {max(worst):.1f} ms in the worst"


async def swap(modules: tuple[Module, ...], data: Mapping[str, Any], question: Question) -> list[str]:
    """Four callers that ask without a pause while another revision of the policy is loaded and takes over."""
    revised = {"agentos": {**data["agentos"], "tenant": {"name": "revised", "limits": {"sessions": 1}}}}
    mark = (
        "package agentos.syscall.rules.{name}\n\n"
        'results contains {{"rule": "{name}", "effect": "deny", "reason": ""}} if input.syscall.tool == "write"\n\n'
        'results contains {{"rule": "mixed", "effect": "deny", "reason": ""}} if data.agentos.tenant.name {not_this} "revised"\n'
    )
    old = [*modules, Module("mark.rego", mark.format(name="old", not_this="=="))]
    new = [*modules, Module("mark.rego", mark.format(name="new", not_this="!="))]
    in_force = await _load(old, data)
    first, over, found = in_force, False, []
    loop = asyncio.get_running_loop()

    async def caller() -> None:
        while not over:
            decision = await in_force.decide_syscall(question())
            found.append((loop.time(), decision.rules))

    async def change() -> None:
        nonlocal in_force, over
        await asyncio.sleep(0.2)
        in_force = await _load(new, revised)
        await asyncio.sleep(0.2)
        over = True

    async def work() -> None:
        await asyncio.gather(change(), *(caller() for _ in range(4)))

    began = loop.time()
    ticks = await late(work)
    took, silent = loop.time() - began - 0.4, max(after[0] - before[0] for before, after in pairwise(found)) * 1000
    assert {rules for _, rules in found} <= {("old",), ("new",)}, "a decision was dropped, or made of two revisions"
    first.close()
    in_force.close()
    return [
        f"A change of policy with 10,000 grants loads in {took:.1f} s beside the one in force. Meanwhile {len(found):,} calls",
        "were decided, none dropped, each wholly by one of the two; the longest time without any decision was",
        f"{silent:.0f} ms, and a tick of the event loop came late by at most {max(ticks):.0f} ms.",
    ]


async def _load(modules: list[Module], data: Mapping[str, Any]) -> Decider:
    tails = [*data["agentos"]["rules"]["syscall"], "old", "new"]
    facts = {"agentos": {**data["agentos"], "rules": {"syscall": tails, "admission": [], "approval": []}}}
    return await Decider.load(EmbeddedFactory(), modules, facts, cache_size=0, decision_seconds=PATIENT)
