"""A runtime of a test's own, which answers the verbs of the gateway from what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agentos.abi.canonical import Json

TOOL: dict[str, Json] = {
    "name": "list",
    "description": "List files.",
    "input_schema": {"type": "object"},
    "effect": "read",
    "idempotent": True,
    "digest": "sha256:a",
}


def done(call: str, content: str = "fine") -> dict[str, Json]:
    return {"call": call, "state": "done", "step": "finished", "content": content, "is_error": False}


def waiting(call: str, asked: str | None = None, **more: Json) -> dict[str, Json]:
    """What the runtime says of a call that waits; `asked` is the call that people are asked about."""
    question = {
        "session": "s-1",
        "call": asked or call,
        "tool": "write",
        "args": {"path": "a"},
        "args_digest": "sha256:b",
        "reasons": ["a grant wants it"],
        "needed": 1,
        "given": 0,
        **more,
    }
    return {"call": call, "state": "waiting", "question": question}


class Runtime:
    """Answers each verb with the next of its answers, or what a function makes of the parameters; keeps what was asked."""

    def __init__(self, **answers: list[Any] | Callable[[dict[str, Json]], Json]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Json]]] = []
        self.opened = 0

    async def call(self, verb: str, params: dict[str, Json], *, within: float = 30.0) -> Json:
        del within
        self.asked.append((verb, params))
        await asyncio.sleep(0)
        name = verb.removeprefix("gateway.").replace(".", "_")
        answer = self.answers.get(name)
        if callable(answer):
            return answer(params)
        if answer:
            found = answer.pop(0)
            if isinstance(found, Exception):
                raise found
            return found
        if name == "open":
            self.opened += 1
            return {"session": f"s-{self.opened}", "agent": params["agent"], "revision": 1}
        return {"revision": 1, "tools": [TOOL]} if name == "tools" else {}

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]
