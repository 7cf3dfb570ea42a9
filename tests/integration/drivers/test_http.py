"""The HTTP driver against real servers: what goes out, what comes back, what never leaves, and what nobody can know."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.canonical import digest
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import ToolEffect
from agentos.credentials.lease import CredentialUnavailable, Lease
from agentos.credentials.reference import Credential, SecretRef
from agentos.drivers.adapters.http import HttpDriver
from agentos.drivers.http_request import USER_AGENT
from agentos.drivers.port import CallContext, ToolSpec
from agentos.egress.asking import NetDenied, NetRequest, Permit

CANARY = "canary-7d1f"
Answer = Callable[["Heard", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Heard:
    """A request as a server read it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass
class Server:
    """A server that answers by `answers` (by path), and remembers what it was asked."""

    port: int = 0
    heard: list[Heard] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            method, target, _ = first.split(" ")
            headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            heard = Heard(method, target, headers, await reader.readexactly(length))
            self.heard.append(heard)
            await self.answers.get(target.partition("?")[0], says(b"ok", "text/plain"))(heard, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def says(body: bytes, kind: str = "application/json", status: int = 200, **headers: str) -> Answer:
    """An answer with a body."""

    async def answer(_: Heard, writer: asyncio.StreamWriter) -> None:
        lines = {"content-type": kind, "content-length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return answer


def raw(*pieces: bytes, hang: bool = False) -> Answer:
    """An answer byte by byte; with `hang` it never ends."""

    async def answer(_: Heard, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hang:
            await asyncio.Event().wait()

    return answer


@asynccontextmanager
async def serving(**answers: Answer) -> AsyncIterator[Server]:
    """A server on a free port of this machine; an answer `a_b` is that of the path /a/b."""
    server = Server(answers={"/" + name.replace("_", "/"): answer for name, answer in answers.items()})
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await server.serve(reader, writer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Gate:
    """A gatekeeper that remembers, and denies hosts."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied
        self.asked: list[NetRequest] = []
        self.ended: list[tuple[str, Any]] = []

    async def ask(self, request: NetRequest) -> Permit:
        self.asked.append(request)
        if request.host in self.denied:
            raise NetDenied(f"{request.host} is not declared")
        return self

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        self.ended.append(("finished", status))

    async def failed(self, message: str) -> None:
        self.ended.append(("failed", message))


class Held:
    """Leases of one canary."""

    leases: tuple[Lease, ...] = ()

    def value(self, secret: str) -> str:
        return CANARY


class Kept:
    """Outputs in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def clean(self, tenant: str, session: str, data: bytes) -> bytes:
        return data.replace(CANARY.encode(), b"[masked]")

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        self.kept[digest(data)] = data
        return digest(data)


def tool(
    server: Server, *, effect: ToolEffect = ToolEffect.READ, timeout_ms: int = 10_000, output_bytes: int = 262_144, **http: Any
) -> ToolSpec:
    credentials = tuple(http.pop("credentials", ()))
    declared = {"url": f"http://127.0.0.1:{server.port}", "private": ["127.0.0.0/8"], **http}
    return ToolSpec(
        "api", "An API.", effect, False, {}, {"http": declared},
        timeout_ms=timeout_ms, output_bytes=output_bytes, credentials=credentials,
    )  # fmt: skip


def context(net: Gate | None = None, **more: Any) -> CallContext:
    return CallContext("acme", "s-1", "c-1", Path("/nowhere"), net=Gate() if net is None else net, **more)


async def call(
    spec: ToolSpec, args: Mapping[str, Any] | None = None, where: CallContext | None = None, outputs: Any = None
) -> Any:
    return await HttpDriver(outputs).call(spec, args or {}, where or context())


BEARER = Credential("github", header="Authorization", format="Bearer {}")


def leased(net: Gate | None = None, *hosts: str) -> CallContext:
    return context(net, leases=Held(), secrets={"github": SecretRef("github", "env", "X", hosts or ("127.0.0.1",))})


async def test_json_becomes_data_and_text() -> None:
    """The body is data for programs and text for the model; the request is asked about without its query."""
    gate = Gate()
    async with serving(v1_things=says(b'{"id": 7}', etag='"a"', set_cookie="a=b", x_ratelimit_left="3")) as server:
        spec = tool(server, url=f"http://127.0.0.1:{server.port}/v1", path="/things", query={"q": "word"})
        result = await call(spec, {"word": "a b&c=d"}, context(gate))
    assert result.content == '{"id": 7}'
    assert result.data == {
        "status": 200,
        "headers": {"content-type": "application/json", "etag": '"a"', "x-ratelimit-left": "3"},
        "body": {"id": 7},
    }
    assert not result.is_error
    assert server.heard[0].target == "/v1/things?q=a%20b%26c%3Dd"
    assert server.heard[0].header("user-agent") == [USER_AGENT]
    assert gate.asked[0].args() == {
        "scheme": "http", "host": "127.0.0.1", "port": server.port, "method": "GET", "path": "/v1/things",
    }  # fmt: skip
    assert gate.ended == [("finished", 200)]


async def test_a_body_and_its_idempotency_key() -> None:
    """Fields are one JSON object; the key of a call made again is the same, that of another call is another."""
    async with serving(orders=says(b"", "text/plain", 201, location="/orders/9")) as server:
        spec = tool(
            server,
            effect=ToolEffect.EXTERNAL,
            method="POST",
            path="/orders",
            body=["title", "n"],
            idempotencyHeader="Idempotency-Key",
        )
        for name in ("c-1", "c-1", "c-2"):
            result = await call(spec, {"title": "é", "n": 1.0}, CallContext("acme", "s-1", name, Path("/nowhere"), net=Gate()))
    assert json.loads(server.heard[0].body) == {"title": "é", "n": 1}
    assert [heard.header("idempotency-key") for heard in server.heard] == [["s-1/c-1"], ["s-1/c-1"], ["s-1/c-2"]]
    assert result.content == "HTTP 201 Created\nlocation: /orders/9"


async def test_a_post_without_a_body_says_so() -> None:
    """Servers ask for a length of requests that may have a body."""
    async with serving() as server:
        await call(tool(server, effect=ToolEffect.EXTERNAL, method="POST", path="/go"))
    assert server.heard[0].header("content-length") == ["0"]


async def test_errors_of_the_api_are_errors_of_the_tool() -> None:
    """A status of 400 and above is told, with how long it asks to wait."""
    async with serving(busy=says(b'{"why": "slow down"}', status=429, retry_after="17")) as server:
        result = await call(tool(server, path="/busy"))
    assert result.is_error
    assert result.content == 'HTTP 429 Too Many Requests\nretry-after: 17\n{"why": "slow down"}'
    assert result.data["headers"]["retry-after"] == "17"
    assert result.data["body"] == {"why": "slow down"}


async def test_what_is_no_text_is_kept_and_named() -> None:
    """A picture is not pushed into the model: its digest is."""
    kept, body = Kept(), b"\x89PNG\x00\x01"
    async with serving(logo=says(body, "image/png")) as server:
        result = await call(tool(server, path="/logo"), outputs=kept)
    assert result.content == f"[6 bytes of image/png, kept: agentos fs cat SESSION {digest(body)}]"
    assert kept.kept == {digest(body): body}
    assert result.data["digest"] == digest(body)


async def test_what_is_too_long_is_cut_and_kept_whole() -> None:
    """The text has the tool's limit; the whole stands under its digest, without what was leased."""
    kept, body = Kept(), b"x" * 5000 + CANARY.encode() + b"y" * 5000
    async with serving(long=says(body, "text/plain; charset=utf-8")) as server:
        result = await call(tool(server, path="/long", output_bytes=2048), outputs=kept)
    whole = body.replace(CANARY.encode(), b"[masked]")
    assert len(result.content.encode()) <= 2048
    assert f"agentos fs cat SESSION {digest(whole)}" in result.content
    assert kept.kept[result.data["digest"]] == whole
    assert "body" not in result.data


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": 90071992547409930}', "2^53"),
        (b'{"a": ', "line 1"),
        (b"[" * 100_000, "no data"),
    ],
)
async def test_json_of_two_meanings_stays_text(body: bytes, said: str) -> None:
    """What readers would read differently is no data; the text is there, and why."""
    async with serving(odd=says(body)) as server:
        result = await call(tool(server, path="/odd"))
    assert "body" not in result.data
    assert said in result.content


# --- credentials


async def test_a_credential_is_put_in_at_last() -> None:
    """The server gets it, and nothing that the caller can see has it."""
    gate = Gate()
    async with serving() as server:
        result = await call(tool(server, path="/x", credentials=[BEARER]), where=leased(gate))
    assert server.heard[0].header("authorization") == [f"Bearer {CANARY}"]
    assert CANARY not in repr((result, gate.asked, gate.ended))


@pytest.mark.parametrize("where", [leased(None, "api.example"), context(), context(leases=Held())], ids=["host", "none", "gone"])
async def test_without_its_credential_a_tool_is_not_used(where: CallContext) -> None:
    """A secret that is for other hosts, is not leased, or is not declared: the same words, and nothing leaves."""
    async with serving() as server:
        with pytest.raises(CredentialUnavailable, match=r"^the tool cannot be used now$"):
            await call(tool(server, path="/x", credentials=[BEARER]), where=where)
    assert server.heard == []


# --- redirects


async def test_redirects_are_not_followed_unless_declared() -> None:
    """The answer is the redirect itself, and says where it leads."""
    async with serving(a=says(b"", "text/plain", 302, location="/b")) as server:
        result = await call(tool(server, path="/a"))
    assert result.content == "HTTP 302 Found\nlocation: /b"
    assert [heard.target for heard in server.heard] == ["/a"]


async def test_each_redirect_is_asked_about_and_counted() -> None:
    """As many as declared are followed, each asked about; the next one is the answer. The credential stays within the place."""
    gate = Gate()
    hop = says(b"", "text/plain", 307, location="../a/./a?again=1")
    async with serving(a_a=hop) as server:
        result = await call(tool(server, path="/a/a", redirects=2, credentials=[BEARER]), where=leased(gate))
    assert [heard.target for heard in server.heard] == ["/a/a", "/a/a?again=1", "/a/a?again=1"]
    assert len(gate.asked) == 3
    assert [heard.header("authorization") for heard in server.heard] == [[f"Bearer {CANARY}"]] * 3
    assert result.data["status"] == 307


async def test_a_redirect_elsewhere_goes_without_credentials_and_headers() -> None:
    """Another port is another place, though the host is one that the secret is for."""
    async with serving(b=says(b"there", "text/plain")) as other, serving() as server:
        server.answers["/a"] = says(b"", "text/plain", 302, location=f"http://127.0.0.1:{other.port}/b")
        spec = tool(server, path="/a", redirects=1, credentials=[BEARER], headers={"X-Region": "eu"})
        result = await call(spec, where=leased())
    assert result.content == "there"
    assert other.heard[0].header("authorization") == other.heard[0].header("x-region") == []
    assert server.heard[0].header("x-region") == ["eu"]


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://0xa9fea9fe/",
        "http://2852039166/",
        "http://10.0.0.1/",
        "//10.0.0.1/",
        "http://user:pass@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
        "http://127.0.0.1\\@10.0.0.1/",
        "http://127.0.0.1:99999/",
        "/a%2f..%2fb",
        "http://[::1/",
        "/%0d%0aX:y",
    ],
)
async def test_a_redirect_leads_to_no_private_network(location: str) -> None:
    """Whatever the answer says: addresses beyond those declared, other schemes and tricks are not followed, and that is told."""
    async with serving(a=says(b"", "text/plain", 302, location=location)) as server:
        with pytest.raises(NetDenied):
            await call(tool(server, path="/a", redirects=3))
    assert [heard.target for heard in server.heard] == ["/a"]


async def test_a_redirect_that_policy_denies_is_not_followed() -> None:
    """Each hop is decided like the first; a denial is what the model reads."""
    gate = Gate("localhost")
    async with serving(a=says(b"", "text/plain", 301, location="http://localhost:1/x")) as server:
        with pytest.raises(NetDenied, match="localhost is not declared"):
            await call(tool(server, path="/a", redirects=1), where=context(gate))
    assert [one.host for one in gate.asked] == ["127.0.0.1", "localhost"]


async def test_what_changes_something_follows_no_redirect() -> None:
    """A POST is answered by the redirect, whatever the declaration says."""
    async with serving(a=says(b"", "text/plain", 307, location="/b")) as server:
        result = await call(tool(server, effect=ToolEffect.EXTERNAL, method="POST", path="/a", redirects=3))
    assert [heard.target for heard in server.heard] == ["/a"]
    assert result.data["status"] == 307


# --- what does not leave, and what nobody knows


async def test_nothing_leaves_without_a_gatekeeper() -> None:
    """No one to decide: no request."""
    async with serving() as server:
        with pytest.raises(NetDenied):
            await call(tool(server), where=CallContext("acme", "s-1", "c-1", Path("/nowhere")))
    assert server.heard == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://localhost:{port}", "http://[::ffff:127.0.0.1]:{port}"])
async def test_private_networks_are_refused_unless_declared(url: str) -> None:
    """This machine is not of the public internet."""
    async with serving() as server:
        with pytest.raises(NetDenied, match="not of the public internet"):
            await call(tool(server, url=url.format(port=server.port), private=[]))
    assert server.heard == []


async def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """The answers of the name server are all judged, once, and the connection goes to one of them: no second look-up."""
    answers = [["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]]

    async def resolver(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async with serving() as server:
        with pytest.raises(NetDenied, match="not of the public internet"):
            await HttpDriver(resolver=resolver).call(
                tool(server, url=f"http://rebind.example:{server.port}", private=[]), {}, context()
            )
    assert server.heard == []
    assert len(answers) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_surely_did_not_leave_is_a_plain_error(method: str) -> None:
    """No connection, no name: it can be tried again, whatever it would have done."""
    effect = ToolEffect.READ if method == "GET" else ToolEffect.EXTERNAL

    async def nothing(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    async with serving() as server:
        closed = tool(server, effect=effect, method=method)
    for driver, spec in [
        (HttpDriver(), closed),
        (HttpDriver(resolver=nothing), tool(server, effect=effect, method=method, url="https://gone.example")),
    ]:
        with pytest.raises(DriverError) as caught:
            await driver.call(spec, {}, context())
        assert not isinstance(caught.value, OutcomeUnknown)


async def test_tls_that_fails_did_not_leave() -> None:
    """A server that speaks no TLS gets nothing of the request."""
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        heard.extend(await reader.read(65_536))
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        spec = tool(Server(port), effect=ToolEffect.EXTERNAL, method="POST", url=f"https://127.0.0.1:{port}", body="b")
        with pytest.raises(DriverError, match="TLS fails") as caught:
            await call(spec, {"b": CANARY})
    assert not isinstance(caught.value, OutcomeUnknown)
    assert CANARY.encode() not in heard


LOST = {
    "closed": raw(),
    "garbage": raw(b"\x00\x01\x02 SSH-2.0\r\n\r\n"),
    "smuggled": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "endless-head": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000),
    "upgraded": raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "silent": raw(hang=True),
}


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
async def test_no_answer_to_a_change_is_unknown(answer: Answer) -> None:
    """Something was sent and nothing came that could be read: nobody knows. A call that only reads may be made again."""
    gate = Gate()
    async with serving(a=answer) as server:
        with pytest.raises(OutcomeUnknown):
            await call(tool(server, effect=ToolEffect.EXTERNAL, method="POST", path="/a", timeout_ms=300), where=context(gate))
        with pytest.raises(DriverError) as caught:
            await call(tool(server, path="/a", timeout_ms=300), where=context(gate))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert [how for how, _ in gate.ended] == ["failed", "failed"]


HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\n"
BROKEN = {
    "short": raw(HEAD + b"Content-Length: 100\r\n\r\nhalf"),
    "bad-chunk": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"),
    "huge-chunk": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nfffffffffffffffffffff\r\n"),
    "never-ends": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", hang=True),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_an_answer_that_breaks_off_is_an_answer(answer: Answer) -> None:
    """The status says what came of a change, though the rest is missing; what only reads is an error, to be made again."""
    async with serving(a=answer) as server:
        result = await call(tool(server, effect=ToolEffect.EXTERNAL, method="POST", path="/a", timeout_ms=300))
        with pytest.raises(DriverError):
            await call(tool(server, path="/a", timeout_ms=300))
    assert result.data["status"] == 201
    assert result.content.startswith("HTTP 201 Created\nhalf\n[the answer broke off after 4 bytes")


async def test_an_answer_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops at the bound; the text is what came until there."""
    monkeypatch.setattr("agentos.drivers.adapters.http.MAX_KEPT", 300_000)

    async def flood(_: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"y" * 65_536)
            await writer.drain()

    async with serving(a=flood) as server:
        result = await call(tool(server, path="/a", output_bytes=2048))
    assert len(result.content.encode()) <= 2048
    assert "larger than 300000 bytes, and the rest was not read" in result.content


async def test_a_bomb_is_not_unpacked_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that unpack to many: the bound holds for what comes out."""
    monkeypatch.setattr("agentos.drivers.http_answer.MAX_KEPT", 1_000_000)
    bomb = gzip.compress(b"0" * 50_000_000)
    async with serving(a=says(bomb, "text/plain", content_encoding="gzip")) as server:
        kept = Kept()
        result = await call(tool(server, path="/a", output_bytes=2048), outputs=kept)
    assert "unpacked it is larger than 1000000 bytes" in result.content
    assert [len(one) for one in kept.kept.values()] == [1_000_000]


async def test_what_is_compressed_is_unpacked() -> None:
    """gzip is asked for, and read; another encoding is kept as it is."""
    async with serving(
        a=says(gzip.compress(b'{"id": 1}'), content_encoding="gzip"),
        b=says(b"brotli, perhaps", content_encoding="br"),
        c=says(b"no gzip", content_encoding="gzip"),
    ) as server:
        good, other, bad = [await call(tool(server, path=path)) for path in ("/a", "/b", "/c")]
    assert good.data["body"] == {"id": 1}
    assert "encoded as 'br'" in other.content
    assert "cannot be unpacked" in bad.content
    assert "body" not in {**other.data, **bad.data}


async def test_a_decision_that_does_not_come_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody has said yes nothing has left, whatever the request would do."""
    monkeypatch.setattr("agentos.drivers.adapters.http._GRACE_S", 0.05)

    class Slow(Gate):
        async def ask(self, request: NetRequest) -> Permit:
            return await asyncio.Event().wait() and self

    async with serving() as server:
        with pytest.raises(DriverError, match="nothing was sent") as caught:
            await call(tool(server, effect=ToolEffect.EXTERNAL, method="POST", timeout_ms=100), where=context(Slow()))
    assert not isinstance(caught.value, OutcomeUnknown)
    assert server.heard == []


async def test_cancelling_stops_the_request() -> None:
    """The connection is gone when the call is given up, and whoever was asked knows."""
    gate, gone, begun = Gate(), asyncio.Event(), asyncio.Event()

    async def wait(_: Heard, writer: asyncio.StreamWriter) -> None:
        begun.set()
        try:
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            gone.set()
            raise

    async with serving(a=wait) as server:
        task = asyncio.create_task(call(tool(server, path="/a"), where=context(gate)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await gone.wait()
    assert [how for how, _ in gate.ended] == ["failed"]
