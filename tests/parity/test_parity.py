"""In the process, on a managed server and on a remote one: the same question gets the same whole answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from corpus import World, documents, worlds

from agentos.abi.errors import EngineUnavailable
from agentos.policy.port import PolicyEngine, PolicyEngineFactory

PATIENT = 30.0
EACH = {"admission": 300, "control": 100}
OTHERS = 180
WORLDS = worlds()


async def answer(engine: PolicyEngine, world: World, document: dict[str, Any]) -> object:
    """The value, or the sentence of the error."""
    try:
        return await engine.evaluate(world.entry, document, within=PATIENT)
    except EngineUnavailable as error:
        return error.message


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
async def test_every_place_gives_the_same_answer(world: World, places: dict[str, PolicyEngineFactory]) -> None:
    """No difference in effect, rules, reasons or observations, nor in what is said where there is no decision."""
    engines = {name: await factory.load(world.modules, world.data) for name, factory in places.items()}
    told: Counter[str] = Counter()
    differences = []
    count = EACH.get(world.name, OTHERS)
    try:
        for document in documents(world, count, seed=7):
            answers = await asyncio.gather(*(answer(engine, world, document) for engine in engines.values()))
            told[repr(answers[0])] += 1
            if not all(repr(other) == repr(answers[0]) for other in answers):
                differences.append((document, dict(zip(engines, answers, strict=True))))
    finally:
        for engine in engines.values():
            engine.close()
    assert differences == []
    assert told.total() == count
    # A corpus of one answer would prove nothing.
    assert len(told) >= 10, told


def test_the_corpus_is_large() -> None:
    """At least a thousand questions that differ in what the policies read."""
    assert sum(EACH.get(world.name, OTHERS) for world in WORLDS) >= 1000
