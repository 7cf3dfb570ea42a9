"""The gateway on a pipe: the client starts us as a process and speaks over our standard streams.

The SDK would read lines of any length, and as many of them as come, whether or not the answers are read. Here a line is bounded,
and what is longer is passed by; and while STANDING messages wait for a client to read, no line of its is taken. So a client can
make us hold no more than that.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Final, Protocol, Self, cast

import anyio
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

from agentos.abi.errors import UsageError

if TYPE_CHECKING:
    from mcp.shared.message import SessionMessage

LINE: Final = 4 * 1024 * 1024
"""Most bytes of a message."""

STANDING: Final = 256
"""Most messages that wait for the client to read."""

_PASSED_BY: Final = "a message that is too long\n"
"""What the SDK gets instead of such a line: no JSON, which it passes by as well."""


class Sink(Protocol):
    """What the SDK writes messages for the client to."""

    async def send(self, item: SessionMessage, /) -> None:
        """Return once it is taken."""

    async def aclose(self) -> None:
        """No more comes."""


class Outlet:
    """The way to the client, which knows how many messages stand in it. To the SDK it is a stream to write to."""

    def __init__(self) -> None:
        self._stream: Sink | None = None
        self._standing = 0
        self._moved = anyio.Event()

    def into(self, stream: Sink) -> Outlet:
        """What is sent goes into `stream` from now on."""
        self._stream = stream
        return self

    async def free(self) -> None:
        """Return once fewer than STANDING messages wait to be read."""
        while self._standing >= STANDING:
            await self._moved.wait()

    async def send(self, item: SessionMessage, /) -> None:
        if self._stream is None:
            raise anyio.ClosedResourceError
        self._standing += 1
        try:
            await self._stream.send(item)
        finally:
            self._standing -= 1
            self._moved.set()
            self._moved = anyio.Event()

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Lines:
    """Standard input as lines of text, each at most LINE bytes."""

    def __init__(self, reader: asyncio.StreamReader, outlet: Outlet) -> None:
        """`reader` has LINE as its limit; no line is read before `outlet` is free."""
        self._reader = reader
        self._outlet = outlet

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        await self._outlet.free()
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
    outlet = Outlet()
    lines = cast("anyio.AsyncFile[str]", Lines(reader, outlet))
    with anyio.CancelScope() as scope:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, scope.cancel)
        try:
            async with stdio_server(stdin=lines) as (read, write):
                await server.run(read, outlet.into(write), server.create_initialization_options())
                # The client has closed its end: whoever still writes to it has nobody to write to.
                scope.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
