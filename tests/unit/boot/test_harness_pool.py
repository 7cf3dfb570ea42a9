"""Processes that many sessions use: who gets which, how many there are, and when one is not used again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agentos.abi import rpc
from agentos.abi.errors import Unavailable
from agentos.boot import harness_pool, system
from agentos.boot.harness_place import brainly
from agentos.boot.harness_pool import HarnessPool
from agentos.boot.system import LOOP, ProcessHarness
from agentos.kernel.port import Brief, HarnessSpec, Left, Misdeed
from agentos.sandbox.profile import Profile

PII = frozenset({"pii"})


class Starter:
    """Starts real processes of the built-in loop, or of a script in the place of a declared program."""

    def __init__(self) -> None:
        self.started: list[tuple[str, ProcessHarness]] = []
        self.fails = 0

    async def __call__(self, owner: str, command: Sequence[str], profile: Profile | None) -> ProcessHarness:
        del profile
        if self.fails:
            self.fails -= 1
            raise Unavailable("none can be started")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
            limit=rpc.MAX_FRAME,
            start_new_session=True,
        )
        made = ProcessHarness(owner, process)
        self.started.append((owner, made))
        return made


@pytest.fixture
def starter() -> Starter:
    return Starter()


@pytest.fixture
async def pool(starter: Starter) -> AsyncIterator[HarnessPool]:
    made = HarnessPool(starter, most=2)
    yield made
    await made.close()
    for _, process in starter.started:
        await process.stop()


async def greet(process: Any, session: str = "s-1") -> dict[str, Any]:
    """Begin a session, up to its first request."""
    await process.write_frame(rpc.request(0, "initialize", {"abi": rpc.ABI, "session": session, "reuse": True}))
    said: dict[str, Any] = json.loads(await process.read_frame())["result"]
    assert json.loads(await process.read_frame())["method"] == "session.view"
    return said


async def leave(process: Any, labels: frozenset[str] = frozenset(), *, finished: bool = False) -> Left:
    """Tell it to leave the session, and let go of it."""
    await process.write_frame(rpc.error(1, rpc.ENDED if finished else rpc.PARKED, "leave"))
    left: Left = await process.stop(reuse=labels, finished=finished)
    return left


def declared(script: str) -> HarnessSpec:
    return HarnessSpec((sys.executable, "-c", script))


REUSED = """
import json, sys
def say(frame): print(json.dumps({"jsonrpc": "2.0", **frame}), flush=True)
for line in sys.stdin:
    frame = json.loads(line)
    if frame.get("method") == "initialize":
        say({"id": 0, "result": {"abi": "agentos/v1", "reuse": True}})
        say({"id": 1, "method": "session.view", "params": {}})
    elif "error" in frame:
        %s
        say({"method": "left"})
"""


async def test_a_process_is_used_again(pool: HarnessPool, starter: Starter) -> None:
    """One process drives the sessions of its tenant, one after the other."""
    for number in range(5):
        process = await pool.spawn(Brief("acme", f"s-{number}"))
        assert (await greet(process, f"s-{number}"))["reuse"] is True
        assert await leave(process, finished=number % 2 == 0) == Left(None)
    assert len(starter.started) == 1
    assert starter.started[0][0].startswith("acme/")


@pytest.mark.parametrize("other", [Brief("other", "s-2"), Brief("acme", "s-2", PII)])
async def test_tenants_and_labels_share_no_process(pool: HarnessPool, starter: Starter, other: Brief) -> None:
    """What has driven a session of one is never given to the other."""
    first = await pool.spawn(Brief("acme", "s-1"))
    await greet(first)
    await leave(first)
    second = await pool.spawn(other)
    await greet(second)
    assert len(starter.started) == 2
    await leave(second, other.labels)
    await pool.spawn(other)
    assert len(starter.started) == 2


async def test_a_process_belongs_to_what_it_has_seen(pool: HarnessPool, starter: Starter) -> None:
    """A session that got a label while it had the process takes it along to those with the label."""
    process = await pool.spawn(Brief("acme", "s-1"))
    await greet(process)
    await leave(process, PII)
    await greet(await pool.spawn(Brief("acme", "s-2", PII)))
    assert len(starter.started) == 1
    await greet(await pool.spawn(Brief("acme", "s-3")))
    assert len(starter.started) == 2


async def test_what_was_taken_off_a_session_stays_with_its_process(pool: HarnessPool, starter: Starter) -> None:
    """A declassification tells of the session: the process has seen what stood below the label, and drives no other kind."""
    process = await pool.spawn(Brief("acme", "s-1", PII))
    await greet(process)
    await leave(process)
    await greet(await pool.spawn(Brief("acme", "s-2")))
    assert len(starter.started) == 2
    await greet(await pool.spawn(Brief("acme", "s-3", PII)))
    assert len(starter.started) == 2
    foreign = Brief("acme", "s-4", PII, harness=declared(REUSED % "pass"))
    process = await pool.spawn(foreign)
    await greet(process)
    assert (await leave(process)).code is not None


async def test_who_comes_while_two_get_theirs_is_not_forgotten(pool: HarnessPool) -> None:
    """One that begins to wait between two that have been told and have not looked yet: it gets the next."""
    held = [await pool.spawn(Brief("acme", f"s-{number}")) for number in range(2)]
    kind = held[0].kind
    first = asyncio.create_task(pool.spawn(Brief("acme", "w-1")))
    await asyncio.sleep(0)
    waiting = list(pool._waiting[kind])
    second = asyncio.create_task(pool.spawn(Brief("acme", "w-2")))
    await asyncio.sleep(0)
    pool._next(kind).set_result(held[0])
    third = asyncio.create_task(pool.spawn(Brief("acme", "w-3")))
    pool._next(kind).set_result(held[1])
    assert await asyncio.gather(first, second) == held
    assert (len(waiting), third.done()) == (1, False)
    await held[0].stop()
    async with asyncio.timeout(30):
        await third


async def test_our_loop_in_a_place_of_somebody_else_is_not_ours(pool: HarnessPool, starter: Starter) -> None:
    """What a declared place mounts may lie where our program lies: it is used as a program of others is."""
    brief = Brief("acme", "s-1", harness=HarnessSpec(LOOP), profile=brainly())
    process = await pool.spawn(brief)
    await greet(process)
    assert (await leave(process, PII)).code is not None
    assert pool.processes == 0


async def test_there_are_never_more_than_there_may_be(pool: HarnessPool, starter: Starter) -> None:
    """Who comes then waits for the first that is left, in the order in which they came; who gave up is passed over."""
    held = [await pool.spawn(Brief("acme", f"s-{number}")) for number in range(2)]
    for process in held:
        await greet(process)
    waiting = [asyncio.create_task(pool.spawn(Brief("acme", f"w-{number}"))) for number in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await leave(held[0])
    await asyncio.wait([waiting[1]])
    assert not waiting[2].done()
    await held[1].stop()
    await waiting[2]
    assert len(starter.started) == 3
    assert pool.processes == 2


async def test_who_rests_is_told_to_leave_when_another_one_waits(pool: HarnessPool) -> None:
    """The one that has rested longest, and only as many as are waited for."""
    held: list[Any] = [await pool.spawn(Brief("acme", f"s-{number}")) for number in range(2)]
    for process in held:
        await greet(process)
    told = [process.rest() for process in held]
    waiting = asyncio.create_task(pool.spawn(Brief("acme", "w-1")))
    await asyncio.wait([told[0]])
    assert not told[1].done()
    held[0].rise()
    await leave(held[0])
    await waiting
    held[1].rise()
    again = held[1].rest()
    assert not again.done()
    later = asyncio.create_task(pool.spawn(Brief("acme", "w-2")))
    await asyncio.wait([again])
    later.cancel()


async def test_who_rests_after_somebody_has_come_is_told_at_once(pool: HarnessPool) -> None:
    """Whoever waits does so for the next that can leave."""
    held: list[Any] = [await pool.spawn(Brief("acme", f"s-{number}")) for number in range(2)]
    waiting = asyncio.create_task(pool.spawn(Brief("acme", "w-1")))
    await asyncio.sleep(0)
    assert held[1].rest().done()
    waiting.cancel()


async def test_a_start_that_fails_takes_no_place(pool: HarnessPool, starter: Starter) -> None:
    """It can be tried again, by those who wait as well."""
    starter.fails = 3
    for _ in range(3):
        with pytest.raises(Unavailable):
            await pool.spawn(Brief("acme", "s-1"))
    await asyncio.gather(*(pool.spawn(Brief("acme", f"s-{number}")) for number in range(2)))
    assert pool.processes == 2


async def test_one_that_has_died_is_not_given_out(pool: HarnessPool, starter: Starter) -> None:
    """Whoever comes gets a fresh one."""
    process = await pool.spawn(Brief("acme", "s-1"))
    await greet(process)
    await leave(process)
    died = starter.started[0][1]._process
    died.kill()
    await died.wait()
    await greet(await pool.spawn(Brief("acme", "s-2")))
    assert len(starter.started) == 2


@pytest.mark.parametrize(
    ("afterwards", "misdeed"),
    [
        (
            "say({'id': 9, 'method': 'tool.call', 'params': {'call': 'step-9', 'tool': 'write', 'args': {}}})",
            Misdeed.AFTER_FINISH,
        ),
        ("sys.exit(0)", None),
        ("import time; time.sleep(60)", None),
        ("print('x' * (9 << 20), flush=True)", None),
    ],
)
async def test_who_does_not_part_as_it_has_to_is_ended(
    pool: HarnessPool, monkeypatch: pytest.MonkeyPatch, afterwards: str, misdeed: Misdeed | None
) -> None:
    """A word after `finish` is a misdeed; silence, a flood and an exit are the end of the process, and no more."""
    for module in (harness_pool, system):
        monkeypatch.setattr(module, "GRACE", 0.3)
    process = await pool.spawn(Brief("acme", "s-1", harness=declared(REUSED % afterwards)))
    await greet(process)
    left = await leave(process, finished=True)
    assert left.code is not None
    assert left.misdeed in {misdeed, Misdeed.AFTER_FINISH if "print" in afterwards else misdeed}
    assert pool.processes == 0


async def test_words_under_way_when_it_is_parked_are_no_misdeed(pool: HarnessPool, starter: Starter) -> None:
    """It may have asked for more before it read that it has to leave."""
    asks = "say({'id': 9, 'method': 'tool.call', 'params': {'call': 'step-9', 'tool': 'write', 'args': {}}})"
    brief = Brief("acme", "s-1", harness=declared(REUSED % asks))
    process = await pool.spawn(brief)
    await greet(process)
    assert await leave(process) == Left(None)
    await greet(await pool.spawn(brief))
    assert len(starter.started) == 1


async def test_a_program_of_others_is_not_used_again_after_labels(pool: HarnessPool, starter: Starter) -> None:
    """It could keep what it has seen; the built-in loop keeps nothing."""
    brief = Brief("acme", "s-1", harness=declared(REUSED % "pass"))
    process = await pool.spawn(brief)
    await greet(process)
    assert (await leave(process, PII, finished=True)).code is not None
    assert pool.processes == 0
    await pool.spawn(brief)
    assert len(starter.started) == 2


async def test_what_nobody_uses_ends(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, or once there are too many of them: the one that was used longest ago."""
    del monkeypatch
    pool = HarnessPool(starter, most_idle=2, idle_s=60)
    processes = [await pool.spawn(Brief(tenant, "s-1")) for tenant in ("a", "b", "c")]
    for process in processes:
        await greet(process)
    for process in processes:
        await leave(process)
    assert pool.processes == 2
    await pool.close()
    assert (pool.processes, [process.alive for _, process in starter.started]) == (0, [False] * 3)
    quick = HarnessPool(starter, idle_s=0)
    process = await quick.spawn(Brief("a", "s-1"))
    await greet(process)
    await leave(process)
    async with asyncio.timeout(30):
        while quick.processes:
            await asyncio.sleep(0.01)
    await quick.close()


def test_the_loop_is_what_is_shared() -> None:
    """The pool tells our own program by its command."""
    assert (sys.executable, "-I", "-m", "agentos.harness") == LOOP
