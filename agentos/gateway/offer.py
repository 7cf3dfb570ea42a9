"""What the runtime says in the words of MCP: tools as they are offered, outcomes of calls as results."""

from __future__ import annotations

import mcp.types as mcp

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError
from agentos.abi.syscall import ToolEffect
from agentos.gateway.telling import note, text_of, waits
from agentos.gateway.upstream import Answer, Done, Tool

DIGEST = "agentos/digest"
"""Key of `_meta`: of a tool what it was when it was listed, of a call what it has to be still."""


def tool_of(tool: Tool) -> mcp.Tool:
    """A tool as it is listed.

    There is no output schema: a result may be masked or cut by policy, and then is not what the tool's own schema promises.
    """
    return mcp.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=hints(tool.effect, idempotent=tool.idempotent),
        _meta={DIGEST: tool.digest},
    )


def hints(effect: str, *, idempotent: bool) -> mcp.ToolAnnotations:
    """What the operator declared of a tool, as hints. What changes things counts as destructive, and what leaves as open."""
    reads = effect == ToolEffect.READ
    return mcp.ToolAnnotations(
        read_only_hint=reads,
        destructive_hint=not reads,
        idempotent_hint=reads or idempotent,
        open_world_hint=effect == ToolEffect.EXTERNAL,
    )


def result_of(answer: Answer, why: str = "") -> mcp.CallToolResult:
    """How a call stands; `why` is what a person's answer at the client came to, where it did not settle it."""
    if isinstance(answer, Done):
        structured = answer.structured if isinstance(answer.structured, dict) and not answer.is_error else None
        return mcp.CallToolResult(
            content=[mcp.TextContent(text=text_of(answer))],
            structured_content=structured,
            is_error=answer.is_error,
            _meta={"agentos/call": answer.call},
        )
    return mcp.CallToolResult(content=[mcp.TextContent(text=waits(answer, why))], is_error=True, _meta=note(answer))


def refusal_of(error: AgentOSError) -> mcp.CallToolResult:
    """An error of the runtime, for the model to read."""
    told = error.message if error.mend is None else f"{error.message} ({error.mend})"
    body: dict[str, Json] = {"agentos/code": error.code}
    return mcp.CallToolResult(content=[mcp.TextContent(text=told)], is_error=True, _meta=body)
