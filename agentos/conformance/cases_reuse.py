"""Cases of several sessions in one process, for harnesses that offer it, and of being cancelled."""

from __future__ import annotations

from typing import Final

from agentos.abi import rpc
from agentos.conformance.cases import Cases, NotSeen
from agentos.conformance.cases_leaving import lead_to
from agentos.conformance.frames import Failed
from agentos.conformance.scene import Scene, text, use
from agentos.conformance.stage import Stage

reuse: Final = Cases("reuse")
cancel: Final = Cases("cancel")
LISTS: Final = (reuse, cancel)


async def _begin(stage: Stage, number: int, replies: list[str]) -> None:
    """Greet for the session with this number. Raises NotSeen for a harness that is not used again."""
    stage.scene = Scene(replies=[[use(call)] for call in replies] + [[text("done")]])
    stage.numbers.clear()
    reply = await stage.initialize(number, session=f"s-{number}", reuse=True)
    if reply.result is None or reply.result.get("reuse") is not True:
        raise NotSeen("it does not offer it: each session has a process of its own")


async def _left(stage: Stage) -> None:
    line = await stage.harness.line()
    if line is None:
        raise Failed("it offers to be used again, and ended with its session")
    if not rpc.is_left(line):
        raise Failed("it did not say `left` next when it was told to leave a session")
    stage.over = False


@reuse("parked", "leaves a session that waits, and drives another one")
async def _(stage: Stage) -> None:
    await _begin(stage, 0, ["c1"])
    await stage.dismiss(await stage.until("tool.call"), rpc.PARKED)
    await _left(stage)
    await _begin(stage, 1, ["c2"])
    await stage.finish()
    await _left(stage)


@reuse("many", "drives many sessions, and keeps nothing of one for the next")
async def _(stage: Stage) -> None:
    for number in range(20):
        await _begin(stage, number, [f"c{number}"])
        await stage.finish()
        await _left(stage)


@reuse("unasked", "ends with its session where the kernel does not want it again")
async def _(stage: Stage) -> None:
    await stage.greet()
    await stage.finish()


for _method in ("session.view", "model.call", "tool.call", "finish"):

    async def _cancelled(stage: Stage, method: str = _method) -> None:
        await lead_to(stage, method)
        stage.over = True
        await stage.send(rpc.notification("cancel", {"reason": "a person has cancelled it"}))

    cancel.add(_method, f"leaves when it is cancelled while {_method} is under way", _cancelled)
