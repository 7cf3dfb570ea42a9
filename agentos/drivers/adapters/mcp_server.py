"""One warm MCP server: a process, a client, and the task that owns both.

The SDK's client lives in cancel scopes that must be left by the task that entered them, while calls come from the tasks of
many turns. So an owner task starts the server, performs calls from a queue, each in a task below it, and stops the server;
callers wait for a future. Calls that come at once are made at once: whether they may is the caller's to know. A call that is
given up kills the server, and with it the others: that is the only way to be sure that the work stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED, CallToolResult, Implementation, RequestParamsMeta

from agentos import __version__
from agentos.abi.canonical import Json, NotCanonical, digest_of
from agentos.abi.errors import AgentOSError, DriverError
from agentos.drivers.adapters.mcp_process import ServerProcess

META_KEY: Final = "agentos/idempotency-key"
"""Under this name the key of a call stands in its `_meta`."""

_MAX_PAGES: Final = 50
_BROKEN: Final = (MCPError, OSError, ValueError, RuntimeError, LookupError, TypeError)
"""What the SDK raises when a server does not keep to the protocol (pydantic's ValidationError is a ValueError)."""

_log = logging.getLogger(__name__)


class ServerLost(Exception):
    """The server ended, or answered nonsense, after the call was sent."""


class ToolRefused(Exception):
    """The server answered the call with a protocol error."""


@dataclass(eq=False, slots=True)
class _Request:
    tool: str
    schema: Json
    args: Mapping[str, Json]
    key: str
    still: Callable[[], Awaitable[None]] | None
    answer: asyncio.Future[CallToolResult]
    begun: bool = field(default=False)


class WarmServer:
    """A server that stays up between calls. Starts at once, in a task of its own."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._name = name
        self._command = command
        self._environment = environment
        self._folder = folder
        self._queue: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._calls = 0
        """How many are being made."""
        self._process: ServerProcess | None = None
        self._schemas: dict[str, Json] | None = None
        self._doomed = False
        self._reason = ""
        self._task = asyncio.create_task(self._own(), name=f"mcp server {name}")

    @property
    def alive(self) -> bool:
        """Whether a call may still be given to it."""
        return not (self._task.done() or self._doomed or (self._process is not None and self._process.ended))

    async def call(
        self,
        tool: str,
        schema: Json,
        args: Mapping[str, Json],
        timeout_s: float,
        *,
        key: str,
        still: Callable[[], Awaitable[None]] | None = None,
    ) -> CallToolResult:
        """Perform one call, its wait in the queue and the start of the server included in `timeout_s`.

        `schema` is what the server must offer for the tool (None: whatever it offers). `key` goes with the call, so that the
        server can tell a repeated one. `still` is awaited just before it is sent; what it raises is raised, and nothing is sent.
        Raises DriverError if it surely was not sent, ToolRefused, ServerLost, or TimeoutError if it was sent and not answered.
        """
        request = _Request(tool, schema, args, key, still, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(request)
        try:
            async with asyncio.timeout(timeout_s):
                waited: set[asyncio.Future[Any]] = {request.answer, self._task}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            if request.begun:
                self.kill()
                raise
            if self._schemas is None:
                self.kill()
                raise DriverError(self._say(f"did not start within {timeout_s:g} s")) from None
            raise DriverError(self._say(f"was busy with another call for {timeout_s:g} s")) from None
        except asyncio.CancelledError:
            if request.begun:
                self.kill()
            raise
        finally:
            if not request.answer.done():
                request.answer.cancel()
        if not request.answer.cancelled():
            return request.answer.result()
        if request.begun:
            raise ServerLost(self._say(self._reason or "ended in the middle of the call"))
        raise DriverError(self._say(self._reason or "ended before the call was sent"))

    def kill(self) -> None:
        """Stop it now, whatever it does. `stop` still has to be awaited."""
        self._doomed = True
        self._queue.put_nowait(None)
        if self._process is not None:
            self._process.kill()

    async def stop(self) -> None:
        """Let it leave in peace if it is idle, kill it if it is in a call; return when it is gone."""
        if self._calls or self._schemas is None:
            self.kill()
        self._doomed = True
        self._queue.put_nowait(None)
        await asyncio.wait({self._task})

    async def _own(self) -> None:
        try:
            process = self._process = await ServerProcess.start(self._command, self._environment, self._folder)
        except (OSError, ValueError) as error:
            self._reason = f"cannot be started: {error}"
            return
        try:
            if not self._doomed:
                await self._serve(process)
        except* _BROKEN as group:
            _log.debug("mcp server %s ended: %r", self._name, group.exceptions)
            self._reason = self._reason or ("does not speak the protocol" if self._schemas is None else "broke the protocol")
        finally:
            await process.stop()

    async def _serve(self, process: ServerProcess) -> None:
        about = Implementation(name="agentos", version=__version__)
        async with Client(process.streams(), cache=None, client_info=about) as client:
            self._schemas = await _schemas_of(client)
            async with asyncio.TaskGroup() as calls:
                while (request := await self._queue.get()) is not None:
                    if not request.answer.done() and self._fits(request):
                        calls.create_task(self._perform(client, process, request), name=f"mcp call {self._name}")

    async def _perform(self, client: Client, process: ServerProcess, request: _Request) -> None:
        self._calls += 1
        try:
            if request.still is not None:
                await request.still()
            if request.answer.done():
                return
            request.begun = True
            sent = RequestParamsMeta({META_KEY: request.key})  # type: ignore[typeddict-unknown-key]
            _settle(request, await client.call_tool(request.tool, dict(request.args), meta=sent))
        except AgentOSError as error:
            _settle(request, error)
        except MCPError as error:
            if process.ended or error.code == CONNECTION_CLOSED:
                self._reason = self._reason or process.fault or "ended in the middle of the call"
                self._doomed = True
                self._queue.put_nowait(None)
            else:
                _settle(request, ToolRefused(f"{error.message} (code {error.code})"))
        except _BROKEN as error:
            _settle(request, ServerLost(self._say(f"gave an answer that is not valid: {error}")))
        finally:
            self._calls -= 1

    def _fits(self, request: _Request) -> bool:
        """Whether the server still offers the tool as it was declared; the request is answered if it does not."""
        offered = self._schemas or {}
        if request.tool not in offered:
            _settle(
                request,
                DriverError(
                    self._say(f"has no tool {request.tool!r}"),
                    mend=f"it offers: {', '.join(sorted(offered)) or 'none'}; update `tool` of the declaration",
                ),
            )
            return False
        if request.schema is None:
            return True
        try:
            now, declared = digest_of(offered[request.tool]), digest_of(request.schema)
        except NotCanonical as error:
            _settle(request, DriverError(self._say(f"has a schema for {request.tool!r} that is not plain JSON: {error}")))
            return False
        if now != declared:
            _settle(
                request,
                DriverError(
                    f"the schema of {request.tool!r} is not the declared one: declared {declared}, offered {now}",
                    where=self._name,
                    mend="the tool's schema has changed since it was declared: review it and update inputSchema",
                ),
            )
            return False
        return True

    def _say(self, what: str) -> str:
        words = self._process.last_words() if self._process is not None else ""
        return f"the server {self._name} {what}" + (f"; its last words: {words}" if words else "")


def _settle(request: _Request, outcome: CallToolResult | Exception) -> None:
    if request.answer.done():
        return
    if isinstance(outcome, Exception):
        request.answer.set_exception(outcome)
    else:
        request.answer.set_result(outcome)


async def _schemas_of(client: Client) -> dict[str, Json]:
    found: dict[str, Json] = {}
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found.update((tool.name, tool.input_schema) for tool in page.tools)
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise ValueError(f"the server lists its tools on more than {_MAX_PAGES} pages")
