"""The scripted provider: the conversation in, the next turn out."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from syrupy.assertion import SnapshotAssertion

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers.adapters.model_scripted import ScriptedProvider, scope_of
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec

PLAY: dict[str, Json] = {
    "name": "triage",
    "let": {"files": "(results | of_tool('list') | first).data | map(attribute='path') | list if results else []"},
    "rules": [
        {
            "id": "look",
            "when": "not results",
            "say": "I look at the inbox.",
            "call": [{"tool": "list", "args": {"path": "inbox"}}],
        },
        {
            "id": "read",
            "let": {"unread": "files | reject('in', calls | of_tool('read') | map(attribute='args.path') | list) | list"},
            "when": "unread",
            "for_each": "unread[:2]",
            "call": [{"tool": "read", "args": {"path": "{{ item }}"}}],
        },
        {
            "id": "write",
            "when": "not (results | of_tool('write'))",
            "say": "I write it down.",
            "call": [
                {
                    "tool": "write",
                    "args": {
                        "path": "out/summary.md",
                        "content": "{% for r in results | of_tool('read') | ok %}"
                        "- {{ r.args.path }}: {{ r.content | trim }}\n{% endfor %}",
                    },
                }
            ],
        },
        {"id": "done", "say": "Finished: {{ files | length }} files, {{ results | failed | length }} unreadable."},
    ],
}
FILES = {"inbox/a.md": "alpha\n", "inbox/b.md": "beta\n", "inbox/c.bin": None}
TOOLS = [{"name": name, "description": "", "input_schema": {}} for name in ("list", "read", "write")]


def request(messages: Sequence[dict[str, Json]]) -> ModelRequest:
    return ModelRequest(system="You sort mail.", messages=messages, tools=TOOLS)


def answer(block: dict[str, Json]) -> dict[str, Json]:
    """What the world answers to one call, as a tool_result."""
    result: dict[str, Json] = {"type": "tool_result", "tool_use_id": block["id"]}
    if block["name"] == "list":
        return {**result, "content": "3 files", "data": [{"path": path, "bytes": 5} for path in FILES]}
    if block["name"] == "read":
        text = FILES[block["input"]["path"]]
        return {**result, "content": [{"type": "text", "text": text or "binary"}], "is_error": text is None}
    return {**result, "content": "written"}


async def play_through(provider: ScriptedProvider) -> tuple[list[dict[str, Json]], list[ModelReply]]:
    model = ModelSpec("scripted", "scripted", {"play": PLAY})
    messages: list[dict[str, Json]] = [{"role": "user", "content": "triage"}]
    replies = []
    while True:
        reply = await provider.complete(model, request(messages))
        replies.append(reply)
        messages.append({"role": "assistant", "content": list(reply.content)})
        if reply.stop_reason == "end_turn":
            return messages, replies
        messages.append({"role": "user", "content": [answer(block) for block in reply.content if block["type"] == "tool_use"]})


async def test_a_whole_session(snapshot: SnapshotAssertion) -> None:
    """A play works through a folder that it has not seen before, turn by turn."""
    messages, _ = await play_through(ScriptedProvider())
    assert json.dumps(messages, indent=1) == snapshot


async def test_it_goes_on_after_a_restart() -> None:
    """A fresh provider, given any prefix of the conversation, says exactly what the first one said."""
    messages, replies = await play_through(ScriptedProvider())
    model = ModelSpec("scripted", "scripted", {"play": PLAY})
    starts = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    again = [await ScriptedProvider().complete(model, request(messages[:at])) for at in starts]
    assert again == replies


async def test_text_is_streamed_and_tokens_are_estimated() -> None:
    """The text reaches `on_text`; counts are a quarter of the characters."""
    heard: list[str] = []
    asked = request([{"role": "user", "content": "triage"}])
    reply = await ScriptedProvider().complete(ModelSpec("m", "scripted", {"play": PLAY}), asked, heard.append)
    assert heard == ["I look at the inbox."]
    texts = [json.dumps(part, separators=(",", ":")) for part in (asked.messages, asked.tools)]
    assert reply.input_tokens == (len(asked.system) + sum(map(len, texts))) // 4
    assert reply.output_tokens == len(json.dumps(reply.content, separators=(",", ":"))) // 4


async def test_a_broken_play() -> None:
    """A play that is broken or missing is an error that no retry mends."""
    for settings in ({}, {"play": {"rules": [{"when": "1 +"}]}}, {"play": 3}):
        with pytest.raises(DriverError) as caught:
            await ScriptedProvider().complete(ModelSpec("m", "scripted", settings), request([]))
        assert not caught.value.retryable


async def test_many_plays() -> None:
    """More plays than are kept compiled still each say their own."""
    provider = ScriptedProvider()
    for number in [*range(70), *range(70)]:
        model = ModelSpec("m", "scripted", {"play": {"rules": [{"say": f"play {number}"}]}})
        reply = await provider.complete(model, request([]))
        assert reply.content == ({"type": "text", "text": f"play {number}"},)
    assert len(provider._plays) <= 64
    await provider.close()


def test_the_goal_and_what_was_said() -> None:
    """The goal is the first text that the user sent; a result without its call, or without data, is still a result."""
    scope = scope_of(
        request(
            [
                {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "well"}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "gone"}, {"type": "text", "text": "go on"}]},
            ]
        )
    )
    assert scope["goal"] == "one"
    assert scope["turn"] == 2
    assert scope["said"] == ["well"]
    assert scope["results"] == [{"tool": "", "args": {}, "call": "gone", "content": "", "data": None, "is_error": False}]
