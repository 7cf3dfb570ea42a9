"""Cases of the beginning: the greeting, the view, and going on where another process has stopped."""

from __future__ import annotations

from typing import Final

from agentos.abi import rpc
from agentos.conformance.cases import Cases
from agentos.conformance.frames import Failed, Reply
from agentos.conformance.scene import Scene, pending, text, use
from agentos.conformance.stage import Stage

greeting: Final = Cases("greeting")
view: Final = Cases("view")
LISTS: Final = (greeting, view)

ODD: Final = 'é \u2028 \u2029 \U0001f980 "quoted" \\n \\\\ \t \x7f \u202e </script> \x00'
"""Text that is easily broken on its way."""


def nested(levels: int) -> dict[str, object]:
    """Arguments so many levels deep."""
    value: dict[str, object] = {"leaf": [1, 2.5, None, True, ""]}
    for _ in range(levels):
        value = {"in": value}
    return value


@greeting("answers", "answers initialize with the abi, under the number that it has")
async def _(stage: Stage) -> None:
    await stage.greet()
    await stage.finish()


@greeting("number", "answers initialize under whatever number the kernel chose")
async def _(stage: Stage) -> None:
    await stage.greet(41)
    await stage.finish()


@greeting("silent-before", "writes nothing before initialize")
async def _(stage: Stage) -> None:
    await stage.quiet(0.3)
    await stage.greet()
    await stage.finish()
    if len(stage.replies) > 1:
        # It had been started before it was asked, however long that took.
        raise Failed("it answered before it was asked")


@greeting("unknown-version", "does not claim to speak a version that it does not know")
async def _(stage: Stage) -> None:
    await stage.send(rpc.request(0, "initialize", {"abi": "agentos/v9007", "session": "s", "concurrent": True}))
    frame = await stage._next()  # noqa: SLF001 - whatever comes, or nothing
    if isinstance(frame, Reply) and frame.result is not None and frame.result["abi"] != rpc.ABI:
        raise Failed(f"it says that it speaks {frame.result['abi'][:64]!r}")
    if frame is not None and not isinstance(frame, Reply):
        raise Failed(f"it asked {frame.method} of a kernel that it does not understand")
    stage.over, stage.clean = False, False


@greeting("more-fields", "passes over parameters of initialize that it does not know")
async def _(stage: Stage) -> None:
    await stage.greet(later={"deep": [1, {"x": None}]}, versions=["agentos/v1", "agentos/v2"])
    await stage.finish()


async def _one_by_one(stage: Stage, concurrent: bool | None) -> None:
    stage.scene.replies = [[use(f"c{number}") for number in range(4)], [text("done")]]
    await stage.greet(concurrent=concurrent)
    for _ in range(4):
        request = await stage.until("tool.call")
        await stage.quiet(0.05)
        await stage.answer(request)
    await stage.finish()


@greeting("not-concurrent", "sends one request at a time when the kernel says concurrent: false")
async def _(stage: Stage) -> None:
    await _one_by_one(stage, False)


@greeting("concurrent-absent", "sends one request at a time when the kernel does not say concurrent")
async def _(stage: Stage) -> None:
    await _one_by_one(stage, None)


@view("empty", "asks the model in a session that has just begun, and finishes with its words")
async def _(stage: Stage) -> None:
    await stage.greet()
    if "done" not in await stage.finish():
        raise Failed("the model's last words are not in the result")
    if stage.scene.asked != 1:
        raise Failed(f"it asked the model {stage.scene.asked} times, once was enough")


@view("history", "goes on in a session that has a history")
async def _(stage: Stage) -> None:
    block = use("c1")
    stage.scene.history = [
        {"role": "assistant", "content": [block]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "x", "is_error": True}]},
    ]
    stage.scene.replies = [[use("c2")], [text("done")]]
    await stage.greet()
    await stage.finish()
    _made(stage, "c2")


@view("pending", "proposes the calls that are pending, in order, before it asks the model")
async def _(stage: Stage) -> None:
    await _pending(stage, [use("c1"), use("c2", tool="write"), use("c3")])


@view("pending-one", "goes on with the one call of several that has no result yet")
async def _(stage: Stage) -> None:
    await _pending(stage, [use("c2")])


@view("pending-odd", "proposes pending calls with their ids and arguments as they are")
async def _(stage: Stage) -> None:
    await _pending(
        stage, [use("toolu_01-Ab_9", {}), use("x" * 64, {"text": ODD, "n": [0, -1, 1.5, 2**53, 1e-7]}), use("c3", nested(100))]
    )


async def _pending(stage: Stage, blocks: list[dict[str, object]]) -> None:
    stage.scene = Scene(pending=[pending(block) for block in blocks])
    await stage.greet()
    await stage.finish()
    _made(stage, *(str(block["id"]) for block in blocks))


@view("pending-then-more", "goes on as ever behind the calls that were pending")
async def _(stage: Stage) -> None:
    stage.scene = Scene(pending=[pending(use("c1"))], replies=[[text("more"), use("c2"), use("c3")], [use("c4")], [text("end")]])
    await stage.greet()
    await stage.finish()
    _made(stage, "c1", "c2", "c3", "c4")


@view("final", "finishes with the closing words that the view tells, and asks the model no more")
async def _(stage: Stage) -> None:
    await _final(stage, "these words")


@view("final-empty", "finishes a session whose closing words are empty")
async def _(stage: Stage) -> None:
    await _final(stage, "")


@view("final-odd", "finishes with the closing words as they are, whatever is in them")
async def _(stage: Stage) -> None:
    await _final(stage, f"first line\nsecond line {ODD}")


async def _final(stage: Stage, words: str) -> None:
    stage.scene.final = words
    await stage.greet()
    if await stage.finish() != words:
        raise Failed("its result is not the closing words of the view")


@view("signals", "goes on in a session that was told something, whatever signals say")
async def _(stage: Stage) -> None:
    stage.scene.history = [
        {"role": "assistant", "content": [text("I wait.")]},
        {
            "role": "user",
            "content": [text('Signal stop from agent/x: finish now\n{"jsonrpc":"2.0","id":1,"error":{"code":-32002}}')],
        },
    ]
    stage.scene.replies = [[use("c1")], [text("done")]]
    await stage.greet()
    await stage.finish()
    _made(stage, "c1")


@view("more-fields", "passes over fields of results that it does not know")
async def _(stage: Stage) -> None:
    stage.scene = Scene(
        replies=[[use("c1")], [text("done")]], more={"later": [{"final": "no", "pending": [1], "content": []}], "id": 99}
    )
    await stage.greet()
    if await stage.finish() != "done":
        raise Failed("its result is not the model's words")
    _made(stage, "c1")


@view("large", "takes a view of 2 MiB")
async def _(stage: Stage) -> None:
    stage.scene.goal = "a long goal " * 175_000
    await stage.greet()
    await stage.finish()


@view("odd-goal", "takes a goal with quotes, control characters and other scripts")
async def _(stage: Stage) -> None:
    stage.scene.goal = ODD * 20
    await stage.greet()
    await stage.finish()


def _made(stage: Stage, *calls: str) -> None:
    """See that these calls were proposed, in this order, among whatever it counted itself."""
    made = [call for call in stage.scene.proposed if call in calls]
    if made != list(calls):
        raise Failed(f"it proposed {', '.join(made) or 'nothing'}, expected {', '.join(calls)}")
