"""One MCP server as a child process in its place, and the transport that joins it to the SDK's client.

The SDK's own stdio transport passes on variables of the runtime's environment, buffers a line without bound and cannot be
told to stop a hanging server at once. This one starts the server where the sandbox says, gives it exactly the environment that it
is handed, refuses lines above a bound and floods of any kind, keeps the last words of its standard error for messages and for
nothing else, and kills its whole process group in one step.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from agentos.abi.canonical import Json
from agentos.drivers.adapters.mcp_link import GRACE_S, MAX_MESSAGE, Streams
from agentos.drivers.adapters.mcp_sieve import Sieve
from agentos.sandbox.port import Launch, Sandboxes

MAX_STDERR: Final = 4096
"""How many of the last bytes of a server's standard error are kept."""

MAX_SAID: Final = 64 * 1024 * 1024
"""Most bytes that a server may write, on both streams, between the beginnings of two calls."""

_BACKLOG: Final = 64
_YIELD: Final = 64


@asynccontextmanager
async def started(sandboxes: Sandboxes, launch: Launch) -> AsyncIterator[ServerProcess]:
    """A server in a place of its own; when the block is left it was asked to leave, and all that is left of it is dead.

    Raises SandboxUnavailable, OSError or ValueError when it cannot be started; nothing runs then.
    """
    async with sandboxes.place(launch) as place:
        process = await ServerProcess.start(place.argv, place.env, place.cwd, place.pass_fds)
        try:
            await place.started(process.pid)
            process.report = place.report()
            yield process
        finally:
            await process.stop()


class ServerProcess(asyncio.SubprocessProtocol):
    """A running server. Made by `start`; must be ended by `stop` or `kill` followed by `stop`."""

    def __init__(self) -> None:
        self._transport: asyncio.SubprocessTransport | None = None
        self._partial = bytearray()
        self._stderr = bytearray()
        self._lines: deque[bytes] = deque()
        self._queued = 0
        self._more = asyncio.Event()
        self._exited = asyncio.Event()
        self._paused = False
        self._stopped = False
        self._sieve = Sieve(self._fail)
        self._said = 0
        self.ended = False
        """Whether nothing will be answered any more: its standard output has ended, or it has."""
        self.fault: str | None = None
        """What the server did wrong, if it was stopped for that."""
        self.report: Mapping[str, Json] = {}
        """What the log is told of its place."""

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: str, pass_fds: Sequence[int] = ()
    ) -> ServerProcess:
        """Start `command` (its first word an absolute path) in `folder`. Raises OSError or ValueError; nothing runs then."""
        process = cls()
        await asyncio.get_running_loop().subprocess_exec(
            lambda: process,
            *command,
            env=dict(environment),
            cwd=folder,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
        return process

    @property
    def pid(self) -> int:
        """Its process, as the host numbers it."""
        return self._transport.get_pid() if self._transport is not None else 0

    def last_words(self) -> str:
        """The end of its standard error, on one line for a message; "" if it said nothing."""
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-3:] if line.strip())[-500:]

    def begin(self) -> None:
        """A call begins: what it may say is counted anew."""
        self._said = 0
        self._sieve.begin()

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

    polite = False
    """Who gives a call up does not wait: a process is killed."""

    async def farewell(self) -> None:
        """Nothing to wait for: a process whose call was given up is dead."""

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
        self._said += len(data)
        if self._said > MAX_SAID:
            self._fail(f"wrote more than {MAX_SAID} bytes in one call")
        elif fd == 2:
            self._stderr += data
            del self._stderr[:-MAX_STDERR]
        elif not self.ended:
            self._take(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._end()

    def process_exited(self) -> None:
        # What it started may hold its standard output open for ever. What it wrote itself is in the pipe by now.
        if not self.ended:
            self._drain()
        self._exited.set()
        self._end()
        self.kill()

    def _end(self) -> None:
        self.ended = True
        self._more.set()

    def _drain(self) -> None:
        pipe = self._transport.get_pipe_transport(1) if self._transport else None
        file = pipe.get_extra_info("pipe") if pipe is not None and not pipe.is_closing() else None
        if file is None:
            return
        left = MAX_MESSAGE
        with contextlib.suppress(BlockingIOError, OSError):
            while left > 0 and (data := os.read(file.fileno(), 65536)):
                left -= len(data)
                self._take(data)

    def _take(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = bytes(self._partial) + line
            self._partial.clear()
            if whole.strip():
                self._lines.append(whole)
                self._queued += len(whole)
        self._partial += rest
        if len(self._partial) > MAX_MESSAGE:
            self._fail(f"sent a message of more than {MAX_MESSAGE} bytes")
            self._partial.clear()
        if (len(self._lines) > _BACKLOG or self._queued > MAX_MESSAGE) and not self._paused:
            self._flow(pause=True)
        self._more.set()

    def _fail(self, fault: str) -> None:
        self.fault = self.fault or fault
        self.kill()

    def _flow(self, *, pause: bool) -> None:
        pipe = self._transport.get_pipe_transport(1) if self._transport else None
        if isinstance(pipe, asyncio.ReadTransport) and not pipe.is_closing():
            self._paused = pause
            if pause:
                pipe.pause_reading()
            else:
                pipe.resume_reading()

    async def _pump_in(self, to_client: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        seen = 0
        with to_client, contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                while self._lines:
                    line = self._lines.popleft()
                    self._queued -= len(line)
                    if self._paused and len(self._lines) < _BACKLOG // 2 and self._queued < MAX_MESSAGE:
                        self._flow(pause=False)
                    if (message := self._read(line)) is not None:
                        await to_client.send(message)
                    seen += 1
                    if seen % _YIELD == 0:
                        # Others get their turn while a server talks and talks.
                        await asyncio.sleep(0)
                if self.ended:
                    return
                self._more.clear()
                await self._more.wait()

    def _read(self, line: bytes) -> SessionMessage | None:
        try:
            return self._sieve.heard(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            return self._sieve.heard(None)

    async def _pump_out(self, from_client: MemoryObjectReceiveStream[SessionMessage]) -> None:
        with from_client:
            async for item in from_client:
                pipe = self._transport.get_pipe_transport(0) if self._transport else None
                if not isinstance(pipe, asyncio.WriteTransport) or pipe.is_closing():
                    continue
                self._sieve.sent(item.message)
                pipe.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode("utf-8") + b"\n")
                if pipe.get_write_buffer_size() > 2 * MAX_MESSAGE:
                    self._fail("does not read what it is told")
