"""Real servers, plain and with TLS under an authority of their own, a gatekeeper that notes what it is asked, and open proxies.

gate        a Gate: says yes until told otherwise, and keeps what it was asked and told
site, secure_site   a Site over http, over https (valid for `localhost`, `api.test` and 127.0.0.1)
trust       an ssl.SSLContext that trusts the authority of `secure_site`
resolver    a Resolver by which every name leads to 127.0.0.1
way         opens a proxy: `async with way(inspect=True) as open_way`
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agentos.egress.adapters.proxy import Proxies, Way
from agentos.egress.asking import NetDenied, NetRequest
from agentos.egress.outbound import HeaderCredential, ProxyBounds
from agentos.sandbox.profile import Network


class SystemClock:
    """The time of this machine."""

    def now_ms(self) -> int:
        return int(time.time() * 1000)


class Slip:
    """A Permit that keeps what it was told."""

    def __init__(self, gate: Gate, request: NetRequest) -> None:
        self._gate = gate
        self._request = request

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        await asyncio.sleep(0)  # a log takes a while
        self._gate.ended.append((self._request, {"status": status, "sent": sent, "received": received, "address": address}))

    async def failed(self, message: str) -> None:
        await asyncio.sleep(0)
        self._gate.ended.append((self._request, message))


class Gate:
    """A Gatekeeper."""

    def __init__(self) -> None:
        self.asked: list[NetRequest] = []
        self.ended: list[tuple[NetRequest, dict[str, Any] | str]] = []
        self.refuses: Callable[[NetRequest], str | Exception | None] = lambda _: None

    async def ask(self, request: NetRequest) -> Slip:
        await asyncio.sleep(0)
        self.asked.append(request)
        no = self.refuses(request)
        if isinstance(no, Exception):
            raise no
        if no is not None:
            raise NetDenied(no)
        return Slip(self, request)

    @property
    def outcomes(self) -> list[Any]:
        return [outcome for _, outcome in self.ended]


@dataclass
class Site:
    """An HTTP server that answers with what it was sent, and by its path in other ways."""

    port: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._answer(reader, writer)
        except (OSError, h11.RemoteProtocolError, h11.LocalProtocolError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http, body, request = h11.Connection(h11.SERVER), b"", None
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if http.they_are_waiting_for_100_continue:
                    writer.write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request = event
                self.arrived.set()
                if event.target.startswith(b"/early"):
                    break
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return
        assert request is not None
        target = request.target.decode()
        told = {
            "method": request.method.decode(),
            "target": target,
            "headers": [(name.decode(), value.decode()) for name, value in request.headers],
            "body": len(body),
        }
        self.seen.append(told)

        await self._respond(http, writer, told)

    async def _respond(self, http: h11.Connection, writer: asyncio.StreamWriter, told: dict[str, Any]) -> None:  # noqa: C901 - a table
        def send(event: Any) -> None:
            writer.write(http.send(event) or b"")

        path, _, query = told["target"].partition("?")
        match path:
            case "/redirect":
                send(h11.Response(status_code=302, headers=[("Location", query), ("Content-Length", "0")]))
            case "/size":
                send(h11.Response(status_code=200, headers=[("Content-Length", query)]))
                left = int(query)
                while left:
                    piece = min(left, 65536)
                    send(h11.Data(data=b"x" * piece))
                    await writer.drain()
                    left -= piece
            case "/chunks":
                send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")]))
                for number in range(int(query)):
                    send(h11.Data(data=f"piece {number};".encode()))
                    await writer.drain()
            case "/slow":
                send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")]))
                send(h11.Data(data=b"first;"))
                await writer.drain()
                await self.go.wait()
                send(h11.Data(data=b"second;"))
            case "/never":
                await self.go.wait()
                return
            case "/garbage":
                auth = dict(told["headers"]).get("authorization", "none")
                writer.write(f"HTTP/9.9 nonsense {auth}\r\n\r\n".encode())
                await writer.drain()
                return
            case "/short":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
                await writer.drain()
                return
            case "/zipped":
                send(h11.Response(status_code=200, headers=[("Content-Encoding", "gzip"), ("Content-Length", "4")]))
                send(h11.Data(data=b"\x1f\x8b\x08\x00"))
            case "/switch":
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
                await writer.drain()
                return
            case "/empty":
                send(h11.Response(status_code=204, headers=[]))
            case "/early":
                send(h11.Response(status_code=413, headers=[("Content-Length", "0"), ("Connection", "close")]))
            case _:
                text = json.dumps(told).encode()
                send(h11.Response(status_code=200, headers=[("Content-Length", str(len(text))), ("Keep-Alive", "timeout=5")]))
                if told["method"] != "HEAD":
                    send(h11.Data(data=text))
        send(h11.EndOfMessage())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.go.set()
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site().listening() as serving:
        yield serving


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `root.pem`, and `server.pem` with a certificate under it and its key."""
    folder = tmp_path_factory.mktemp("certificates")
    now = dt.datetime.now(dt.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])

    def begun(name: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    root = (
        begun(root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.DNSName("api.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = (
        begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test server")]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "root.pem").write_bytes(root.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(leaf.public_bytes(pem) + private)
    return folder


@pytest.fixture
async def secure_site(certificates: Path) -> AsyncIterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem")
    async with Site().listening(context) as serving:
        yield serving


@pytest.fixture
def trust(certificates: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates / "root.pem")


async def to_loopback(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.fixture
def resolver() -> Callable[..., Any]:
    return to_loopback


OpenWay = Callable[..., AbstractAsyncContextManager[Way]]


@pytest.fixture
def way(tmp_path: Path, gate: Gate, trust: ssl.SSLContext) -> OpenWay:
    @asynccontextmanager
    async def enter(
        *,
        inspect: bool = False,
        private: Sequence[str] = ("127.0.0.0/8",),
        credentials: Sequence[HeaderCredential] = (),
        bounds: ProxyBounds | None = None,
        gatekeeper: Callable[[], Gate | None] | None = None,
        find: Any = to_loopback,
    ) -> AsyncIterator[Way]:
        proxies = Proxies(SystemClock(), bounds=bounds, resolver=find, tls=trust)
        async with proxies.open(
            gatekeeper=gatekeeper or (lambda: gate),
            network=Network(inspect, tuple(private)),
            folder=tmp_path / "way",
            credentials=credentials,
        ) as opened:
            yield opened

    return enter
