"""The official SDK's server with the gateway behind it: tools, calls, and questions to the person at the client.

Clients of two eras come here. Those of 2025 shake hands, and are asked while their call is open (`elicitation/create`). Those of
2026-07-28 send each request for itself; what waits is given back to them as `input_required`, with a state that is sealed by this
process, and they come again with the answer. Who can do neither is told that the call waits in the inbox.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import mcp.types as mcp
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, ElicitRequest, ElicitRequestFormParams, ElicitResult

from agentos import __version__
from agentos.abi.canonical import Json, canonical
from agentos.abi.errors import AgentOSError
from agentos.gateway.desk import Gateway
from agentos.gateway.offer import DIGEST, refusal_of, result_of, tool_of
from agentos.gateway.seat import Client, Seat
from agentos.gateway.telling import FORM, plain, question, said
from agentos.gateway.upstream import Answer, Done, Tell, Waiting

NAME: Final = "agentos"
ARGS: Final = 1024 * 1024
"""Most bytes of a call's arguments, as canonical JSON."""

ANSWER_S: Final = 600.0
"""How long a person at the client may take for an answer; then the call stays in the inbox."""

LISTENERS: Final = 64
"""Clients that may listen for changes at a time."""

PENDING: Final = 256
"""Requests of all clients that may be in the works at a time."""

REFUSED: Final = "refused"
"""The step of a call that was no proper one, and so never was decided."""

_APPROVAL: Final = "approval"
_SESSION_ID: Final = "mcp-session-id"
_MODERN: Final = "2026-07-28"

Context = ServerRequestContext[Any, Any]


class _Server(Server[None]):
    """The SDK's server, which says in every handshake that its tools may change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As the SDK makes them, with `listChanged` of tools."""
        options = notification_options or NotificationOptions(tools_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


class _Handlers:
    """The requests that are answered."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._schemas: dict[str, dict[str, Json]] = {}

    def schema(self, name: str) -> dict[str, Json] | None:
        """The arguments of a tool as they were last listed, without asking the runtime."""
        return self._schemas.get(name)

    async def list_tools(self, ctx: Context, _: mcp.PaginatedRequestParams | None) -> mcp.ListToolsResult:
        """All tools, on one page: an agent has few."""
        try:
            seat = await self._seat(ctx)
            tools = await seat.tools()
        except AgentOSError as error:
            raise MCPError(INTERNAL_ERROR, error.message, {"code": error.code}) from error
        self._schemas = {tool.name: tool.input_schema for tool in tools}
        # What an agent is granted is nobody else's, and may change at any time.
        return mcp.ListToolsResult(tools=[tool_of(tool) for tool in tools], ttl_ms=0, cache_scope="private")

    async def call_tool(self, ctx: Context, params: mcp.CallToolRequestParams) -> mcp.CallToolResult | mcp.InputRequiredResult:
        """One call, through the gate of the runtime."""
        args = _arguments(params)
        tell = _progress(ctx)
        try:
            seat = await self._seat(ctx)
            if params.request_state is not None:
                return await self._again(ctx, seat, params, args, tell)
            answer = await seat.call(params.name, args, _pin(ctx), tell)
            if isinstance(answer, Done) and answer.step == REFUSED and not await seat.knows(params.name):
                # The log has it as a call that was refused; to the client it is a request that was none.
                raise MCPError(INVALID_PARAMS, f"unknown tool: {plain(params.name)[:128]}")
            return await self._told(ctx, seat, answer, params.name, args, tell)
        except AgentOSError as error:
            return refusal_of(error)

    async def _told(
        self, ctx: Context, seat: Seat, answer: Answer, tool: str, args: dict[str, Json], tell: Tell
    ) -> mcp.CallToolResult | mcp.InputRequiredResult:
        """The result of a call; of one that waits the question to the person at the client, where one may be asked."""
        text = question(answer, self._gateway.agent) if isinstance(answer, Waiting) and self._may_ask(ctx) else None
        if text is None or not isinstance(answer, Waiting):
            return result_of(answer)
        form = ElicitRequest(params=ElicitRequestFormParams(message=text, requested_schema=FORM))
        if ctx.protocol_version >= _MODERN:
            state = json.dumps({"session": seat.session, "call": answer.call, "digest": answer.question["args_digest"]})
            return mcp.InputRequiredResult(input_requests={_APPROVAL: form}, request_state=state)
        try:
            with seat.asking(answer.call):
                reply = await ctx.session.send_request(
                    form,
                    ElicitResult,
                    request_read_timeout_seconds=ANSWER_S,
                    metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
                )
        except (MCPError, NoBackChannelError, ValueError) as error:
            return result_of(answer, f"the client gave no answer ({type(error).__name__})")
        except anyio.get_cancelled_exc_class():
            await seat.give_up(answer.call)
            raise
        return await self._heard(seat, answer, reply, tool, args, tell)

    async def _again(
        self, ctx: Context, seat: Seat, params: mcp.CallToolRequestParams, args: dict[str, Json], tell: Tell
    ) -> mcp.CallToolResult | mcp.InputRequiredResult:
        """A request that comes again with what a person answered; its state is one that we have sealed, for these arguments."""
        state = json.loads(params.request_state or "null")
        if state["session"] != await seat.opened():
            raise MCPError(INVALID_PARAMS, "this question was asked in another session")
        answer = await seat.after(state["call"], params.name, args, tell, wait_ms=0)
        reply = (params.input_responses or {}).get(_APPROVAL)
        if not isinstance(answer, Waiting):
            return result_of(answer)
        if answer.behind or answer.question["args_digest"] != state["digest"] or not isinstance(reply, ElicitResult):
            return await self._told(ctx, seat, answer, params.name, args, tell)
        return await self._heard(seat, answer, reply, params.name, args, tell)

    async def _heard(
        self, seat: Seat, waiting: Waiting, reply: ElicitResult, tool: str, args: dict[str, Json], tell: Tell
    ) -> mcp.CallToolResult:
        """Pass on what a person answered."""
        if reply.action == "cancel":
            return result_of(waiting, "the question was dismissed")
        content = reply.content if reply.action == "accept" else {"approve": False}
        answer, why = await self._gateway.answered(seat, waiting, said(content, seat.client.name), tool, args, tell)
        return result_of(answer, why)

    def _may_ask(self, ctx: Context) -> bool:
        has = ctx.session.client_capabilities
        if not self._gateway.can_ask or has is None or has.elicitation is None:
            return False
        # Before there were modes, elicitation meant a form.
        form = has.elicitation.form is not None or has.elicitation.url is None
        return form and (ctx.protocol_version >= _MODERN or ctx.session.can_send_request)

    async def _seat(self, ctx: Context) -> Seat:
        """Where whoever asks sits: by its MCP session where there is one, else by what it says of itself."""
        known = ctx.session.client_params
        client = (
            Client(_word(known.client_info.name), _word(known.client_info.version)) if known else Client("unknown", "unknown")
        )
        # Without one there is a pipe, and one client at its end, or a request that stands for itself. What that says in the
        # header is not looked at: in the stateless era nobody has checked it.
        legacy = ctx.protocol_version < _MODERN
        mcp_session = ctx.request.headers.get(_SESSION_ID) if legacy and ctx.request is not None else None
        key = f"id {mcp_session}" if mcp_session else f"client {client.name!r} {client.version!r}"
        news = ctx.session.send_tool_list_changed if legacy else None
        return await self._gateway.seat(key, client, news)


class _Room:
    """How many requests are in the works; who is one too many is told so at once."""

    def __init__(self) -> None:
        self._number = 0

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        # Notifications are never refused: an answer or a cancellation may be what frees a place.
        if ctx.request_id is None or ctx.method == "subscriptions/listen":
            return await call_next(ctx)
        if self._number >= PENDING:
            raise MCPError(INTERNAL_ERROR, f"{PENDING} requests are in the works; ask again later")
        self._number += 1
        try:
            return await call_next(ctx)
        finally:
            self._number -= 1


def server_of(gateway: Gateway) -> Server[None]:
    """A server of the official SDK that serves `gateway`; it watches for changes of the tools while it runs."""
    bus = InMemorySubscriptionBus()
    handlers = _Handlers(gateway)

    @asynccontextmanager
    async def lifespan(_: Server[None]) -> AsyncIterator[None]:
        async def changed() -> None:
            await bus.publish(ToolsListChanged())

        async with anyio.create_task_group() as group:
            group.start_soon(gateway.watch, changed)
            try:
                yield
            finally:
                group.cancel_scope.cancel()
                with anyio.move_on_after(10, shield=True):
                    await gateway.close()

    server = _Server(
        NAME,
        version=__version__,
        title=f"AgentOS: agent {gateway.agent}",
        instructions="Every call is decided by policy and recorded. A call may be denied, or wait for a person's approval.",
        lifespan=lifespan,
        get_tool_input_schema=handlers.schema,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_subscriptions_listen=ListenHandler(bus, max_subscriptions=LISTENERS),
    )
    server.middleware.append(_Room())
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=f"{NAME}/{gateway.agent}"))
    return server


def _arguments(params: mcp.CallToolRequestParams) -> dict[str, Json]:
    """The arguments of a call. Raises MCPError for what no event of the log could hold, or is larger than ARGS."""
    args: dict[str, Json] = params.arguments or {}
    try:
        size = len(canonical({"name": params.name, "args": args}))
    except (ValueError, RecursionError) as error:
        raise MCPError(INVALID_PARAMS, f"arguments that cannot be recorded: {error}") from error
    if size > ARGS:
        raise MCPError(INVALID_PARAMS, f"arguments of {size} bytes; {ARGS} at most")
    return args


def _pin(ctx: Context) -> str | None:
    """The digest of the tool that the client means, where it says one."""
    given = (ctx.meta or {}).get(DIGEST)
    if given is not None and not isinstance(given, str):
        raise MCPError(INVALID_PARAMS, f"{DIGEST} is a text")
    return given


def _progress(ctx: Context) -> Tell:
    """Tells the client, each time, that its call is still under way."""
    rounds = 0

    async def tell() -> None:
        nonlocal rounds
        rounds += 1
        await ctx.session.report_progress(float(rounds), message="the call is under way")

    return tell


def _word(text: str) -> str:
    """A client's word for itself, made fit for a log."""
    return "".join(char if char.isprintable() else " " for char in text)[:64].strip() or "unknown"
