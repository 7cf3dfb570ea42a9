"""An MCP server that misbehaves on demand, for the tests of the MCP driver. Run as `python odd_server.py [log of calls]`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

server = MCPServer("odd")

os.umask(0)  # the log may be another one's tomorrow
MARK = secrets.token_hex(8)
"""Which server it is: two in namespaces of their own may have one number."""


def note(what: str) -> None:
    """Remember that a call has begun, where a test can see it."""
    if len(sys.argv) > 1:
        with Path(sys.argv[1]).open("a") as file:
            file.write(f"{what} {MARK}\n")


@server.tool()
def echo(text: str) -> str:
    """Say it again."""
    note("echo")
    return text


TWO = asyncio.Barrier(2)


@server.tool()
async def meet(text: str) -> str:
    """Answer as soon as two calls are there."""
    note("meet")
    await TWO.wait()
    return text


@server.tool()
async def hang() -> str:
    """Never answer."""
    note("hang")
    await asyncio.Event().wait()
    return "never"


@server.tool()
async def hang_with_child() -> str:
    """Start a child that holds the pipes open, and never answer."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *sys.argv[1:]])
    note("hang")
    await asyncio.Event().wait()
    return "never"


@server.tool()
def crash() -> str:
    """Die in the middle of the call."""
    note("crash")
    print("the disk is on fire", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
def fail() -> str:
    """Report a failure of its own."""
    raise ToolError("no such mailbox")


@server.tool()
def environment() -> str:
    """Its own environment and folder."""
    note("environment")
    return json.dumps({"env": dict(os.environ), "cwd": str(Path.cwd())})


@server.tool()
def large(size: int) -> str:
    """That many characters."""
    return "x" * size


@server.tool()
def picture() -> Image:
    """An image."""
    return Image(data=b"\x89PNG fake", format="png")


@server.tool()
def show(path: str) -> str:
    """The text of a file, by the path it is given."""
    return f"{path}: {Path(path).read_text()}"


class Answer(BaseModel):
    """What a person would fill in."""

    name: str


@server.tool()
async def ask(ctx: Context) -> str:
    """Try to ask the person behind the client."""
    answer = await ctx.elicit(message="your name?", schema=Answer)
    return answer.action


if __name__ == "__main__":
    server.run(transport="stdio")
