"""What the program says of MCP servers is what the servers themselves say. Starts them, reaches no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from agentos.manifests import load

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "programs" / "inbox-triage"
DECLARED = load([PROGRAM / "tools.yaml", ROOT / "examples" / "quickstart" / "grants.yaml"]).resources
TOOLS = {resource.key.name: resource.spec for resource in DECLARED if resource.key.kind == "Tool"}


@pytest.mark.parametrize("name", ["convert-time", "fetch"])
async def test_the_input_schema_is_the_one_that_the_server_offers(name: str) -> None:
    """The inputSchema of the Tool equals the server's, so that policy decides about the arguments that the server will get."""
    mcp = TOOLS[name]["driver"]["mcp"]
    program, *arguments = mcp["server"]["command"]
    server = StdioServerParameters(
        command=str(Path(sys.executable).parent / program), args=arguments, env={"PATH": os.environ["PATH"]}
    )
    async with Client(stdio_client(server)) as client:
        offered = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
    assert TOOLS[name]["inputSchema"] == offered[mcp["tool"]]
