"""What a harness is told of its session."""

from __future__ import annotations

from agentos.abi.canonical import Json
from agentos.projections import context
from agentos.projections.session import SessionState


def view(state: SessionState, *, messages: bool = False) -> dict[str, Json]:
    """What a harness is told of a session: what is still to do, and with `messages` the whole conversation."""
    told: dict[str, Json] = {
        "session": state.id,
        "agent": state.agent,
        "goal": state.goal,
        "pending": context.pending(state),
        "final": _final_text(state),
    }
    if messages:
        told["messages"] = context.messages(state)
    return told


def _final_text(state: SessionState) -> str | None:
    """The model's closing words if its last reply called no tool, and it was told nothing since; else None."""
    reply = context.last_reply(state)
    if reply is None or any(block.get("type") == "tool_use" for block in reply["content"]) or context.unseen(state):
        return None
    return "\n".join(str(block["text"]) for block in reply["content"] if block.get("type") == "text")
