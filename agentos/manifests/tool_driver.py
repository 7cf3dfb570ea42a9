"""What the driver of a tool and the rest of its declaration have to agree on: one function per driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.syscall import ToolEffect
from agentos.drivers.delegating import MAX_TASKS, Mode
from agentos.drivers.primitives import FILE_PRIMITIVES
from agentos.manifests.agreement_exec import check_exec
from agentos.manifests.agreement_http import check_http
from agentos.manifests.agreement_mcp import check_mcp
from agentos.manifests.fault import Problem
from agentos.manifests.inputschema import check_input_schema
from agentos.manifests.tool_argument import argument_named


def check_driver(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of the driver of a Tool, whose spec this is."""
    yield from _DRIVERS[driver_of(spec)](spec)


def driver_of(spec: Mapping[str, Json]) -> str:
    """The driver of a Tool: the one key below `driver`."""
    return str(next(iter(spec["driver"])))


def _builtin(spec: Mapping[str, Json]) -> Iterator[Problem]:
    yield from _schema_of_its_own(spec, "builtin")
    builtin = spec["driver"]["builtin"]
    if "space" in builtin and builtin["primitive"] not in FILE_PRIMITIVES:
        message = f"the primitive {builtin['primitive']} acts on no file, so on no space"
        yield Problem("tool.space", ("spec", "driver", "builtin", "space"), message, "remove it", at="key")


def _exec(spec: Mapping[str, Json]) -> Iterator[Problem]:
    yield from _schema_needed(spec, "exec", "with the arguments that its words name")
    yield from _workspace_arguments(spec, "exec")
    yield from check_exec(spec)


def _mcp(spec: Mapping[str, Json]) -> Iterator[Problem]:
    yield from _schema_needed(spec, "mcp", "as the server describes the tool")
    yield from _workspace_arguments(spec, "mcp")
    yield from check_mcp(spec)


def _http(spec: Mapping[str, Json]) -> Iterator[Problem]:
    if "openapi" in spec["driver"]["http"]:
        yield from _schema_of_its_own(spec, "openapi")
    else:
        yield from _schema_needed(spec, "http", "with the arguments that the request takes")
    yield from check_http(spec)


def _delegate(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """A quorum is of the tasks there may be, and only where the mode asks for one."""
    path = ("spec", "driver", "delegate")
    delegate = spec["driver"]["delegate"]
    quorum, most = delegate.get("quorum"), delegate.get("maxTasks", MAX_TASKS)
    if (quorum is not None) != (delegate.get("mode") == Mode.QUORUM):
        message = "`quorum` is how many have to finish in the mode `quorum`, and is needed there"
        yield Problem("tool.quorum", (*path, "quorum" if quorum is not None else "mode"), message, "write both, or neither")
    elif quorum is not None and quorum > most:
        message = f"of at most {most} tasks, {quorum} can never finish"
        yield Problem("tool.quorum", (*path, "quorum"), message, f"write at most {most}")
    if spec["effect"] == ToolEffect.READ:
        message = "a delegation changes something: sessions begin, and files come back"
        yield Problem("tool.effect", ("spec", "effect"), message, "write effect: write, or external")
    yield from _schema_of_its_own(spec, "delegate")


_DRIVERS: Final[Mapping[str, Callable[[Mapping[str, Json]], Iterator[Problem]]]] = {
    "builtin": _builtin,
    "exec": _exec,
    "mcp": _mcp,
    "http": _http,
    "delegate": _delegate,
}


def _schema_of_its_own(spec: Mapping[str, Json], driver: str) -> Iterator[Problem]:
    if "inputSchema" in spec:
        article = "an" if driver == "openapi" else "a"
        message = f"{article} {driver} tool has arguments of its own"
        yield Problem("tool.schema", ("spec", "inputSchema"), message, "remove inputSchema", at="key")


def _schema_needed(spec: Mapping[str, Json], driver: str, how: str) -> Iterator[Problem]:
    schema = spec.get("inputSchema")
    if schema is None:
        message = f"an {driver} tool needs the field `inputSchema`"
        yield Problem("tool.schema", ("spec",), message, f"add `inputSchema:`, {how}", at="key")
        return
    yield from check_input_schema(schema, ("spec", "inputSchema"))


def _workspace_arguments(spec: Mapping[str, Json], driver: str) -> Iterator[Problem]:
    for index, name in enumerate(spec["driver"][driver].get("workspaceArgs", ())):
        yield from argument_named(spec, name, ("spec", "driver", driver, "workspaceArgs", index))
