"""The gateway over Streamable HTTP, for clients on this host: a token of its own, and only under the names of this address.

A page in a browser can send requests to any port of this host, and have its own name point here. So before anything is read,
each request has to name us as `Host`, must come from no other origin, and must bring the token. All refusals say little.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agentos.abi.errors import IdentityError, UsageError
from agentos.gateway.desk import SEATS, Gateway

PATH: Final = "/mcp"
BODY: Final = 4 * 1024 * 1024
"""Most bytes of a request."""

IDLE_S: Final = 30 * 60.0
"""An MCP session without a request is over after this."""

CONNECTIONS: Final = 4 * SEATS
"""Connections at a time."""

TOKEN_BYTES: Final = 32
_SHORTEST: Final = 32
_LONGEST: Final = 4096
_LOOPBACK: Final = ("127.0.0.1", "::1")


class Guard:
    """Lets through what names us, comes from nowhere else, and brings the token."""

    def __init__(self, app: ASGIApp, token: str, port: int, left: Callable[[str], Awaitable[None]]) -> None:
        """`left` is told which MCP session a client has ended."""
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(names(port))
        self._origins = frozenset(f"http://{name}" for name in names(port))
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
        mcp_session = headers.get("mcp-session-id")
        if scope["method"] == "DELETE" and mcp_session is not None:
            await self._left(f"id {mcp_session}")

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("no such host here\n", 421)
        if origins and (len(origins) != 1 or origins[0].lower() not in self._origins):
            return PlainTextResponse("not from there\n", 403)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
            return PlainTextResponse("a token is needed\n", 401, {"WWW-Authenticate": "Bearer"})
        return None


def names(port: int) -> list[str]:
    """What a client may call us."""
    return [f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"]


def application(server: Server[None], gateway: Gateway, token: str, port: int) -> ASGIApp:
    """What answers at `port`, for whoever brings `token`."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=BODY,
        session_idle_timeout=IDLE_S,
        max_sessions=SEATS,
        transport_security=TransportSecuritySettings(
            allowed_hosts=names(port), allowed_origins=[f"http://{name}" for name in names(port)]
        ),
    )
    return Guard(app, token, port, gateway.leave)


async def over_http(server: Server[None], gateway: Gateway, listener: socket.socket, token: str) -> None:
    """Serve clients that connect to `listener` until we are told to end (SIGTERM, SIGINT)."""
    port = int(listener.getsockname()[1])
    config = uvicorn.Config(
        application(server, gateway, token, port),
        log_level="error",
        access_log=False,
        lifespan="on",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=3,
        server_header=False,
        date_header=False,
        ws="none",
    )
    serving = _Serving(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.leave)
    try:
        await serving.serve(sockets=[listener])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class _Serving(uvicorn.Server):
    """A server that leaves signals to us: its own way is to end, and then to be killed by the signal all the same."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield

    def leave(self) -> None:
        """End once what is under way is answered, or after the time for that."""
        self.should_exit = True


def listen(address: str) -> socket.socket:
    """A socket at `HOST:PORT`. Raises UsageError for an address beyond this host, or one that is taken."""
    host, _, number = address.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host.strip("[]"))
    if host not in _LOOPBACK or not number.isdecimal() or int(number) > 65_535:
        raise UsageError(
            f"{address!r} is no address of this host alone",
            mend="write 127.0.0.1:PORT (0: any free port); for clients elsewhere put a proxy with TLS before it",
        )
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(number)))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(f"{address}: {error.strerror}", mend="name another port") from error
    return listener


def token_of(path: Path) -> str:
    """The token in `path`, made if it is not there. Raises IdentityError for one that others own or can read, or a short one."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror}") from error
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    return token


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            told, text = os.fstat(file.fileno()), file.read(_LONGEST).decode("ascii").strip()
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise IdentityError(f"{path} holds no token") from error
    if told.st_uid != os.geteuid():
        raise IdentityError(f"{path} is somebody else's, who knows what is in it", mend="name a file of your own")
    if told.st_mode & 0o077:
        raise IdentityError(f"{path} can be read by others (mode {told.st_mode & 0o777:o})", mend=f"chmod 600 {path}")
    if len(text) < _SHORTEST or not text.isprintable() or " " in text:
        raise IdentityError(f"{path} holds no token of at least {_SHORTEST} characters", mend="remove it: a new one is made")
    return text
