"""Who performs a call: the driver that a Tool names, the provider that a Model names.

`Drivers` and `Providers` are what the kernel is given. SDKs are imported at the first call that needs them, in a thread, because
they take half a second and more; a runtime that uses neither MCP nor a hosted model never pays for them.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.resource import Resource
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers import delegating
from agentos.drivers.port import CallContext, Driver, Found, ModelProvider, ModelReply, ModelRequest, ModelSpec, ToolSpec
from agentos.drivers.primitives import default_effect, input_schema
from agentos.drivers.spaces import space_of, space_schema

_DRIVERS: Final = {
    "builtin": ("agentos.drivers.adapters.builtin", "BuiltinDriver"),
    "mcp": ("agentos.drivers.adapters.mcp", "McpDriver"),
    "delegate": ("agentos.drivers.adapters.delegate", "DelegateDriver"),
}
_PROVIDERS: Final = {
    "scripted": ("agentos.drivers.adapters.model_scripted", "ScriptedProvider"),
    "anthropic": ("agentos.drivers.adapters.model_anthropic", "AnthropicProvider"),
}
_STRICTNESS: Final = (ToolEffect.READ, ToolEffect.WRITE, ToolEffect.EXTERNAL)


def tool_spec(resource: Resource) -> ToolSpec:
    """The ToolSpec of a validated Tool.

    A builtin tool gets the schema of its primitive, is idempotent (each of them is), and has at least the primitive's own effect.
    So does one that delegates, which may be made again at any time, writes, and waits for long.
    """
    spec = resource.spec
    driver: Mapping[str, Json] = spec["driver"]
    effect = ToolEffect(spec["effect"])
    idempotent = bool(spec.get("idempotent", False))
    schema = spec.get("inputSchema", {})
    if "builtin" in driver:
        primitive = str(driver["builtin"]["primitive"])
        space = space_of(driver)
        schema = input_schema(primitive) if space is None else space_schema(primitive, space)
        effect = max(effect, default_effect(primitive), key=_STRICTNESS.index)
        idempotent = True
    elif delegating.KEY in driver:
        schema = delegating.input_schema(driver[delegating.KEY])
        effect = max(effect, ToolEffect.WRITE, key=_STRICTNESS.index)
        idempotent = True
    longest = delegating.TIMEOUT_S if delegating.KEY in driver else 30
    return ToolSpec(
        name=resource.key.name,
        description=str(spec["description"]),
        effect=effect,
        idempotent=idempotent,
        input_schema=schema,
        driver=driver,
        labels=tuple(spec.get("labels", ())),
        timeout_ms=int(spec.get("timeoutSeconds", longest)) * 1000,
        commutes=bool(spec.get("commutes", False)),
    )


def model_spec(resource: Resource) -> ModelSpec:
    """The ModelSpec of a validated Model."""
    provider = str(resource.spec["provider"])
    return ModelSpec(name=resource.key.name, provider=provider, settings=resource.spec[provider])


class Drivers:
    """All drivers as one: chooses by the single key of `tool.driver`, and puts the tool's labels on each result."""

    def __init__(self, builtin: Driver | None = None, mcp: Driver | None = None, delegate: Driver | None = None) -> None:
        """Drivers that are left out are made when first needed."""
        given = {"builtin": builtin, "mcp": mcp, "delegate": delegate}
        self._made: dict[str, Driver] = {name: driver for name, driver in given.items() if driver is not None}
        self._lock = asyncio.Lock()

    @property
    def profiles(self) -> frozenset[str]:
        """None: no driver can force a sandbox on what it starts."""
        return frozenset()

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Perform the call; see `Driver.call`."""
        driver: Driver = await _made(_only_key(tool), self._made, _DRIVERS, self._lock)
        result = await driver.call(tool, args, context)
        return replace(result, labels=tuple(dict.fromkeys((*result.labels, *tool.labels))))

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """Ask what came of an earlier call; see `Driver.reconcile`."""
        driver: Driver = await _made(_only_key(tool), self._made, _DRIVERS, self._lock)
        return await driver.reconcile(tool, args, context)

    async def release(self, session: str) -> None:
        """Stop what any driver keeps warm for `session`."""
        for driver in list(self._made.values()):
            await driver.release(session)

    async def close(self) -> None:
        """Stop everything."""
        for driver in list(self._made.values()):
            await driver.close()


class Providers:
    """All model providers as one: chooses by `model.provider`."""

    def __init__(self, **providers: ModelProvider) -> None:
        """Providers by name (`scripted`, `anthropic`); those that are left out are made when first needed."""
        self._made: dict[str, ModelProvider] = dict(providers)
        self._lock = asyncio.Lock()

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Ask the model; see `ModelProvider.complete`."""
        provider: ModelProvider = await _made(model.provider, self._made, _PROVIDERS, self._lock)
        return await provider.complete(model, request, on_text)

    async def close(self) -> None:
        """Close all connections."""
        for provider in list(self._made.values()):
            await provider.close()


def _only_key(tool: ToolSpec) -> str:
    if len(tool.driver) != 1:
        raise DriverError("a tool has exactly one driver", where=f"tool {tool.name}")
    return next(iter(tool.driver))


async def _made(name: str, made: dict[str, Any], known: Mapping[str, tuple[str, str]], lock: asyncio.Lock) -> Any:
    if name in made:
        return made[name]
    if name not in known:
        raise DriverError(f"there is no {name!r} here", mend=f"one of: {', '.join(sorted(known))}")
    module, class_name = known[name]
    async with lock:
        if name not in made:
            loaded = await asyncio.to_thread(importlib.import_module, module)
            made[name] = getattr(loaded, class_name)()
    return made[name]
