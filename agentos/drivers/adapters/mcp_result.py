"""What an MCP server answered, as a Result: its content as bounded text, its structured part as plain JSON, pictures as notes.

Pure, but for what does not fit and is kept: nothing of an answer is believed but its text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from mcp_types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, digest_of, parse_strict
from agentos.abi.errors import AgentOSError, DriverError
from agentos.abi.syscall import Result
from agentos.drivers.output import Outputs, bounded
from agentos.drivers.port import CallContext, Found, Outcome, ToolSpec


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers of one call are read: at most `limit` bytes of text and of data; `outputs` keeps what is more."""

    limit: int
    tenant: str
    session: str
    outputs: Outputs | None = None

    def result(self, answer: CallToolResult, acted: Mapping[str, Json]) -> Result:
        """The whole answer."""
        data: Json = answer.structured_content
        note = None if data is None else self._refused(data)
        said = self.text("\n".join(_part(block) for block in answer.content), note)
        return Result(said, data if note is None else None, is_error=bool(answer.is_error), acted=acted)

    def text(self, said: str, note: str | None = None) -> str:
        """`said` without credentials, and `note` below it, within the limit."""
        body = said.encode("utf-8", "replace")
        if self.outputs is not None:
            body = self.outputs.clean(self.tenant, self.session, body)
        limit = self.limit - (0 if note is None else len(note.encode("utf-8", "replace")) + 1)
        shown = bounded(body, limit, self.outputs, tenant=self.tenant, session=self.session).text
        return shown if note is None else f"{shown}\n{note}" if shown else note

    def _refused(self, data: Json) -> str | None:
        """Why `data` is not taken, for the text; None: it is."""
        try:
            body = canonical(data)
        except NotCanonical as error:
            return f"[its structured data was dropped: {error}]"
        if len(body) <= self.limit:
            return None
        where = digest_of(data)
        if self.outputs is not None:
            try:
                kept = self.outputs.keep(self.tenant, self.session, self.outputs.clean(self.tenant, self.session, body))
                where = f"it is kept: agentos fs cat SESSION {kept}"
            except AgentOSError as error:
                where = f"it is lost: {error.message[:100]}"
        return f"[its structured data was dropped: {len(body)} bytes, and {self.limit} is the most; {where}]"


def reading(tool: ToolSpec, context: CallContext, outputs: Outputs | None) -> Reading:
    """How answers to a call of `tool` are read."""
    return Reading(tool.output_bytes, context.tenant, context.session, outputs)


def found(told: Result, name: str) -> Found | None:
    """What the tool `name`, asked what came of a call, told; None: it does not know. Raises DriverError for what is no answer."""
    body = told.data
    if body is None:
        try:
            body = parse_strict(told.content.encode())
        except NotCanonical:
            body = None
    if told.is_error or not isinstance(body, dict) or not all(isinstance(body.get(key), str) for key in ("outcome", "reason")):
        raise DriverError(f"it was asked what came of the call, and said: {told.content[:500]}", where=name)
    outcome, result = body["outcome"], body.get("result")
    if outcome == "unknown":
        return None
    if outcome not in set(Outcome):
        raise DriverError(f"{outcome[:64]!r} is no outcome", where=name, mend=f"one of: {', '.join(Outcome)}, unknown")
    text = result if isinstance(result, str) else "" if result is None else canonical(result).decode()
    return Found(Outcome(outcome), body["reason"], text if outcome == Outcome.FINISHED else "")


def _part(block: object) -> str:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, (ImageContent, AudioContent)):
        return _blob(block.type, block.mime_type, block.data)
    if isinstance(block, ResourceLink):
        return f"[a link to {block.uri}]"
    if isinstance(block, EmbeddedResource):
        if isinstance(block.resource, TextResourceContents):
            return block.resource.text
        return _blob("resource", block.resource.mime_type or "application/octet-stream", block.resource.blob)
    return f"[content of an unknown kind: {type(block).__name__}]"


def _blob(kind: str, mime: str, text: str) -> str:
    try:
        body = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return f"[{kind}, {mime}: not valid base64]"
    return f"[{kind}, {mime}: {len(body)} bytes, {digest(body)}]"
