"""Bytes both ways: connections to exactly one checked address, connections that came in, and TLS that is ended here.

wire = await connect(address, 443, "api.example.com", context, seconds=10)     # TLS by the name, TCP to the address
await wire.write(b"…"); data = await wire.read()                               # b"" at the end
await wire.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Final, Protocol

from agentos.egress.addresses import Address

CHUNK: Final = 65_536
"""Most bytes of one read."""

_CLOSING_S: Final = 2.0
_LOOK_UPS: Final = 16  # names that are looked up at one time


class Unreachable(Exception):
    """There is no connection, so nothing of the request was sent. The message has no words of the other side."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class Wire(Protocol):
    """A connection. OSError means that it is lost."""

    async def read(self) -> bytes:
        """Some bytes; none at the end."""

    async def write(self, data: bytes) -> None:
        """Send, and wait while too much is waiting to be sent."""

    async def end(self) -> None:
        """Say that nothing more follows; reading goes on."""

    async def close(self) -> None:
        """Send what waits, then let go; never for longer than a moment."""

    def abort(self) -> None:
        """Let go at once."""


class StreamWire:
    """A connection of asyncio."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(CHUNK)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSING_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        self._writer.transport.abort()


class EndedTls:
    """TLS of whoever connected, ended here. To be used by one task at a time."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, first: bytes = b"") -> None:
        """`first`: what was read of `wire` already."""
        self._wire = wire
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._in.write(first)
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    async def begin(self) -> None:
        """The handshake. Raises OSError (SSLError among them)."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except ssl.SSLError:
                await self._flush()  # the alert that says why
                raise
            else:
                return await self._flush()

    async def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK):
            self._tls.write(data[start : start + CHUNK])
            await self._flush()

    async def end(self) -> None:
        # An answer is not waited for: the client may go on sending, and is not listened to any more.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()
        await self._wire.end()

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            await self.end()
        await self._wire.close()

    def abort(self) -> None:
        self._wire.abort()

    async def _flush(self) -> None:
        data = self._out.read()
        if data:
            await self._wire.write(data)

    async def _feed(self) -> None:
        data = await self._wire.read()
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()


async def connect(address: Address, port: int, host: str, context: ssl.SSLContext | None, seconds: float) -> StreamWire:
    """Connect to `address`; with `context`, TLS with whoever proves to be `host`. Raises Unreachable."""
    where = f"{host}:{port}"
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        link = socket.socket(family, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
    except OSError as error:
        raise Unreachable(f"{where} cannot be reached at {address}: {_words(error)}") from error
    link.setblocking(False)
    try:
        async with asyncio.timeout(seconds):
            await _joined(link, str(address), port)
            # From here on the socket is its transport's, which closes it also when this fails or is cancelled: closing it
            # beside that would let its number go to another connection, which the transport would then disturb.
            reader, writer = await asyncio.open_connection(
                sock=link, ssl=context, server_hostname=None if context is None else host, limit=CHUNK
            )
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"the certificate of {where} is not to be trusted: {error.verify_message}") from error
    except TimeoutError as error:
        raise Unreachable(f"{where} did not answer at {address} within {seconds:g} s", late=True) from error
    except OSError as error:
        raise Unreachable(f"{where} cannot be reached at {address}: {_words(error)}") from error
    return StreamWire(reader, writer)


async def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that this machine finds for `host`. Raises OSError."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    found = await asyncio.get_running_loop().run_in_executor(_look_ups(), look_up)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@lru_cache(maxsize=1)
def _look_ups() -> ThreadPoolExecutor:
    """Threads of their own: a name server that is slow must not keep the rest of the runtime from its threads."""
    return ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="agentos-names")


async def _joined(link: socket.socket, address: str, port: int) -> None:
    try:
        await asyncio.get_running_loop().sock_connect(link, (address, port))
    except BaseException:
        link.close()
        raise


def _words(error: OSError) -> str:
    """What happened, in words of this machine only."""
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason or 'no reason given'})"
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else "it is lost"
