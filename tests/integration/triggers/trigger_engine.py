"""A stand-in for the engine of triggers: declares what it is given, keeps what was fired, fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentos.abi.errors import AgentOSError
from agentos.kernel.firing import Fired, Firing, Outcome, Source, TriggerSpec


class Engine:
    """Remembers firings by trigger and id, as the real one does."""

    def __init__(self, **on: Source) -> None:
        self.on = on
        self.fired: list[Firing] = []
        self.broken: AgentOSError | None = None
        self.changed: list[Callable[[], None]] = []
        self.heard = asyncio.Event()
        self.tries = 0
        self.hops: dict[str, int] = {}
        """By session."""

    async def hops_from(self, tenant: str, session: str) -> int:
        return self.hops.get(session, 1)

    async def fire(self, tenant: str, firing: Firing) -> Fired:
        assert tenant == "default"
        self.tries += 1
        if self.broken is not None:
            raise self.broken
        again = any((one.trigger, one.id) == (firing.trigger, firing.id) for one in self.fired)
        if not again:
            self.fired.append(firing)
        self.heard.set()
        return Fired(Outcome.STARTED, f"s-{len(self.fired)}", "", again)

    def declared(self, tenant: str, kind: str) -> list[TriggerSpec]:
        specs = [TriggerSpec(name.replace("_", "-"), "agent", "goal", on) for name, on in self.on.items()]
        return [spec for spec in specs if spec.kind == kind] if tenant == "default" else []

    def tenants(self) -> frozenset[str]:
        return frozenset({"default"})

    def on_change(self, tell: Callable[[], None]) -> None:
        self.changed.append(tell)

    async def until(self, count: int) -> None:
        """Wait until so many have fired."""
        async with asyncio.timeout(20):
            while len(self.fired) < count:
                self.heard.clear()
                await self.heard.wait()
