"""Cases of leaving: parked, ended, refused, finished, and the end of the pipe, wherever it comes."""

from __future__ import annotations

import asyncio
from typing import Final

from agentos.abi import rpc
from agentos.conformance.cases import Cases, NotSeen
from agentos.conformance.frames import Failed, Request
from agentos.conformance.scene import Scene, pending, text, use
from agentos.conformance.stage import Stage

parked: Final = Cases("parked")
ended: Final = Cases("ended")
finish: Final = Cases("finish")
refused: Final = Cases("refused")
eof: Final = Cases("eof")
LISTS: Final = (parked, ended, finish, refused, eof)

METHODS: Final = ("session.view", "model.call", "tool.call", "finish")
REPEATS: Final = 20
"""How often a refused request may come again."""


async def lead_to(stage: Stage, method: str) -> Request:
    """Play until it asks `method` for the first time."""
    stage.scene.replies = [[use("c1")], [text("done")]]
    await stage.greet()
    return await stage.until(method)


def _leaves(cases: Cases, method: str, code: int, words: str) -> None:
    async def play(stage: Stage) -> None:
        await stage.dismiss(await lead_to(stage, method), code)

    cases.add(method, f"leaves when {method} is answered by {code}: {words}", play)


for _method in METHODS[:3]:
    _leaves(parked, _method, rpc.PARKED, "the session waits")
_leaves(parked, "finish", rpc.PARKED, "it was paused before its end")
for _method in METHODS[:3]:
    _leaves(ended, _method, rpc.ENDED, "the session is over")


@parked("one-of-several", "leaves when one of several calls is parked, and waits for none of the others")
async def _(stage: Stage) -> None:
    stage.scene.replies = [[use("c1"), use("c2"), use("c3")], [text("done")]]
    await stage.greet()
    first = await stage.until("tool.call")
    # Whoever sends several has sent them by now.
    await asyncio.sleep(0.2)
    await stage.refuse(first, rpc.PARKED)


@parked("resumed", "goes on in a fresh process with the call that was parked")
async def _(stage: Stage) -> None:
    stage.scene = Scene(pending=[pending(use("c1"))])
    stage.scene.outcome = lambda call: (f"approved {call}", False)
    await stage.greet()
    await stage.finish()
    if stage.scene.proposed[:1] != ["c1"]:
        raise Failed("it did not propose the pending call first")


@parked("again", "proposes a pending call again, and leaves again when that waits still")
async def _(stage: Stage) -> None:
    stage.scene = Scene(pending=[pending(use("c1"))])
    await stage.greet()
    await stage.dismiss(await stage.until("tool.call"), rpc.PARKED)


@ended("in-the-middle", "leaves when the session ends after many turns")
async def _(stage: Stage) -> None:
    stage.scene.replies = [[use(f"c{number}")] for number in range(20)]
    await stage.greet()
    for _ in range(10):
        await stage.answer(await stage.until("tool.call"))
    await stage.dismiss(await stage.until("model.call"), rpc.ENDED)


@finish("once", "writes nothing behind finish, and leaves with exit code 0")
async def _(stage: Stage) -> None:
    await lead_to(stage, "finish")
    await stage.quiet(0.3)
    stage.over = True


@finish("alone", "leaves by itself once finish is answered, with its input still open")
async def _(stage: Stage) -> None:
    await stage.dismiss(await lead_to(stage, "finish"), rpc.ENDED)
    await stage.harness.left()


@finish("text", "finishes with text")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "finish")
    if "done" not in request.params["result"]:
        raise Failed("the model's last words are not in the result")
    await stage.dismiss(request, rpc.ENDED)


async def _refused(stage: Stage, method: str, code: int) -> None:
    request = await lead_to(stage, method)
    stage.clean = False
    for _ in range(REPEATS):
        await stage.refuse(request, code)
        if not stage.harness.running():
            return
        stage.scene.results.clear()
        stage.scene.asked = min(stage.scene.asked, 1)
        stage.scene.proposed.clear()
        while True:
            try:
                frame = await stage._next()  # noqa: SLF001 - it may leave, or go on as it likes
            except TimeoutError:
                raise Failed(f"it neither went on nor left for {stage.harness.patience:g} s") from None
            if frame is None:
                return
            if isinstance(frame, Request):
                if frame.method == method:
                    request = frame
                    break
                await stage.answer(frame)
                if frame.method == "finish":
                    return
    raise Failed(f"it asked {method} again and again, though it was refused {REPEATS} times")


def _refusals(method: str) -> None:
    async def play(stage: Stage) -> None:
        await _refused(stage, method, rpc.INVALID_PARAMS)

    refused.add(method, f"does not ask {method} for ever when it is refused", play)


for _method in METHODS:
    _refusals(_method)


@refused("internal", "does not ask the model for ever when that fails with a code that it does not know")
async def _(stage: Stage) -> None:
    await _refused(stage, "model.call", rpc.INTERNAL)


def _at_end(name: str, title: str, method: str | None, rest: bytes = b"") -> None:
    async def play(stage: Stage) -> None:
        if method is not None:
            await lead_to(stage, method)
        if rest:
            await stage.send(rest)
        stage.harness.close()

    eof.add(name, title, play)


_at_end("before-greeting", "leaves with exit code 0 when its input ends before initialize", None)
for _method in METHODS:
    _at_end(f"at-{_method}", f"leaves with exit code 0 when its input ends where {_method} is to be answered", _method)
_at_end(
    "in-a-frame", "leaves with exit code 0 when its input ends in the middle of a frame", "tool.call", b'{"jsonrpc":"2.0","id":'
)
_at_end(
    "in-a-greeting",
    "leaves with exit code 0 when its input ends in the middle of initialize",
    None,
    b'{"jsonrpc":"2.0","id":0,"meth',
)


@eof("half-answer", "does not act on a frame that has no end")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "model.call")
    stage.scene.answer(request)
    frame = rpc.response(request.number, {"content": [use("c1")], "stop_reason": "tool_use"})
    await stage.send(frame.rstrip(b"\n"))
    await stage.quiet(0.2)
    stage.harness.close()


@eof("nobody-reads", "leaves when nobody reads what it writes")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "model.call")
    stage.clean = False
    stage.harness.deafen()
    await stage.answer(request)
    stage.harness.close()


@eof("terminated", "leaves on SIGTERM, where it waits for an answer")
async def _(stage: Stage) -> None:
    await lead_to(stage, "model.call")
    stage.clean = False
    if not stage.harness.terminate():
        raise NotSeen("the process cannot be signalled from here")
    await stage.harness.left()
