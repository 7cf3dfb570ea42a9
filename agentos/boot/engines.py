"""Where policy is decided: OPA in the process, or an OPA server that the runtime owns."""

from __future__ import annotations

import asyncio

from agentos.abi.errors import EngineUnavailable
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.adapters.managed import ManagedFactory
from agentos.policy.port import Place, PolicyEngineFactory


async def engine_factory(place: Place) -> PolicyEngineFactory:
    """The factory for `place`. Raises EngineUnavailable for a managed engine without the pinned `opa`.

    Where `opa` is at hand, the embedded engine moves a policy that passes its deadline to a process that can be killed.
    """
    managed = ManagedFactory()
    if place is Place.EMBEDDED:
        # Whether `opa` is at hand is asked when the first policy has to move; without it the engine refuses as it did before.
        return EmbeddedFactory(quarantine=managed)
    if not await asyncio.to_thread(lambda: managed.available):
        raise EngineUnavailable("the pinned `opa` program is not at hand", mend="make opa, or start with --policy embedded")
    return managed
