"""The context view: what the model is shown of a session, built from its folded state.

The view is never the session: it can be made anew at any time, and cutting it loses nothing. Messages have the shape of
Anthropic's Messages API (`role`, `content` blocks).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.syscall import MODEL_CALL
from agentos.projections.session_state import OPEN, Call, SessionState, Step

MAX_LISTED: Final = 200
"""Input files that the model is told of by name; it can list the rest."""


def messages(state: SessionState) -> list[dict[str, Json]]:
    """The conversation so far: the goal, then each reply of the model followed by the results of its calls."""
    view: list[dict[str, Json]] = [{"role": "user", "content": _opening(state)}]
    for call in state.calls.values():
        if call.tool != MODEL_CALL or call.step is not Step.FINISHED or call.result is None:
            continue
        content = call.result["data"]["content"]
        view.append({"role": "assistant", "content": content})
        results = [
            _result_block(block["id"], state.calls.get(block["id"]))
            for block in content
            if block.get("type") == "tool_use" and _settled(state.calls.get(block["id"]))
        ]
        if results:
            view.append({"role": "user", "content": results})
    return view


def pending(state: SessionState) -> list[dict[str, Json]]:
    """The calls of the model's last reply that have no result yet: `[{call, tool, args}]`, in the model's order."""
    reply = last_reply(state)
    if reply is None:
        return []
    return [
        {"call": block["id"], "tool": block["name"], "args": block["input"]}
        for block in reply["content"]
        if block.get("type") == "tool_use" and not _settled(state.calls.get(block["id"]))
    ]


def last_reply(state: SessionState) -> Mapping[str, Json] | None:
    """The model's last reply `{content, stop_reason, …}`, None before the first."""
    for call in state.calls.newest_first():
        if call.tool == MODEL_CALL and call.step is Step.FINISHED and call.result is not None:
            reply: Mapping[str, Json] = call.result["data"]
            return reply
    return None


def outcome(call: Call) -> tuple[str, bool]:
    """What the model is told of a settled call: the text, and whether it is an error."""
    if call.result is not None:
        return str(call.result["content"]), bool(call.result["is_error"])
    if call.step is Step.DENIED and call.decision is not None:
        rules = ", ".join(call.decision["rules"])
        return f"denied by policy ({rules}): {'; '.join(call.decision['reasons'])}", True
    if call.error is not None:
        return f"{call.step}: {call.error['message']}", True
    return str(call.step), True


def _settled(call: Call | None) -> bool:
    return call is not None and call.step not in OPEN


def _result_block(call_id: str, call: Call | None) -> dict[str, Json]:
    if call is None:
        raise ValueError(f"call {call_id} has no outcome")
    text, is_error = outcome(call)
    block: dict[str, Json] = {"type": "tool_result", "tool_use_id": call_id, "content": text}
    if is_error:
        block["is_error"] = True
    if call.result is not None and call.result.get("data") is not None:
        # For scripted plays; providers of hosted models send the text alone.
        block["data"] = call.result["data"]
    return block


def _opening(state: SessionState) -> list[dict[str, Json]]:
    """The goal, and as a second block the input files, so that neither is mistaken for the other."""
    blocks: list[dict[str, Json]] = [{"type": "text", "text": state.goal}]
    if state.inputs:
        listing = "\n".join(f"- {item['path']} ({item['bytes']} bytes)" for item in state.inputs[:MAX_LISTED])
        rest = len(state.inputs) - MAX_LISTED
        more = f"\n… and {rest} more" if rest > 0 else ""
        blocks.append({"type": "text", "text": f"Input files in the workspace:\n{listing}{more}"})
    return blocks
