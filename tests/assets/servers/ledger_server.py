"""An MCP server whose tool writes one line per call into a file outside the runtime: the proof of what took effect how often.

usage: ledger_server.py LEDGER [FIFO]. With FIFO, call number 5 says so there after writing its line, and then never answers.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mcp.server import MCPServer

os.umask(0)  # in sandboxes each session writes as another user
server = MCPServer("ledger")
ledger = Path(sys.argv[1])
fifo = Path(sys.argv[2]) if len(sys.argv) > 2 else None


@server.tool()
async def note(number: int) -> str:
    """Write the number down."""
    with ledger.open("a") as file:
        file.write(f"{number}\n")
    if number == 5 and fifo is not None and fifo.exists():
        with fifo.open("w") as pipe:
            fifo.unlink()
            pipe.write("here\n")
        await asyncio.Event().wait()
    return f"noted {number}"


server.run("stdio")
