"""Rules within one Tool that hold for every driver: its name, how long it may take, what may run beside other calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.syscall import MODEL_CALL, NET_REQUEST, ToolEffect
from agentos.drivers.primitives import default_effect
from agentos.manifests.credentials import check_credentials, starts_a_process
from agentos.manifests.fault import Problem
from agentos.manifests.inputschema import check_input_schema
from agentos.manifests.places import check_environment
from agentos.manifests.tool_driver import check_driver

MAX_TIMEOUT_S: Final = 3600
"""Seconds that a call may take that is no delegation."""

_TAKEN: Final[Mapping[str, str]] = {
    MODEL_CALL: "calls of the model pass the gate",
    NET_REQUEST: "requests that leave pass the gate",
}


def check_tool(body: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of a Tool that its schema accepts."""
    spec, name = body["spec"], body["metadata"]["name"]
    if name in _TAKEN:
        message = f"the name {name} is taken: {_TAKEN[name]} under it"
        yield Problem("tool.name", ("metadata", "name"), message, "choose another name")
    yield from _commutes(spec)
    yield from _timeout(spec)
    yield from _place(spec)
    yield from check_credentials(spec)
    if "outputSchema" in spec:
        yield from check_input_schema(spec["outputSchema"], ("spec", "outputSchema"))
    yield from check_driver(spec)


def _place(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """A sandbox is of processes, and no variable of theirs may change how programs are loaded."""
    if "sandbox" in spec and not starts_a_process(spec):
        message = "this tool starts no process, so it has no sandbox"
        yield Problem("tool.sandbox", ("spec", "sandbox"), message, "remove it", at="key")
    driver = spec["driver"]
    yield from check_environment(driver.get("exec", {}).get("env", {}), ("spec", "driver", "exec", "env"), "tool.env")
    server = driver.get("mcp", {}).get("server", {})
    yield from check_environment(server.get("env", {}), ("spec", "driver", "mcp", "server", "env"), "tool.env")


def _timeout(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """Only a delegation is waited for so long."""
    if "delegate" not in spec["driver"] and spec.get("timeoutSeconds", 0) > MAX_TIMEOUT_S:
        message = f"a call may take {MAX_TIMEOUT_S} s, and only a delegation longer"
        yield Problem("tool.timeout", ("spec", "timeoutSeconds"), message, f"write at most {MAX_TIMEOUT_S}")


def _commutes(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """Only what reads may run beside other calls: each of these is decided before the results of the others are known."""
    if not spec.get("commutes", False):
        return
    primitive = spec["driver"].get("builtin", {}).get("primitive")
    what = f"effect {spec['effect']}" if spec["effect"] != ToolEffect.READ else None
    if primitive is not None and default_effect(primitive) is not ToolEffect.READ:
        what = f"the primitive {primitive}"
    if what is not None:
        message = f"only a tool that reads may run beside other calls, and this one has {what}"
        yield Problem("tool.commutes", ("spec", "commutes"), message, "remove it, or write commutes: false")
