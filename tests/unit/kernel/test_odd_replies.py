"""Whatever a model or a driver answers, the session goes on or fails, visibly, and the log stays readable."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_in_memory import Kernel, calls, settled, text

from agentos.abi.errors import DriverError, TooLarge
from agentos.abi.syscall import Result
from agentos.drivers.port import ModelReply
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.kernel.gate import MAX_OUTCOME


def reply(content: Any, *, reads: Any = 1, writes: Any = 1, stop: Any = "end_turn") -> ModelReply:
    return ModelReply(content, stop, reads, writes)


def use(call: Any, name: Any = "write", args: Any = None) -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": name, "input": {"path": "a"} if args is None else args}


def nested(depth: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for _ in range(depth):
        body = {"x": body}
    return body


async def end(kernel: Kernel, first: ModelReply) -> tuple[Any, Any]:
    """How a session ends whose model says `first`, and then that it is done."""
    kernel.model.replies = [first, text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    return await sessions.state("default", session), await kernel.types(session)


@pytest.mark.parametrize(
    "odd",
    [
        reply(None),
        reply("hello"),
        reply(["hello"]),
        reply([None]),
        reply([{"text": "no type"}]),
        reply([{"type": 1}]),
        reply([{"type": "text"}]),
        reply([{"type": "text", "text": 5}]),
        reply([{"type": "text", "text": "\ud800"}]),
        reply([{"type": "text", "text": "x" * MAX_OUTCOME}]),
        reply([{"type": "text", "text": "\0" * (MAX_OUTCOME // 5)}]),
        reply([use("c", args=nested(250))], stop=None),
        reply([use("c"), use("c")]),
        reply([use("model-7")]),
        reply([use("a b")]),
        reply([use("\ud800")]),
        reply([use("")]),
        reply([use("x" * 129)]),
        reply([use(7)]),
        reply([use("c", name=None)]),
        reply([use("c", args=[1])]),
        reply([], reads=-1),
        reply([], writes=2**60),
        reply([], reads=1.5),
        reply([], reads=True),
    ],
)
async def test_a_reply_that_cannot_be_kept_fails_the_session(kernel: Kernel, odd: ModelReply) -> None:
    """It is recorded as a failed model call; nothing of it is acted on, and the budget does not move."""
    state, types = await end(kernel, odd)
    assert state.state == "failed"
    assert types[-2:] == ["syscall.failed", "session.failed"]
    assert (kernel.driver.calls, state.input_tokens, state.output_tokens) == ([], 0, 0)


@pytest.mark.parametrize(
    "odd",
    [
        reply([{"type": "thinking", "thinking": "hm"}, use("c")]),
        reply([use("c", "x" * 10_000)]),
        reply([use("c", args=nested(195))]),
    ],
)
async def test_a_reply_that_is_merely_strange_is_answered(kernel: Kernel, odd: ModelReply) -> None:
    """Blocks of unknown kinds are kept, and calls that make no sense are refused one by one."""
    state, _ = await end(kernel, odd)
    assert state.state in {"finished", "failed"}
    assert state.error is None or state.error["code"] == "result"


@pytest.mark.parametrize("broken", [ValueError("odd"), PermissionError(13, "no"), KeyError("x"), TimeoutError()])
@pytest.mark.parametrize(("tool", "outcome"), [("write", "syscall.failed"), ("send", "syscall.unknown")])
async def test_a_driver_that_breaks_its_contract_fails_the_session(
    kernel: Kernel, broken: Exception, tool: str, outcome: str
) -> None:
    """An error that nobody foresaw leaves no session hanging: the call's outcome is recorded, then the session's."""

    async def act() -> Result:
        raise broken

    kernel.driver.answers[tool] = act
    state, types = await end(kernel, calls(("c1", tool, {"path": "a"})))
    assert (state.state, state.error["code"]) == ("failed", "internal")
    assert types[-2:] == [outcome, "session.failed"]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (Result("x" * MAX_OUTCOME), "at most"),
        (Result("\ud800"), "surrogate"),
        (Result("", data={"n": 2**60}), "2^53"),
        (Result("", data=nested(199)), "nested"),
    ],
)
async def test_a_result_that_cannot_be_recorded_is_told_to_the_model(kernel: Kernel, result: Result, why: str) -> None:
    """The call has happened, which is said; the session goes on."""
    kernel.driver.answers["write"] = result
    state, types = await end(kernel, calls(("c1", "write", {"path": "a"})))
    assert state.state == "finished"
    assert why in state.calls["c1"].error["message"]
    assert "syscall.failed" in types


async def test_words_of_a_driver_are_made_fit_for_the_log(kernel: Kernel) -> None:
    """A message that is endless or not Unicode is still a message."""
    kernel.driver.answers["write"] = DriverError("\ud800" + "x" * 10**7)
    state, _ = await end(kernel, calls(("c1", "write", {"path": "a"})))
    assert state.state == "finished"
    assert state.calls["c1"].error["message"].startswith("?xxx")


class SmallLog(MemoryLog):
    """A log that takes messages of 20 kB at most."""

    async def append(self, subject: str, messages: Any, *, after: int) -> int:
        if any(len(message.data) > 20_000 for message in messages):
            raise TooLarge("a message is larger than the server takes", where=subject)
        return await super().append(subject, messages, after=after)


@pytest.mark.parametrize("first", [text("x" * 30_000), calls(("c1", "write", {"path": "x" * 30_000}))])
async def test_an_event_that_the_log_never_takes_ends_the_session_once(kernel: Kernel, first: ModelReply) -> None:
    """It is not tried for ever: the model is asked once, and the session fails with the reason."""
    kernel.log = SmallLog()
    state, _ = await end(kernel, first)
    assert state.state == "failed"
    assert "larger than the server takes" in state.error["message"]
    assert (len(kernel.model.seen), kernel.driver.calls) == (1, [])


async def test_a_large_result_on_a_small_log_is_told_to_the_model(kernel: Kernel) -> None:
    """An external server may take less than ours: the call is recorded as performed, without its result."""
    kernel.log = SmallLog()
    kernel.driver.answers["write"] = Result("x" * 30_000)
    state, _ = await end(kernel, calls(("c1", "write", {"path": "a"})))
    assert (state.state, len(kernel.driver.calls)) == ("finished", 1)
