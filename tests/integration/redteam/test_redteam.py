"""A part of `make redteam`: hostile calls of a hostile model to a whole runtime, each held, each with its event, each in time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "redteam"))

import rt_canary
from rt_run import declared, picked, thinned
from rt_world import Processes

PARTS = {
    "paths": 4,
    "links": 4,
    "races": 6,
    "mounts": 1,
    "conflicts": 1,
    "archives": 4,
    "unicode": 4,
    "words": 5,
    "requests of drivers": 4,
    "requests of sandboxes": 10,
    "requests that are looked into": 5,
    "mcp hostile": 7,
    "mcp instructions": 1,
    "sandbox agent": 5,
}
"""Groups, each with every how many of its steps are played here."""

TOGETHER = (
    ("paths", "links", "races", "mounts", "conflicts"),
    ("archives", "unicode", "words"),
    ("requests of drivers", "requests of sandboxes", "requests that are looked into"),
    ("mcp hostile", "mcp instructions", "sandbox agent"),
)
"""Groups that share a runtime: it takes longer to start than most of them."""


@pytest.mark.parametrize("names", TOGETHER, ids=["files", "words", "requests", "processes"])
async def test_hostile_calls_are_held(names: tuple[str, ...]) -> None:
    """Whatever the model proposes ends as the table says, and nothing of it is seen from outside."""
    async with declared() as (world, groups):
        for group in groups:
            if group.name in names:
                outcomes = await world.play(thinned(group, PARTS[group.name]))
                assert len(outcomes) > 1
                assert {one.step.id: one.faults for one in outcomes if one.faults} == {}


async def test_a_credential_is_nowhere() -> None:
    """Tools of every driver echo their credential in every way; no byte of it stays, and no process was started with it."""
    drivers = (
        "exec-json",
        "exec-exit",
        "exec-file",
        "mcp-echo-0",
        "mcp-echo_file-0",
        "remote-echo-0",
        "http-0",
        "proxy-0",
        "read",
        "search",
    )
    async with declared() as (world, groups), Processes() as processes:
        for group in groups:
            if group.name == "canary":
                outcomes = await world.play(picked(group, drivers))
                assert {one.step.id: one.faults for one in outcomes if one.faults} == {}
            if group.name == "canary delegated":
                outcomes = await world.play(thinned(group, 5))
                assert {one.step.id: one.faults for one in outcomes if one.faults} == {}
        assert await rt_canary.after(world, processes, least=3) == []
        assert world.looked > 100
        assert len(processes.seen) > 10
