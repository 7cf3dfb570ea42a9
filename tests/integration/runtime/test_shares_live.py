"""Two tenants that share one endpoint, in the runtime itself: each gets by its weight, however many agents it has."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import yaml
from house import Door, House

from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec

FLEET = """
apiVersion: agentos/v1
kind: Model
metadata: {name: shared}
spec:
  provider: scripted
  scripted: {play: {name: steps, rules: [{id: done, when: "true", say: "done"}]}}
  limits: {concurrency: 1}
---
apiVersion: agentos/v1
kind: Tenant
metadata: {name: acme}
spec: {weight: 3, models: [shared]}
---
apiVersion: agentos/v1
kind: Tenant
metadata: {name: globex}
spec: {weight: 1, models: [shared]}
"""
AGENT = """
apiVersion: agentos/v1
kind: Agent
metadata: {name: %s, tenant: %s}
spec:
  instructions: "%s"
  model: shared
  governance: {owner: tests, purpose: testing, risk: minimal}
"""
EACH = 16
"""Sessions of acme; globex has nearly as many, of its agents together."""

GLOBEX = 5
"""Agents of globex."""


class Held:
    """The endpoint, which answers once it is let to, and notes whose turn it was."""

    def __init__(self, complete: Callable[..., Any]) -> None:
        self._complete = complete
        self.order: list[str] = []
        self.go = asyncio.Semaphore(0)

    async def __call__(self, model: ModelSpec, request: ModelRequest, on_text: Any = None) -> ModelReply:
        self.order.append(request.system.split()[0])
        await self.go.acquire()
        reply: ModelReply = await self._complete(model, request, on_text)
        return reply


async def start(door: Door, tenant: str, agent: str) -> str:
    made = await door.runtime.sessions.create(tenant, agent, "go", None, "principal/operator")
    return made.id


async def test_tenants_get_by_weight_and_agents_within_them(house: House) -> None:
    """Of turns that are alike three of acme go out for one of globex, and globex's five agents share what is globex's."""
    agents = [("acme", "one"), *(("globex", f"a{number}") for number in range(GLOBEX))]
    async with house.open() as door:
        await door.apply(*yaml.safe_load_all(FLEET))
        await door.apply(*(yaml.safe_load(AGENT % (name, tenant, tenant)) for tenant, name in agents))
        held = Held(door.runtime.models.complete)
        door.runtime.models.complete = held  # type: ignore[method-assign]
        started = [
            (tenant, await start(door, tenant, name))
            for tenant, name in agents
            for _ in range(EACH // GLOBEX if tenant == "globex" else EACH)
        ]
        pool = ("default", "shared")
        async with asyncio.timeout(60):
            while door.runtime.admissions.depth(pool) < len(started) - 1:
                await asyncio.sleep(0.02)
            top = next(one for one in door.runtime.admissions.snapshot().endpoints if one.name == "default/shared")
            assert {one.path: one.deserved for one in top.shares if len(one.path) == 1} == {("acme",): 0.75, ("globex",): 0.25}
            for _ in started:
                held.go.release()
            for tenant, session in started:
                while not (await door.runtime.sessions.state(tenant, session)).over:
                    await asyncio.sleep(0.02)
    # While both have turns waiting; one may lead by a turn over its weight, at the beginning and at the end.
    assert abs(Counter(held.order[:16])["acme"] - 12) <= 1
    assert len(held.order) == len(started)
