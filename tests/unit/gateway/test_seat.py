"""A seat: one session for a client, calls for what it was shown, one call for what waits."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_desk import Runtime, done, waiting

from agentos.abi.errors import Conflict
from agentos.gateway.seat import AT_ONCE, HELD, Client, Crowded, Seat
from agentos.gateway.upstream import Done, Upstream, Waiting

ME = Client("editor", "1")


async def still() -> None:
    return None


def seat(runtime: Runtime, session: str | None = None) -> Seat:
    return Seat(Upstream(runtime), "desk", ME, session)


async def test_a_session_is_begun_once_and_only_when_something_is_asked() -> None:
    """Whoever asks nothing leaves nothing behind; two requests at once are of one session."""
    runtime = Runtime()
    one = seat(runtime)
    await one.leave()
    assert runtime.asked == []
    await asyncio.gather(one.tools(), one.tools())
    assert runtime.verbs().count("gateway.open") == 1
    await one.leave()
    assert runtime.verbs()[-1] == "gateway.close"


async def test_a_call_is_for_the_tool_that_was_shown() -> None:
    """The digest of the listing goes with the call; one that the client names wins; before a listing there is none."""
    runtime = Runtime(call=[done("mcp-1"), done("mcp-2"), done("mcp-3")])
    one = seat(runtime)
    await one.call("list", {}, None, still)
    await one.tools()
    await one.call("list", {}, None, still)
    await one.call("list", {}, "sha256:mine", still)
    assert [params.get("digest") for verb, params in runtime.asked if verb == "gateway.call"] == [None, "sha256:a", "sha256:mine"]


async def test_what_waits_is_asked_after_and_not_proposed_again() -> None:
    """The same tool and arguments: the call that waits. Its result is given once, and then it is another call."""
    runtime = Runtime(call=[waiting("mcp-1"), done("mcp-2")], result=[waiting("mcp-1"), done("mcp-1")])
    one = seat(runtime)
    told = [await one.call("write", {"path": "a"}, None, still) for _ in range(4)]
    assert [type(answer) for answer in told] == [Waiting, Waiting, Done, Done]
    assert [verb for verb in runtime.verbs() if verb != "gateway.open"] == [
        "gateway.call",
        "gateway.result",
        "gateway.result",
        "gateway.call",
    ]


async def test_a_seat_with_a_call_in_the_inbox_is_left_open() -> None:
    """The answer of a person is still to come, so the session is not finished under it."""
    runtime = Runtime(call=[waiting("mcp-1")])
    one = seat(runtime)
    await one.call("write", {}, None, still)
    await one.leave()
    assert "gateway.close" not in runtime.verbs()


async def test_too_many_calls_at_once_are_refused_and_none_is_lost() -> None:
    """The one beyond AT_ONCE is told so at once; when one has ended there is room again."""
    gate = asyncio.Event()

    class Slow(Runtime):
        async def call(self, verb: str, params: dict[str, object], *, within: float = 30.0) -> object:
            if verb == "gateway.call":
                await gate.wait()
                return done("mcp-1")
            return await super().call(verb, params, within=within)

    one = seat(Slow())
    calls = [asyncio.create_task(one.call("list", {"n": n}, None, still)) for n in range(AT_ONCE)]
    await asyncio.sleep(0.01)
    with pytest.raises(Crowded):
        await one.call("list", {}, None, still)
    gate.set()
    assert len(await asyncio.gather(*calls)) == AT_ONCE
    assert isinstance(await one.call("list", {}, None, still), Done)


async def test_a_session_that_the_runtime_finished_is_replaced_and_one_that_was_stopped_is_not() -> None:
    """Idle: the call is made in a new session. Cancelled or halted by somebody: the client stays out."""
    runtime = Runtime(call=[Conflict("session s-1 is finished"), done("mcp-1")])
    one = seat(runtime)
    assert isinstance(await one.call("list", {}, None, still), Done)
    assert one.session == "s-2"
    for word in ("cancelled", "halted"):
        stopped = seat(Runtime(call=[Conflict(f"session s-1 is {word}")]))
        with pytest.raises(Conflict, match=word):
            await stopped.call("list", {}, None, still)
        assert stopped.session == "s-1"


async def test_a_call_that_is_given_up_is_cancelled_at_the_runtime() -> None:
    """Cancelled while it runs: the runtime is told, and the refusal of one that was quicker is no fault."""
    begun = asyncio.Event()
    runtime = Runtime(
        call=[{"call": "mcp-1", "state": "running"}],
        result=lambda _: {"call": "mcp-1", "state": "running"},
        cancel=[Conflict("too late")],
    )

    async def tell() -> None:
        begun.set()

    one = seat(runtime)
    call = asyncio.create_task(one.call("list", {}, None, tell))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert runtime.asked[-1] == ("gateway.cancel", {"session": "s-1", "call": "mcp-1"})


async def test_what_stands_behind_a_question_that_is_being_asked_waits_for_it() -> None:
    """While the person at the client is asked about one call, another is not sent to the inbox."""
    runtime = Runtime(call=[waiting("mcp-2", asked="mcp-1")], result=[waiting("mcp-2", asked="mcp-1"), done("mcp-2")])
    one = seat(runtime)
    with one.asking("mcp-1"):
        assert await one.call("list", {}, None, still) == Done("mcp-2", "finished", "fine", is_error=False)


async def test_what_is_remembered_of_calls_is_bounded() -> None:
    """Of more calls in the inbox than HELD the oldest is not found again; a new one is proposed then."""
    number = iter(range(1, HELD + 3))
    runtime = Runtime(call=lambda _: waiting(f"mcp-{next(number)}"), result=lambda params: waiting(params["call"]))
    one = seat(runtime)
    for n in range(HELD + 1):
        await one.call("write", {"n": n}, None, still)
    assert (await one.call("write", {"n": HELD}, None, still)).call == f"mcp-{HELD + 1}"
    assert (await one.call("write", {"n": 0}, None, still)).call == f"mcp-{HELD + 2}"
