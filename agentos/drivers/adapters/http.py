"""The HTTP driver: one request of an API for each call, made by the runtime, asked about before it leaves.

    driver: {http: {url: https://api.acme.example/v1, path: "/orders/{id}"}}

`drivers.http_request` makes the request of the arguments, `egress` lets it out: policy, one look-up of the name, a connection to
an address that was checked, TLS by the name, and only then the credentials. A redirect of a request that reads may be followed
where that is declared; each is a request of its own, asked about like the first, and one to another place (scheme, host, port)
goes without credentials and without the tool's own headers. Connections are not shared by requests.

What comes of a call that is no success: it did not leave (DriverError), or it left and there is no answer (OutcomeUnknown, unless
the call only reads). An answer that breaks off behind its head is an answer: the status says what came of the request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final
from urllib.parse import urljoin

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.lease import CredentialUnavailable, Leases
from agentos.credentials.reference import Credential
from agentos.drivers.http_answer import Answered, result_of
from agentos.drivers.http_request import ACCEPT, READING, USER_AGENT, Request, build, plain_shape
from agentos.drivers.openapi import operation_of
from agentos.drivers.output import MAX_KEPT, Outputs
from agentos.drivers.port import CallContext, Found, ToolSpec
from agentos.egress.adapters.passage import Answer, Broken, Passage
from agentos.egress.adapters.wire import Unreachable, system_resolver
from agentos.egress.addresses import Resolver
from agentos.egress.asking import NetDenied, NetRequest, Permit, Scheme
from agentos.egress.headers import Wanted
from agentos.egress.names import PORTS, authority_of, covers, method_of, target_of
from agentos.egress.outbound import Bounds, HeaderCredential

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONNECT_S: Final = 10.0
"""Seconds for one address: connection and TLS."""

_GRACE_S: Final = 5.0
"""How much longer than its deadline a call may take to record that it was late."""

_MARGIN: Final = 1024 * 1024
"""Bytes beyond MAX_KEPT that the way out lets in, so that it is this driver that stops reading."""


class HttpDriver:
    """Performs `http: {url, method, path, …}` tools."""

    def __init__(
        self, outputs: Outputs | None = None, *, resolver: Resolver = system_resolver, tls: ssl.SSLContext | None = None
    ) -> None:
        """`outputs` keeps what is larger than a result; None: it is cut and said so. `tls`: whom to trust; None: as this host."""
        self._outputs = outputs
        self._resolver = resolver
        self._tls = tls

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Make the request, within the tool's time. Raises DriverError, or OutcomeUnknown where it may change something."""
        http: Mapping[str, Json] = tool.driver["http"]
        shape = operation_of(http).shape if "openapi" in http else plain_shape(http)
        request = build(http, shape, args, context.key)
        exchange = _Exchange(tool, http, context, request, self._resolver, self._tls)
        answered = await exchange.make()
        # Unpacking, cleaning and keeping take their time where much came.
        return await asyncio.to_thread(
            result_of, answered, tool.output_bytes, self._outputs, tenant=context.tenant, session=context.session
        )

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """None: an API is not asked what came of a request."""
        return None

    async def release(self, session: str) -> None:
        """Nothing is kept warm."""

    async def close(self) -> None:
        """Nothing is kept open."""


class _Exchange:
    """One call: its request, the redirects that follow it, and its answer."""

    def __init__(
        self,
        tool: ToolSpec,
        http: Mapping[str, Json],
        context: CallContext,
        request: Request,
        resolver: Resolver,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tool = tool
        self._context = context
        self._request = request
        self._hops = int(http.get("redirects", 0)) if request.method in READING else 0
        self._private: Sequence[str] = tuple(http.get("private", ()))
        self._resolver = resolver
        self._tls = tls
        self._clock = asyncio.get_running_loop().time
        self._until = self._clock() + tool.timeout_ms / 1000
        self._reads = request.method in READING and tool.effect is ToolEffect.READ
        self._left = False
        """Whether something may have gone out."""

    async def make(self) -> Answered:
        """The answer, read to its end."""
        try:
            # The way out keeps the deadline itself, and knows then whether anything had left; this is for whoever decides.
            async with asyncio.timeout_at(self._until + _GRACE_S):
                return await self._follow()
        except TimeoutError as error:
            if not self._left:
                raise DriverError(f"nothing was sent within {self._tool.timeout_ms} ms", where=self._tool.name) from error
            raise self._lost(f"there was no answer within {self._tool.timeout_ms} ms") from error

    async def _follow(self) -> Answered:
        url, headers = self._request.url, _raw(self._request)
        credentials = _credentials(self._tool, self._context, url)
        hops = self._hops
        while True:
            answer = await self._sent(url, headers, credentials)
            there = _location(answer) if answer.status in _REDIRECTS and hops > 0 else None
            if there is None:
                return await self._read(answer)
            await answer.close()
            hops -= 1
            onward = _onward(url, there)
            if _place(onward) != _place(url):
                headers, credentials = [(b"User-Agent", USER_AGENT.encode()), (b"Accept", ACCEPT.encode())], ()
            url = onward

    async def _sent(self, url: str, headers: list[tuple[bytes, bytes]], credentials: tuple[HeaderCredential, ...]) -> Answer:
        if self._context.still is not None:
            await self._context.still()
        scheme, host, port = _place(url)
        target = target_of(_behind(url))
        asked = NetRequest(Scheme(scheme), host, port, method_of(self._request.method), target.path)
        seconds = max(0.0, self._until - self._clock())
        bounds = Bounds(connect_s=min(seconds, _CONNECT_S), idle_s=seconds, seconds=seconds, body_bytes=MAX_KEPT + _MARGIN)
        passage = Passage(
            lambda: self,
            private=self._private,
            credentials=credentials,
            bounds=bounds,
            resolver=self._resolver,
            tls=self._tls,
        )
        try:
            return await passage.exchange(Wanted(asked, target, headers), _once(self._request.body))
        except Unreachable as error:
            raise DriverError(str(error), where=self._tool.name) from error
        except Broken as error:
            raise self._lost(str(error)) from error

    async def ask(self, request: NetRequest) -> Permit:
        """The gatekeeper of the call; from its yes on something may leave."""
        if self._context.net is None:
            raise NetDenied("nobody is there to decide about the request", where=self._tool.name)
        permit = await self._context.net.ask(request)
        self._left = True
        return permit

    async def _read(self, answer: Answer) -> Answered:
        """The whole answer, or as much of it as is taken."""
        parts: list[bytes] = []
        size, missing = 0, ""
        try:
            async for chunk in answer.chunks():
                parts.append(chunk[: MAX_KEPT - size])
                size += len(parts[-1])
                if len(parts[-1]) < len(chunk):
                    missing = f"the answer is larger than {MAX_KEPT} bytes, and the rest was not read"
                    break
        except Broken as error:
            if self._reads:
                raise self._lost(str(error)) from error
            missing = f"the answer broke off after {size} bytes: {error}; the request was answered with the status above"
        finally:
            await answer.close()
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in answer.headers)
        return Answered(answer.status, headers, b"".join(parts), missing)

    def _lost(self, message: str) -> DriverError:
        if self._reads:
            return DriverError(message, where=self._tool.name)
        mend = "look at what the tool acts on before calling it again"
        return OutcomeUnknown(f"the request was sent, and {message}", where=self._tool.name, mend=mend)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def _raw(request: Request) -> list[tuple[bytes, bytes]]:
    raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in request.headers]
    if request.body or request.method not in {*READING, "DELETE"}:
        raw.append((b"Content-Length", str(len(request.body)).encode()))
    return raw


def _place(url: str) -> tuple[str, str, int]:
    """Scheme, host and port."""
    scheme, _, rest = url.partition("://")
    return scheme, *authority_of(rest[: _end(rest)], PORTS[scheme])


def _behind(url: str) -> str:
    """Path and query."""
    rest = url.partition("://")[2]
    return rest[_end(rest) :]


def _end(rest: str) -> int:
    """Where host and port end."""
    return next((index for index, char in enumerate(rest) if char in "/?#\\"), len(rest))


def _location(answer: Answer) -> str | None:
    """Where a redirect leads to, as it is written; None if it does not say, or says it twice."""
    found = [value for name, value in answer.headers if name.lower() == b"location"]
    return found[0].decode("latin-1") if len(found) == 1 and found[0] else None


def _onward(url: str, there: str) -> str:
    """The address that a redirect from `url` leads to. Raises NetDenied for one that is not followed."""
    try:
        onward = urljoin(url, there).partition("#")[0]
    except ValueError as error:
        raise NetDenied("a redirect leads to what is no address") from error
    scheme = onward.partition("://")[0]
    if scheme not in PORTS or "://" not in onward:
        raise NetDenied("a redirect leads to what is neither https nor http")
    if scheme == "http" and not url.startswith("http://"):
        raise NetDenied("a redirect leads from https to plain http")
    return onward


def _credentials(tool: ToolSpec, context: CallContext, url: str) -> tuple[HeaderCredential, ...]:
    """The headers that carry the tool's credentials. Raises CredentialUnavailable if one of them may not go there."""
    _, host, _ = _place(url)
    found = []
    for credential in tool.credentials:
        secret, leases = context.secrets.get(credential.secret), context.leases
        if not credential.header or secret is None or leases is None or not any(covers(one, host) for one in secret.hosts):
            raise CredentialUnavailable("the tool cannot be used now")
        found.append(HeaderCredential(credential.header, _Value(credential, leases), secret.hosts))
    return tuple(found)


class _Value:
    """The value of a header when it is sent, and not before."""

    def __init__(self, credential: Credential, leases: Leases) -> None:
        self._credential = credential
        self._leases = leases

    def __call__(self) -> str:
        return self._credential.render(self._leases.value(self._credential.secret))
