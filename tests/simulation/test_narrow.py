"""Seeds of the simulation in a world where everything is scarce: one call of a model and of each tool at a time, two places."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sim_world
from sim_play import Knobs
from sim_play import configuration as undeclared
from sim_world import simulate

from agentos.kernel import places
from agentos.kernel.port import Configuration
from agentos.kernel.seat import Seat
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.declared import Arbitration, Endpoint

BLOCK = 12


def narrow(seed: int, knobs: Knobs) -> Configuration:
    """What is in force, with the least limits that there are."""
    found = undeclared(seed, knobs)
    endpoints = {name: Endpoint(("default", name), Limits(1)) for name in found.models}
    tools = {name: Limits(1) for name in found.tools}
    return replace(found, arbitration=Arbitration(endpoints=endpoints, tool_limits=tools))


@pytest.mark.parametrize("first", range(0, 3 * BLOCK, BLOCK))
def test_no_turn_is_lost_or_doubled_where_all_wait(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """Queues, places that go to others and crashes at any step: nothing is done twice, and every session comes to its end."""
    evicted = 0

    def evict(seat: Seat) -> None:
        nonlocal evicted
        evicted += 1
        evict_one(seat)

    evict_one = Seat.evict
    monkeypatch.setattr(sim_world, "configuration", narrow)
    monkeypatch.setattr(places, "MAX_RUNNING", 2)
    monkeypatch.setattr(Seat, "evict", evict)
    failed = {seed: report.violations for seed in range(first, first + BLOCK) if (report := simulate(seed)).violations}
    assert not failed
    assert evicted > 0
