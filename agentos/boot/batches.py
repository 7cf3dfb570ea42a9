"""Batches in the runtime: a bucket per tenant, the provider's SDK imported when the first batch is made."""

from __future__ import annotations

import asyncio
import importlib
from typing import Final

from agentos.abi.errors import DriverError
from agentos.abi.ids import Random
from agentos.boot.tenants import Tenants
from agentos.drivers.adapters.batches_nats import NatsBatches
from agentos.drivers.batch_desk import Batches
from agentos.drivers.batch_flight import Patience
from agentos.drivers.batching import BatchEndpoint, Timer

_ENDPOINTS: Final = {"anthropic": ("agentos.drivers.adapters.model_anthropic_batch", "AnthropicBatches")}


class BatchEndpoints:
    """The batch APIs of providers by name; each is made when first needed."""

    def __init__(self) -> None:
        self._made: dict[str, BatchEndpoint] = {}
        self._making = asyncio.Lock()

    async def get(self, provider: str) -> BatchEndpoint:
        """Raises DriverError for a provider without one."""
        if provider not in _ENDPOINTS:
            raise DriverError(f"provider {provider} takes no batches", mend="remove `batch` from the Model")
        async with self._making:
            if provider not in self._made:
                module, name = _ENDPOINTS[provider]
                loaded = await asyncio.to_thread(importlib.import_module, module)
                self._made[provider] = getattr(loaded, name)()
        return self._made[provider]

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in self._made.values():
            await endpoint.close()


def make_batches(
    tenants: Tenants, endpoints: BatchEndpoints, timer: Timer, random: Random, patience: Patience | None = None
) -> Batches:
    """Batches of every served tenant."""

    def store(tenant: str) -> NatsBatches:
        served = tenants.get(tenant)
        return NatsBatches(served.client, random, lambda: served.streams.replicas)

    return Batches(store, endpoints.get, timer, random, patience)
