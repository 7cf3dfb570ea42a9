"""The scripted model: answers from a play instead of from a neural network. Deterministic, needs no key and no network.

It keeps nothing between calls but compiled plays: what was said and what came of it is read out of the request's messages.
`goal` is the first text block that the user sent; what stands beside it (a list of input files) is not part of it.
`tool_use` ids are `call-<turn>-<n>`, both counted from 1. A `tool_result` block may carry `data` beside its `content`: the
structured part of the result, which plays see as `results[i].data` (None if it is absent).

Token counts are an estimate: one token for each four characters of the request's JSON text, and of the reply's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json, digest_of
from agentos.abi.errors import DriverError
from agentos.drivers.adapters.play import Play, check_play
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec

__all__ = ["ScriptedProvider", "check_play"]

_MAX_PLAYS: Final = 64


class ScriptedProvider:
    """Performs `scripted: {play}` models."""

    def __init__(self) -> None:
        self._plays: dict[str, Play] = {}

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Compute the next turn of the play. Raises DriverError, never retryable, when the play is broken."""
        if "play" not in model.settings:
            raise DriverError("the scripted model has no play", where=f"model {model.name}", mend="declare `play` or `playFile`")
        reply = reply_of(self._compiled(model.settings["play"]), request)
        if on_text is not None:
            for block in reply.content:
                if block["type"] == "text":
                    on_text(str(block["text"]))
        return reply

    async def close(self) -> None:
        """Nothing is open."""

    def _compiled(self, play: Json) -> Play:
        key = digest_of(play)
        found = self._plays.get(key)
        if found is None:
            found = Play(play)
            while len(self._plays) >= _MAX_PLAYS:
                del self._plays[next(iter(self._plays))]
            self._plays[key] = found
        return found


def reply_of(play: Play, request: ModelRequest) -> ModelReply:
    """The reply of `play` to `request`: a pure function."""
    scope = scope_of(request)
    turn = play.turn(scope)
    content: list[dict[str, Json]] = []
    if turn.text:
        content.append({"type": "text", "text": turn.text})
    for number, (tool, args) in enumerate(turn.calls, 1):
        content.append({"type": "tool_use", "id": f"call-{scope['turn']}-{number}", "name": tool, "input": args})
    asked = len(request.system) + len(_compact(request.messages)) + len(_compact(request.tools))
    return ModelReply(
        content=tuple(content),
        stop_reason="tool_use" if turn.calls else "end_turn",
        input_tokens=asked // 4,
        output_tokens=len(_compact(content)) // 4,
    )


def scope_of(request: ModelRequest) -> dict[str, Json]:
    """The variables that a play sees, read out of the conversation."""
    goal: str | None = None
    turn = 1
    said: list[Json] = []
    calls: dict[str, dict[str, Json]] = {}
    results: list[Json] = []
    for message in request.messages:
        blocks = _blocks(message.get("content", ""))
        if message.get("role") == "assistant":
            turn += 1
        elif goal is None:
            goal = next((str(block["text"]) for block in blocks if block.get("type") == "text"), None)
        for block in blocks:
            kind = block.get("type")
            if kind == "text" and message.get("role") == "assistant":
                said.append(block["text"])
            elif kind == "tool_use":
                calls[str(block["id"])] = {"tool": block["name"], "args": block["input"], "call": block["id"]}
            elif kind == "tool_result":
                results.append(_result(block, calls))
    return {
        "goal": goal or "",
        "turn": turn,
        "results": results,
        "calls": list(calls.values()),
        "said": said,
        "tools": [tool["name"] for tool in request.tools],
    }


def _result(block: Mapping[str, Json], calls: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    call = str(block["tool_use_id"])
    asked = calls.get(call, {"tool": "", "args": {}})
    parts = _blocks(block.get("content") or "")
    return {
        "tool": asked["tool"],
        "args": asked["args"],
        "call": call,
        "content": "\n".join(str(part["text"]) for part in parts if part.get("type") == "text"),
        "data": block.get("data"),
        "is_error": bool(block.get("is_error", False)),
    }


def _blocks(content: Json) -> Sequence[Mapping[str, Json]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=list)
