"""The proxy of a sandbox against real servers, spoken to on its socket byte for byte."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.errors import DriverError, SequenceConflict
from agentos.egress.adapters.proxy import Proxies, Way
from agentos.egress.asking import NO_REQUEST, NetDenied, Scheme
from agentos.egress.outbound import Bounds, HeaderCredential, ProxyBounds
from agentos.sandbox.profile import Network

CANARY = "canary-91ab77d2"


class Dialogue:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes | str) -> None:
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in raw[1:] if line)
        return int(raw[0].split(" ")[1]), headers

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        return status, headers, body

    async def ends(self) -> bytes:
        """All that still comes until the other side has closed."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def secured(self, host: str | None, root: bytes) -> None:
        """TLS, trusting only `root`."""
        context = ssl.create_default_context(cadata=root.decode("ascii"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        if host is None:
            context.check_hostname = False
        loop, protocol = asyncio.get_running_loop(), asyncio.StreamReaderProtocol(reader := asyncio.StreamReader())
        transport = await loop.start_tls(self.writer.transport, protocol, context, server_hostname=host)
        assert transport is not None
        protocol.connection_made(transport)
        self.reader, self.writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)


@asynccontextmanager
async def dialogue(way: Way) -> AsyncIterator[Dialogue]:
    reader, writer = await asyncio.open_unix_connection(str(way.socket))
    talk = Dialogue(reader, writer)
    try:
        async with asyncio.timeout(20):
            yield talk
    finally:
        writer.transport.abort()
        talk.writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def tunnelled(way: Way, where: str, *, tls: str | None = None) -> AsyncIterator[Dialogue]:
    async with dialogue(way) as talk:
        await talk.say(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n")
        assert (await talk.head())[0] == 200
        if tls is not None:
            assert way.authority is not None
            await talk.secured(tls, way.authority)
        yield talk


def get(url: str, *headers: str, host: str | None = None) -> str:
    named = host or url.split("/")[2]
    return "\r\n".join([f"GET {url} HTTP/1.1", f"Host: {named}", *headers, "", ""])


def connect(where: str) -> str:
    return f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n"


async def test_absolute_form_is_asked_with_method_and_path(way: Any, gate: Any, site: Any) -> None:
    """Plain http is asked about whole; several requests come on one connection, nothing of a connection passes."""
    async with way() as open_way, dialogue(open_way) as talk:
        await talk.say(
            get(f"http://api.test:{site.port}/a//b/../c?q=1", "Proxy-Authorization: Basic x", "Connection: X-Drop", "X-Drop: 1")
        )
        status, headers, body = await talk.response()
        seen = json.loads(body)
        assert status == 200
        assert "keep-alive" not in headers
        assert seen["target"] == "/a/c?q=1"
        assert {name for name, _ in seen["headers"]} == {"host", "connection"}
        post = f"POST http://api.test:{site.port}/p HTTP/1.1\r\nHost: api.test:{site.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await talk.say(post + "3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: dropped\r\n\r\n")
        assert json.loads((await talk.response())[2])["body"] == 7
        await talk.say(f"HEAD http://api.test:{site.port}/p HTTP/1.1\r\nHost: api.test:{site.port}\r\n\r\n")
        assert (await talk.head())[0] == 200
        await talk.say(get(f"http://api.test:{site.port}/chunks?5"))
        assert (await talk.response())[2].count(b"piece") == 5
    assert [(one.scheme, one.method, one.path) for one in gate.asked] == [
        (Scheme.HTTP, "GET", "/a/c"),
        (Scheme.HTTP, "POST", "/p"),
        (Scheme.HTTP, "HEAD", "/p"),
        (Scheme.HTTP, "GET", "/chunks"),
    ]
    assert [one["status"] for one in gate.outcomes] == [200, 200, 200, 200]


async def test_pipelined_requests_are_answered_in_order(way: Any, gate: Any, site: Any) -> None:
    """Bytes behind a request are the next one."""
    async with way() as open_way, dialogue(open_way) as talk:
        first = f"POST http://api.test:{site.port}/1 HTTP/1.1\r\nHost: api.test:{site.port}\r\nContent-Length: 3\r\n\r\nabc"
        await talk.say(first + get(f"http://api.test:{site.port}/2") + get(f"http://api.test:{site.port}/3", "Connection: close"))
        targets = [json.loads((await talk.response())[2])["target"] for _ in range(3)]
        assert await talk.ends() == b""
    assert targets == ["/1", "/2", "/3"]


async def test_continue_is_said_once_it_is_allowed(way: Any, gate: Any, site: Any) -> None:
    """A client that waits before it sends is told to go on only after policy has said yes."""
    async with way() as open_way:
        host = f"api.test:{site.port}"
        head = f"PUT http://{host}/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        async with dialogue(open_way) as talk:
            await talk.say(head)
            assert (await talk.head())[0] == 100
            await talk.say("hi")
            assert json.loads((await talk.response())[2])["body"] == 2
        gate.refuses = lambda _: "no"
        async with dialogue(open_way) as talk:
            await talk.say(head)
            assert (await talk.response())[0] == 403


async def test_a_denial_says_why(way: Any, gate: Any, site: Any) -> None:
    """403 with the words of policy as JSON; the connection stays when nothing is left unread."""
    gate.refuses = lambda _: NetDenied("denied by policy (network.undeclared): no destination covers it", mend="declare it")
    async with way() as open_way, dialogue(open_way) as talk:
        for _ in range(2):
            await talk.say(get(f"http://api.test:{site.port}/secret"))
            status, headers, body = await talk.response()
            assert (status, headers["content-type"]) == (403, "application/json")
            assert json.loads(body) == {
                "error": "denied by policy (network.undeclared): no destination covers it",
                "mend": "declare it",
            }
        await talk.say(connect(f"api.test:{site.port}"))
        assert (await talk.response())[0] == 403
    assert (site.connections, len(gate.asked)) == (0, 3)
    assert gate.asked[-1].args() == {"scheme": "tunnel", "host": "api.test", "port": site.port}


async def test_what_cannot_be_recorded_is_not_done(way: Any, gate: Any, site: Any) -> None:
    """503 when the log does not take it, 502 when a credential is not to be had."""
    async with way() as open_way, dialogue(open_way) as talk:
        gate.refuses = lambda _: SequenceConflict("the subject has moved")
        await talk.say(get(f"http://api.test:{site.port}/"))
        assert (await talk.response())[0] == 503
        gate.refuses = lambda _: DriverError("the tool cannot be used now")
        await talk.say(get(f"http://api.test:{site.port}/"))
        assert (await talk.response())[0] == 502
    assert site.connections == 0


async def test_private_addresses_are_refused(way: Any, gate: Any, site: Any) -> None:
    """Without `private`, neither a request nor a tunnel leads to this machine."""
    async with way(private=()) as open_way, dialogue(open_way) as talk:
        await talk.say(get(f"http://api.test:{site.port}/"))
        status, _, body = await talk.response()
        assert status == 403
        assert "this machine" in json.loads(body)["error"]
        await talk.say(connect(f"127.0.0.1:{site.port}"))
        assert (await talk.response())[0] == 403
    assert site.connections == 0
    assert len(gate.ended) == 2


SMUGGLED = {
    "two lengths that differ": "POST {u} HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "a list of lengths": "POST {u} HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3, 3\r\n\r\nabc",
    "two lengths": "POST {u} HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length and chunks": "POST {u} HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": "POST {u} HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunks in disguise": "POST {u} HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks on two lines": "POST {u} HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0",
    "folded": "GET {u} HTTP/1.1\r\nHost: {h}\r\nX: a\r\n b\r\n\r\n",
    "folded host": "GET {u} HTTP/1.1\r\nHost:\r\n {h}\r\n\r\n",
    "bare line feed": "GET {u} HTTP/1.1\r\nHost: {h}\nX: y\r\n\r\n",
    "bare line feeds": "GET {u} HTTP/1.1\nHost: {h}\n\n\r\n\r\n",
    "carriage return": "GET {u} HTTP/1.1\r\nHost: {h}\r\nX: a\rb\r\n\r\n",
    "nul": "GET {u} HTTP/1.1\r\nHost: {h}\r\nX: a\0b\r\n\r\n",
    "space before colon": "POST {u} HTTP/1.1\r\nHost: {h}\r\nContent-Length : 3\r\n\r\nabc",
    "empty line first": "\r\nGET {u} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "two hosts": "GET {u} HTTP/1.1\r\nHost: {h}\r\nHost: other.test\r\n\r\n",
    "another host": "GET {u} HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "another port": "GET {u} HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "no host": "GET {u} HTTP/1.1\r\n\r\n",
    "user name": "GET http://u:p@{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "user name in host": "GET {u} HTTP/1.1\r\nHost: api.test@other.test\r\n\r\n",
    "origin form": "GET / HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "asterisk": "OPTIONS * HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "https in absolute form": "GET https://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "file": "GET file:///etc/passwd HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "fragment": "GET {u}#x HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "encoded slash": "GET {u}..%2fadmin HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "encoded backslash": "GET {u}..%5cadmin HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "backslash": "GET {u}..\\admin HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "parameter": "GET {u}a/..;/admin HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "encoded twice": "GET {u}%252e%252e/admin HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "trace": "TRACE {u} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "lower case": "get {u} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "websocket": "GET {u} HTTP/1.1\r\nHost: {h}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "http/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/0.9": "GET {u}\r\n\r\n",
    "not http": "EHLO there\r\n\r\n",
    "connect without port": "CONNECT api.test HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "connect to an address": "CONNECT http://{h}/ HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "connect to another": "CONNECT {h} HTTP/1.1\r\nHost: other.test:443\r\n\r\n",
    "connect with a body": "CONNECT {h} HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\r\n\r\nabc",
    "negative length": "POST {u} HTTP/1.1\r\nHost: {h}\r\nContent-Length: -1\r\n\r\n",
    "signed length": "POST {u} HTTP/1.1\r\nHost: {h}\r\nContent-Length: +3\r\n\r\nabc",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_could_be_read_in_two_ways_is_refused(way: Any, gate: Any, site: Any, name: str) -> None:
    """One error, the connection closed, nothing sent, what follows is read by nobody; and the attempt is recorded as one."""
    host = f"api.test:{site.port}"
    async with way() as open_way, dialogue(open_way) as talk:
        await talk.say(SMUGGLED[name].format(u=f"http://{host}/", h=host) + get(f"http://{host}/second"))
        status, _, body = await talk.response()
        assert status in {400, 403, 421, 431, 501, 505}
        assert json.loads(body)["error"]
        assert await talk.ends() == b""
    assert (site.seen, gate.asked) == ([], [NO_REQUEST])
    assert [type(outcome) for outcome in gate.outcomes] == [str]


async def test_the_log_of_the_runtime_has_no_words_of_a_sandbox(way: Any, gate: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a process writes in place of a host: the log says that it was refused, in words of its own, and not for ever."""
    caplog.set_level(logging.DEBUG)
    async with way() as open_way:
        for _ in range(25):
            async with dialogue(open_way) as talk:
                await talk.say(f"CONNECT {CANARY}_!!:443 HTTP/1.1\r\nHost: {CANARY}\r\n\r\n")
                assert (await talk.response())[0] == 400
    lines = [record.getMessage() for record in caplog.records if record.name == "agentos.egress"]
    assert (len(lines), len(set(lines))) == (20, 2)
    assert CANARY not in caplog.text
    assert lines[-1].endswith("nothing more is told of this sandbox")
    assert set(gate.asked) == {NO_REQUEST}


@pytest.mark.parametrize(
    "chunk",
    [
        "g\r\nabc",
        "3\nabc\r\n",
        "3\r\nabcd\r\n",
        "-3\r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "99999999999999999999999\r\n",
    ],
)
async def test_bad_chunks(way: Any, gate: Any, site: Any, chunk: str) -> None:
    """A body that is no proper body ends the request and the connection; the server never has the whole."""
    host = f"api.test:{site.port}"
    async with way() as open_way, dialogue(open_way) as talk:
        await talk.say(f"POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")
        assert (await talk.response())[0] == 502
        assert await talk.ends() == b""
    assert site.seen == []
    assert [type(one) for one in gate.outcomes] == [str]


async def test_long_heads_and_slow_heads(way: Any, gate: Any) -> None:
    """A head has a size and a time, however it comes."""
    bounds = ProxyBounds(head_bytes=4096, head_s=0.3)
    async with way(bounds=bounds) as open_way:
        async with dialogue(open_way) as talk:
            await talk.say(get("http://api.test/", "X: " + "x" * 5000))
            assert (await talk.response())[0] == 431
        async with dialogue(open_way) as talk:
            await talk.say("x" * 5000)
            assert (await talk.response())[0] == 431
        async with dialogue(open_way) as talk:
            for one in "GET http":
                await talk.say(one)
                await asyncio.sleep(0.05)
            assert (await talk.response())[0] == 408
            assert await talk.ends() == b""
    assert gate.asked == [NO_REQUEST] * 3


async def test_idle_connections_are_closed(way: Any, gate: Any, site: Any) -> None:
    """Who says nothing is let go, before a request and in the middle of one."""
    async with way(bounds=ProxyBounds(idle_s=0.2)) as open_way:
        async with dialogue(open_way) as talk:
            assert await talk.ends() == b""
        async with dialogue(open_way) as talk:
            host = f"api.test:{site.port}"
            await talk.say(f"POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nab")
            assert (await talk.response())[0] == 504
    assert [type(one) for one in gate.outcomes] == [str]


async def test_too_many_connections(way: Any, gate: Any) -> None:
    """One more than may be is told so; one that leaves makes room."""
    async with way(bounds=ProxyBounds(connections=2)) as open_way, dialogue(open_way) as one, dialogue(open_way) as two:
        gate.refuses = lambda _: "no"
        for talk in (one, two):
            await talk.say(get("http://api.test/"))
            assert (await talk.response())[0] == 403
        async with dialogue(open_way) as three:
            assert (await three.response())[0] == 503
            assert await three.ends() == b""
        one.writer.close()
        for _ in range(100):
            await asyncio.sleep(0.01)
            async with dialogue(open_way) as four:
                await four.say(get("http://api.test/"))
                if (await four.response())[0] == 403:
                    break
        else:
            pytest.fail("no room was made")


async def test_tunnels(way: Any, gate: Any, secure_site: Any, certificates: Path) -> None:
    """Bytes pass both ways without being looked into; asked by host and port, told with sizes."""
    async with way() as open_way, tunnelled(open_way, f"api.test:{secure_site.port}") as talk:
        await talk.secured("api.test", (certificates / "root.pem").read_bytes())
        await talk.say(get("/inside", host="whoever"))
        assert json.loads((await talk.response())[2])["target"] == "/inside"
    assert [one.args() for one in gate.asked] == [{"scheme": "tunnel", "host": "api.test", "port": secure_site.port}]
    outcome = gate.outcomes[0]
    assert (outcome["status"], outcome["address"]) == (None, "127.0.0.1")
    assert outcome["sent"] > 100
    assert outcome["received"] > 1000


async def test_bytes_that_come_with_the_connect(way: Any, gate: Any, site: Any) -> None:
    """A client that does not wait for the answer loses nothing."""
    async with way() as open_way, dialogue(open_way) as talk:
        await talk.say(connect(f"api.test:{site.port}") + get("/at-once", host="x"))
        assert (await talk.head())[0] == 200
        assert json.loads((await talk.response())[2])["target"] == "/at-once"


async def test_a_tunnel_ends_with_the_call(way: Any, gate: Any, site: Any) -> None:
    """Once somebody else decides, no byte passes through a tunnel that was allowed before."""
    current: list[Any] = [gate]
    async with way(gatekeeper=lambda: current[0]) as open_way, tunnelled(open_way, f"api.test:{site.port}") as talk:
        await talk.say(get("/chunks?1", host="x")[:20])
        current[0] = None
        await talk.say(get("/chunks?1", host="x")[20:])
        assert await talk.ends() == b""
        assert site.seen == []
        async with dialogue(open_way) as other:
            await other.say(connect(f"api.test:{site.port}"))
            assert (await other.response())[0] == 403
    assert len(gate.ended) == 1


async def test_settling_cuts_what_is_outdated_and_nothing_else(way: Any, gate: Any, site: Any) -> None:
    """`settle` returns once all that an earlier call had under way is closed and told."""
    current: list[Any] = [gate]
    async with way(gatekeeper=lambda: current[0]) as open_way:
        async with tunnelled(open_way, f"api.test:{site.port}") as tunnel, dialogue(open_way) as slow, dialogue(open_way) as idle:
            await slow.say(get(f"http://api.test:{site.port}/slow"))
            assert (await slow.head())[0] == 200
            await idle.say(get(f"http://api.test:{site.port}/"))
            await idle.response()
            await open_way.settle()
            assert len(gate.ended) == 1
            current[0] = later = type(gate)()
            await open_way.settle()
            assert len(gate.ended) == 3
            assert await tunnel.ends() == b""
            assert await slow.ends() in {b"", b"6\r\nfirst;\r\n"}
            await idle.say(get(f"http://api.test:{site.port}/again"))
            assert (await idle.response())[0] == 200
        assert [one.path for one in later.asked] == ["/again"]


async def test_leaving_cuts_everything(way: Any, gate: Any, site: Any) -> None:
    """When the block is left, tunnels and requests are closed, told, and the socket is gone."""
    async with way() as open_way:
        tunnel_way, slow_way = tunnelled(open_way, f"api.test:{site.port}"), dialogue(open_way)
        tunnel, slow = await tunnel_way.__aenter__(), await slow_way.__aenter__()
        await slow.say(get(f"http://api.test:{site.port}/never"))
        await site.arrived.wait()
    assert await tunnel.ends() == await slow.ends() == b""
    assert len(gate.ended) == 2
    assert not open_way.socket.exists()
    await tunnel_way.__aexit__(None, None, None)
    await slow_way.__aexit__(None, None, None)


async def test_inspected_requests_carry_credentials_that_the_client_never_sees(
    way: Any, gate: Any, secure_site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS is ended, each request is asked about, and the credential is put in behind the client's back."""
    caplog.set_level(logging.DEBUG)
    credential = HeaderCredential("Authorization", lambda: f"Bearer {CANARY}", ("api.test",))
    where = f"api.test:{secure_site.port}"
    async with way(inspect=True, credentials=[credential]) as open_way, tunnelled(open_way, where, tls="api.test") as talk:
        assert talk.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        for path in ("/one", "/empty", "/size?200000"):
            await talk.say(get(path, "Authorization: Bearer client", host=where))
            status, headers, body = await talk.response()
            assert status in {200, 204}
            assert CANARY not in json.dumps(headers)
        assert len(body) == 200_000
        await talk.say(get("/garbage", host=where))
        status, _, body = await talk.response()
        assert status == 502
        assert CANARY.encode() not in body
    sent = [value for one in secure_site.seen for name, value in one["headers"] if name == "authorization"]
    assert sent == [f"Bearer {CANARY}"] * 4
    assert [(one.scheme, one.method, one.path) for one in gate.asked] == [
        (Scheme.HTTPS, "GET", path) for path in ("/one", "/empty", "/size", "/garbage")
    ]
    assert CANARY not in caplog.text + repr(gate.ended) + repr(gate.asked)


async def test_inspected_denials(way: Any, gate: Any, secure_site: Any) -> None:
    """Denied by method and path; the rest of the connection may still be used."""
    gate.refuses = lambda one: None if one.path == "/open" else "denied by policy (network.undeclared): no"
    where = f"api.test:{secure_site.port}"
    async with way(inspect=True) as open_way, tunnelled(open_way, where, tls="api.test") as talk:
        for path, expected in (("/shut", 403), ("/open", 200), ("/open/../shut", 403), ("/x/..//open", 200)):
            await talk.say(get(path, host=where))
            assert (await talk.response())[0] == expected
    assert [one["target"] for one in secure_site.seen] == ["/open", "/open"]


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: {w}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {w}\r\nHost: other.test\r\n\r\n",
        "CONNECT other.test:443 HTTP/1.1\r\nHost: {w}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {w}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_inside_a_tunnel_another_host_is_refused(way: Any, gate: Any, secure_site: Any, head: str) -> None:
    """A request cannot be for another host than its tunnel, nor become something else."""
    where = f"api.test:{secure_site.port}"
    async with way(inspect=True) as open_way, tunnelled(open_way, where, tls="api.test") as talk:
        await talk.say(head.format(w=where))
        assert (await talk.response())[0] in {400, 421, 501}
        assert await talk.ends() == b""
    assert (gate.asked, secure_site.connections) == ([NO_REQUEST], 0)


async def test_another_name_in_the_handshake(way: Any, gate: Any, secure_site: Any) -> None:
    """A handshake for another name than the tunnel's is refused; without a name the tunnel's counts."""
    where = f"api.test:{secure_site.port}"
    async with way(inspect=True) as open_way:
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            async with tunnelled(open_way, where, tls="other.test"):
                pass
        async with dialogue(open_way) as talk:
            await talk.say(connect(where))
            await talk.head()
            await talk.secured(None, open_way.authority)
            await talk.say(get("/", host=where))
            assert (await talk.response())[0] == 200


async def test_plain_http_in_an_inspected_tunnel(way: Any, gate: Any, site: Any) -> None:
    """What is no TLS is told so instead of being passed on unseen."""
    async with way(inspect=True) as open_way, tunnelled(open_way, f"api.test:{site.port}") as talk:
        await talk.say(get("/", host="api.test"))
        status, _, body = await talk.response()
        assert status == 400
        assert "TLS" in json.loads(body)["error"]
    assert (gate.asked, site.connections) == ([NO_REQUEST], 0)


async def test_addresses_can_be_inspected_too(way: Any, gate: Any, secure_site: Any) -> None:
    """The stand-in has a certificate for an address as well as for a name."""
    where = f"127.0.0.1:{secure_site.port}"
    async with way(inspect=True) as open_way, tunnelled(open_way, where, tls="127.0.0.1") as talk:
        await talk.say(get("/", host=where))
        assert (await talk.response())[0] == 200


async def test_a_server_that_cannot_be_trusted_is_not_stood_in_for(way: Any, gate: Any, secure_site: Any) -> None:
    """The proxy verifies what the client cannot."""
    where = f"wrong.test:{secure_site.port}"
    async with way(inspect=True) as open_way, tunnelled(open_way, where, tls="wrong.test") as talk:
        await talk.say(get("/", host=where))
        status, _, body = await talk.response()
        assert status == 502
        assert "certificate" in json.loads(body)["error"]


@pytest.mark.parametrize(("path", "status"), [("/short", 200), ("/switch", 502), ("/early", 413), ("/never", 504)])
async def test_servers_that_misbehave(way: Any, gate: Any, site: Any, path: str, status: int) -> None:
    """What is cut short arrives cut short, never as a whole; all else is an answer of its own."""
    bounds = ProxyBounds(each=Bounds(idle_s=0.3))
    async with way(bounds=bounds) as open_way, dialogue(open_way) as talk:
        await talk.say(get(f"http://api.test:{site.port}{path}"))
        assert (await talk.head())[0] == status
        if path == "/short":
            assert await talk.ends() == b"short"
    assert len(gate.ended) == 1


async def test_a_response_that_is_too_large_is_cut(way: Any, gate: Any, site: Any) -> None:
    """The client can tell that it has not got all."""
    async with way(bounds=ProxyBounds(each=Bounds(body_bytes=100_000))) as open_way, dialogue(open_way) as talk:
        await talk.say(get(f"http://api.test:{site.port}/size?200000"))
        await talk.head()
        assert len(await talk.ends()) <= 100_000
    assert isinstance(gate.outcomes[0], str)


async def test_a_client_that_leaves_in_the_middle(way: Any, gate: Any, site: Any) -> None:
    """What nobody takes is told as having come to nothing, and the connection to the server is closed."""
    async with way() as open_way:
        async with dialogue(open_way) as talk:
            await talk.say(get(f"http://api.test:{site.port}/size?50000000"))
            await talk.head()
        async with asyncio.timeout(10):
            while not gate.ended:
                await asyncio.sleep(0.01)
    assert isinstance(gate.outcomes[0], str)


async def test_many_at_once(way: Any, gate: Any, secure_site: Any) -> None:
    """50 inspected connections at one time each get their own answer."""
    where = f"api.test:{secure_site.port}"

    async def one(open_way: Way, number: int) -> str:
        async with tunnelled(open_way, where, tls="api.test") as talk:
            await talk.say(get(f"/n/{number}", host=where))
            return str(json.loads((await talk.response())[2])["target"])

    async with way(inspect=True) as open_way:
        assert await asyncio.gather(*(one(open_way, number) for number in range(50))) == [f"/n/{number}" for number in range(50)]
    assert len(gate.ended) == 50


async def test_names_are_looked_up_once(way: Any, gate: Any, site: Any) -> None:
    """A tunnel to a name that turns private after it was allowed goes nowhere."""
    answers: list[Sequence[str]] = [["127.0.0.1"], ["169.254.169.254"]]

    async def find(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    async with way(find=find) as open_way:
        async with tunnelled(open_way, f"rebind.test:{site.port}") as talk:
            await talk.say(get("/", host="x"))
            assert (await talk.response())[0] == 200
        async with dialogue(open_way) as talk:
            await talk.say(connect(f"rebind.test:{site.port}"))
            assert (await talk.response())[0] == 403


async def test_the_socket_is_for_the_sandbox_alone(way: Any, gate: Any, tmp_path: Path) -> None:
    """Its folder is private, the socket itself is open to whichever user the sandbox has; no key lies beside it."""
    async with way(inspect=True) as open_way:
        assert stat.S_IMODE(open_way.socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(open_way.socket.stat().st_mode) == 0o666
        assert [one.name for one in open_way.socket.parent.iterdir()] == ["egress.sock"]
        assert open_way.authority is not None
        assert b"PRIVATE" not in open_way.authority


async def test_long_folders(gate: Any, tmp_path: Path) -> None:
    """The path of the socket may be longer than the address of one can be."""

    class Clock:
        def now_ms(self) -> int:
            return 1_700_000_000_000

    folder = tmp_path / ("long-" * 20) / ("longer-" * 20)
    async with Proxies(Clock()).open(gatekeeper=lambda: gate, network=Network(), folder=folder) as way:
        assert stat.S_ISSOCK(way.socket.stat().st_mode)
        near = tmp_path / "near"
        near.symlink_to(folder)
        async with dialogue(Way(near / "egress.sock", None, way.settle)) as talk:
            gate.refuses = lambda _: "no"
            await talk.say(get("http://api.test/"))
            assert (await talk.response())[0] == 403


def test_way_has_no_secret_in_its_words() -> None:
    """A way can be put into a message."""

    async def nothing() -> None:
        """Settle nothing."""

    assert "settle" not in repr(Way(Path("/x"), None, nothing))
