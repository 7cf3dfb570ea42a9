"""The Message Batches API of Anthropic through the official SDK: make a batch, look after it, read its results, cancel it.

What the API gives, and what of that is relied on:

    no idempotency key     a batch whose making was not answered is looked for in the list, by the ids of its requests
    no metadata            so those ids are found in its results only, once it has ended
    24 hours               then what is not done has expired; results are kept for 29 days
    results                JSON lines in any order; each is checked, and kept verbatim like a reply that is streamed

Results are read at the documented path of the endpoint that was asked. The `results_url` that comes with a batch is not followed:
an endpoint could send the key to somebody else by it.

https://docs.claude.com/en/docs/build-with-claude/batch-processing
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

import httpx2
from anthropic import APIConnectionError, APIError, APIStatusError
from anthropic._decoders.jsonl import AsyncJSONLDecoder

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import DriverError
from agentos.drivers.adapters.model_anthropic import LATER, AnthropicProvider, body_of, hidden, refused, said
from agentos.drivers.batching import BatchGone, BatchUnsure, Seen
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec, ModelUnavailable, ReplyBroken

MAX_LINE: Final = 16 * 1024 * 1024
"""Most bytes of one result: more than any that could be recorded."""

MAX_SEEN: Final = 5_000
"""Most batches of the list that are looked at."""

_BATCH: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_NOT_MADE: Final = 529
"""The API is overloaded: it took nothing on."""


class AnthropicBatches:
    """`BatchEndpoint` for `anthropic` models."""

    def __init__(self, provider: AnthropicProvider | None = None) -> None:
        """`provider` has the connections; one of its own if it is left out."""
        self._provider = provider or AnthropicProvider()

    async def create(self, model: ModelSpec, requests: Sequence[tuple[str, ModelRequest]]) -> str:
        """See `BatchEndpoint.create`."""
        where = f"model {model.name}"
        client, key = self._provider.connection(model, where)
        bodies: list[Any] = [{"custom_id": name, "params": body_of(model, request)} for name, request in requests]
        try:
            made = await client.messages.batches.create(requests=bodies)
        except APIStatusError as error:
            told = refused(error, key, where)
            if error.status_code in (408, 409) or (error.status_code >= 500 and error.status_code != _NOT_MADE):
                raise BatchUnsure(told.message, where=where) from error
            raise told from error
        except (APIError, httpx2.HTTPError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise BatchUnsure(f"the batch was not acknowledged: {hidden(str(error), key)}", where=where) from error
        if not _is_batch(getattr(made, "id", None)):
            raise BatchUnsure("the batch was acknowledged without an id that it could have", where=where)
        return str(made.id)

    async def ended(self, model: ModelSpec, batch: str) -> bool:
        """See `BatchEndpoint.ended`."""
        where = f"model {model.name}"
        client, key = self._provider.connection(model, where)
        try:
            found = await client.messages.batches.retrieve(batch)
        except (APIError, httpx2.HTTPError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise _broken(error, key, where) from error
        return getattr(found, "processing_status", None) == "ended"

    async def results(self, model: ModelSpec, batch: str) -> AsyncGenerator[tuple[str, ModelReply | DriverError]]:
        """See `BatchEndpoint.results`. A line that is none is passed over: its request has no result then."""
        where = f"model {model.name}"
        client, key = self._provider.connection(model, where)
        try:
            decoder = await client.get(
                f"/v1/messages/batches/{batch}/results",
                cast_to=AsyncJSONLDecoder[object],
                stream=True,
                stream_cls=None,
                options={"headers": {"Accept": "application/binary"}},
            )
            async with aclosing(decoder.http_response) as response, aclosing(_lines(response.aiter_bytes())) as lines:
                async for line in lines:
                    found = _result(line, key, where)
                    if found is not None:
                        yield found
        except (APIError, httpx2.HTTPError) as error:
            raise _broken(error, key, where) from error

    async def recent(self, model: ModelSpec, since_ms: int) -> list[Seen]:
        """See `BatchEndpoint.recent`."""
        where = f"model {model.name}"
        client, key = self._provider.connection(model, where)
        found: list[Seen] = []
        try:
            async for one in client.messages.batches.list(limit=100):
                made, counts = one.created_at, one.request_counts
                if not isinstance(made, datetime) or not _is_batch(one.id):
                    raise ModelUnavailable("the list of batches holds something else", where=where)
                made_ms = int(made.timestamp() * 1000)
                if made_ms < since_ms or len(found) == MAX_SEEN:
                    break
                count = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
                found.append(Seen(one.id, made_ms, count, one.processing_status == "ended"))
        except (APIError, httpx2.HTTPError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise _broken(error, key, where) from error
        return found

    async def cancel(self, model: ModelSpec, batch: str) -> None:
        """See `BatchEndpoint.cancel`."""
        where = f"model {model.name}"
        client, key = self._provider.connection(model, where)
        try:
            await client.messages.batches.cancel(batch)
        except (APIError, httpx2.HTTPError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise _broken(error, key, where) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._provider.close()


def _is_batch(name: object) -> bool:
    """Whether a batch may be called so: it becomes part of a path."""
    return isinstance(name, str) and _BATCH.fullmatch(name) is not None


def _broken(error: Exception, key: str, where: str) -> DriverError:
    if isinstance(error, APIStatusError):
        told = refused(error, key, where)
        return BatchGone(told.message, where=where) if error.status_code in (404, 410) else told
    if isinstance(error, (APIConnectionError, httpx2.HTTPError)):
        return ModelUnavailable(f"the connection to the model failed: {hidden(str(error), key)}", where=where)
    return ModelUnavailable(f"the model's endpoint answered nonsense: {hidden(str(error), key)}", where=where)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Whole lines, without their ends; one that is too long is left out, and so is a last one that was cut off."""
    kept, too_long = bytearray(), False
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        kept += first
        for part in others:
            if kept and not too_long:
                yield bytes(kept)
            kept, too_long = bytearray(part), False
        if len(kept) > MAX_LINE:
            kept, too_long = bytearray(), True
    if kept and not too_long:
        yield bytes(kept)


def _result(line: bytes, key: str, where: str) -> tuple[str, ModelReply | DriverError] | None:
    """What one line says; None for one that says nothing of any request."""
    try:
        body = parse_strict(line)
    except NotCanonical:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("custom_id"), str) or not isinstance(body.get("result"), dict):
        return None
    result = body["result"]
    match result.get("type"):
        case "succeeded":
            try:
                return body["custom_id"], _reply(result["message"], where)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                return body["custom_id"], ReplyBroken(f"the model's reply is none: {hidden(repr(error), key)}", where=where)
            except DriverError as error:
                return body["custom_id"], error
        case "errored":
            return body["custom_id"], _errored(result.get("error"), key, where)
        case "expired":
            late = "the batch expired before the model had come to the call"
            return body["custom_id"], ModelUnavailable(late, where=where)
        case "canceled":
            mend = "run the session again if that was not meant"
            return body["custom_id"], DriverError("the batch was cancelled at the provider", where=where, mend=mend)
        case other:
            return body["custom_id"], ReplyBroken(f"the batch gave an unknown kind of result ({str(other)[:64]})", where=where)


def _errored(error: Json, key: str, where: str) -> DriverError:
    kind, message = said(error)
    text = hidden(f"the model refused the call: {message or 'without a reason'}" + (f" ({kind})" if kind else ""), key)
    return ModelUnavailable(text, where=where) if kind in LATER else DriverError(text, where=where)


def _reply(message: Mapping[str, Json], where: str) -> ModelReply:
    """A whole message. Raises LookupError, TypeError or ValueError for what is none, DriverError if a tool call was cut off."""
    content, stop, usage = message["content"], message["stop_reason"], message["usage"]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content) or not isinstance(stop, str):
        raise TypeError("content or stop reason")
    if stop == "max_tokens" and content and content[-1].get("type") == "tool_use":
        raise DriverError("the model's reply was cut off inside a tool call", where=where, mend="raise `maxTokens` of the model")
    read = sum(_count(usage, name) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))
    return ModelReply(tuple(content), stop, read, _count(usage, "output_tokens"))


def _count(usage: Mapping[str, Json], name: str) -> int:
    value = usage.get(name)
    return value if type(value) is int and value >= 0 else 0
