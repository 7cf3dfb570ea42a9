"""Cases of an odd kernel: what a harness has to pass over, what it may leave for, and how JSON may be written."""

from __future__ import annotations

import json
from typing import Final

from agentos.abi import rpc
from agentos.conformance.cases import Cases
from agentos.conformance.cases_leaving import lead_to
from agentos.conformance.cases_view import ODD
from agentos.conformance.frames import Failed
from agentos.conformance.scene import text, use
from agentos.conformance.stage import Stage, in_pieces, raw

passes: Final = Cases("passes")
spelling: Final = Cases("spelling")
broken: Final = Cases("broken")
LISTS: Final = (passes, spelling, broken)


def _passes(name: str, title: str, *frames: bytes) -> None:
    """The frames come where the model's answer is waited for; `NUMBER` in them stands for the number of that request."""

    async def play(stage: Stage) -> None:
        request = await lead_to(stage, "model.call")
        for frame in frames:
            await stage.send(frame.replace(b"NUMBER", str(request.number).encode()))
        await stage.quiet()
        await stage.answer(request)
        if await stage.finish() != "done":
            raise Failed("its result is not the model's words")

    passes.add(name, title, play)


_passes("unknown-notification", "passes over a notification that it does not know", rpc.notification("later/told", {"x": [1]}))
_passes("bare-notification", "passes over a notification without params", b'{"jsonrpc":"2.0","method":"later"}\n')
_passes("many-notifications", "passes over 5,000 notifications", rpc.notification("tick", {"n": 1}) * 5000)
_passes(
    "foreign-answer",
    "passes over an answer to a number that it has not asked under",
    rpc.response(987_654, {"content": [text("wrong")], "stop_reason": "end_turn"}),
)
_passes(
    "text-number",
    "does not take a number in text for its own",
    b'{"jsonrpc":"2.0","id":"NUMBER","result":{"content":[{"type":"text","text":"wrong"}],"stop_reason":"end_turn"}}\n',
)
_passes("null-number", "passes over an error that has no number", rpc.error(None, rpc.PARSE_ERROR, "not yours"))
_passes("foreign-dismissal", "does not leave for an answer to another number", rpc.error(987_654, rpc.ENDED, "not yours"))
_passes(
    "kernel-request",
    "does not take a request of the kernel for an answer, even under the same number",
    b'{"jsonrpc":"2.0","id":NUMBER,"method":"later.ask","params":{"content":[],"stop_reason":"end_turn"}}\n',
)


@passes("answer-twice", "passes over an answer that comes a second time")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "model.call")
    frame = rpc.response(request.number, stage.scene.answer(request))
    await stage.send(frame + frame)
    if await stage.finish() != "done":
        raise Failed("its result is not the model's words")


@passes("late-answer", "passes over an answer of long ago, with a call in it")
async def _(stage: Stage) -> None:
    stage.scene.replies = [[use("c1")], [use("c2")], [text("done")]]
    await stage.greet()
    first = await stage.until("model.call")
    frame = rpc.response(first.number, stage.scene.answer(first))
    await stage.send(frame)
    await stage.answer(await stage.until("tool.call"))
    second = await stage.until("model.call")
    await stage.send(frame)
    await stage.quiet()
    await stage.answer(second)
    await stage.finish()


@spelling("spaces", "takes JSON with spaces, keys in another order, and letters that are not ASCII")
async def _(stage: Stage) -> None:
    stage.scene.replies = [[text("é \U0001f980"), use("c1", {"path": "é \U0001f980 ☃"})], [text("fertig ✓")]]
    await stage.greet()
    while (request := await stage.request()).method != "finish":
        await stage.send(raw(request.number, stage.scene.answer(request)))
    if stage.scene.results != ["fertig ✓"]:
        raise Failed("its result is not what the model said")
    await stage.dismiss(request, rpc.ENDED)


@spelling("escapes", "takes letters of keys and values as escapes")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "model.call")
    frame = rpc.response(request.number, stage.scene.answer(request))
    for word in (b"tool_use", b"content", b"result"):
        frame = frame.replace(b'"' + word + b'"', b'"' + b"".join(b"\\u%04x" % letter for letter in word) + b'"')
    await stage.send(frame)
    await stage.finish()


@spelling("all-escapes", "finishes with words that came as escapes of every kind")
async def _(stage: Stage) -> None:
    await stage.greet()
    request = await stage.until("model.call")
    words = '"\\u0041\\/\\b\\f\\n\\r\\t\\"\\\\\\ud83e\\udd80"'
    reply = '{"content":[{"type":"text","text":' + words + '}],"stop_reason":"x"}'
    frame = f'{{"jsonrpc":"2.0","id":{request.number},"result":{reply}}}\n'
    await stage.send(frame.encode())
    if await stage.finish() != json.loads(words):
        raise Failed("its result is not what the model said")


@spelling("in-pieces", "takes a frame that comes in pieces")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "tool.call")
    stage.scene.outcome = lambda _: (ODD, False)
    frame = rpc.response(request.number, stage.scene.answer(request))
    await in_pieces(stage, frame, (1, 20, len(frame) // 2, len(frame) - 1))
    await stage.finish()


@spelling("together", "takes several frames that come at once")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "tool.call")
    told = rpc.notification("later", {})
    await stage.send(told + rpc.response(request.number, stage.scene.answer(request)) + told * 3)
    await stage.finish()


@spelling("numbers", "takes an error whose members come in another order")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "model.call")
    stage.over = True
    frame = '{"error": {"message": "\\"code\\": 1", "data": {"code": 7}, "code": -32001}, "id": %d, "jsonrpc": "2.0"}\n'
    await stage.send((frame % request.number).encode())


def _broken(name: str, title: str, what: bytes) -> None:
    async def play(stage: Stage) -> None:
        request = await lead_to(stage, "model.call")
        answer = rpc.response(request.number, stage.scene.answer(request))
        await stage.send(what.replace(b"NUMBER", str(request.number).encode()))
        await stage.send(answer)
        await stage.goes_on_or_leaves()

    broken.add(name, f"goes on or leaves at {title}, and does neither hang nor run wild", play)


_broken("no-json", "a line that is no JSON", b"Segmentation fault (core dumped)\n")
_broken("cut-json", "a line of half a frame", b'{"jsonrpc":"2.0","id":NUMBER,"result":{"content":[\n')
_broken("not-utf-8", "a line that is not UTF-8", b'{"jsonrpc":"2.0","id":1,"result":"\xff\xfe"}\n')
_broken("array", "a line that is a list", b"[]\n")
_broken("number", "a line that is a number", b"7\n")
_broken("empty-line", "an empty line", b"\n\n")
_broken("nul", "a line of NULs", b"\0" * 100 + b"\n")
_broken("no-result", "an answer with neither result nor error", b'{"jsonrpc":"2.0","id":NUMBER}\n')
_broken("odd-result", "a reply that is no list", b'{"jsonrpc":"2.0","id":NUMBER,"result":{"content":null,"stop_reason":null}}\n')
_broken("odd-error", "an error that is text", b'{"jsonrpc":"2.0","id":NUMBER,"error":"no"}\n')
_broken("too-deep", "a line that is 100,000 levels deep", b"[" * 100_000 + b"]" * 100_000 + b"\n")
_broken("too-long", "a frame of more than 8 MiB", b'{"jsonrpc":"2.0","x":"' + b"y" * (rpc.MAX_FRAME + 10) + b'"}\n')
