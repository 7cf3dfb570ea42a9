"""Cases of what a harness does besides speaking: processor, memory, standard error, the network, the home folder."""

from __future__ import annotations

import asyncio
from typing import Final

from agentos.conformance.cases import Cases, NotSeen
from agentos.conformance.cases_leaving import lead_to
from agentos.conformance.frames import Failed
from agentos.conformance.scene import text, use
from agentos.conformance.stage import Stage

apart: Final = Cases("apart")
LISTS: Final = (apart,)

IDLE_S: Final = 1.0
"""How long it is watched while it waits."""

BUSY_S: Final = 0.2
"""Seconds of the processor's time that it may take meanwhile."""

GROWTH: Final = 64 * 1024 * 1024
"""Bytes that it may grow by over many turns."""


@apart("idle", "does not use the processor while it waits")
async def _(stage: Stage) -> None:
    request = await lead_to(stage, "model.call")
    await asyncio.sleep(0.2)
    before = stage.harness.cpu_seconds()
    await asyncio.sleep(IDLE_S)
    after = stage.harness.cpu_seconds()
    if before is None or after is None:
        raise NotSeen("the process cannot be watched from here")
    await stage.answer(request)
    await stage.finish()
    if after - before > BUSY_S:
        raise Failed(f"it used the processor for {after - before:.2f} s of {IDLE_S:g} s in which it had nothing to do")


@apart("memory", "does not grow with the turns of a session")
async def _(stage: Stage) -> None:
    stage.scene.outcome = lambda _: ("x" * 250_000, False)
    stage.scene.replies = [*([use(f"t{number}")] for number in range(400)), [text("done")]]
    await stage.greet()
    for number in range(400):
        await stage.answer(await stage.until("tool.call"))
        if number == 20:
            before = stage.harness.memory_bytes()
    after = stage.harness.memory_bytes()
    await stage.finish()
    if before is None or after is None:
        raise NotSeen("the process cannot be watched from here")
    if after - before > GROWTH:
        raise Failed(f"it grew by {(after - before) >> 20} MiB over 380 turns, at most {GROWTH >> 20} MiB")


@apart("standard-error", "writes at most 64 KiB to standard error in a long session")
async def _(stage: Stage) -> None:
    stage.scene.replies = [*([use(f"t{number}")] for number in range(100)), [text("done")]]
    await stage.greet()
    await stage.finish()


@apart("network", "makes no socket")
async def _(stage: Stage) -> None:
    if not stage.harness.isolated:
        raise NotSeen("it takes a sandbox to see it")
    await stage.answer(await lead_to(stage, "finish"))


@apart("home", "opens nothing where homes are")
async def _(stage: Stage) -> None:
    if stage.harness.opened is None:
        raise NotSeen("it takes a sandbox to see it")
    request = await lead_to(stage, "finish")
    found = dict.fromkeys(stage.harness.opened)
    await stage.answer(request)
    if found:
        raise Failed(f"it opened {', '.join(found)}")
