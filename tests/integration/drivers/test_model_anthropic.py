"""The anthropic provider against a local server that speaks the Messages API on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers.adapters.model_anthropic import AnthropicProvider
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec, ModelUnavailable, ReplyBroken

KEY = "sk-canary-0123456789"
REQUEST = ModelRequest(
    system="You sort mail.",
    messages=[
        {"role": "user", "content": "triage"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "list", "input": {"path": "in"}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1 file", "is_error": False, "data": [{"path": "a"}]}
            ],
        },
    ],
    tools=[{"name": "list", "description": "List files.", "input_schema": {"type": "object", "properties": {}}}],
)


class Endpoint:
    """An HTTP server that gives one prepared answer to each request, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: bytes = b""
        self.hold = False
        """Whether to keep the connection open after the answer, saying nothing more."""
        self.asked: list[tuple[str, dict[str, str], Json]] = []
        self.gone = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.asked.append((first, headers, body))
        writer.write(self.answer)
        await writer.drain()
        if self.hold:
            with suppress(ConnectionError):
                await reader.read()
        self.gone.set()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def says(self, status: int, body: Json, **headers: str) -> None:
        """Prepare a JSON answer."""
        data = json.dumps(body).encode()
        given = {"content-type": "application/json", "content-length": str(len(data)), "connection": "close"}
        self.answer = _head(status, {**given, **{name.replace("_", "-"): value for name, value in headers.items()}}) + data

    def streams(self, *events: dict[str, Json], cut: bool = False) -> None:
        """Prepare an event stream; `cut` breaks the chunked body off instead of ending it."""
        head = _head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", "connection": "close"})
        chunks = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
        self.answer = head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (b"" if cut else b"0\r\n\r\n")


def _head(status: int, headers: dict[str, str]) -> bytes:
    return (
        f"HTTP/1.1 {status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    ).encode()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


@pytest.fixture
async def provider() -> AsyncIterator[AnthropicProvider]:
    made = AnthropicProvider({"MY_KEY": KEY})
    yield made
    await made.close()


def model(endpoint: Endpoint, **more: Json) -> ModelSpec:
    settings = {"model": "claude-test", "maxTokens": 300, "baseUrl": f"http://127.0.0.1:{endpoint.port}", "apiKeyEnv": "MY_KEY"}
    return ModelSpec("claude", "anthropic", {**settings, **more})


START: dict[str, Json] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 1},
    },
}
STOP: dict[str, Json] = {"type": "message_stop"}


def block(index: int, content: dict[str, Json], *deltas: dict[str, Json]) -> list[dict[str, Json]]:
    """The events of one content block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def ends(reason: str, tokens: int = 15) -> dict[str, Json]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": tokens}}


def text(index: int, *parts: str) -> list[dict[str, Json]]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": part} for part in parts))


def tool_use(index: int, *parts: str) -> list[dict[str, Json]]:
    start = {"type": "tool_use", "id": "toolu_2", "name": "read", "input": {}}
    return block(index, start, *({"type": "input_json_delta", "partial_json": part} for part in parts))


async def test_a_reply(endpoint: Endpoint, provider: AnthropicProvider) -> None:
    """Text streams as it comes; blocks of every kind are kept whole; usage and stop reason are taken over."""
    strange = {"type": "hologram_of_2031", "payload": {"deep": [1, None, {"x": 0.5}]}, "caption": None}
    endpoint.streams(
        START,
        {"type": "ping"},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "so, "},
            {"type": "thinking_delta", "thinking": "well"},
            {"type": "signature_delta", "signature": "c2ln"},
        ),
        *text(1, "Grüße, ", "Ann"),
        *block(2, strange),
        *tool_use(3, '{"pa', 'th": "in/', 'a.md", "n": 1}'),
        {"type": "event_of_2031", "anything": 1},
        ends("tool_use"),
        STOP,
    )
    heard: list[str] = []
    reply = await provider.complete(model(endpoint), REQUEST, heard.append)
    assert heard == ["Grüße, ", "Ann"]
    assert reply == ModelReply(
        content=(
            {"type": "thinking", "thinking": "so, well", "signature": "c2ln"},
            {"type": "text", "text": "Grüße, Ann"},
            strange,
            {"type": "tool_use", "id": "toolu_2", "name": "read", "input": {"path": "in/a.md", "n": 1}},
        ),
        stop_reason="tool_use",
        input_tokens=30,
        output_tokens=15,
    )


async def test_what_is_asked(endpoint: Endpoint, provider: AnthropicProvider) -> None:
    """The request has exactly the fields that are meant: no sampling parameters, no data of ours, the key in one header only."""
    endpoint.streams(START, *text(0, "ok"), ends("end_turn"), STOP)
    await provider.complete(model(endpoint), REQUEST)
    [(first, headers, body)] = endpoint.asked
    assert first.startswith("POST /v1/messages")
    assert [name for name, value in headers.items() if KEY in value] in (["x-api-key"], ["authorization"])
    assert headers["anthropic-version"]
    assert body == {
        "model": "claude-test",
        "max_tokens": 300,
        "stream": True,
        "system": "You sort mail.",
        "messages": [
            REQUEST.messages[0],
            REQUEST.messages[1],
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "1 file", "is_error": False}],
            },
        ],
        "tools": list(REQUEST.tools),
    }


async def test_what_is_left_out(endpoint: Endpoint, provider: AnthropicProvider) -> None:
    """Without instructions and tools their fields are not sent; a tool without arguments gets an empty object."""
    endpoint.streams(START, *tool_use(0), ends("tool_use"), STOP)
    asked = ModelRequest("", [{"role": "user", "content": "x"}], [])
    reply = await provider.complete(model(endpoint), asked)
    assert reply.content[0]["input"] == {}
    assert set(endpoint.asked[0][2]) == {"model", "max_tokens", "stream", "messages"}


@pytest.mark.parametrize(("asked", "sent"), [(None, 300), (7, 7), (301, 300)])
async def test_an_answer_is_at_most_as_long_as_both_bounds(
    endpoint: Endpoint, provider: AnthropicProvider, asked: int | None, sent: int
) -> None:
    """That of the model's declaration, and what its budget has left."""
    endpoint.streams(START, *tool_use(0), ends("tool_use"), STOP)
    await provider.complete(model(endpoint), ModelRequest("", [{"role": "user", "content": "x"}], [], max_output=asked))
    assert endpoint.asked[0][2]["max_tokens"] == sent


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "invalid_request_error", False),
        (401, "authentication_error", False),
        (403, "permission_error", False),
        (404, "not_found_error", False),
        (413, "request_too_large", False),
        (429, "rate_limit_error", True),
        (500, "api_error", True),
        (503, "api_error", True),
        (529, "overloaded_error", True),
    ],
)
async def test_refusals(endpoint: Endpoint, provider: AnthropicProvider, status: int, kind: str, retryable: bool) -> None:
    """Each status is told as it is, retryable or not, asked once, and never with the key, even if the endpoint repeats it."""
    endpoint.says(status, {"type": "error", "error": {"type": kind, "message": f"because of {KEY}"}}, retry_after="7")
    with pytest.raises(DriverError) as caught:
        await provider.complete(model(endpoint), REQUEST)
    assert caught.value.retryable is retryable
    assert caught.value.message == f"the model's endpoint answered {status}: because of [key] ({kind})"
    assert not caught.value.answered
    assert isinstance(caught.value, ModelUnavailable) is retryable
    if isinstance(caught.value, ModelUnavailable):
        assert caught.value.retry_after == 7.0
        assert caught.value.to_dict()["retry_after"] == 7.0
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("retry_after", ["soon", "", "-1", "1e99", "nan"])
async def test_a_strange_retry_after(endpoint: Endpoint, provider: AnthropicProvider, retry_after: str) -> None:
    """A wait that is not a sensible number of seconds is no wait; a body that is not an error body is survived."""
    endpoint.says(429, "what", retry_after=retry_after)
    with pytest.raises(ModelUnavailable) as caught:
        await provider.complete(model(endpoint), REQUEST)
    assert caught.value.retry_after is None
    assert caught.value.message == "the model's endpoint answered 429: without a reason"


@pytest.mark.parametrize(
    ("kind", "retryable"), [("overloaded_error", True), ("api_error", True), ("invalid_request_error", False)]
)
async def test_an_error_inside_the_stream(endpoint: Endpoint, provider: AnthropicProvider, kind: str, retryable: bool) -> None:
    """An error that comes after the reply has begun is told by its type."""
    endpoint.streams(START, *text(0, "well"), {"type": "error", "error": {"type": kind, "message": f"no {KEY}"}})
    with pytest.raises(DriverError) as caught:
        await provider.complete(model(endpoint), REQUEST)
    assert caught.value.retryable is retryable
    assert caught.value.message == f"the model broke off: no [key] ({kind})"


@pytest.mark.parametrize("cut", [True, False])
async def test_a_cut_stream(endpoint: Endpoint, provider: AnthropicProvider, cut: bool) -> None:
    """A stream that breaks off, or ends without its end, is no reply: a call that looks whole is not taken, and costs."""
    endpoint.streams(START, *tool_use(0, '{"path": "a"}'), cut=cut)
    with pytest.raises(ModelUnavailable) as caught:
        await provider.complete(model(endpoint), REQUEST)
    assert caught.value.answered


async def test_a_tool_call_that_is_cut_off(endpoint: Endpoint, provider: AnthropicProvider) -> None:
    """Arguments that `maxTokens` cut in two are not completed by guess."""
    endpoint.streams(START, *tool_use(0, '{"path": "out/a', '.md", "content": "hal'), ends("max_tokens"), STOP)
    with pytest.raises(DriverError, match="cut off inside a tool call") as caught:
        await provider.complete(model(endpoint), REQUEST)
    assert caught.value.mend == "raise `maxTokens` of the model"
    assert caught.value.answered
    endpoint.streams(START, *tool_use(0, '{"path": "a", "path": "b"}'), ends("tool_use"), STOP)
    with pytest.raises(ModelUnavailable, match="stands twice"):
        await provider.complete(model(endpoint), REQUEST)


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "content_block_start"}],
        [START, {"type": "content_block_delta", "index": 4, "delta": {"type": "text_delta", "text": "x"}}],
        [START, *block(0, {"type": "text", "text": ""}, {"type": "delta_of_2031", "x": 1})],
        [START, {"type": "content_block_start", "index": 0, "content_block": "text"}],
        [{"type": "message_start", "message": []}],
    ],
)
async def test_a_stream_of_nonsense(endpoint: Endpoint, provider: AnthropicProvider, events: list[dict[str, Json]]) -> None:
    """Events that do not fit together are an error, not a traceback and not a reply."""
    endpoint.streams(*events, ends("end_turn"), STOP)
    with pytest.raises(DriverError):
        await provider.complete(model(endpoint), REQUEST)


async def test_nobody_listens(provider: AnthropicProvider) -> None:
    """An endpoint that is not there can be asked again later."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    spec = ModelSpec("claude", "anthropic", {"model": "m", "baseUrl": f"http://127.0.0.1:{port}", "apiKeyEnv": "MY_KEY"})
    with pytest.raises(ModelUnavailable, match="connection to the model failed"):
        await provider.complete(spec, REQUEST)


async def test_a_missing_key(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its variable nothing is asked, whatever other keys the environment has; the error names the variable."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    for environ in ({}, {"MY_KEY": "  "}):
        with pytest.raises(DriverError, match="the variable MY_KEY is not set") as caught:
            await AnthropicProvider(environ).complete(model(endpoint), REQUEST)
        assert not caught.value.retryable
    assert endpoint.asked == []


async def test_cancelling_closes_the_connection(endpoint: Endpoint, provider: AnthropicProvider) -> None:
    """A cancelled call hangs up."""
    endpoint.streams(START, *text(0, "well"), cut=True)
    endpoint.hold = True
    begun = asyncio.Event()
    call = asyncio.create_task(provider.complete(model(endpoint), REQUEST, lambda _: begun.set()))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await endpoint.gone.wait()


async def test_an_answer_that_has_begun(endpoint: Endpoint, provider: AnthropicProvider) -> None:
    """The beginning goes out as the model's own last words, and the reply is what came behind them."""
    endpoint.streams(START, *text(0, " of it"), ends("end_turn"), STOP)
    reply = await provider.complete(model(endpoint), replace(REQUEST, beginning="half"))
    [(_, _, body)] = endpoint.asked
    assert body["messages"][-1] == {"role": "assistant", "content": "half"}
    assert reply.content == ({"type": "text", "text": " of it"},)


async def test_what_the_endpoint_is_to_blame_for(endpoint: Endpoint, provider: AnthropicProvider) -> None:
    """Its errors and a stream that ends count against it; a call whose arguments are no JSON is asked for again there."""
    endpoint.streams(START, *tool_use(0, '{"path": oh'), ends("tool_use"), STOP)
    with pytest.raises(ReplyBroken) as broken:
        await provider.complete(model(endpoint), REQUEST)
    assert (broken.value.code, broken.value.retryable) == ("driver.reply", True)
    endpoint.streams(START, *text(0, "half"), cut=True)
    with pytest.raises(ModelUnavailable) as lost:
        await provider.complete(model(endpoint), REQUEST)
    assert lost.value.code == "driver.model"
