"""One warm MCP server: a link, a client, and the task that owns both.

The SDK's client lives in cancel scopes that must be left by the task that entered them, while calls come from the tasks of
many turns. So an owner task reaches the server, performs calls from a queue, each in a task below it, and lets the server go;
callers wait for a future. Calls that come at once are made at once, unless requests of the server have to be told apart: whether
they may is the caller's to know. A call that is given up kills the server, and with it the others: that is the only way to be
sure that the work stops.

Before each call the server lists its tools, and is not called if it offers another one than was declared. A server that nobody
has called for its idle time leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio
from mcp import Client, MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    RequestParamsMeta,
)
from pydantic import TypeAdapter

from agentos import __version__
from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, DriverError
from agentos.credentials.lease import Leases
from agentos.drivers.adapters.mcp_link import GRACE_S, Connect, Current, Link
from agentos.drivers.adapters.mcp_offer import Wanted, offered, refused
from agentos.egress.asking import Gatekeeper

META_KEY: Final = "agentos/idempotency-key"
"""Under this name the key of a call stands in its `_meta`."""

AT_WORK: Final[ContextVar[Current | None]] = ContextVar("agentos_mcp_at_work", default=None)
"""The call that the running task works for: what the SDK sends for it is sent in its context."""

_BROKEN: Final = (
    MCPError,
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)
"""What the SDK raises when a server does not keep to the protocol (pydantic's ValidationError is a ValueError)."""

_ANSWER: Final[TypeAdapter[CallToolResult | InputRequiredResult]] = TypeAdapter(CallToolResult | InputRequiredResult)

# The SDK writes what servers say into its log, tracebacks with their words among it: that may be a credential.
logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)


class ServerLost(Exception):
    """The server ended, or answered nonsense, after the call was sent."""


class ToolRefused(Exception):
    """The server answered the call with a protocol error."""


class Timer(Protocol):
    """A call that is due some time; `loop.call_later` gives them."""

    def cancel(self) -> None:
        """It is not to be made."""


Later = Callable[[float, Callable[[], None]], Timer]
"""Has something called after so many seconds."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a server is asked to perform it."""

    wanted: Wanted
    args: Mapping[str, Json]
    key: str
    """Goes with the call, so that the server can tell a repeated one."""
    still: Callable[[], Awaitable[None]] | None = None
    """Awaited just before it is sent; what it raises is raised, and nothing is sent."""
    net: Gatekeeper | None = None
    leases: Leases | None = None


_Outcome = CallToolResult | Exception | None


@dataclass(eq=False, slots=True)
class _Request:
    call: Call
    answer: asyncio.Future[CallToolResult]
    begun: bool = field(default=False)


class WarmServer:
    """A server that stays up between calls. Starts at once, in a task of its own."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        idle_s: float,
        later: Later | None = None,
        alone: bool = False,
    ) -> None:
        """It leaves when nobody has called it for `idle_s` seconds. `alone`: it is at work for one call at a time."""
        self._name = name
        self._idle_s = idle_s
        self._later: Later = asyncio.get_running_loop().call_later if later is None else later
        self._timer: Timer | None = None
        self._queue: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._turns = asyncio.Semaphore(1) if alone else contextlib.nullcontext()
        self._calls: set[asyncio.Task[None]] = set()
        self._given_up: list[Current] = []
        self._link: Link | None = None
        self._report: Mapping[str, Json] = {}
        self._up = self._doomed = self._killed = False
        self._reason = ""
        self._failure: AgentOSError | None = None
        self._task = asyncio.create_task(self._own(connect), name=f"mcp server {name}")

    @property
    def alive(self) -> bool:
        """Whether a call may still be given to it."""
        return not (self._task.done() or self._doomed or (self._link is not None and self._link.ended))

    @property
    def report(self) -> Mapping[str, Json]:
        """What the log is told of where it works; empty as long as it has not started."""
        return self._report

    async def call(self, call: Call, timeout_s: float) -> CallToolResult:
        """Perform one call, its wait in the queue and the start of the server included in `timeout_s`.

        Raises DriverError if it surely was not sent, ToolRefused, ServerLost, or TimeoutError if it was sent and not answered.
        """
        self._busy()
        request = _Request(call, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(request)
        try:
            async with asyncio.timeout(timeout_s):
                waited: set[asyncio.Future[Any]] = {request.answer, self._task}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            if request.begun:
                await self._give_up()
                raise
            if not self._up:
                self.kill()
                raise DriverError(self._say(f"did not start within {timeout_s:g} s")) from None
            if len(self._calls) > 1 or self._queue.qsize():
                raise DriverError(self._say(f"was busy with another call for {timeout_s:g} s")) from None
            self.kill()
            raise DriverError(self._say(f"did not say within {timeout_s:g} s what it offers")) from None
        except asyncio.CancelledError:
            if request.begun or not self._up:
                await self._give_up()
            raise
        finally:
            if not request.answer.done():
                request.answer.cancel()
        if not request.answer.cancelled():
            return request.answer.result()
        if request.begun:
            raise ServerLost(self._say(self._reason or "ended in the middle of the call"))
        if self._failure is not None:
            raise self._failure
        raise DriverError(self._say(self._reason or "ended before the call was sent"))

    async def _give_up(self) -> None:
        self.kill()
        if self._link is not None and self._link.polite:
            await asyncio.wait({self._task}, timeout=GRACE_S)

    def kill(self) -> None:
        """Stop it now, whatever it does. `stop` still has to be awaited."""
        self._killed = True
        self.retire()
        if self._link is not None:
            self._link.kill()
        if not self._up:
            self._task.cancel()

    def retire(self) -> None:
        """Give it no call any more, and let it leave when those that it has are done."""
        self._doomed = True
        self._busy()
        self._queue.put_nowait(None)

    async def stop(self) -> None:
        """Let it leave in peace if it is idle, kill it if it is in a call; return when it is gone."""
        if self._calls or not self._up:
            self.kill()
        await self.gone()

    async def gone(self) -> None:
        """Return when it is gone; it is given no call any more."""
        self.retire()
        await asyncio.wait({self._task})

    def _busy(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rest(self) -> None:
        """Wait for the next call, if nothing is being done."""
        if not (self._doomed or self._calls or self._queue.qsize()):
            self._busy()
            self._timer = self._later(self._idle_s, self.retire)

    async def _own(self, connect: Connect) -> None:
        current = Current()
        AT_WORK.set(current)
        try:
            first = await self._queue.get()
            if first is not None:
                self._attend(current, first)
                await self._open(connect, current, first)
        except asyncio.CancelledError:
            if not self._killed:
                raise
        finally:
            self._doomed = True
            self._busy()
            current.end()

    async def _open(self, connect: Connect, current: Current, first: _Request) -> None:
        try:
            async with connect(current) as link:
                self._link, self._report = link, link.report
                if not self._killed:
                    await self._serve(link, current, first)
        except* AgentOSError as group:
            self._failure = _first(group)
        except* _BROKEN as group:
            if self._link is None:
                self._reason = f"cannot be started: {_first(group)}"
            else:
                self._failure = self._failure or current.refused
                self._reason = (
                    self._reason or self._link.fault or ("broke the protocol" if self._up else "does not speak the protocol")
                )

    async def _serve(self, link: Link, current: Current, first: _Request) -> None:
        about = Implementation(name="agentos", version=__version__)
        async with Client(link.streams(), cache=None, client_info=about) as client:
            self._up = True
            current.end()
            request: _Request | None = first
            async with asyncio.TaskGroup() as group:
                while request is not None:
                    if not request.answer.done():
                        task = group.create_task(self._perform(client, link, current, request), name=f"mcp call {self._name}")
                        self._calls.add(task)
                        task.add_done_callback(self._done)
                    else:
                        self._rest()
                    request = await self._queue.get()
                if self._killed:
                    for task in self._calls:
                        task.cancel()
            if self._killed:
                await link.farewell()
                for one in self._given_up:
                    one.end()

    def when_gone(self, told: Callable[[], None]) -> None:
        """Have `told` called once it is gone."""
        self._task.add_done_callback(lambda _: told())

    def _done(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._rest()

    def _attend(self, current: Current, request: _Request) -> None:
        current.gatekeeper, current.held = request.call.net, request.call.leases
        current.refused, current.sent = None, False

    async def _perform(self, client: Client, link: Link, current: Current, request: _Request) -> None:
        async with self._turns:
            if request.answer.done():
                return
            if not isinstance(self._turns, asyncio.Semaphore):
                # Several may be at work, and each one's requests are its own.
                current = Current()
                AT_WORK.set(current)
            self._attend(current, request)
            link.begin()
            outcome: _Outcome = None
            try:
                outcome = await self._send(client, link, current, request)
            finally:
                if not self._killed:
                    current.end()
                else:
                    # That it was given up is still to be told, in its name.
                    self._given_up.append(current)
            if current.cut is not None:
                await current.cut()
            _settle(request, outcome)

    async def _send(self, client: Client, link: Link, current: Current, request: _Request) -> _Outcome:
        """What comes of the call; None: nothing will, since the server is lost."""
        call = request.call
        try:
            problem = refused(call.wanted, await offered(client), self._name)
            if problem is None and call.still is not None:
                await call.still()
            if problem is not None or request.answer.done():
                return problem
            request.begun = current.sent = True
            sent = RequestParamsMeta({META_KEY: call.key})  # type: ignore[typeddict-unknown-key]
            params = CallToolRequestParams(name=call.wanted.name, arguments=dict(call.args), _meta=sent)
            # Not by `call_tool`: that one runs the patterns of the server's own outputSchema, which may never come to an end.
            answer = await client.session.send_request(CallToolRequest(params=params), _ANSWER)
        except AgentOSError as error:
            return error
        except MCPError as error:
            return self._erred(error, link, current, request)
        except _BROKEN as error:
            if request.begun:
                return ServerLost(self._say(f"gave an answer that is not valid: {_brief(error)}"))
            return self._not_listed(_brief(error))
        if isinstance(answer, InputRequiredResult):
            return ToolRefused("it asks for something that only a person or a model could answer")
        return answer

    def _erred(self, error: MCPError, link: Link, current: Current, request: _Request) -> _Outcome:
        if current.refused is not None:
            return current.refused
        if link.ended or (request.begun and link.polite and error.code == CONNECTION_CLOSED):
            self._reason = self._reason or link.fault or ""
            self.retire()
            return None
        why = f"{error.message} (code {error.code})"
        return ToolRefused(why) if request.begun else self._not_listed(why)

    def _not_listed(self, why: str) -> DriverError:
        """It does not tell what it offers, so it is of no use any more; the next call has another one."""
        self.retire()
        return DriverError(self._say(f"did not list its tools: {why}"))

    def _say(self, what: str) -> str:
        words = self._link.last_words() if self._link is not None else ""
        return f"the server {self._name} {what}" + (f"; its last words: {words}" if words else "")


def _first(group: BaseExceptionGroup[Any]) -> Any:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _brief(error: Exception) -> str:
    """What is wrong, without the pages that a validator writes."""
    return str(error).replace("\n", " ")[:300]


def _settle(request: _Request, outcome: _Outcome) -> None:
    if request.answer.done():
        return
    if isinstance(outcome, Exception):
        request.answer.set_exception(outcome)
    elif outcome is not None:
        request.answer.set_result(outcome)
