"""What an MCP server offers as a tool, and whether that is what was declared.

A server is a stranger that may change: what it offers is listed anew before each call, and compared with what somebody read and
wrote down. `inputSchema` must be the declared one, word for word; `pin` is a digest over all that a server says of the tool.

    driver: {mcp: {server: …, tool: pay, pin: "sha256:…"}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mcp import Client
from mcp_types import PaginatedRequestParams, Tool

from agentos.abi.canonical import Json, NotCanonical, digest_of
from agentos.abi.errors import DriverError

_MAX_PAGES: Final = 50
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./-]{1,64}", re.ASCII)
_MAX_TOOLS: Final = 2000


@dataclass(frozen=True, slots=True)
class Wanted:
    """The tool of a server that is to be called."""

    name: str
    schema: Json = None
    """The inputSchema that the server must offer for it; None: whatever it offers."""
    pin: str | None = None
    """The digest of the whole offer that somebody has read; None: nobody has."""


def offer(tool: Tool) -> dict[str, Json]:
    """What a server says of a tool: exactly what `pin` is the digest of, null where it says nothing."""
    annotations = tool.annotations
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "outputSchema": tool.output_schema,
        "annotations": None if annotations is None else annotations.model_dump(by_alias=True, mode="json", exclude_none=True),
    }


async def offered(client: Client) -> dict[str, Tool]:
    """All tools that the server lists now, by name. Raises ValueError for a list without an end, or with a name twice."""
    found: dict[str, Tool] = {}
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        for tool in page.tools:
            if tool.name in found:
                raise ValueError(f"the server lists {tool.name[:100]!r} twice")
            found[tool.name] = tool
        if len(found) > _MAX_TOOLS:
            raise ValueError(f"the server lists more than {_MAX_TOOLS} tools")
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise ValueError(f"the server lists its tools on more than {_MAX_PAGES} pages")


def refused(wanted: Wanted, tools: Mapping[str, Tool], server: str) -> DriverError | None:
    """Why the tool of the server (its name, for messages) may not be called; None: it is as it was declared."""
    tool = tools.get(wanted.name)
    if tool is None:
        # A name may be a sentence that is meant for the model: only what is a plain word is repeated.
        names = ", ".join(sorted(name for name in tools if _PLAIN.fullmatch(name))[:20]) or "none"
        return DriverError(
            f"the server {server} has no tool {wanted.name!r}", mend=f"it offers: {names}; update `tool` of the declaration"
        )
    try:
        schema, pin = digest_of(tool.input_schema), digest_of(offer(tool))
    except NotCanonical as error:
        return DriverError(f"the server {server} has an offer for {wanted.name!r} that is not plain JSON: {error}")
    if wanted.schema is not None and schema != (declared := digest_of(wanted.schema)):
        return DriverError(
            f"the schema of {wanted.name!r} is not the declared one: declared {declared}, offered {schema}",
            where=server,
            mend="the tool's schema has changed since it was declared: review it and update inputSchema",
        )
    if wanted.pin is not None and pin != wanted.pin:
        return DriverError(
            f"what the server offers as {wanted.name!r} is not what was approved: pinned {wanted.pin}, offered {pin}",
            where=server,
            mend="read what the server offers now; to approve it, declare the offered digest as `pin` and apply",
        )
    return None
