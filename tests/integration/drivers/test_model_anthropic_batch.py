"""The batch API of the anthropic provider against a local server that speaks it on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers.adapters import model_anthropic_batch
from agentos.drivers.adapters.model_anthropic import AnthropicProvider
from agentos.drivers.adapters.model_anthropic_batch import AnthropicBatches
from agentos.drivers.batching import BatchGone, BatchUnsure, Seen
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec, ModelUnavailable, ReplyBroken

KEY = "sk-canary-0123456789"
ASKED = ModelRequest("You sort.", [{"role": "user", "content": "triage"}], [], max_output=50)


class Endpoint:
    """Gives the answers that were prepared for `METHOD /path`, and keeps what it was asked; None closes the connection."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes] | None] = {}
        self.asked: list[tuple[str, Json]] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        self.asked.append((f"{method} {path}", json.loads(body or b"null")))
        assert KEY in str(headers)
        answer = self.answers.get(f"{method} {path.partition('?')[0]}", (404, b'{"error": {"type": "not_found_error"}}'))
        if answer is not None:
            status, data = answer
            writer.write(
                f"HTTP/1.1 {status} S\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
                "connection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def says(self, what: str, body: Json, status: int = 200) -> None:
        self.answers[what] = status, body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


@pytest.fixture
async def batches() -> AsyncIterator[AnthropicBatches]:
    made = AnthropicBatches(AnthropicProvider({"MY_KEY": KEY}))
    yield made
    await made.close()


def model(endpoint: Endpoint) -> ModelSpec:
    settings = {"model": "claude-test", "maxTokens": 300, "baseUrl": f"http://127.0.0.1:{endpoint.port}", "apiKeyEnv": "MY_KEY"}
    return ModelSpec("claude", "anthropic", settings)


def batch(
    name: str = "msgbatch_1", status: str = "in_progress", made: str = "2026-03-01T00:00:00Z", **more: Json
) -> dict[str, Json]:
    counts = {"processing": 2, "succeeded": 0, "errored": 1, "canceled": 0, "expired": 0}
    return {
        "id": name,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": counts,
        "created_at": made,
        **more,
    }


def line(name: str, result: Json) -> bytes:
    return json.dumps({"custom_id": name, "result": result}).encode() + b"\n"


def message(*content: dict[str, Json], stop: str = "end_turn", **usage: int) -> dict[str, Json]:
    counted = {"input_tokens": 7, "output_tokens": 2, **usage}
    return {"type": "succeeded", "message": {"content": list(content), "stop_reason": stop, "usage": counted}}


async def read(batches: AnthropicBatches, endpoint: Endpoint) -> dict[str, ModelReply | DriverError]:
    return {name: outcome async for name, outcome in batches.results(model(endpoint), "msgbatch_1")}


async def test_what_is_submitted(endpoint: Endpoint, batches: AnthropicBatches) -> None:
    """Each request under its id, with the body of a call that is not streamed."""
    endpoint.says("POST /v1/messages/batches", batch())
    assert await batches.create(model(endpoint), [("a-1", ASKED), ("b-1", ASKED)]) == "msgbatch_1"
    params = {"model": "claude-test", "max_tokens": 50, "messages": list(ASKED.messages), "system": "You sort."}
    requests = [{"custom_id": name, "params": params} for name in ("a-1", "b-1")]
    assert endpoint.asked == [("POST /v1/messages/batches", {"requests": requests})]


@pytest.mark.parametrize(
    ("status", "made"), [(400, False), (401, False), (413, False), (429, False), (529, False), (500, True), (503, True)]
)
async def test_refusals(endpoint: Endpoint, batches: AnthropicBatches, status: int, made: bool) -> None:
    """What was surely not made is a failure, of everything else nobody can say; it is asked once, and the key is in no error."""
    endpoint.says("POST /v1/messages/batches", {"error": {"type": "x", "message": f"because of {KEY}"}}, status)
    with pytest.raises(DriverError) as caught:
        await batches.create(model(endpoint), [("a-1", ASKED)])
    assert isinstance(caught.value, BatchUnsure) is made
    assert isinstance(caught.value, ModelUnavailable) is (status in (429, 529))
    assert KEY not in str(caught.value)
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("answer", [None, (200, b"{}"), (200, b"[1]"), (200, b'{"id": "../../v1/files"}'), (200, b"<html>")])
async def test_an_acknowledgement_that_is_none(
    endpoint: Endpoint, batches: AnthropicBatches, answer: tuple[int, bytes] | None
) -> None:
    """The connection breaks, or the answer has no id that a batch could have: it may have been made all the same."""
    endpoint.answers["POST /v1/messages/batches"] = answer
    with pytest.raises(BatchUnsure):
        await batches.create(model(endpoint), [("a-1", ASKED)])


async def test_how_far_a_batch_is(endpoint: Endpoint, batches: AnthropicBatches) -> None:
    """In progress, cancelling, ended, unknown, out of reach."""
    for status, ended in (("in_progress", False), ("canceling", False), ("ended", True)):
        endpoint.says("GET /v1/messages/batches/msgbatch_1", batch(status=status))
        assert await batches.ended(model(endpoint), "msgbatch_1") is ended
    with pytest.raises(BatchGone):
        await batches.ended(model(endpoint), "msgbatch_2")
    endpoint.answers["GET /v1/messages/batches/msgbatch_1"] = None
    with pytest.raises(ModelUnavailable):
        await batches.ended(model(endpoint), "msgbatch_1")


async def test_results_of_every_kind(endpoint: Endpoint, batches: AnthropicBatches) -> None:
    """Blocks are kept verbatim, errors are told as they are, and lines that are none are passed over."""
    strange = {"type": "hologram_of_2031", "payload": {"deep": [1, None]}}
    tool_use = {"type": "tool_use", "id": "t1", "name": "read", "input": {}}
    errors = {"type": "error", "error": {"type": "overloaded_error", "message": f"busy {KEY}"}}
    invalid = {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}}
    endpoint.says(
        "GET /v1/messages/batches/msgbatch_1/results",
        b"not json\n\n[1]\n"
        + line("good", message({"type": "text", "text": "Grüße"}, strange, cache_read_input_tokens=3))
        + line("cut", message(tool_use, stop="max_tokens"))
        + line("none", {"type": "succeeded", "message": {"content": "x"}})
        + line("busy", {"type": "errored", "error": errors})
        + line("wrong", {"type": "errored", "error": invalid})
        + line("bare", {"type": "errored"})
        + line("late", {"type": "expired"})
        + line("stopped", {"type": "canceled"})
        + line("odd", {"type": "of_2031"})
        + line("last", message({"type": "text", "text": "end"}))[:-1],
    )
    found = await read(batches, endpoint)
    assert found.pop("good") == ModelReply(({"type": "text", "text": "Grüße"}, strange), "end_turn", 10, 2)
    assert found.pop("last") == ModelReply(({"type": "text", "text": "end"},), "end_turn", 7, 2)
    kinds = {name: type(outcome) for name, outcome in found.items()}
    assert kinds == {
        "cut": DriverError,
        "none": ReplyBroken,
        "busy": ModelUnavailable,
        "wrong": DriverError,
        "bare": DriverError,
        "late": ModelUnavailable,
        "stopped": DriverError,
        "odd": ReplyBroken,
    }
    assert not any(KEY in str(outcome) for outcome in found.values())


async def test_a_result_that_is_too_large(endpoint: Endpoint, batches: AnthropicBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out, and those around it are not."""
    monkeypatch.setattr(model_anthropic_batch, "MAX_LINE", 300)
    large = message({"type": "text", "text": "x" * 200_000})
    small = message({"type": "text", "text": "ok"})
    endpoint.says("GET /v1/messages/batches/msgbatch_1/results", line("a", small) + line("b", large) + line("c", small))
    assert set(await read(batches, endpoint)) == {"a", "c"}


async def test_results_that_are_not_there(endpoint: Endpoint, batches: AnthropicBatches) -> None:
    """No such batch any more; the connection breaks."""
    with pytest.raises(BatchGone):
        await read(batches, endpoint)
    endpoint.answers["GET /v1/messages/batches/msgbatch_1/results"] = None
    with pytest.raises(ModelUnavailable):
        await read(batches, endpoint)


async def test_the_list_of_batches(endpoint: Endpoint, batches: AnthropicBatches) -> None:
    """The newest first, down to a time; requests are counted whatever came of them; a list that is none is told so."""
    older = batch("msgbatch_0", made="2026-02-01T00:00:00Z")
    endpoint.says("GET /v1/messages/batches", {"data": [batch(status="ended"), older], "has_more": False})
    since = 1_771_000_000_000  # 2026-02-13
    assert await batches.recent(model(endpoint), since) == [Seen("msgbatch_1", 1_772_323_200_000, 3, True)]
    for nonsense in ([{"id": "x"}], [batch(made="soon")], [batch(name="a/b")]):
        endpoint.says("GET /v1/messages/batches", {"data": nonsense, "has_more": False})
        with pytest.raises(ModelUnavailable):
            await batches.recent(model(endpoint), since)


async def test_cancelling(endpoint: Endpoint, batches: AnthropicBatches) -> None:
    endpoint.says("POST /v1/messages/batches/msgbatch_1/cancel", batch(status="canceling"))
    await batches.cancel(model(endpoint), "msgbatch_1")
    with pytest.raises(BatchGone):
        await batches.cancel(model(endpoint), "msgbatch_2")
