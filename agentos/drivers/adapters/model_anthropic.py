"""The anthropic provider: the Messages API through the official SDK, streamed.

The SDK makes the request and reads the event stream; the reply is put together here from the events as they came, so that
blocks which this version does not know are kept verbatim, and a tool call whose arguments were cut off is never taken for
a whole one. One call is one request: nothing is retried here. The key is read from the environment at each call.

Event stream: https://docs.claude.com/en/api/messages-streaming
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
from anthropic import APIConnectionError, APIError, APIStatusError, AsyncAnthropic, AsyncStream

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import DriverError
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec, ModelUnavailable, ReplyBroken

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
DEFAULT_KEY_ENV: Final = "ANTHROPIC_API_KEY"
DEFAULT_MAX_TOKENS: Final = 4096

TIMEOUT: Final = httpx2.Timeout(300.0, connect=10.0)
"""Seconds without a byte until a call is given up; the endpoint sends pings while it thinks."""

LATER: Final = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error"})
"""Error types after which asking again can help, whatever the HTTP status (an error inside a stream has status 200)."""


class AnthropicProvider:
    """Performs `anthropic: {model, maxTokens, baseUrl, apiKeyEnv}` models."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """`environ` is where keys are read from; the process's own environment if it is left out."""
        self._environ = os.environ if environ is None else environ
        self._clients: dict[tuple[str, str], AsyncAnthropic] = {}

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Ask the model. Raises ModelUnavailable (429, 5xx, overloaded, connection lost) or DriverError (anything else)."""
        where = f"model {model.name}"
        client, key = self.connection(model, where)
        reply = _Reply(on_text)
        try:
            stream: AsyncStream[Any] = await client.messages.create(**body_of(model, request), stream=True)
            async with stream:
                async for event in _events(stream.response, key, where):
                    reply.take(event)
            return reply.finish(where)
        except DriverError as error:
            error.answered = reply.begun
            raise
        except APIStatusError as error:
            raise refused(error, key, where) from error
        except (APIConnectionError, httpx2.HTTPError) as error:
            broken = ModelUnavailable(f"the connection to the model failed: {hidden(str(error), key)}", where=where)
            broken.answered = reply.begun
            raise broken from error
        except (APIError, LookupError, TypeError, ValueError, AttributeError) as error:
            nonsense = DriverError(f"the model's endpoint answered nonsense: {hidden(str(error), key)}", where=where)
            nonsense.answered = True
            raise nonsense from error

    def connection(self, model: ModelSpec, where: str) -> tuple[AsyncAnthropic, str]:
        """The client of a model's endpoint, and the key that it uses. Raises DriverError when there is no key."""
        key = self._key(model, where)
        return self._client(str(model.settings.get("baseUrl", DEFAULT_BASE_URL)), key), key

    async def close(self) -> None:
        """Close all connections."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.close()

    def _key(self, model: ModelSpec, where: str) -> str:
        name = str(model.settings.get("apiKeyEnv", DEFAULT_KEY_ENV))
        key = self._environ.get(name, "").strip()
        if not key:
            raise DriverError(
                f"there is no key for the model: the variable {name} is not set",
                where=where,
                mend=f"set {name} in the runtime's environment and start it again",
            )
        return key

    def _client(self, base_url: str, key: str) -> AsyncAnthropic:
        found = self._clients.get((base_url, key))
        if found is None:
            found = AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0, timeout=TIMEOUT)
            self._clients[base_url, key] = found
        return found


@dataclass(slots=True)
class _Reply:
    """The reply as it grows, event by event."""

    on_text: Callable[[str], None] | None
    blocks: dict[int, dict[str, Json]] = field(default_factory=dict)
    inputs: dict[int, str] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    stop_reason: str | None = None
    whole: bool = False
    begun: bool = False
    """Whether the model has begun to answer."""

    def take(self, event: Mapping[str, Json]) -> None:
        """Take in one event; kinds that are not known say nothing about content and are passed over."""
        kind = event.get("type")
        if kind == "message_start":
            self.begun = True
            self._count(event["message"].get("usage", {}))
        elif kind == "content_block_start":
            self.blocks[event["index"]] = dict(event["content_block"])
        elif kind == "content_block_delta":
            self._grow(event["index"], event["delta"])
        elif kind == "message_delta":
            self.stop_reason = event["delta"].get("stop_reason") or self.stop_reason
            self._count(event.get("usage", {}))
        elif kind == "message_stop":
            self.whole = True

    def finish(self, where: str) -> ModelReply:
        """The whole reply. Raises ModelUnavailable if the stream ended early, DriverError if a tool call was cut off."""
        if not self.whole or self.stop_reason is None:
            raise ModelUnavailable("the model's reply was cut off", where=where)
        for index, text in self.inputs.items():
            self.blocks[index]["input"] = self._input(text, where)
        read = sum(self.usage.get(name, 0) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))
        return ModelReply(
            content=tuple(block for _, block in sorted(self.blocks.items())),
            stop_reason=self.stop_reason,
            input_tokens=read,
            output_tokens=self.usage.get("output_tokens", 0),
        )

    def _grow(self, index: int, delta: Mapping[str, Json]) -> None:
        block = self.blocks[index]
        kind = delta["type"]
        if kind == "text_delta":
            block["text"] = block.get("text", "") + delta["text"]
            if self.on_text is not None:
                self.on_text(delta["text"])
        elif kind == "input_json_delta":
            self.inputs[index] = self.inputs.get(index, "") + delta["partial_json"]
        elif kind == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
        elif kind == "signature_delta":
            block["signature"] = delta["signature"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        else:
            raise DriverError(f"the model streams a block in an unknown way ({kind}), which cannot be kept whole")

    def _input(self, text: str, where: str) -> Json:
        if not text:
            return {}
        try:
            return parse_strict(text)
        except NotCanonical as error:
            if self.stop_reason == "max_tokens":
                raise DriverError(
                    "the model's reply was cut off inside a tool call", where=where, mend="raise `maxTokens` of the model"
                ) from error
            raise ReplyBroken(f"the model's tool call is not valid JSON: {error}", where=where) from error

    def _count(self, usage: Mapping[str, Json]) -> None:
        # Counts of later events are totals, and those they leave out keep their value.
        self.usage.update({name: value for name, value in usage.items() if isinstance(value, int)})


def body_of(model: ModelSpec, request: ModelRequest) -> dict[str, Any]:
    """The body of a request, without how the answer is to come."""
    most = int(model.settings.get("maxTokens", DEFAULT_MAX_TOKENS))
    body: dict[str, Any] = {
        "model": str(model.settings["model"]),
        "max_tokens": most if request.max_output is None else min(most, request.max_output),
        "messages": [{**message, "content": _outward(message["content"])} for message in request.messages],
    }
    if request.beginning:
        # It ends without white space, which the API refuses at the end of an answer that has begun.
        body["messages"].append({"role": "assistant", "content": request.beginning})
    if request.system:
        body["system"] = request.system
    if request.tools:
        body["tools"] = [dict(tool) for tool in request.tools]
    return body


def _outward(content: str | Sequence[Mapping[str, Json]]) -> Json:
    """Message content as the API knows it: without the `data` that we keep beside a tool's result."""
    if isinstance(content, str):
        return content
    return [
        {key: value for key, value in block.items() if key != "data"} if block.get("type") == "tool_result" else dict(block)
        for block in content
    ]


async def _events(response: httpx2.Response, key: str, where: str) -> AsyncIterator[Mapping[str, Json]]:
    """The events of a stream. Raises ModelUnavailable or DriverError for an error inside it."""
    async for sse in AsyncStream.raw_events(response):
        if not sse.data:
            continue
        try:
            event = parse_strict(sse.data)
        except NotCanonical as error:
            raise ModelUnavailable(f"the model's endpoint sent an event that is not JSON: {error}", where=where) from error
        if not isinstance(event, dict):
            raise ModelUnavailable("the model's endpoint sent an event that is not an object", where=where)
        if event.get("type") == "error":
            kind, message = said(event)
            text = hidden(f"the model broke off: {message} ({kind})", key)
            raise ModelUnavailable(text, where=where) if kind in LATER else DriverError(text, where=where)
        yield event


def refused(error: APIStatusError, key: str, where: str) -> DriverError:
    """What an HTTP error of the endpoint says: ModelUnavailable when asking again can help."""
    kind, message = said(error.body)
    status = error.status_code
    text = hidden(
        f"the model's endpoint answered {status}: {message or 'without a reason'}" + (f" ({kind})" if kind else ""), key
    )
    if status in (408, 409, 429) or status >= 500 or kind in LATER:
        return ModelUnavailable(text, retry_after=_retry_after(error.response.headers), where=where)
    mend = "check the key and what it may do" if status in (401, 403) else None
    return DriverError(text, where=where, mend=mend)


def said(body: object) -> tuple[str, str]:
    """Type and message of an error body `{"type": "error", "error": {"type", "message"}}`; empty if it has another shape."""
    inner = body.get("error") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return "", ""
    return str(inner.get("type", "")), str(inner.get("message", ""))[:500]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None


def hidden(text: str, key: str) -> str:
    """`text` without the key, should an endpoint have repeated it."""
    return text.replace(key, "[key]")
