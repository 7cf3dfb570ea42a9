"""An MCP server at an address, spoken to over Streamable HTTP, and the transport that its requests leave by.

Every request is one of the call that it is made for: it is asked about at that call's gatekeeper, carries that call's credentials
to the hosts of their secrets, and does not leave once the call is over. So there is no stream of the server's own beside the
calls, no redirect is followed, no session is ended by a request of nobody, and what was refused is told as what it is.

A call that is given up is cancelled by the protocol, and then the connections are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import anyio
import httpx2
from mcp.client._transport import ReadStream, WriteStream
from mcp.client.streamable_http import LAST_EVENT_ID, streamable_http_client
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, JSONRPCError, JSONRPCNotification, jsonrpc_message_adapter
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentos import __version__
from agentos.abi.canonical import Json, canonical
from agentos.abi.errors import AgentOSError, DriverError
from agentos.credentials.reference import Credential
from agentos.drivers.adapters.mcp_link import GRACE_S, MAX_MESSAGE, Current
from agentos.drivers.adapters.mcp_server import AT_WORK
from agentos.drivers.adapters.mcp_sieve import CANCELLED, Sieve
from agentos.drivers.port import CallContext
from agentos.egress.adapters.outbound import Outbound
from agentos.egress.adapters.wire import system_resolver
from agentos.egress.addresses import Resolver, is_private, networks
from agentos.egress.asking import Gatekeeper, NetDenied
from agentos.egress.outbound import Bounds, HeaderCredential

MAX_RESPONSE: Final = 64 * 1024 * 1024
"""Most bytes of one response that is a stream of events; one event, or a response that is none, has MAX_MESSAGE."""

MAX_REQUESTS: Final = 200
"""Most requests between the beginnings of two calls: a server that breaks off its answers is asked to go on so often only."""

_IDLE_S: Final = 3600.0
"""Seconds without a byte: as long as a call may take. The deadline of the call is what bounds it."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server that listens: where, which headers go along, and which of them are credentials, as the declaration says."""

    url: str
    headers: Mapping[str, str]
    private: tuple[str, ...] = ()
    credentials: tuple[Credential, ...] = ()
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each secret: the only hosts that it is sent to."""
    resolver: Resolver = system_resolver

    @classmethod
    def of(cls, declared: Mapping[str, Json], credentials: Sequence[Credential], context: CallContext) -> Address:
        """The address of a declared server, for a tool with these credentials. Raises DriverError for one that goes elsewhere."""
        for one in credentials:
            if not one.header:
                raise DriverError(
                    "a server at an address has no environment and no files", mend="hand the credential over by `header`"
                )
        return cls(
            str(declared["url"]),
            {str(name): str(value) for name, value in declared.get("headers", {}).items()},
            tuple(declared.get("private", ())),
            tuple(credentials),
            {name: ref.hosts for name, ref in context.secrets.items()},
        )

    @property
    def shown(self) -> str:
        """What the server is called in messages: its host."""
        return httpx2.URL(self.url).host

    def outbound(self) -> Outbound:
        """The way out to it, for whichever call is at work. Raises NetDenied."""
        return Outbound(
            _gatekeeper,
            private=self.private,
            credentials=[HeaderCredential(one.header, _value(one), self.hosts.get(one.secret, ())) for one in self.credentials],
            bounds=Bounds(idle_s=_IDLE_S, seconds=None, body_bytes=MAX_RESPONSE, request_bytes=2 * MAX_MESSAGE),
            resolver=self.resolver,
        )

    async def plain(self) -> None:
        """Raises NetDenied for plain http that would leave this machine and the networks that are declared."""
        url = httpx2.URL(self.url)
        if url.scheme == "https":
            return
        ranges = networks(self.private)
        try:
            found = [url.host] if _is_address(url.host) else await self.resolver(url.host, url.port or 80)
        except OSError as error:
            raise NetDenied(f"there is no address of {url.host}") from error
        if not all(_is_address(one) and is_private(ipaddress.ip_address(one), ranges) for one in found):
            raise NetDenied(
                f"{url.host} is not in a network that `private` names, and plain http goes nowhere else",
                mend="write an https address, or name its network under `private`",
            )


@asynccontextmanager
async def reached(address: Address, current: Current) -> AsyncIterator[HttpLink]:
    """A link to the server, which has not been spoken to yet. Raises NetDenied."""
    del current  # each request finds its call by itself, as several may be at work
    await address.plain()
    guard = Guard(address.outbound())
    headers = {**address.headers, "User-Agent": f"agentos/{__version__}"}
    async with httpx2.AsyncClient(transport=guard, headers=headers, timeout=None, trust_env=False) as client:
        yield HttpLink(address.url, client, guard)


class Guard(httpx2.AsyncBaseTransport):
    """Between the SDK and the way out: what cannot be answered is answered here, in words of the protocol.

    An error that the SDK met in a request would end its whole session, and nobody would know which call it was of.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner
        self._requests = 0
        self.fault: str | None = None
        self.told = asyncio.Event()
        """Whether a cancellation has reached the server, or has failed to."""
        self.modern = False
        """Whether the protocol is one in which closing a response is how a request is cancelled."""

    def begin(self) -> None:
        """A call begins: its requests are counted anew."""
        self._requests = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET" and LAST_EVENT_ID not in request.headers:
            # A stream for what the server says beside its answers: nobody listens, and it would be a request of no call.
            return httpx2.Response(405, request=request)
        self.modern = request.headers.get(MCP_PROTOCOL_VERSION_HEADER, "") in MODERN_PROTOCOL_VERSIONS
        self._requests += 1
        current = AT_WORK.get() or Current()
        if current.refused is not None:
            return _refusal(request, current.refused.message)
        # What is asked for after the call was sent may be refused, and the call has been made all the same.
        after = current.sent and (request.method != "POST" or _CALL not in request.content)
        try:
            if self._requests > MAX_REQUESTS:
                raise NetDenied(f"made more than {MAX_REQUESTS} requests necessary")
            response = await self._inner.handle_async_request(request)
            return await self._checked(request, response)
        except (AgentOSError, httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if after:
                self.fault = f"was lost in the middle of the call: {error}"
            elif isinstance(error, AgentOSError):
                current.refused = error
            else:
                current.refused = DriverError(f"the server cannot be reached: {error}")
            return _refusal(request, str(error))
        except httpx2.TransportError as error:
            self.fault = f"was lost in the middle of the call: {error}"
            return _refusal(request, str(error))
        finally:
            if request.method == "POST" and f'"{CANCELLED}"'.encode() in request.content:
                self.told.set()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _checked(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        if 300 <= response.status_code < 400:
            await response.aclose()
            self.fault = f"answered with a redirect (status {response.status_code}), and redirects are not followed"
            return _refusal(request, self.fault)
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            return response
        # Read here, and not by the SDK, so that neither its size nor a loss in the middle is a surprise to it.
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_MESSAGE:
                    self.fault = f"sent a message of more than {MAX_MESSAGE} bytes"
                    return _refusal(request, self.fault)
        finally:
            await response.aclose()
        if response.status_code >= 400 and not _is_error(bytes(body)):
            if response.status_code >= 500:
                self.fault = f"answered with status {response.status_code}"
                return _refusal(request, self.fault)
            if response.status_code != 404:
                return _refusal(request, f"it answered with status {response.status_code}", INVALID_REQUEST)
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _FRAMING]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)


_CALL: Final = b'"method":"tools/call"'
_FRAMING: Final = {b"content-length", b"transfer-encoding", b"content-encoding"}


class HttpLink:
    """A server at an address."""

    polite = True
    report: Mapping[str, Json] = {}

    def __init__(self, url: str, client: httpx2.AsyncClient, guard: Guard) -> None:
        self._url = url
        self._client = client
        self._guard = guard
        self._sieve = Sieve(self._fail)
        self._cancelled = False
        self.ended = False

    @property
    def fault(self) -> str | None:
        """What the server did wrong, or what was lost."""
        return self._guard.fault

    def last_words(self) -> str:
        """Nothing: it says nothing beside the protocol."""
        return ""

    def begin(self) -> None:
        """A call begins."""
        self._guard.begin()
        self._sieve.begin()

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[tuple[_Hearing, _Telling]]:
        """The transport for `mcp.Client`."""
        async with streamable_http_client(
            self._url, http_client=self._client, terminate_on_close=False, max_sse_event_size=MAX_MESSAGE
        ) as (read, write):
            yield _Hearing(read, self), _Telling(write, self)

    async def farewell(self) -> None:
        """Wait until the server was told that a call was given up. Where closing says it, there is nothing to wait for."""
        if self._cancelled and not self._guard.modern:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._guard.told.wait()

    def kill(self) -> None:
        """Nothing of it runs here; who owns the link closes it."""

    def heard(self, item: SessionMessage | Exception) -> SessionMessage | Exception | None:
        """What the client is to hear of an item of the stream; None: nothing."""
        heard = self._sieve.heard(item.message if isinstance(item, SessionMessage) else None)
        return None if heard is None else item

    def sent(self, item: SessionMessage) -> None:
        """The client tells the server this."""
        self._sieve.sent(item.message)
        if isinstance(item.message, JSONRPCNotification) and item.message.method == CANCELLED:
            self._cancelled = True

    def _fail(self, fault: str) -> None:
        self._guard.fault = self._guard.fault or fault
        self.ended = True


class _Hearing:
    """What the client reads: the SDK's stream, without what the sieve keeps back. It ends when the server was given up."""

    def __init__(self, inner: ReadStream[SessionMessage | Exception], link: HttpLink) -> None:
        self._inner = inner
        self._link = link

    async def receive(self) -> SessionMessage | Exception:
        while True:
            item = await self._inner.receive()
            message = self._link.heard(item)
            if self._link.ended:
                raise anyio.EndOfStream
            if message is not None:
                return message

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class _Telling:
    """What the client writes to: the SDK's stream, which sends each message in the context of whoever wrote it."""

    def __init__(self, inner: WriteStream[SessionMessage], link: HttpLink) -> None:
        self._inner = inner
        self._link = link

    async def send(self, item: SessionMessage, /) -> None:
        self._link.sent(item)
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


def _gatekeeper() -> Gatekeeper | None:
    current = AT_WORK.get()
    return None if current is None else current.gatekeeper


def _value(credential: Credential) -> Callable[[], str]:
    def rendered() -> str:
        return credential.render((AT_WORK.get() or Current()).value(credential.secret))

    return rendered


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_error(body: bytes) -> bool:
    """Whether it is an error in words of the protocol."""
    try:
        return isinstance(jsonrpc_message_adapter.validate_json(body, by_name=False), JSONRPCError)
    except ValueError:
        return False


def _refusal(request: httpx2.Request, message: str, code: int = CONNECTION_CLOSED) -> httpx2.Response:
    """An error of the protocol in place of an answer; the SDK hands it to whoever made the request."""
    error = {"code": code, "message": message[:500]}
    return httpx2.Response(
        503,
        headers={"content-type": "application/json"},
        content=canonical({"jsonrpc": "2.0", "id": None, "error": error}),
        request=request,
    )
