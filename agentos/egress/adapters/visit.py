"""One connection of a client inside a sandbox, from its first request to its last.

Each head is read whole and looked at before h11 parses it, each request gets a parser of its own, and what goes on is written
anew: a client cannot frame a request so that the server behind sees another one. A tunnel, and a response that is under way,
last no longer than the gatekeeper that allowed them is the one who decides.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from agentos.abi.errors import AgentOSError, DriverError
from agentos.egress.adapters.authority import Authority
from agentos.egress.adapters.client_line import ClientExchange, ClientGone, ClientLine
from agentos.egress.adapters.passage import Broken, Passage, Tunnel
from agentos.egress.adapters.wire import EndedTls, StreamWire, Unreachable
from agentos.egress.asking import NO_REQUEST, Gatekeeper, NetDenied
from agentos.egress.incoming import Unfit, check_head, connect_of, wanted_of
from agentos.egress.outbound import ProxyBounds

_log = logging.getLogger("agentos.egress")

_HANDSHAKE: Final = 0x16
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


_COMPLAINTS: Final = 20


class Complaints:
    """What the runtime's log is told of one sandbox: never in words of the sandbox, which may be a value, and not without end."""

    def __init__(self) -> None:
        self._left = _COMPLAINTS

    def add(self, message: str, *args: object) -> None:
        """Log a warning, unless there were enough of them."""
        if self._left:
            self._left -= 1
            _log.warning(message if self._left else f"{message}; nothing more is told of this sandbox", *args)


class _Over(Exception):
    """Whoever allowed it does not decide any more."""


class Visit:
    """Serves one connection."""

    def __init__(
        self,
        wire: StreamWire,
        passage: Passage,
        gatekeeper: Callable[[], Gatekeeper | None],
        authority: Authority | None,
        bounds: ProxyBounds,
        complaints: Complaints,
    ) -> None:
        self._complaints = complaints
        self._wire = wire
        self._passage = passage
        self._gatekeeper = gatekeeper
        self._authority = authority
        self._bounds = bounds
        self._asked: Gatekeeper | None = None
        self.told = asyncio.Event()
        """Whether whoever was asked knows the end of all that was delivered."""
        self.told.set()

    @property
    def outdated(self) -> bool:
        """Whether something is under way that whoever decides now has not allowed."""
        return self._asked is not None and self._asked is not self._gatekeeper()

    async def serve(self) -> None:
        """Until the client leaves, or has sent something after which nothing of it can be trusted."""
        try:
            if await self._requests(ClientLine(self._wire, self._bounds), None):
                await self._wire.close()
        except (ClientGone, OSError, Broken):
            pass  # there is nobody to tell; whoever was asked knows
        except _Over:
            _log.info("a connection was cut, since the call that it was allowed for is over")
        finally:
            self._wire.abort()

    async def _requests(self, line: ClientLine, within: tuple[str, int] | None) -> bool:
        """Serve the requests on `line` in turn; whether the connection is to be closed in good order."""
        while True:
            try:
                raw = await line.head()
                if raw is None:
                    return True
                check_head(raw)
                exchange = ClientExchange(line, raw)
                if exchange.method == b"CONNECT" and within is None:
                    return await self._connect(exchange)
                again = await self._forward(exchange, within)
            except Unfit as error:
                self._complaints.add("a request of a sandbox was refused as unfit (%d)", error.status)
                await self._record(str(error))
                await line.refuse(error.status, {"error": str(error)})
                return True
            if not again:
                return True

    async def _record(self, why: str) -> None:
        """Have the log know that something came which is no proper request."""
        gatekeeper = self._gatekeeper()
        if gatekeeper is None:
            return
        try:
            permit = await gatekeeper.ask(NO_REQUEST)
        except AgentOSError:
            return  # denied, which is recorded; or nothing can be, and then the call itself fails of that
        await permit.failed(why)

    async def _forward(self, exchange: ClientExchange, within: tuple[str, int] | None) -> bool:
        """Pass one request on and its response back; whether another one may follow on this connection."""
        wanted = wanted_of(exchange.method, exchange.target, exchange.headers, within)
        self._asked = self._gatekeeper()
        try:
            answer = await self._passage.exchange(wanted, exchange.body())
            try:
                again = await exchange.respond(answer, self._check)
            except BaseException:
                await answer.abandon("the response did not reach its client as a whole")
                raise
            # Delivered: from here on nothing of it can be cut, and only the telling is waited for.
            self._asked = None
            self.told.clear()
            try:
                await answer.close()
            finally:
                self.told.set()
        except (AgentOSError, Unreachable, Broken) as error:
            if exchange.answered:
                raise ClientGone from error
            return await exchange.refuse(*_said(error))
        finally:
            self._asked = None
        return again

    async def _connect(self, exchange: ClientExchange) -> bool:
        host, port = connect_of(exchange.target, exchange.headers)
        if self._authority is not None:
            return await self._inspect(exchange.line, self._authority, host, port)
        self._asked = self._gatekeeper()
        try:
            tunnel = await self._passage.tunnel(host, port)
        except (AgentOSError, Unreachable) as error:
            self._asked = None
            return await exchange.refuse(*_said(error))
        try:
            await self._wire.write(_ESTABLISHED)
            await self._pump(tunnel, exchange.line.take())
        finally:
            self._asked = None
            await tunnel.close()
        return True

    async def _inspect(self, line: ClientLine, authority: Authority, host: str, port: int) -> bool:
        """Stand in for `host`: end TLS, and serve what comes through."""
        await self._wire.write(_ESTABLISHED)
        try:
            async with asyncio.timeout(self._bounds.head_s):
                first = line.take() or await self._wire.read()
                if first and first[0] != _HANDSHAKE:
                    raise Unfit("this tunnel is looked into, and takes TLS only: plain http goes to the proxy without a tunnel")
                inside = EndedTls(self._wire, authority.context(host), first)
                await inside.begin()
        except ssl.SSLError as error:
            why = "it asked for another host" if error.reason == "CALLBACK_FAILED" else error.reason
            self._complaints.add("TLS of a client in a sandbox failed: %s", why)
            return False
        if await self._requests(ClientLine(inside, self._bounds), (host, port)):
            await inside.close()
        return False

    async def _pump(self, tunnel: Tunnel, first: bytes) -> None:
        """Bytes both ways until both sides have said all, one is lost, or nothing moves."""
        clock = asyncio.get_running_loop().time
        idle = self._bounds.tunnel_idle_s

        async def out(limit: asyncio.Timeout) -> None:
            data = first or await self._wire.read()
            while data:
                self._check()
                limit.reschedule(clock() + idle)
                tunnel.sent += len(data)
                await tunnel.wire.write(data)
                data = await self._wire.read()
            await tunnel.wire.end()

        async def back(limit: asyncio.Timeout) -> None:
            while data := await tunnel.wire.read():
                self._check()
                limit.reschedule(clock() + idle)
                tunnel.received += len(data)
                await self._wire.write(data)
            await self._wire.end()

        try:
            async with asyncio.timeout(idle) as limit, asyncio.TaskGroup() as group:
                group.create_task(out(limit))
                group.create_task(back(limit))
        except* OSError as errors:  # TimeoutError is one
            raise ClientGone from errors
        except* _Over as errors:
            raise _Over from errors

    def _check(self) -> None:
        """Raise _Over once somebody else decides, or nobody."""
        if self.outdated:
            raise _Over


def _said(error: AgentOSError | Unreachable | Broken) -> tuple[int, dict[str, str]]:
    """What a client is told of a request that came to nothing: status and body."""
    if isinstance(error, (Unreachable, Broken)):
        return HTTPStatus.GATEWAY_TIMEOUT if error.late else HTTPStatus.BAD_GATEWAY, {"error": str(error)}
    body = {"error": error.message} if error.mend is None else {"error": error.message, "mend": error.mend}
    if isinstance(error, NetDenied):
        return HTTPStatus.FORBIDDEN, body
    return HTTPStatus.BAD_GATEWAY if isinstance(error, DriverError) else HTTPStatus.SERVICE_UNAVAILABLE, body
