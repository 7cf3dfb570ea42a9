"""The way out as a transport of httpx2: for the `http` driver, MCP servers at an address, and vaults.

    async with httpx2.AsyncClient(transport=Outbound(lambda: context.net, private=…, credentials=…), timeout=30) as client:
        response = await client.get("https://api.example.com/things?page=2")

`httpx2.AsyncClient(transport=…)` reads no proxy from the environment and follows no redirect unless told to; each redirect that
it follows comes through here again, and is asked about. What a caller sees:

    NetDenied                                  policy, or an address that may not be reached: nothing has left
    DriverError                                a credential was not to be had: nothing has left
    LogUnavailable, SequenceConflict           nobody could record it: nothing has left
    httpx2.ConnectError, ConnectTimeout        no connection, or a certificate that is not to be trusted: nothing has left
    httpx2.ReadError, ReadTimeout, …           lost in the middle (any other httpx2.TransportError): nobody knows what came of it

Credentials belong here (`credentials`), not into the client: they are put in when the connection stands, for their hosts only.
Responses are asked for without compression, and one that is compressed all the same is refused, so that the bounds hold.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import httpx2

from agentos.egress.adapters.passage import Answer, Broken, Passage
from agentos.egress.adapters.wire import Unreachable, system_resolver
from agentos.egress.addresses import Resolver
from agentos.egress.asking import Gatekeeper, NetDenied, NetRequest, Scheme
from agentos.egress.headers import Headers, Wanted, values_of
from agentos.egress.names import PORTS, host_of, method_of, target_of
from agentos.egress.outbound import Bounds, HeaderCredential


class Outbound(httpx2.AsyncBaseTransport):
    """A transport whose every request is asked about. It keeps nothing between requests, so it may be shared or dropped."""

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
        """`gatekeeper` gives who decides at the moment; None from it: nothing leaves.

        `private`: CIDR ranges beyond the public internet that may be reached. `tls`: the context of connections over https;
        without it the authorities of this machine count. Raises NetDenied for a range that is none.
        """
        self._passage = Passage(gatekeeper, private=private, credentials=credentials, bounds=bounds, resolver=resolver, tls=tls)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        wanted = _wanted(request)
        stream = request.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError("the body of the request cannot be read by an asynchronous client")
        try:
            answer = await self._passage.exchange(wanted, stream, _within(request, self._passage.bounds))
        except Unreachable as error:
            kind = httpx2.ConnectTimeout if error.late else httpx2.ConnectError
            raise kind(str(error), request=request) from error
        except Broken as error:
            raise _broken(error, request) from error
        if [value for value in values_of(answer.headers, b"content-encoding") if value.strip().lower() != b"identity"]:
            await answer.close()
            raise httpx2.RemoteProtocolError("the response is compressed, which was not asked for", request=request)
        return httpx2.Response(
            answer.status,
            headers=list(answer.headers),
            stream=_Body(answer, request),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": answer.reason},
        )


class _Body(httpx2.AsyncByteStream):
    """The body of a response; closing it tells how the request ended."""

    def __init__(self, answer: Answer, request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.chunks():
                yield chunk
        except Broken as error:
            raise _broken(error, self._request) from error

    async def aclose(self) -> None:
        await self._answer.close()


def _wanted(request: httpx2.Request) -> Wanted:
    """What `request` asks for, normalised. Raises NetDenied."""
    url = request.url
    if url.userinfo:
        raise NetDenied("an address with a user name in it is not used")
    if url.scheme not in PORTS:
        raise NetDenied(f"{url.scheme[:80]!r} is no scheme that is used: http and https are")
    host, port = host_of(url.raw_host.decode("ascii")), url.port or PORTS[url.scheme]
    target = target_of(url.raw_path.decode("ascii"))
    asked = NetRequest(Scheme(url.scheme), host, port, method_of(request.method), target.path)
    return Wanted(asked, target, _plain(request.headers.raw))


def _plain(headers: Headers) -> Headers:
    """`headers`, asking for a body that is not compressed."""
    return [(name, value) for name, value in headers if name.lower() != b"accept-encoding"] + [(b"Accept-Encoding", b"identity")]


def _within(request: httpx2.Request, bounds: Bounds) -> Bounds:
    """`bounds`, and no longer for one step than the client waits for it."""
    timeout = request.extensions.get("timeout", {})
    connect, read = timeout.get("connect"), timeout.get("read")
    return replace(
        bounds,
        connect_s=bounds.connect_s if connect is None else min(bounds.connect_s, connect),
        idle_s=bounds.idle_s if read is None else min(bounds.idle_s, read),
    )


def _broken(error: Broken, request: httpx2.Request) -> httpx2.TransportError:
    kind = httpx2.ReadTimeout if error.late else httpx2.ReadError
    return kind(str(error), request=request)
