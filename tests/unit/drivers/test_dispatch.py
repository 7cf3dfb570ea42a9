"""The right driver for a tool, the right provider for a model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentos.drivers
from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.resource import Key, Resource
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.reference import Credential
from agentos.drivers import (
    CallContext,
    Drivers,
    ModelReply,
    ModelRequest,
    ModelSpec,
    Providers,
    ToolSpec,
    dispatch,
    model_spec,
    tool_spec,
)
from agentos.drivers.dispatch import Hands
from agentos.drivers.primitives import input_schema


def resource(kind: str, spec: dict[str, Json]) -> Resource:
    return Resource(Key(kind, "default", "sample"), {}, {}, spec)


def builtin(primitive: str, **more: Json) -> ToolSpec:
    spec = {"description": "d", "effect": "read", "driver": {"builtin": {"primitive": primitive}}, **more}
    return tool_spec(resource("Tool", spec))


class Recorder:
    """A driver and provider that remembers what it was asked."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def call(self, tool: ToolSpec, args: Any, context: CallContext) -> Result:
        self.heard.append(tool.name)
        return Result("ok", labels=("own",))

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: Any = None) -> ModelReply:
        self.heard.append(model.name)
        return ModelReply((), "end_turn", 0, 0)

    async def release(self, session: str) -> None:
        self.heard.append(f"release {session}")

    async def close(self) -> None:
        self.heard.append("close")


def context(workspace: Path) -> CallContext:
    return CallContext("default", "s-1", "call-1-1", workspace)


def test_a_builtin_tool() -> None:
    """It gets its primitive's schema, is idempotent, and is never taken for less than it does."""
    spec = builtin("write", labels=["pii"], timeoutSeconds=5)
    assert spec.input_schema == input_schema("write")
    assert (spec.idempotent, spec.effect, spec.labels, spec.timeout_ms) == (True, ToolEffect.WRITE, ("pii",), 5000)
    assert builtin("read", effect="external").effect is ToolEffect.EXTERNAL
    assert builtin("list").effect is ToolEffect.READ


def test_an_mcp_tool_and_a_model() -> None:
    """They are what their declarations say."""
    driver = {"mcp": {"server": {"command": ["x"]}, "tool": "y"}}
    spec = tool_spec(
        resource(
            "Tool",
            {"description": "d", "effect": "external", "idempotent": False, "inputSchema": {"type": "object"}, "driver": driver},
        )
    )
    assert (spec.driver, spec.input_schema, spec.idempotent, spec.timeout_ms) == (driver, {"type": "object"}, False, 30_000)
    model = model_spec(resource("Model", {"provider": "anthropic", "anthropic": {"model": "m"}}))
    assert (model.name, model.provider, model.settings) == ("sample", "anthropic", {"model": "m"})


def test_what_a_tool_is_given() -> None:
    """Sandbox, credentials, bounds and the schema of its output are read as declared, and have defaults."""
    driver = {"exec": {"command": ["true"]}}
    schema = {"type": "object"}
    more = {
        "sandbox": "offline",
        "credentials": [{"secret": "github", "env": "TOKEN"}],
        "outputBytes": 2048,
        "outputSchema": {"type": "object", "required": ["n"]},
    }
    spec = {"description": "d", "effect": "read", "driver": driver, "inputSchema": schema}
    given = tool_spec(resource("Tool", {**spec, **more}))
    assert (given.sandbox, given.credentials, given.output_bytes) == ("offline", (Credential("github", env="TOKEN"),), 2048)
    assert given.output_schema == more["outputSchema"]
    plain = tool_spec(resource("Tool", spec))
    assert (plain.sandbox, plain.credentials, plain.output_bytes, plain.output_schema) == (None, (), 262_144, None)


def test_an_openapi_tool() -> None:
    """Its arguments are those of the operation."""
    parameters = [{"name": "n", "in": "query", "required": True, "schema": {"type": "integer"}}]
    document = {"openapi": "3.1.0", "paths": {"/ping": {"get": {"operationId": "ping", "parameters": parameters}}}}
    driver = {"http": {"url": "https://a.example", "openapi": {"document": document, "operation": "ping"}}}
    spec = tool_spec(resource("Tool", {"description": "d", "effect": "read", "driver": driver}))
    assert spec.input_schema["properties"]["n"]["type"] == "integer"


async def test_hands_are_handed_over() -> None:
    """A driver that is made when it is needed gets what boot has chosen; one that lacks what it needs is refused."""
    sandboxes, outputs = object(), object()
    hands = Hands(sandboxes=sandboxes, outputs=outputs)  # type: ignore[arg-type]
    made: dict[str, Any] = {}
    driver = await dispatch._made("exec", made, dispatch._DRIVERS, asyncio.Lock(), hands)
    assert (driver._sandboxes, driver._outputs, driver._doors) == (sandboxes, outputs, None)
    with pytest.raises(DriverError, match="no sandboxes"):
        await dispatch._made("mcp", {}, dispatch._DRIVERS, asyncio.Lock(), Hands())


async def test_drivers_choose_and_label(tmp_path: Path) -> None:
    """The driver is chosen by its key; the tool's labels join the result's own; closing reaches those that were made."""
    recorder = Recorder()
    drivers = Drivers(builtin=recorder)
    result = await drivers.call(builtin("list", labels=["untrusted", "own"]), {}, context(tmp_path))
    assert result.labels == ("own", "untrusted")
    await drivers.release("s-1")
    await drivers.close()
    assert recorder.heard == ["sample", "release s-1", "close"]


async def test_drivers_are_made_when_needed(tmp_path: Path) -> None:
    """Without being given any, the real driver answers."""
    drivers = Drivers()
    assert (await drivers.call(builtin("list"), {}, context(tmp_path))).data == []
    await drivers.close()


async def test_unknown_names(tmp_path: Path) -> None:
    """A driver or provider that is not there is refused by name."""
    for driver in ({"shell": {}}, {"exec": {}}, {}, {"builtin": {}, "mcp": {}}):
        with pytest.raises(DriverError):
            await Drivers().call(ToolSpec("t", "", ToolEffect.READ, True, {}, driver), {}, context(tmp_path))
    with pytest.raises(DriverError, match="no 'oracle'"):
        await Providers().complete(ModelSpec("m", "oracle", {}), ModelRequest("", (), ()))


async def test_providers_choose() -> None:
    """The provider is chosen by its name, made if it was not given."""
    recorder = Recorder()
    providers = Providers(anthropic=recorder)
    await providers.complete(ModelSpec("m", "anthropic", {}), ModelRequest("", (), ()))
    reply = await providers.complete(ModelSpec("s", "scripted", {"play": {"rules": [{"say": "hi"}]}}), ModelRequest("", (), ()))
    assert reply.content == ({"type": "text", "text": "hi"},)
    await providers.close()
    assert recorder.heard == ["m", "close"]


def test_no_sdk_is_imported_early() -> None:
    """Importing the room, and making its dispatchers, imports no SDK, and nothing else that takes its time."""
    program = """
import sys, agentos.drivers as drivers
drivers.Drivers(), drivers.Providers()
print([name for name in ("mcp", "anthropic", "jinja2", "httpx2", "keyring", "jsonschema") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_exported_names() -> None:
    """`__all__` is sorted and names everything that is visible."""
    assert agentos.drivers.__all__ == sorted(agentos.drivers.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(agentos.drivers, name) for name in agentos.drivers.__all__)
