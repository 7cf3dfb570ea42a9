"""The gateway on a pipe: the client starts us as a process and speaks over our standard streams.

The SDK would read lines of any length. Here a line is bounded, and what is longer is passed by, so that a client can make us hold
no more than that.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final, cast

import anyio
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

from agentos.abi.errors import UsageError

LINE: Final = 4 * 1024 * 1024
"""Most bytes of a message."""

_PASSED_BY: Final = "a message that is too long\n"
"""What the SDK gets instead of such a line: no JSON, which it passes by as well."""


class Lines:
    """Standard input as lines of text, each at most LINE bytes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        """`reader` has LINE as its limit."""
        self._reader = reader

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                raise StopAsyncIteration from error
            line = error.partial
        except asyncio.LimitOverrunError as error:
            return await self._pass_by(error)
        return line.decode("utf-8", "replace")

    async def _pass_by(self, over: asyncio.LimitOverrunError) -> str:
        while True:
            # What has come is thrown away; a line feed that is among it already is found by the next look.
            await self._reader.readexactly(over.consumed)
            try:
                await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                over = error
            except asyncio.IncompleteReadError:
                return _PASSED_BY
            else:
                return _PASSED_BY


async def over_stdio(server: Server[None]) -> None:
    """Serve the one client at our standard streams until it closes them, or we are told to end.

    Raises UsageError when standard input is a file.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE)
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    except ValueError as error:
        raise UsageError("standard input is a file", mend="start this from an MCP client, or with a pipe") from error
    # The SDK asks for nothing but lines.
    lines = cast("anyio.AsyncFile[str]", Lines(reader))
    with anyio.CancelScope() as scope:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, scope.cancel)
        try:
            async with stdio_server(stdin=lines) as (read, write):
                await server.run(read, write, server.create_initialization_options())
                # The client has closed its end: whoever still writes to it has nobody to write to.
                scope.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
