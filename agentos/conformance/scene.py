"""A scripted session: what the view tells, what the model replies, what comes of calls, and what the kernel would have refused.

Pure. `answer` is the kernel's answer to one request; whatever a sound harness would not have asked raises Failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.conformance.frames import COUNTED, Failed, Request

SESSION: Final = "s-check"


def text(words: str) -> dict[str, Json]:
    """A block of text."""
    return {"type": "text", "text": words}


def use(call: str, args: Mapping[str, Json] | None = None, tool: str = "read") -> dict[str, Json]:
    """A block that proposes a call."""
    return {"type": "tool_use", "id": call, "name": tool, "input": {"path": f"input/{call}"} if args is None else dict(args)}


def pending(block: Mapping[str, Json]) -> dict[str, Json]:
    """The same as the view tells it."""
    return {"call": block["id"], "tool": block["name"], "args": block["input"]}


def done(call: str) -> tuple[str, bool]:
    """What comes of a call, unless a case says otherwise."""
    return f"result of {call}", False


@dataclass(slots=True)
class Scene:
    """See the module. `replies` are the model's, in order: lists of blocks."""

    replies: list[list[dict[str, Json]]] = field(default_factory=lambda: [[text("done")]])
    pending: list[dict[str, Json]] = field(default_factory=list)
    final: str | None = None
    goal: str = "Sort the files."
    history: list[dict[str, Json]] = field(default_factory=list)
    """Messages behind the goal, as far as the session has come."""
    outcome: Callable[[str], tuple[str, bool]] = done
    stop_reasons: Mapping[int, str] = field(default_factory=dict)
    """By the index of the reply, where it is not the usual one."""
    more: Mapping[str, Json] = field(default_factory=dict)
    """Fields of a later version, in every result."""

    asked: int = 0
    """How often the model was asked."""
    open: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Calls that are still to be proposed, or to be answered."""
    proposed: list[str] = field(default_factory=list)
    """Ids of all calls, in the order in which they were proposed."""
    results: list[str] = field(default_factory=list)
    """What `finish` was asked with."""

    def __post_init__(self) -> None:
        self.open = {one["call"]: one for one in self.pending}

    def took(self, request: Request) -> None:
        """Note a request as it comes, before it is answered. Raises Failed."""
        params = request.params
        if self.results:
            raise Failed(f"it asked {request.method} behind finish")
        match request.method:
            case "finish":
                if self.open:
                    raise Failed(f"it finished with call {next(iter(self.open))} left open")
                self.results.append(params["result"])
            case "model.call":
                if self.open:
                    raise Failed(f"it asked the model while call {next(iter(self.open))} had no result")
                if self.final is not None or self.asked == len(self.replies):
                    raise Failed("it asked the model again after its last words")
                self.asked += 1
            case "tool.call":
                self._proposed(params)

    def _proposed(self, params: Mapping[str, Json]) -> None:
        call = params["call"]
        if call in self.proposed:
            raise Failed(f"it proposed call {call} twice")
        known = self.open.get(call)
        if known is None and not COUNTED.fullmatch(call):
            raise Failed(f"it named a call {call} that no reply has named")
        if known is not None and params["tool"] != known["tool"]:
            raise Failed(f"call {call} is of the tool {known['tool']!r}, it proposed {params['tool'][:64]!r}")
        if known is not None and params["args"] != known["args"]:
            raise Failed(f"it changed the arguments of call {call}")
        self.proposed.append(call)

    def answer(self, request: Request) -> dict[str, Json]:
        """The result of a request but `finish`, which has none."""
        match request.method:
            case "session.view":
                view: dict[str, Json] = {
                    "session": SESSION,
                    "agent": "checked",
                    "goal": self.goal,
                    "pending": self.pending,
                    "final": self.final,
                }
                if request.params.get("messages"):
                    view["messages"] = [{"role": "user", "content": [text(self.goal)]}, *self.history]
                return {**view, **self.more}
            case "model.call":
                content = self.replies[self.asked - 1]
                proposals = [pending(block) for block in content if block["type"] == "tool_use"]
                self.open.update({one["call"]: one for one in proposals})
                usual = "tool_use" if proposals else "end_turn"
                return {"content": content, "stop_reason": self.stop_reasons.get(self.asked - 1, usual), **self.more}
            case "tool.call":
                call = request.params["call"]
                told, is_error = self.outcome(call)
                self.open.pop(call, None)
                return {"call": call, "content": told, "is_error": is_error, **self.more}
        raise Failed(f"{request.method} has no result")
