"""The one way in which a request leaves, whoever makes it: asked about, looked up once, checked, pinned, bounded, and told of.

    passage = Passage(lambda: context.net, private=("10.0.0.0/16",), credentials=(…))
    answer  = await passage.exchange(Wanted(NetRequest(…), headers=(…)), body)     # an HTTP request; `answer.chunks()`, `close()`
    tunnel  = await passage.tunnel("api.example.com", 443)                         # bytes that nobody looks into

The order is always: the gatekeeper, the name server, every address, the connection to one of them, TLS by the name, and only
then the credentials. Whoever was asked is told once how it ended, also when the work is cancelled. Each request has a connection
of its own, so that nothing of one can reach another.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any, Final

import h11

from agentos.abi.errors import AgentOSError
from agentos.egress.adapters.wire import StreamWire, Unreachable, connect, system_resolver
from agentos.egress.addresses import Address, Resolver, check, is_private, networks
from agentos.egress.asking import Gatekeeper, NetDenied, NetRequest, Permit, Scheme
from agentos.egress.headers import Headers, Wanted, forwarded, with_credential
from agentos.egress.names import written
from agentos.egress.outbound import Bounds, HeaderCredential, credentials_for

_TRIED: Final = 4
"""Most addresses of a name that are tried; all are judged."""

_telling: set[asyncio.Task[None]] = set()
"""What is being told after whoever made the request was cancelled: a task that nobody holds may vanish."""


class Broken(Exception):
    """It was lost after something may have been sent, so nobody knows what came of it. No words of the other side are in it."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class Told:
    """A permit that is told once how it ended. Being told outlives a cancellation of the teller."""

    def __init__(self, permit: Permit) -> None:
        self._permit: Permit | None = permit

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            await _whole(permit.finished(status=status, sent=sent, received=received, address=address))

    async def failed(self, message: str) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            await _whole(permit.failed(message))


class Answer:
    """A response whose head is there. `chunks` is read once; `close` must follow in any case."""

    def __init__(self, line: _Line, head: h11.Response) -> None:
        self.status = head.status_code
        self.reason = bytes(head.reason)
        self.headers: Headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
        self._line = line

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, within the bounds. Raises Broken."""
        try:
            while (data := await self._line.next_data()) is not None:
                yield data
        except Broken as error:
            await self._line.lost(str(error))
            raise
        except asyncio.CancelledError:
            await self._line.lost("nobody waited for the rest of the response")
            raise

    async def close(self) -> None:
        """Let go of the connection and tell how it ended; what was not read is not waited for."""
        await self._line.done(self.status)

    async def abandon(self, message: str) -> None:
        """Let go of the connection and tell that it came to nothing."""
        await self._line.lost(message)


class Tunnel:
    """Bytes both ways. Its user reads and writes `wire`, counts, and closes it."""

    def __init__(self, wire: StreamWire, told: Told, address: str) -> None:
        self.wire = wire
        self.sent = 0
        self.received = 0
        self._told = told
        self._address = address

    async def close(self) -> None:
        """Let go of the connection and tell."""
        self.wire.abort()
        await self._told.finished(status=None, sent=self.sent, received=self.received, address=self._address)


class Passage:
    """A way out with one set of rules: who is asked, which private ranges are open, which credentials go where."""

    def __init__(
        self,
        gatekeeper: Callable[[], Gatekeeper | None],
        *,
        private: Sequence[str] = (),
        credentials: Sequence[HeaderCredential] = (),
        bounds: Bounds | None = None,
        resolver: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`gatekeeper` gives who decides now; None from it: nothing leaves. Raises NetDenied for a range that is none."""
        self._gatekeeper = gatekeeper
        self._private = networks(private)
        self._credentials = tuple(credentials)
        self.bounds = bounds or Bounds()
        self._resolver = resolver
        self._tls = tls

    async def exchange(self, wanted: Wanted, body: AsyncIterable[bytes] | None, bounds: Bounds | None = None) -> Answer:
        """Make the request, and give its response as soon as the head is there. `bounds`: those of this request alone.

        Raises NetDenied and Unreachable when nothing has left, Broken when something may have, what the gatekeeper raises, what
        a credential raises (nothing has left then), and what `body` raises.
        """
        told = Told(await self._asked(wanted.request))
        bounds = bounds or self.bounds
        line = _Line(told, bounds, bounds.seconds)
        try:
            request = wanted.request
            context = (self._tls or default_context()) if request.scheme is Scheme.HTTPS else None
            wire, address = await self._reach(request.host, request.port, context, line)
            line.bind(wire, str(address))
            headers = self._dressed(wanted, address)
            await line.send_head(request.method or "GET", wanted.target.wire(), headers)
            await line.send_body(body)
            return Answer(line, await line.head())
        except BaseException as error:
            await line.lost(_why(error))
            raise

    async def tunnel(self, host: str, port: int) -> Tunnel:
        """A connection for bytes that nobody looks into. Raises NetDenied, Unreachable, and what the gatekeeper raises."""
        told = Told(await self._asked(NetRequest(Scheme.TUNNEL, host, port)))
        line = _Line(told, self.bounds, None)
        try:
            wire, address = await self._reach(host, port, None, line)
        except BaseException as error:
            await told.failed(_why(error))
            raise
        return Tunnel(wire, told, str(address))

    async def _asked(self, request: NetRequest) -> Permit:
        gatekeeper = self._gatekeeper()
        if gatekeeper is None:
            raise NetDenied("no call is under way that a request could be made for")
        return await gatekeeper.ask(request)

    async def _reach(self, host: str, port: int, context: ssl.SSLContext | None, line: _Line) -> tuple[StreamWire, Address]:
        """A connection to the first of the checked addresses that answers."""
        lost: Unreachable | None = None
        for address in check(await self._addresses(host, port, line), self._private, host)[:_TRIED]:
            seconds = line.at_most(line.bounds.connect_s)
            try:
                return await connect(address, port, host, context, seconds), address
            except Unreachable as error:
                lost = error
                if isinstance(error.__cause__, ssl.SSLError):
                    break
        raise lost or Unreachable(f"{host} leads to no address")

    async def _addresses(self, host: str, port: int, line: _Line) -> Sequence[str]:
        if ":" in host or host.rpartition(".")[2].isdigit():
            return [host]
        try:
            async with asyncio.timeout(line.at_most(line.bounds.connect_s)):
                return await self._resolver(host, port)
        except TimeoutError as error:
            raise Unreachable(f"no name server told the address of {host} in time", late=True) from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"there is no address of {host}") from error

    def _dressed(self, wanted: Wanted, address: Address) -> list[tuple[bytes, bytes]]:
        """The headers as they go out, the credentials of this host among them. They exist from here until they are sent."""
        request = wanted.request
        headers = forwarded(wanted.headers)
        headers.insert(0, (b"Host", written(request.host, request.port, str(request.scheme)).encode("ascii")))
        headers.append((b"Connection", b"close"))
        for credential in credentials_for(self._credentials, request.host):
            if request.scheme is not Scheme.HTTPS and not is_private(address, self._private):
                raise NetDenied(
                    f"the credential for {request.host} is not sent over plain http", mend="make the request over https"
                )
            headers = with_credential(headers, credential.header, credential.value())
        return headers


class _Line:
    """One request on one connection: HTTP/1.1 by h11, counted and bounded."""

    def __init__(self, told: Told, bounds: Bounds, seconds: float | None) -> None:
        self.bounds = bounds
        self._told = told
        self._clock = asyncio.get_running_loop().time
        self._until = None if seconds is None else self._clock() + seconds
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=bounds.header_bytes)
        self._wire: StreamWire | None = None
        self._address = ""
        self._sent = self._received = self._body = 0

    def bind(self, wire: StreamWire, address: str) -> None:
        self._wire, self._address = wire, address

    def at_most(self, seconds: float) -> float:
        """`seconds`, or what is left of the whole."""
        return seconds if self._until is None else max(0.0, min(seconds, self._until - self._clock()))

    async def send_head(self, method: str, target: str, headers: list[tuple[bytes, bytes]]) -> None:
        try:
            head = self._http.send(h11.Request(method=method, target=target, headers=headers))
        except h11.LocalProtocolError:
            # Its message would repeat the value, which may be a credential; so would the chain.
            raise NetDenied("a header of the request cannot be sent as it is") from None
        await self._write(head)

    async def send_body(self, body: AsyncIterable[bytes] | None) -> None:
        size = 0
        try:
            if body is not None:
                async for chunk in body:
                    size += len(chunk)
                    if size > self.bounds.request_bytes:
                        raise Broken(f"the body of the request is larger than {self.bounds.request_bytes} bytes")
                    await self._write(self._http.send(h11.Data(data=chunk)))
            await self._write(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise Broken("the body of the request is not as long as it was said to be") from error

    async def head(self) -> h11.Response:
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                continue
            raise Broken("it answered with something that was not asked for")

    async def next_data(self) -> bytes | None:
        """Some of the body; None at its end."""
        event = await self._event()
        if not isinstance(event, h11.Data):
            return None
        self._body += len(event.data)
        if self._body > self.bounds.body_bytes:
            raise Broken(f"the response is larger than {self.bounds.body_bytes} bytes")
        return bytes(event.data)

    async def done(self, status: int) -> None:
        if self._wire is not None:
            self._wire.abort()
        await self._told.finished(status=status, sent=self._sent, received=self._received, address=self._address)

    async def lost(self, message: str) -> None:
        if self._wire is not None:
            self._wire.abort()
        await self._told.failed(message)

    async def _event(self) -> Any:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                # What h11 says repeats what the other side sent, which may be a credential that it was given.
                raise Broken("it answered with something that is not HTTP") from None
            if event is h11.NEED_DATA:
                data = await self._read()
                self._received += len(data)
                self._http.receive_data(data)
                continue
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                raise Broken("it closed the connection without an answer")
            return event

    async def _read(self) -> bytes:
        wire = self._bound()
        try:
            async with asyncio.timeout(self.at_most(self.bounds.idle_s)):
                return await wire.read()
        except TimeoutError as error:
            raise Broken("it did not answer in time", late=True) from error
        except OSError as error:
            raise Broken("the connection was lost before the response was there") from error

    async def _write(self, data: bytes | None) -> None:
        if not data:
            return
        wire = self._bound()
        self._sent += len(data)
        try:
            async with asyncio.timeout(self.at_most(self.bounds.idle_s)):
                await wire.write(data)
        except TimeoutError as error:
            raise Broken("it did not take the request in time", late=True) from error
        except OSError as error:
            raise Broken("the connection was lost while the request was sent") from error

    def _bound(self) -> StreamWire:
        if self._wire is None:
            raise RuntimeError("there is no connection yet")
        return self._wire


@lru_cache(maxsize=1)
def default_context() -> ssl.SSLContext:
    """Certificates of this machine's authorities, verified by name; HTTP/1.1. Made once: it takes tens of milliseconds."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(error: BaseException) -> str:
    """What is told of a request that came to nothing: never the words of another side."""
    if isinstance(error, AgentOSError):
        return error.message
    if isinstance(error, (Unreachable, Broken)):
        return str(error)
    if isinstance(error, asyncio.CancelledError):
        return "it was given up"
    return f"whoever made it failed ({type(error).__name__})"


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` to its end, also when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    _telling.add(task)
    task.add_done_callback(_telling.discard)
    await asyncio.shield(task)
