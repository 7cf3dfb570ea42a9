"""One MCP server as a child process, and the transport that joins it to the SDK's client.

The SDK's own stdio transport passes on variables of the runtime's environment, buffers a line without bound and cannot be
told to stop a hanging server at once. This one gives the child exactly the environment it is handed, refuses lines above a bound,
keeps the last words of its standard error for messages, and kills its whole process group in one step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

MAX_LINE: Final = 4 * 1024 * 1024
"""Longest message of a server, in bytes; a server that says more is stopped."""

MAX_STDERR: Final = 4096
"""How many of the last bytes of a server's standard error are kept."""

GRACE_S: Final = 1.0
"""How long a server may take to leave after its standard input was closed, in seconds."""

_BACKLOG: Final = 64

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]

_log = logging.getLogger(__name__)


class ServerProcess(asyncio.SubprocessProtocol):
    """A running server. Made by `start`; must be ended by `stop` or `kill` followed by `stop`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._transport: asyncio.SubprocessTransport | None = None
        self._partial = bytearray()
        self._stderr = bytearray()
        self._lines: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._exited = asyncio.Event()
        self._paused = False
        self._stopped = False
        self.ended = False
        """Whether its standard output has ended: nothing will be answered any more."""
        self.fault: str | None = None
        """What the server did wrong, if it was stopped for that."""

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> ServerProcess:
        """Start `command` (its first word an absolute path) in `folder`. Raises OSError or ValueError; nothing runs then."""
        process = cls(Path(command[0]).name)
        await asyncio.get_running_loop().subprocess_exec(
            lambda: process, *command, env=dict(environment), cwd=str(folder), start_new_session=True
        )
        return process

    def last_words(self) -> str:
        """The end of its standard error, on one line for a message; "" if it said nothing."""
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-3:] if line.strip())[-500:]

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """The transport for `mcp.Client`. Leaving it does not stop the process: `stop` does."""
        to_client, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        to_server, from_client = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as group:
            group.start_soon(self._pump_in, to_client)
            group.start_soon(self._pump_out, from_client)
            try:
                yield from_server, to_server
            finally:
                for stream in (from_server, to_server):
                    stream.close()
                group.cancel_scope.cancel()

    async def stop(self) -> None:
        """Ask it to leave by closing its standard input, and kill what is still there after the grace. Safe to repeat."""
        transport = self._transport
        if transport is None or self._stopped:
            return
        if not self._exited.is_set():
            stdin = transport.get_pipe_transport(0)
            if stdin is not None:
                stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._exited.wait()
        self.kill()
        await self._exited.wait()
        self._stopped = True
        transport.close()

    def kill(self) -> None:
        """Kill the process and everything it started in its group, now."""
        if self._transport is None or self._stopped:
            return
        # The group outlives its leader as long as anything that the server started runs in it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), signal.SIGKILL)

    # What asyncio tells:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            _log.debug("%s says on its standard error: %r", self._name, data[:MAX_STDERR])
            self._stderr += data
            del self._stderr[:-MAX_STDERR]
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._lines.append(bytes(self._partial) + line)
            self._partial.clear()
        self._partial += rest
        if len(self._partial) > MAX_LINE:
            self.fault = f"it sent a message of more than {MAX_LINE} bytes"
            self._partial.clear()
            self.kill()
        if len(self._lines) > _BACKLOG and not self._paused:
            self._flow(pause=True)
        self._more.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self.ended = True
            self._more.set()

    def process_exited(self) -> None:
        self._exited.set()

    def _flow(self, *, pause: bool) -> None:
        pipe = self._transport.get_pipe_transport(1) if self._transport else None
        if isinstance(pipe, asyncio.ReadTransport) and not pipe.is_closing():
            self._paused = pause
            if pause:
                pipe.pause_reading()
            else:
                pipe.resume_reading()

    async def _pump_in(self, to_client: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        with to_client, contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                while self._lines:
                    line = self._lines.popleft()
                    if self._paused and len(self._lines) < _BACKLOG // 2:
                        self._flow(pause=False)
                    if line.strip():
                        await to_client.send(_parse(line))
                if self.ended:
                    return
                self._more.clear()
                await self._more.wait()

    async def _pump_out(self, from_client: MemoryObjectReceiveStream[SessionMessage]) -> None:
        with from_client:
            async for item in from_client:
                pipe = self._transport.get_pipe_transport(0) if self._transport else None
                if not isinstance(pipe, asyncio.WriteTransport) or pipe.is_closing():
                    continue
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                pipe.write(text.encode("utf-8") + b"\n")


def _parse(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        # The SDK's client takes such a value for a broken message, and goes on.
        _log.debug("not a JSON-RPC message: %r", line[:200])
        return error
