"""MCP servers at an address: the SDK's own server in each of its ways, and servers that answer what no server should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import ToolEffect
from agentos.credentials.lease import CredentialUnavailable, Kept, Lease
from agentos.credentials.reference import Credential, SecretRef
from agentos.drivers.adapters.mcp import McpDriver
from agentos.drivers.adapters.mcp_link import MAX_MESSAGE
from agentos.drivers.port import CallContext, ToolSpec
from agentos.egress.asking import NetDenied, NetRequest, Permit
from agentos.sandbox.adapters.chooser import HostSandboxes

SCHEMA: dict[str, Json] = {"type": "object", "properties": {}}
LOOPBACK = ["127.0.0.0/8"]


class Gate:
    """Who is asked about the requests of one call; `denied` paths are denied."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied
        self.asked: list[NetRequest] = []
        self.ended: list[int | str | None] = []

    async def ask(self, request: NetRequest) -> Permit:
        self.asked.append(request)
        if request.path in self.denied:
            raise NetDenied("no rule allows it")
        return self

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        self.ended.append(status)

    async def failed(self, message: str) -> None:
        self.ended.append(message)


class Held:
    """Leases of one secret, whose value is `now`."""

    def __init__(self, now: str) -> None:
        self.now = now
        self.leases: tuple[Lease, ...] = ()

    def value(self, secret: str) -> str:
        if not self.now:
            raise CredentialUnavailable
        return self.now

    def keep(self, over: Callable[[], None] | None = None) -> Kept:
        raise AssertionError("what goes into headers is not kept")


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[McpDriver]:
    made = McpDriver(HostSandboxes(tmp_path / "home"))
    yield made
    await made.close()


def context(tmp_path: Path, net: Gate | None, **more: Any) -> CallContext:
    return CallContext("default", "s-1", "call-1-1", tmp_path, net=net, **more)


def tool(
    url: str, name: str = "go", *, effect: ToolEffect = ToolEffect.EXTERNAL, timeout_ms: int = 5000, **server: Json
) -> ToolSpec:
    mcp: dict[str, Json] = {"server": {"url": url, "private": LOOPBACK, **server}, "tool": name}
    schema = {**SCHEMA, "title": f"{name}Arguments"}
    return ToolSpec(name, "", effect, False, schema, {"mcp": mcp}, timeout_ms=timeout_ms)


class Seen:
    """What a server saw."""

    def __init__(self) -> None:
        self.headers: list[Mapping[str, str]] = []
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()


@asynccontextmanager
async def real(seen: Seen, **how: Any) -> AsyncIterator[str]:
    """The SDK's own server on a free port; its address."""
    server = MCPServer("real")

    @server.tool()
    async def go() -> str:
        return "went"

    @server.tool()
    async def hang() -> str:
        seen.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.cancelled.set()
            raise
        return "never"

    @server.tool()
    async def ask(ctx: Context[Any, Any]) -> str:
        return str((await ctx.session.list_roots()).roots)  # type: ignore[attr-defined]

    inner = server.streamable_http_app(**how)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await inner(scope, receive, send)

    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on", timeout_graceful_shutdown=1))
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        running.should_exit = True
        await task


WAYS: list[dict[str, Any]] = [{}, {"json_response": True}, {"stateless_http": True}]


@pytest.mark.parametrize("how", WAYS, ids=["stream", "json", "stateless"])
async def test_a_real_server(driver: McpDriver, tmp_path: Path, how: dict[str, Any]) -> None:
    """Each request is asked about, as one of its call; the server stays known for the next call, whose requests are its own."""
    seen, gates = Seen(), [Gate(), Gate()]
    async with real(seen, **how) as url:
        for gate in gates:
            result = await driver.call(tool(url, headers={"X-Region": "eu"}), {}, context(tmp_path, gate))
            assert (result.content, result.is_error, dict(result.acted)) == ("went", False, {})
        await driver.close()
    first, second = (gate.asked for gate in gates)
    assert {(one.scheme, one.host, one.method, one.path) for one in (*first, *second)} == {("http", "127.0.0.1", "POST", "/mcp")}
    assert len(first) > len(second) == 2
    assert [len(gate.ended) for gate in gates] == [len(first), len(second)]
    assert len(seen.headers) == len(first) + len(second)
    assert all(headers["x-region"] == "eu" for headers in seen.headers)
    assert all(headers["user-agent"].startswith("agentos/") for headers in seen.headers)


async def test_calls_at_once_are_told_apart(driver: McpDriver, tmp_path: Path) -> None:
    """Calls of one server at one time are each asked about at their own gatekeeper."""
    seen, gates = Seen(), [Gate() for _ in range(5)]
    async with real(seen) as url:
        await driver.call(tool(url), {}, context(tmp_path, Gate()))
        await asyncio.gather(*(driver.call(tool(url), {}, context(tmp_path, gate)) for gate in gates))
        await driver.close()
    assert [len(gate.asked) for gate in gates] == [2] * 5


async def test_what_is_denied_does_not_leave(driver: McpDriver, tmp_path: Path) -> None:
    """A request that is denied is an error that says so, asked about once; the next may be allowed. No gatekeeper: denied."""
    seen, denied = Seen(), Gate("/mcp")
    async with real(seen) as url:
        with pytest.raises(NetDenied, match="no rule allows it"):
            await driver.call(tool(url), {}, context(tmp_path, denied))
        with pytest.raises(NetDenied):
            await driver.call(tool(url), {}, context(tmp_path, None))
        assert (len(denied.asked), seen.headers) == (1, [])
        assert (await driver.call(tool(url), {}, context(tmp_path, Gate()))).content == "went"
        with pytest.raises(NetDenied, match="no rule allows it"):
            await driver.call(tool(url), {}, context(tmp_path, Gate("/mcp")))
        assert (await driver.call(tool(url), {}, context(tmp_path, Gate()))).content == "went"
        await driver.close()


async def test_a_credential_goes_into_the_header_of_its_call(driver: McpDriver, tmp_path: Path) -> None:
    """The value is that of the call, warm or not, for the hosts of the secret alone; without a lease nothing leaves."""
    seen, credential = Seen(), Credential("key", header="Authorization", format="Bearer {}")
    refs = {"key": SecretRef("key", "env", "KEY", ("127.0.0.1",))}
    async with real(seen) as url:
        declared = tool(url)
        declared = ToolSpec(**{**_fields(declared), "credentials": (credential,)})
        for value in ("canary-1", "canary-2"):
            del seen.headers[:]
            await driver.call(declared, {}, context(tmp_path, Gate(), secrets=refs, leases=Held(value)))
            assert {headers["authorization"] for headers in seen.headers} == {f"Bearer {value}"}
        del seen.headers[:]
        with pytest.raises(CredentialUnavailable):
            await driver.call(declared, {}, context(tmp_path, Gate(), secrets=refs, leases=Held("")))
        assert seen.headers == []
        elsewhere = {"key": SecretRef("key", "env", "KEY", ("api.example.com",))}
        await driver.call(declared, {}, context(tmp_path, Gate(), secrets=elsewhere, leases=Held("canary-3")))
        assert not any("authorization" in headers for headers in seen.headers)
        await driver.close()


def _fields(one: ToolSpec) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ToolSpec.__dataclass_fields__}


@pytest.mark.parametrize("given_up", ["late", "cancelled"])
async def test_a_call_that_is_given_up_is_cancelled(driver: McpDriver, tmp_path: Path, given_up: str) -> None:
    """At the deadline, and when it is cancelled, the server is told, and the next call has a connection of its own."""
    seen = Seen()
    async with real(seen) as url:
        call = asyncio.create_task(driver.call(tool(url, "hang", timeout_ms=2000), {}, context(tmp_path, Gate())))
        await seen.begun.wait()
        if given_up == "cancelled":
            call.cancel()
        with pytest.raises(asyncio.CancelledError if given_up == "cancelled" else OutcomeUnknown):
            await call
        await seen.cancelled.wait()
        assert (await driver.call(tool(url), {}, context(tmp_path, Gate()))).content == "went"
        await driver.close()


@pytest.mark.parametrize("given_up", ["late", "cancelled"])
async def test_an_old_server_is_told_in_words(driver: McpDriver, tmp_path: Path, given_up: str) -> None:
    """Where closing a response is no sign, the protocol's own notification goes out before the connection is closed."""
    gate, closed = Gate(), asyncio.Event()

    async def waits(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)
        await writer.drain()
        try:
            while True:
                await asyncio.sleep(0.01)
                writer.write(b": still here\n\n")
                await writer.drain()
        finally:
            closed.set()

    async with odd(waits) as (url, heard):
        call = asyncio.create_task(driver.call(tool(url, timeout_ms=2000), {}, context(tmp_path, gate)))
        while "tools/call" not in heard:
            await asyncio.sleep(0.01)
        if given_up == "cancelled":
            call.cancel()
        with pytest.raises(asyncio.CancelledError if given_up == "cancelled" else OutcomeUnknown):
            await call
        assert heard[-1] == "notifications/cancelled"
        await closed.wait()
        assert len(gate.asked) == len(heard)


@pytest.mark.parametrize(
    ("url", "private", "words"),
    [
        ("http://127.0.0.1:9/mcp", [], "is not in a network that `private` names"),
        ("http://93.184.216.34/mcp", LOOPBACK, "is not in a network that `private` names"),
        ("https://127.0.0.1:9/mcp", [], "is not of the public internet"),
        ("https://169.254.169.254/mcp", LOOPBACK, "is not of the public internet"),
        ("http://127.0.0.1:9/mcp", LOOPBACK, "cannot be reached"),
    ],
)
async def test_where_it_may_not_lead(driver: McpDriver, tmp_path: Path, url: str, private: list[str], words: str) -> None:
    """Plain http stays in the networks that are declared, and private networks are reached only where they are declared."""
    with pytest.raises(DriverError, match=words) as caught:
        await driver.call(tool(url, private=private), {}, context(tmp_path, Gate()))
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_what_a_server_at_an_address_has_not(driver: McpDriver, tmp_path: Path) -> None:
    """It has no environment for a credential, and no workspace."""
    declared = ToolSpec(**{**_fields(tool("http://127.0.0.1:9/mcp")), "credentials": (Credential("key", env="KEY"),)})
    with pytest.raises(DriverError):
        await driver.call(declared, {}, context(tmp_path, Gate()))
    mcp = {"server": {"url": "http://127.0.0.1:9/mcp"}, "tool": "go", "workspaceArgs": ["path"]}
    with pytest.raises(DriverError, match="sees no workspace"):
        await driver.call(ToolSpec("go", "", ToolEffect.READ, True, {}, {"mcp": mcp}), {"path": "a"}, context(tmp_path, Gate()))


Say = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]


def body(message: Any, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(text)}\r\n\r\n".encode() + text


@asynccontextmanager
async def odd(on_call: Say) -> AsyncIterator[tuple[str, list[str]]]:
    """A server in plain sockets that shakes hands, lists its tool and then does what `on_call` does; the methods it heard."""
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
            )
            message = json.loads(await reader.readexactly(length)) if length else {}
            method = message.get("method", head.split(b" ")[0].decode())
            heard.append(method)
            about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "odd", "version": "1"}}
            results = {
                "initialize": about,
                "tools/list": {"tools": [{"name": "go", "inputSchema": {**SCHEMA, "title": "goArguments"}}]},
            }
            if method in results:
                writer.write(body({"jsonrpc": "2.0", "id": message["id"], "result": results[method]}))
            elif method == "server/discover":
                writer.write(body({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}))
            elif method.startswith("notifications/"):
                writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            else:
                await on_call(message, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", heard
    finally:
        server.close()


def says(*pieces: bytes) -> Say:
    async def say(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)

    return say


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
NOTE = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n'
ASKED = b'data: {"jsonrpc":"2.0","id":"a","method":"roots/list"}\n\n'


def endless(head: bytes, piece: bytes) -> Say:
    async def say(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece * 100)
            await writer.drain()

    return say


async def hangs(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS + b": still here\n\n")
    await writer.drain()
    await asyncio.Event().wait()


async def breaks_off(message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS + b"id: 7\nretry: 0\ndata:\n\n")


HOSTILE: list[tuple[str, Say, str]] = [
    ("redirect", says(body({}, "307 Temporary Redirect", more="Location: /mcp2\r\n")), "answered with a redirect"),
    ("away", says(body({}, "308 Permanent Redirect", more="Location: http://127.0.0.1:9/\r\n")), "answered with a redirect"),
    ("broken gateway", says(body(b"oops", "502 Bad Gateway", "text/html")), "answered with status 502"),
    (
        "no end",
        endless(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" " * 1000),
        f"more than {MAX_MESSAGE} bytes",
    ),
    ("a long event", endless(EVENTS + b"data: ", b"x" * 1000), "in the middle of the call|SSE stream failed"),
    ("a long head", endless(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"), "lost in the middle"),
    ("notes", endless(EVENTS, NOTE), "messages that are no answer|did not answer within"),
    ("requests", endless(EVENTS, ASKED), "asked back more than|requests"),
    ("silence", hangs, "did not answer within"),
    ("breaks off", breaks_off, "middle of the call|requests|did not answer"),
    ("nothing", says(), "lost in the middle"),
    ("compressed", says(body(b"\x1f\x8b", more="Content-Encoding: gzip\r\n")), "lost in the middle"),
]


@pytest.mark.parametrize(("answer", "words"), [(say, words) for _, say, words in HOSTILE], ids=[name for name, _, _ in HOSTILE])
async def test_hostile_answers(driver: McpDriver, tmp_path: Path, answer: Say, words: str) -> None:
    """What goes wrong once it was called leaves open what came of it; it ends by the deadline, and requests are bounded."""
    gate = Gate()
    async with odd(answer) as (url, heard):
        with pytest.raises(OutcomeUnknown, match=words):
            await driver.call(tool(url, timeout_ms=3000), {}, context(tmp_path, gate))
        assert heard.count("tools/call") == 1
        assert len(gate.asked) <= 250
        await driver.close()


REFUSED: list[tuple[str, bytes, str]] = [
    ("status 401", body(b"who are you", "401 Unauthorized", "text/plain"), "it answered with status 401"),
    ("an error", body({"jsonrpc": "2.0", "id": None, "error": {"code": -32602, "message": "bad"}}, "400 Bad Request"), "bad"),
    ("no JSON", body(b"<html>"), "parse"),
    ("a page", body(b"<html>", kind="text/html"), "content type"),
]


@pytest.mark.parametrize(("answer", "words"), [(say, words) for _, say, words in REFUSED], ids=[name for name, _, _ in REFUSED])
async def test_refusals(driver: McpDriver, tmp_path: Path, answer: bytes, words: str) -> None:
    """What the server refuses, or answers in words that are none, is a failure of the tool, which the model reads."""
    async with odd(says(answer)) as (url, _):
        result = await driver.call(tool(url), {}, context(tmp_path, Gate()))
        assert result.is_error
        assert words.lower() in result.content.lower()
        await driver.close()


async def test_it_listens_to_no_stream_beside_the_calls(driver: McpDriver, tmp_path: Path) -> None:
    """No request is made but those of a call: no stream that stays open, and no goodbye."""
    async with odd(says(body({"jsonrpc": "2.0", "id": 4, "result": {"content": []}}))) as (url, heard):
        result = await driver.call(tool(url), {}, context(tmp_path, Gate()))
        await driver.close()
        assert not {"GET", "DELETE"} & set(heard)
        assert result.content == ""
