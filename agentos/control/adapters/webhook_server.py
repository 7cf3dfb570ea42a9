"""The HTTP server for webhooks: reads one delivery per connection, bounded in size and time, and gives back what comes of it.

    POST /hooks/<tenant>/<path>   202 what was fired · 401 no such webhook, or not genuine · 408 too slow · 413 too large
                                  429 too often · 503 not now, send it again

It speaks plain HTTP and listens where it is told, by default nowhere: what comes from outside comes through a proxy that ends the
TLS. Neither bodies nor headers are logged. A client that sends its request bit by bit is cut off: `HEAD_S` for the head, `BODY_S`
for the body.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError
from agentos.control.webhook import MAX_BODY, Delivery

HEAD_S: Final = 10.0
"""Seconds for the head of a request, from the moment that a client connects."""

BODY_S: Final = 10.0
"""Seconds for the body, from the end of the head."""

MAX_HEAD: Final = 16 * 1024
"""Bytes of the head at most."""

MAX_CONNECTIONS: Final = 256
"""Connections that are served at one time; whoever comes beyond is told to come again (503)."""

MAX_OPEN: Final = 2 * MAX_CONNECTIONS
"""Connections at one time, those that have sent nothing yet among them; more are closed at once. Each costs a descriptor, and the
runtime needs those it has for its log and its sessions."""

STOP_S: Final = 5
"""Seconds that deliveries get to be answered when the server stops."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)


Receive = Callable[[Delivery], Awaitable[Answer]]


class WebhookServer:
    """Serves `receive` on `host` and `port` (0: any free one), from `start` to `stop`."""

    def __init__(self, host: str, port: int, receive: Receive) -> None:
        self._place = (host, port)
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._server: _Server | None = None
        self.url = ""
        """Where it listens, once it has started."""

    async def start(self) -> None:
        """Listen. Raises AgentOSError where that cannot be."""
        host, port = self._place
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise AgentOSError(
                f"webhooks cannot listen on {host}:{port}: {error.strerror or error}", mend="choose another address: --webhooks"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listening.getsockname()[1]}"
        app = Starlette(routes=[Route("/hooks/{tenant}/{path:path}", self._post, methods=["POST"])])
        config = uvicorn.Config(
            app,
            http=_Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=1,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listening]), name="serve webhooks")

    async def stop(self) -> None:
        """Stop listening, and let deliveries that have come be answered."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait((self._task,))

    async def _post(self, request: Request) -> Response:
        """One delivery."""
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            # What stands twice would be read one way here and another way elsewhere.
            headers[name] = "" if name in headers else value
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return _response(_too_large())
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MAX_BODY:
                        return _response(_too_large())
        except TimeoutError:
            return _response(Answer(408, {"error": "the body took too long"}))
        except ClientDisconnect:
            return Response(status_code=400)
        delivery = Delivery(request.path_params["tenant"], request.path_params["path"], headers, bytes(body))
        return _response(await self._receive(delivery))


class _Server(uvicorn.Server):
    """Leaves the signals to the runtime, which stops all of itself in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Impatient(H11Protocol):
    """Closes a connection on which no request is being answered: after `HEAD_S` its head should have been whole."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_OPEN:
            transport.abort()
            return
        self.loop.call_later(HEAD_S, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        # A cycle begins with the head of a request.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            self.loop.call_later(HEAD_S, self._look)


def _too_large() -> Answer:
    return Answer(413, {"error": f"a delivery has {MAX_BODY} bytes at most"})


def _response(answer: Answer) -> Response:
    return JSONResponse(answer.body, answer.status, {**answer.headers, "connection": "close"})
