"""The pipe of a harness: silence, a full pipe, and several requests beside each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from kernel_in_memory import Alone

from agentos.abi import rpc
from agentos.abi.errors import LogUnavailable
from agentos.kernel.port import HarnessSilent, Left
from agentos.kernel.serving import Leave, Served, serve

GREETING = rpc.response(0, {"abi": rpc.ABI}).rstrip()


class Harness(Alone):
    """Says `frames`, then what `silence` says: an error of the pipe, once, and after that the end."""

    def __init__(self, *frames: bytes, silences: int = 0, deaf_after: int = 1000) -> None:
        self._frames = [GREETING, *frames]
        self.silences = silences
        self._deaf_after = deaf_after
        self.told: list[dict[str, Any]] = []

    async def read_frame(self) -> bytes:
        await asyncio.sleep(0)
        if self._frames:
            return self._frames.pop(0)
        if self.silences:
            self.silences -= 1
            raise HarnessSilent("it said nothing")
        return b""

    async def write_frame(self, frame: bytes) -> None:
        if len(self.told) == self._deaf_after:
            raise HarnessSilent("it did not read")
        self.told.append(json.loads(frame))

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        return Left(0)


class Calls:
    """Serves `at-once` beside each other and anything else alone; each ends when its `go` is set, as `ends` says."""

    session = "s-1"

    def __init__(self, **ends: BaseException) -> None:
        self.go = asyncio.Event()
        self.ends = ends
        self.done: list[str] = []
        self.begun: list[str] = []

    async def handle(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.done.append(method)
        return {"method": method, **params}

    def at_once(self, method: str, params: dict[str, Any]) -> Coroutine[Any, Any, dict[str, Any]] | None:
        return self._serve(params["name"]) if method == "at-once" else None

    def no_more(self) -> None:
        return

    def rest(self) -> None:
        return

    def rise(self, *, gone: bool) -> None:
        return

    async def _serve(self, name: str) -> dict[str, Any]:
        self.begun.append(name)
        if name in self.ends:
            raise self.ends[name]
        await self.go.wait()
        self.done.append(name)
        return {"name": name}


def ask(number: int, name: str) -> bytes:
    return rpc.request(number, "at-once", {"name": name}).rstrip()


async def served(harness: Harness, calls: Calls, begun: int) -> asyncio.Task[Served]:
    task = asyncio.create_task(serve(harness, calls))
    while len(calls.begun) < begun:
        await asyncio.sleep(0)
    return task


async def test_who_waits_for_our_answers_may_be_silent() -> None:
    """However often the pipe says that nothing came: silence counts from when nothing is under way any more."""
    harness, calls = Harness(ask(1, "a"), ask(2, "b"), silences=3), Calls()
    task = await served(harness, calls, 2)
    while harness.silences:
        await asyncio.sleep(0)
    assert not task.done()
    calls.go.set()
    assert await task == Served("it closed its end")
    assert [frame["id"] for frame in harness.told] == [0, 1, 2]


async def test_silence_with_nothing_under_way_is_noticed() -> None:
    """As before."""
    with pytest.raises(HarnessSilent, match="said nothing"):
        await serve(Harness(silences=1), Calls())


async def test_what_is_under_way_ends_though_nobody_reads_the_answers() -> None:
    """A harness that stops reading is given up once all that it asked for has ended."""
    harness, calls = Harness(ask(1, "a"), ask(2, "b"), ask(3, "c"), deaf_after=2), Calls()
    task = await served(harness, calls, 3)
    calls.go.set()
    with pytest.raises(HarnessSilent, match="did not read"):
        await task
    assert calls.done == ["a", "b", "c"]


async def test_one_that_has_to_leave_waits_for_the_others() -> None:
    """Their answers come first, then it is told to go; nothing that it asked behind that is served."""
    alone = rpc.request(4, "model.call", {}).rstrip()
    harness, calls = Harness(ask(1, "a"), ask(2, "b"), ask(3, "c"), alone), Calls(b=Leave(rpc.PARKED, "the session waits"))
    task = await served(harness, calls, 2)
    calls.go.set()
    assert await task == Served("the session waits")
    assert harness.told[1]["result"] == {"name": "a"}
    assert not any("error" in frame for frame in harness.told[:-1])
    assert (harness.told[-1]["id"], harness.told[-1]["error"]["code"]) == (2, rpc.PARKED)
    assert "model.call" not in calls.done


async def test_a_log_that_is_away_counts_before_a_word_to_leave() -> None:
    """The first says that the session waits, the second that it could not be recorded: that is what is raised."""
    harness = Harness(ask(1, "a"), ask(2, "b"))
    calls = Calls(a=Leave(rpc.PARKED, "the session waits"), b=LogUnavailable("the event log does not answer"))
    with pytest.raises(LogUnavailable):
        await serve(harness, calls)


async def test_cancelling_ends_all_that_is_under_way() -> None:
    """Nothing is left behind, and the cancellation goes through."""
    harness, calls = Harness(ask(1, "a"), ask(2, "b"), silences=10**6), Calls()
    task = await served(harness, calls, 2)
    before = asyncio.all_tasks()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [one for one in before if not one.done() and one is not asyncio.current_task()]
    assert calls.done == []


async def test_why_it_ended_quotes_no_word_of_a_frame() -> None:
    """What a harness says of itself does not come into the runtime's log."""
    harness = Harness()
    harness._frames = [rpc.response(0, {"abi": "my password is hunter2"}).rstrip()]
    assert (await serve(harness, Calls())).why == f"it speaks another ABI than {rpc.ABI}"


class Reusable(Harness):
    """One that can be used again; `needed` is when another session waits for it."""

    def __init__(self, *frames: bytes) -> None:
        super().__init__(*frames, silences=10**6)
        self._frames[0] = rpc.response(0, {"abi": rpc.ABI, "reuse": True}).rstrip()
        self.needed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rests = 0

    async def read_frame(self) -> bytes:
        if not self._frames:
            await asyncio.get_running_loop().create_future()
        return await super().read_frame()

    def rest(self) -> asyncio.Future[None]:
        self.rests += 1
        return self.needed

    def rise(self) -> None:
        self.rests -= 1


async def test_a_harness_is_let_go_while_its_calls_go_on() -> None:
    """It is told to leave by one code; what it has asked for ends without it, and nobody is told."""
    harness, calls = Reusable(ask(1, "a"), ask(2, "b")), Calls()
    task = await served(harness, calls, 2)
    assert not task.done()
    harness.needed.set_result(None)
    done = await task
    assert (done.reuse, done.finished, len(done.adrift)) == (True, False, 2)
    assert [(frame["id"], frame["error"]["code"]) for frame in harness.told[1:]] == [(1, rpc.PARKED)]
    assert (calls.done, harness.rests) == ([], 0)
    calls.go.set()
    assert [one["name"] for one in await asyncio.gather(*done.adrift)] == ["a", "b"]


async def test_only_who_can_be_used_again_is_let_go() -> None:
    """Another one keeps its process to the end of its calls, whoever waits."""

    class Kept(Reusable):
        def __init__(self, *frames: bytes) -> None:
            super().__init__(*frames)
            self._frames[0] = GREETING

    harness, calls = Kept(ask(1, "a")), Calls()
    harness.needed.set_result(None)
    task = await served(harness, calls, 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_done_is_answered_before_it_is_let_go() -> None:
    """A call that ends at the moment in which the process is needed has its answer."""
    harness, calls = Reusable(ask(1, "a")), Calls()
    task = await served(harness, calls, 1)
    calls.go.set()
    while not calls.done:
        await asyncio.sleep(0)
    harness.needed.set_result(None)
    while len(harness.told) < 2:
        await asyncio.sleep(0)
    assert harness.told[1]["result"] == {"name": "a"}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_session_tells_its_harness() -> None:
    """By a notification, if it takes no time."""
    harness, calls, hints = Reusable(ask(1, "a")), Calls(), []
    harness.hint = hints.append  # type: ignore[method-assign]
    task = await served(harness, calls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [json.loads(frame)["method"] for frame in hints] == ["cancel"]


async def test_cancelling_one_that_is_let_go_ends_what_it_has_asked_for() -> None:
    """At each step of it: either somebody has got what goes on, or nothing does."""
    for step in range(8):
        harness, calls = Reusable(ask(1, "a"), ask(2, "b")), Calls()
        task = await served(harness, calls, 2)
        before = asyncio.all_tasks()
        harness.needed.set_result(None)
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        try:
            adrift = (await task).adrift
        except asyncio.CancelledError:
            adrift = ()
        left = {one for one in before if not one.done() and one is not asyncio.current_task()}
        assert left == set(adrift), f"after {step} steps"
        for one in adrift:
            one.cancel()
        await asyncio.gather(*adrift, return_exceptions=True)


async def test_one_that_does_not_read_is_let_go_and_not_used_again() -> None:
    """What it has asked for is not stopped for that."""
    harness, calls = Reusable(ask(1, "a")), Calls()
    harness._deaf_after = 1
    task = await served(harness, calls, 1)
    harness.needed.set_result(None)
    done = await task
    assert (done.reuse, len(done.adrift)) == (False, 1)
    calls.go.set()
    assert (await asyncio.gather(*done.adrift)) == [{"name": "a"}]


@pytest.mark.parametrize("frame", [b"", b"nonsense", b"[]"])
async def test_one_that_breaks_off_is_not_used_again(frame: bytes) -> None:
    """It has closed its end, or said what is no frame, while its calls are under way: they go on, without it and for good."""
    harness, calls = Reusable(ask(1, "a"), frame), Calls()
    task = await served(harness, calls, 1)
    while harness._frames:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    harness.needed.set_result(None)
    done = await task
    assert (done.reuse, len(done.adrift)) == (False, 1)
    calls.go.set()
    await asyncio.gather(*done.adrift)
