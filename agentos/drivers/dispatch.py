"""Who performs a call: the driver that a Tool names, the provider that a Model names.

`Drivers` and `Providers` are what the kernel is given; what surrounds a call of any driver is in `drivers.guarded`. SDKs are
imported at the first call that needs them, in a thread, because they take half a second and more; a runtime that uses neither MCP
nor a hosted model never pays for them.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.resource import Resource
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.broker import Broker
from agentos.credentials.reference import credential_of
from agentos.drivers import delegating, openapi
from agentos.drivers.doors import Doors
from agentos.drivers.guarded import Guarded
from agentos.drivers.output import Outputs
from agentos.drivers.port import CallContext, Driver, Found, ModelProvider, ModelReply, ModelRequest, ModelSpec, ToolSpec
from agentos.drivers.primitives import default_effect, input_schema
from agentos.drivers.spaces import space_of, space_schema
from agentos.drivers.tracked import Tracked
from agentos.sandbox.port import Sandboxes


@dataclass(frozen=True, slots=True)
class Hands:
    """What drivers are made with that start processes or send requests; boot chooses. What is None is not to be had here."""

    sandboxes: Sandboxes | None = None
    outputs: Outputs | None = None
    doors: Doors | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """How one is made when it is first needed: its class, and the `Hands` that it takes by these names; `needs` must be there."""

    module: str
    name: str
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_DRIVERS: Final = {
    "builtin": _Made("agentos.drivers.adapters.builtin", "BuiltinDriver"),
    "exec": _Made("agentos.drivers.adapters.exec", "ExecDriver", ("sandboxes", "outputs", "doors"), ("sandboxes",)),
    "mcp": _Made("agentos.drivers.adapters.mcp", "McpDriver", ("sandboxes", "outputs", "doors"), ("sandboxes",)),
    "http": _Made("agentos.drivers.adapters.http", "HttpDriver", ("outputs",)),
    "delegate": _Made("agentos.drivers.adapters.delegate", "DelegateDriver"),
}
_PROVIDERS: Final = {
    "scripted": _Made("agentos.drivers.adapters.model_scripted", "ScriptedProvider"),
    "anthropic": _Made("agentos.drivers.adapters.model_anthropic", "AnthropicProvider"),
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
    elif "openapi" in driver.get("http", {}):
        schema = openapi.input_schema(driver["http"])
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
        sandbox=spec.get("sandbox"),
        credentials=tuple(credential_of(one) for one in spec.get("credentials", ())),
        output_bytes=int(spec.get("outputBytes", 262_144)),
        output_schema=spec.get("outputSchema"),
    )


def model_spec(resource: Resource) -> ModelSpec:
    """The ModelSpec of a validated Model."""
    provider = str(resource.spec["provider"])
    return ModelSpec(name=resource.key.name, provider=provider, settings=resource.spec[provider])


class Drivers:
    """All drivers as one: chooses by the single key of `tool.driver`, guards the call, puts the tool's labels on its result."""

    def __init__(
        self,
        *,
        builtin: Driver | None = None,
        exec: Driver | None = None,  # noqa: A002 - what the driver is called
        mcp: Driver | None = None,
        http: Driver | None = None,
        delegate: Driver | None = None,
        hands: Hands | None = None,
        broker: Broker | None = None,
        tracked: Tracked | None = None,
    ) -> None:
        """Drivers that are left out are made when first needed, with `hands`. See `Guarded` for `broker` and `tracked`."""
        given = {"builtin": builtin, "exec": exec, "mcp": mcp, "http": http, "delegate": delegate}
        self._made: dict[str, Driver] = {name: driver for name, driver in given.items() if driver is not None}
        self._hands = hands or Hands()
        self._guarded = Guarded(broker, tracked)
        self._lock = asyncio.Lock()

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Perform the call; see `Driver.call`. Raises CredentialUnavailable too."""
        driver = await self._driver(tool)
        result = await self._guarded.call(tool, context, lambda lent: driver.call(tool, args, lent))
        return replace(result, labels=tuple(dict.fromkeys((*result.labels, *tool.labels))))

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """Ask what came of an earlier call; see `Driver.reconcile`. Raises CredentialUnavailable too."""
        driver = await self._driver(tool)
        return await self._guarded.ask(tool, context, lambda lent: driver.reconcile(tool, args, lent))

    async def release(self, session: str) -> None:
        """Stop what any driver keeps warm for `session`."""
        for driver in list(self._made.values()):
            await driver.release(session)

    async def close(self) -> None:
        """Stop everything."""
        for driver in list(self._made.values()):
            await driver.close()

    async def _driver(self, tool: ToolSpec) -> Driver:
        driver: Driver = await _made(_only_key(tool), self._made, _DRIVERS, self._lock, self._hands)
        return driver


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


async def _made(
    name: str, made: dict[str, Any], known: Mapping[str, _Made], lock: asyncio.Lock, hands: Hands | None = None
) -> Any:
    if name in made:
        return made[name]
    if name not in known:
        raise DriverError(f"there is no {name!r} here", mend=f"one of: {', '.join(sorted(known))}")
    how = known[name]
    missing = [need for need in how.needs if getattr(hands, need) is None]
    if missing:
        raise DriverError(f"the driver {name!r} cannot work here: there are no {' and no '.join(missing)}")
    async with lock:
        if name not in made:
            loaded = await asyncio.to_thread(importlib.import_module, how.module)
            made[name] = getattr(loaded, how.name)(**{taken: getattr(hands, taken) for taken in how.takes})
    return made[name]
