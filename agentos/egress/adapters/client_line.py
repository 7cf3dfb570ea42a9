"""What a client of the proxy sends and is sent, on one connection.

ClientLine       the bytes: heads read whole within their time, what follows in pieces
ClientExchange   one request, parsed by a parser of its own, and its response, framed anew
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Final

import h11

from agentos.egress.adapters.passage import Answer, Broken
from agentos.egress.adapters.wire import Wire
from agentos.egress.headers import Headers, returned, values_of
from agentos.egress.incoming import Unfit
from agentos.egress.outbound import ProxyBounds

_LINGER_BYTES: Final = 1 << 20
_LINGER_S: Final = 1.0


class ClientGone(Exception):
    """The client has left, or has stopped in the middle."""


class ClientLine:
    """A connection to read requests from."""

    def __init__(self, wire: Wire, bounds: ProxyBounds) -> None:
        self.wire = wire
        self._bounds = bounds
        self._held = bytearray()

    async def head(self) -> bytes | None:
        """The bytes of the next head, the empty line among them; None when the client has left instead.

        Raises Unfit for one that is too long or takes too long, ClientGone, OSError.
        """
        if not self._held:
            data = await self.read()
            if not data:
                return None
            self._held += data
        most = self._bounds.head_bytes
        try:
            async with asyncio.timeout(self._bounds.head_s):
                while (end := self._held.find(b"\r\n\r\n", 0, most + 4)) < 0:
                    if len(self._held) > most:
                        raise Unfit("the head of the request is too long", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                    data = await self.wire.read()
                    if not data:
                        raise ClientGone
                    self._held += data
        except TimeoutError as error:
            raise Unfit("the head of the request did not come in time", HTTPStatus.REQUEST_TIMEOUT) from error
        return self._cut(end + 4)

    async def read(self) -> bytes:
        """Some bytes; none at the end. Raises ClientGone when none come for too long, OSError."""
        if self._held:
            return self.take()
        try:
            async with asyncio.timeout(self._bounds.idle_s):
                return await self.wire.read()
        except TimeoutError as error:
            raise ClientGone from error

    def take(self) -> bytes:
        """What has come and was not asked for yet."""
        return self._cut(len(self._held))

    def put_back(self, data: bytes) -> None:
        """`data` was more than was wanted."""
        self._held[:0] = data

    async def refuse(self, status: int, body: dict[str, str], *, keep: bool = False, bare: bool = False) -> None:
        """Answer with `body` as JSON (`bare`: with its head alone). Without `keep` nothing else follows on this connection."""
        content = json.dumps(body).encode("utf-8")
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Server: agentos-egress",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            "Cache-Control: no-store",
            *([] if keep else ["Connection: close"]),
        ]
        head = "\r\n".join([*lines, "", ""])
        await self.wire.write(head.encode("ascii") + (b"" if bare else content))
        if not keep:
            await self._linger()

    async def _linger(self) -> None:
        """Read what still comes, for a moment: a client that is cut off while it sends loses what it was answered."""
        left = _LINGER_BYTES
        with contextlib.suppress(OSError):  # TimeoutError is one
            await self.wire.end()
            async with asyncio.timeout(_LINGER_S):
                while left > 0 and (data := await self.wire.read()):
                    left -= len(data)

    def _cut(self, size: int) -> bytes:
        data = bytes(self._held[:size])
        del self._held[:size]
        return data


class ClientExchange:
    """One request and its response."""

    def __init__(self, line: ClientLine, raw: bytes) -> None:
        """`raw` is the head, which was looked at. Raises Unfit when it is none."""
        self.line = line
        self.answered = False
        """Whether a response has begun, so that no other can be given."""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=len(raw) + 4096)
        self._http.receive_data(raw)
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise Unfit("the request is not HTTP/1.1", error.error_status_hint) from None
        if not isinstance(event, h11.Request):
            raise Unfit("the request is not HTTP/1.1")
        self.method, self.target = bytes(event.method), bytes(event.target)
        self.headers: Headers = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
        self._may_stay = event.http_version == b"1.1"

    async def body(self) -> AsyncIterator[bytes]:
        """What belongs to it. Raises Broken when it does not come as it was said to, OSError."""
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")))
        while True:
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self.line.read())
            except h11.RemoteProtocolError:
                raise Broken("the client did not send its request as it had said it would") from None
            except ClientGone as error:
                raise Broken("the client did not send its whole request", late=True) from error
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif event is not h11.NEED_DATA:
                self.line.put_back(self._http.trailing_data[0])
                return

    async def respond(self, answer: Answer, check: Callable[[], None]) -> bool:
        """Pass `answer` on; `check` is asked before each piece. Whether another request may follow.

        Raises Broken when the response is not whole, ClientGone, OSError, what `check` raises.
        """
        headers = returned(answer.headers)
        # A response that says its length in two ways has the one that its framing says.
        framed = bool(values_of(headers, b"transfer-encoding"))
        dropped = {b"transfer-encoding", b"content-length"} if framed else {b"transfer-encoding"}
        kept = [(name, value) for name, value in headers if name.lower() not in dropped]
        try:
            head = self._http.send(h11.Response(status_code=answer.status, headers=kept, reason=answer.reason))
            self.answered = True
            await self._write(head)
            async for chunk in answer.chunks():
                check()
                await self._write(self._http.send(h11.Data(data=chunk)))
            await self._write(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError:
            raise Broken("it answered with something that cannot be passed on") from None
        return self._http.their_state is h11.DONE and self._http.our_state is h11.DONE

    async def refuse(self, status: int, body: dict[str, str]) -> bool:
        """Say why nothing comes of it. Whether another request may follow."""
        self.answered = True
        closing = b"close" in b",".join(values_of(self.headers, b"connection")).lower()
        bodiless = not values_of(self.headers, b"transfer-encoding") and values_of(self.headers, b"content-length") in (
            [],
            [b"0"],
        )
        keep = self._may_stay and bodiless and not closing and self.method != b"CONNECT"
        await self.line.refuse(status, body, keep=keep, bare=self.method == b"HEAD")
        return keep

    async def _write(self, data: bytes | None) -> None:
        if data:
            await self.line.wire.write(data)
