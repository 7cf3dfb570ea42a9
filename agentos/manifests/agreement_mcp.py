"""What an mcp tool and its server have to agree on: a program that is started or an address, and what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers.http_request import base_of, refused_header
from agentos.drivers.words import words
from agentos.manifests.agreement_sandbox import check_ranges
from agentos.manifests.fault import Path, Problem, shown

_HERE: Final[Path] = ("spec", "driver", "mcp")
_SERVER: Final[Path] = (*_HERE, "server")

_OF_THE_PROTOCOL: Final = frozenset(
    {"accept", "content-type", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"}
)
"""Headers by which the two sides of the protocol find each other."""


def check_mcp(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of an mcp tool, whose spec this is, beside those of its inputSchema."""
    mcp = spec["driver"]["mcp"]
    yield from _address(mcp) if "url" in mcp["server"] else _command(mcp["server"])


def _command(server: Mapping[str, Json]) -> Iterator[Problem]:
    for field in ("headers", "private"):
        if server.get(field):
            message = f"`{field}` is for a server at an address, and this one is started"
            yield Problem("tool.server", (*_SERVER, field), message, "remove it, or write url", at="key")
    name = server["command"][0]
    if "/" in name and not name.startswith("/"):
        message = f"{shown(name)} is a relative path, and would lead into the workspace"
        yield Problem("tool.command", (*_SERVER, "command", 0), message, "name a program on PATH, or write its absolute path")
    for index, word in enumerate(server["command"]):
        try:
            words(["program", word], {})
        except DriverError as error:
            yield Problem("tool.command", (*_SERVER, "command", index), error.message, "write another word")


def _address(mcp: Mapping[str, Json]) -> Iterator[Problem]:
    server = mcp["server"]
    for path, found, what in (
        ((*_SERVER, "env"), server.get("env"), "environment that is ours to give"),
        ((*_HERE, "workspaceArgs"), mcp.get("workspaceArgs"), "workspace"),
    ):
        if found:
            message = f"a server at an address sees no {what}"
            yield Problem("tool.server", path, message, "remove it, or write command", at="key")
    private = server.get("private", ())
    try:
        base_of(server["url"])
    except DriverError as error:
        yield Problem("tool.url", (*_SERVER, "url"), error.message, error.mend or "for example https://mcp.acme.example/mcp")
    else:
        if server["url"].startswith("http://") and not private:
            message = "plain http leads to private networks alone, and `private` names none"
            yield Problem("tool.url", (*_SERVER, "url"), message, "write https://, or name the network under private")
    yield from check_ranges(private, (*_SERVER, "private"), "tool.private")
    for name in server.get("headers", {}):
        refused = refused_header(name)
        if name.lower() in _OF_THE_PROTOCOL:
            refused = (f"the header {name} is the protocol's own", "remove it")
        if refused is not None:
            yield Problem("tool.header", (*_SERVER, "headers", name), *refused, at="key")
