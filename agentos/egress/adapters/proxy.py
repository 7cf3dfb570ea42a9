"""The proxy of a sandbox: an HTTP/1.1 proxy on a unix socket, the only way out of it.

    proxies = Proxies(clock)
    async with proxies.open(
        gatekeeper=lambda: context.net,        # who decides *now*; None: nobody, and nothing leaves
        network=profile.network,               # inspect, private
        credentials=(HeaderCredential("Authorization", …, hosts=("api.github.com",)),),
        folder=folder,                         # made if it is not there (mode 0700); the socket lies in it
    ) as way:
        Door(way.socket, way.authority)        # what the sandbox is given
        …
        await way.settle()                     # a call is over, the process stays: what it had under way is cut

`http://` comes in absolute form and is asked about with method and path. CONNECT makes a tunnel, asked about as `tunnel`; where
the network is inspected, TLS is ended instead, under an authority made for this proxy, and each request inside is asked about.
A request that may not leave is answered 403 with `{"error": …, "mend"?: …}`; 400, 408, 421, 431 and 501 are for what is no proper
request, 502 and 504 for what was not answered, 503 when nothing can be recorded. Leaving the block cuts everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from agentos.abi.ids import Clock
from agentos.egress.adapters.authority import Authority
from agentos.egress.adapters.passage import Passage
from agentos.egress.adapters.visit import Complaints, Visit
from agentos.egress.adapters.wire import CHUNK, StreamWire, system_resolver
from agentos.egress.addresses import Resolver
from agentos.egress.asking import Gatekeeper
from agentos.egress.outbound import HeaderCredential, ProxyBounds

SOCKET: Final = "egress.sock"
"""The name of the socket in its folder."""

_log = logging.getLogger("agentos.egress")

_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 45\r\nConnection: close\r\n\r\n"
    b'{"error": "too many connections at one time"}'
)
_BACKLOG: Final = 128


class NetworkLike(Protocol):
    """What a sandbox says of its network: `agentos.sandbox.profile.Network`."""

    @property
    def inspect(self) -> bool:
        """Whether TLS is ended."""

    @property
    def private(self) -> Sequence[str]:
        """CIDR ranges beyond the public internet that may be reached."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way out that stands open."""

    socket: Path
    authority: bytes | None
    """The certificate to trust (PEM) where TLS is ended."""
    settle: Callable[[], Awaitable[None]] = field(repr=False, compare=False)
    """Cuts whatever was allowed by another gatekeeper than the one of now; returns once that was told."""


class Proxies:
    """Makes proxies, one for each process that is placed."""

    def __init__(
        self,
        clock: Clock,
        *,
        bounds: ProxyBounds | None = None,
        resolver: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: the context of connections to servers; without it the authorities of this machine count."""
        self._clock = clock
        self._bounds = bounds or ProxyBounds()
        self._resolver = resolver
        self._tls = tls

    @asynccontextmanager
    async def open(
        self,
        *,
        gatekeeper: Callable[[], Gatekeeper | None],
        network: NetworkLike,
        folder: Path,
        credentials: Sequence[HeaderCredential] = (),
    ) -> AsyncIterator[Way]:
        """A way out while the block lasts. Raises NetDenied for a range that is none, OSError when there can be no socket."""
        passage = Passage(
            gatekeeper,
            private=network.private,
            credentials=credentials,
            bounds=self._bounds.each,
            resolver=self._resolver,
            tls=self._tls,
        )
        authority = Authority(self._clock) if network.inspect else None
        reception = _Reception(passage, gatekeeper, authority, self._bounds)
        path = folder / SOCKET
        server = await asyncio.start_unix_server(reception.arrived, sock=_listening(folder), limit=CHUNK)
        try:
            yield Way(path, None if authority is None else authority.certificate, reception.settle)
        finally:
            server.close()
            await reception.close()
            _remove(path)


class _Reception:
    """Takes connections in, and knows those that are there."""

    def __init__(
        self,
        passage: Passage,
        gatekeeper: Callable[[], Gatekeeper | None],
        authority: Authority | None,
        bounds: ProxyBounds,
    ) -> None:
        self._passage = passage
        self._gatekeeper = gatekeeper
        self._authority = authority
        self._bounds = bounds
        self._complaints = Complaints()
        self._visits: dict[asyncio.Task[None], Visit] = {}

    def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody has connected."""
        if len(self._visits) >= self._bounds.connections:
            self._complaints.add("a connection of a sandbox was refused: it has %d already", len(self._visits))
            writer.write(_FULL)
            writer.close()
            return
        wire = StreamWire(reader, writer)
        visit = Visit(wire, self._passage, self._gatekeeper, self._authority, self._bounds, self._complaints)
        task = asyncio.create_task(visit.serve())
        self._visits[task] = visit
        task.add_done_callback(self._left)

    async def settle(self) -> None:
        """Cut what is outdated, and wait until that was told."""
        visits = list(self._visits.values())
        await _cut([task for task, visit in self._visits.items() if visit.outdated])
        for visit in visits:
            await visit.told.wait()

    async def close(self) -> None:
        """Cut everything."""
        await _cut(list(self._visits))

    def _left(self, task: asyncio.Task[None]) -> None:
        del self._visits[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Where, and not in which words: they may repeat what passed through.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a connection of a sandbox failed in a way that was not foreseen (%s)\n%s", type(error).__name__, where)


async def _cut(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listening(folder: Path) -> socket.socket:
    """A socket that listens in `folder`, however long its path is."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / SOCKET).unlink(missing_ok=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # The address of a unix socket takes a hundred bytes; a descriptor of the folder is always shorter than that.
            near = f"/proc/self/fd/{opened}/{SOCKET}" if Path("/proc/self/fd").is_dir() else str(folder / SOCKET)
            server.bind(near)
        finally:
            os.close(opened)
        # Whoever is in the sandbox is another user; nobody else comes through the folder.
        (folder / SOCKET).chmod(0o666)
        server.listen(_BACKLOG)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    return server
