"""Cases of the work: replies of a model, calls, what comes of them, and several of them at once."""

from __future__ import annotations

import asyncio
from typing import Final

from agentos.abi import rpc
from agentos.abi.canonical import Json
from agentos.conformance.cases import Cases
from agentos.conformance.cases_view import ODD, nested
from agentos.conformance.frames import Failed
from agentos.conformance.scene import text, use
from agentos.conformance.stage import Stage

turn: Final = Cases("turn")
several: Final = Cases("several")
outcome: Final = Cases("outcome")
slow: Final = Cases("slow")
LISTS: Final = (turn, several, outcome, slow)


async def _run(stage: Stage, *replies: list[dict[str, Json]]) -> str:
    """Play these replies; see that all calls were proposed, in the order of the model; return the result."""
    stage.scene.replies = list(replies)
    await stage.greet()
    result = await stage.finish()
    wanted = [block["id"] for reply in replies for block in reply if block["type"] == "tool_use"]
    made = [call for call in stage.scene.proposed if call in wanted]
    if made != wanted:
        raise Failed(f"it proposed {', '.join(made)[:200] or 'nothing'}, the model {', '.join(wanted)[:200]}")
    if stage.scene.asked != len(replies):
        raise Failed(f"it asked the model {stage.scene.asked} times, the session takes {len(replies)}")
    return result


@turn("one-call", "makes the call of a reply, and asks the model again")
async def _(stage: Stage) -> None:
    await _run(stage, [use("c1")], [text("done")])


@turn("several-calls", "makes all calls of a reply, each once, in the model's order")
async def _(stage: Stage) -> None:
    await _run(stage, [use("c1"), use("c3", tool="write"), use("c2")], [text("done")])


@turn("many-turns", "goes on for as many turns as the model wants")
async def _(stage: Stage) -> None:
    await _run(stage, *([use(f"t{number}")] for number in range(40)), [text("done")])


@turn("many-calls", "makes 64 calls of one reply")
async def _(stage: Stage) -> None:
    await _run(stage, [use(f"k{number}") for number in range(64)], [text("done")])


@turn("same-arguments", "makes two calls that differ in nothing but their ids")
async def _(stage: Stage) -> None:
    await _run(stage, [use("c1", {"path": "a"}), use("c2", {"path": "a"})], [text("done")])


@turn("ids", "proposes calls under the ids that the model gave")
async def _(stage: Stage) -> None:
    await _run(stage, [use("toolu_01A-b_C"), use("0"), use("z" * 64), use("-_-")], [text("done")])


@turn("arguments", "proposes arguments as the model gave them")
async def _(stage: Stage) -> None:
    odd = {"text": ODD, "": {}, "list": [[], {}, None, False], "numbers": [0, -7, 1.5, 1e-9, 2**53], "jsonrpc": "2.0", "id": 1}
    await _run(stage, [use("c1", odd), use("c2", {}), use("c3", {"path": ["}", "]", '"', "\\", "\\\\", "{"]})], [text("done")])


@turn("deep-arguments", "proposes arguments that are 150 levels deep")
async def _(stage: Stage) -> None:
    await _run(stage, [use("c1", nested(150))], [text("done")])


@turn("large-arguments", "proposes arguments of 1 MiB")
async def _(stage: Stage) -> None:
    await _run(stage, [use("c1", {"path": "p", "content": "line\n" * 200_000})], [text("done")])


@turn("words-beside-calls", "does not take words beside a call for the end")
async def _(stage: Stage) -> None:
    if "early" in await _run(stage, [text("early"), use("c1"), text("early too")], [text("late")]):
        raise Failed("its result has words of another reply than the last")


@turn("unknown-blocks", "passes over content blocks of kinds that it does not know")
async def _(stage: Stage) -> None:
    odd = {"type": "thinking", "thinking": "hm", "signature": "x", "text": 7, "id": "c9", "input": {}}
    result = await _run(stage, [odd, use("c1"), {"type": "later"}], [odd, text("done"), {"type": "tool_use_later", "id": "c8"}])
    if result != "done":
        raise Failed(f"its result is {result[:80]!r}, the model's words are 'done'")


@turn("more-fields", "passes over fields of blocks that it does not know")
async def _(stage: Stage) -> None:
    block = {"later": {"type": "text", "id": "cx", "name": "n", "input": {"no": 1}}, **use("c1"), "cache_control": None}
    await _run(stage, [block], [{**text("done"), "citations": [{"type": "tool_use", "id": "c7", "name": "x", "input": {}}]}])


@turn("empty-reply", "finishes when the model says nothing at all")
async def _(stage: Stage) -> None:
    await _run(stage, [])


@turn("several-texts", "finishes with all texts of the last reply, in order")
async def _(stage: Stage) -> None:
    result = await _run(stage, [text("first words"), text("second words")])
    if not 0 <= result.find("first words") < result.find("second words"):
        raise Failed(f"its result is {result[:80]!r}")


@turn("odd-words", "finishes with the model's words as they are")
async def _(stage: Stage) -> None:
    if await _run(stage, [text(f"one\ntwo {ODD}")]) != f"one\ntwo {ODD}":
        raise Failed("its result is not what the model said")


@turn("cut-off", "finishes with what there is when the model was cut off")
async def _(stage: Stage) -> None:
    stage.scene.stop_reasons = {0: "max_tokens"}
    await _run(stage, [text("half a sen")])


@turn("blocks-decide", "goes by the blocks of a reply, not by its stop reason")
async def _(stage: Stage) -> None:
    stage.scene.stop_reasons = {0: "end_turn", 1: "tool_use"}
    await _run(stage, [use("c1")], [text("done")])


@several("any-order", "takes answers in any order")
async def _(stage: Stage) -> None:
    calls = [use(f"c{number}") for number in range(3)]
    stage.scene.replies = [calls, [text("done")]]
    await stage.greet()
    held = [await stage.until("tool.call")]
    while len(held) < len(calls):
        # Whoever sends one at a time is answered before it sends the next.
        try:
            async with asyncio.timeout(0.2):
                held.append(await stage.request())
        except TimeoutError:
            await stage.answer(held.pop())
            calls.pop()
    for request in reversed(held):
        await stage.answer(request)
    await stage.finish()


@several("all-before-model", "asks the model once the last of several calls is answered")
async def _(stage: Stage) -> None:
    stage.scene.replies = [[use("c1"), use("c2"), use("c3")], [text("done")]]
    await stage.greet()
    for _ in range(3):
        request = await stage.until("tool.call")
        await asyncio.sleep(0.1)
        await stage.answer(request)
    await stage.finish()


@several("large-answers", "reads while it writes: 100 calls of 2 KiB, each answered by 64 KiB")
async def _(stage: Stage) -> None:
    stage.scene.outcome = lambda _: ("x" * 65_536, False)
    await _run(stage, [use(f"c{number}", {"content": "y" * 2048}) for number in range(100)], [text("done")])


@several("nobody-reads", "is not stuck when nobody reads what it sends while an answer of 1 MB is written")
async def _(stage: Stage) -> None:
    stage.scene.outcome = lambda _: ("x" * 1_000_000, False)
    stage.scene.replies = [[use(f"c{number}", {"content": "y" * 500_000}) for number in range(8)], [text("done")]]
    await stage.greet()
    request = await stage.until("tool.call")
    with stage.harness.unread():
        await stage.answer(request)
    await stage.finish()


def _told(name: str, title: str, content: str, is_error: bool) -> None:
    async def play(stage: Stage) -> None:
        stage.scene.outcome = lambda call: (content, is_error) if call == "c1" else ("ok", False)
        if await _run(stage, [use("c1"), use("c2")], [text("done")]) != "done":
            raise Failed("its result is not the model's words")

    outcome.add(name, title, play)


_told("denied", "leaves a denial to the model, and does not repeat the call", "denied by policy (grants.none): no grant", True)
_told("failed", "leaves a failure to the model", "failed: no such file", True)
_told("unknown-tool", "leaves it to the model that a tool does not exist", "refused: there is no tool delete-all", True)
_told("unknown-outcome", "does not repeat a call of which nobody knows what came", "unknown: the outcome is not known", True)
_told("empty", "takes an empty result", "", False)
_told("odd", "takes results with quotes, control characters and other scripts", ODD * 50, False)
_told("large", "takes a result of 2 MiB", "z" * (2 << 20), False)
_told("json", "does not read frames out of results", '\n{"jsonrpc":"2.0","id":4,"error":{"code":-32002,"message":"x"}}\n', False)
_told("keys", "finds no fields in text", '"final":"no","pending":[],"content":[{"type":"text","text":"no"}],"code":-32001', False)


@outcome("longest", "takes a frame of 8 MiB, the longest there is")
async def _(stage: Stage) -> None:
    empty = len(rpc.response(3, {"call": "c1", "content": "", "is_error": False}))
    stage.scene.replies = [[use("c1")], [text("done")]]
    await stage.greet()
    request = await stage.until("tool.call")
    stage.scene.open.clear()
    room = rpc.MAX_FRAME - empty - len(str(request.number)) + 1
    await stage.send(rpc.response(request.number, {"call": "c1", "content": "w" * room, "is_error": False}))
    await stage.finish()


def _late(method: str, title: str) -> None:
    async def play(stage: Stage) -> None:
        stage.scene.replies = [[use("c1")], [text("done")]]
        await stage.greet()
        request = await stage.until(method)
        await stage.quiet(0.8)
        await stage.answer(request)
        if method != "finish":
            await stage.finish()

    slow.add(method, title, play)


_late("session.view", "waits for a view that is late, and asks nothing meanwhile")
_late("model.call", "waits for a model that is slow, and asks nothing meanwhile")
_late("tool.call", "waits for a call that is slow, and asks nothing meanwhile")
_late("finish", "waits for the answer to finish, and writes nothing behind it")


@slow("greeting", "waits for a kernel that greets late")
async def _(stage: Stage) -> None:
    await asyncio.sleep(0.5)
    await stage.greet()
    await stage.finish()
