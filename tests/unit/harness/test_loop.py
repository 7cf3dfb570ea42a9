"""The built-in loop against a scripted kernel, over pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from agentos.abi import rpc
from agentos.harness.loop import AHEAD, main


class ScriptedKernel:
    """The kernel's end of two pipes; the loop runs in a thread at the other."""

    def __init__(self) -> None:
        to_loop, self._writer = os.pipe()
        self._reader, from_loop = os.pipe()
        self._out = os.fdopen(self._writer, "wb", buffering=0)
        self._in = os.fdopen(self._reader, "rb")
        self.code: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(to_loop, from_loop), daemon=True)
        self._thread.start()

    def _run(self, reading: int, writing: int) -> None:
        # Closing a pipe that nobody reads complains once more of what the loop could not write.
        with suppress(BrokenPipeError), os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as writer:
            try:
                self.code = main(reader, writer)
            except (RuntimeError, ValueError) as error:
                self.error = error

    def send(self, frame: bytes) -> None:
        self._out.write(frame)

    def take(self) -> dict[str, Any]:
        """The loop's next frame, `{}` when it has left."""
        line = self._in.readline()
        return json.loads(line) if line else {}

    def greet(self, **more: bool) -> dict[str, Any]:
        self.send(rpc.request(0, "initialize", {"abi": rpc.ABI, "session": "s-1", **more}))
        return self.take()

    def expect(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Take a request, which must be `method`; return its number."""
        frame = self.take()
        assert (frame["jsonrpc"], frame["method"]) == ("2.0", method)
        if params is not None:
            assert frame["params"] == params
        return int(frame["id"])

    def answer(self, method: str, result: dict[str, Any], params: dict[str, Any] | None = None) -> None:
        self.send(rpc.response(self.expect(method, params), result))

    def view(self, *pending: dict[str, Any], final: str | None = None, **more: bool) -> None:
        self.greet(**more)
        self.answer("session.view", {"session": "s-1", "agent": "a", "goal": "g", "pending": list(pending), "final": final}, {})

    def close(self) -> None:
        self._out.close()

    def left(self) -> int | None:
        """Wait until the loop has left; its exit code."""
        assert self.take() == {}
        self._thread.join()
        return self.code


@pytest.fixture
def kernel() -> Iterator[ScriptedKernel]:
    scripted = ScriptedKernel()
    yield scripted
    scripted.close()
    scripted._thread.join()
    scripted._in.close()


def call(name: str) -> dict[str, Any]:
    return {"call": name, "tool": "write", "args": {"path": name}}


def reply(*names: str, text: str = "") -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    content += [{"type": "tool_use", "id": name, "name": "write", "input": {"path": name}} for name in names]
    return {"content": content, "stop_reason": "tool_use" if names else "end_turn"}


def finish(kernel: ScriptedKernel, result: str) -> None:
    number = kernel.expect("finish", {"result": result})
    kernel.send(rpc.error(number, rpc.ENDED, "the session is finished"))


def test_a_run_asks_calls_and_finishes(kernel: ScriptedKernel) -> None:
    """The model is asked, its calls are proposed in its order, and its last words are the result."""
    assert kernel.greet() == {
        "jsonrpc": "2.0",
        "id": 0,
        "result": {"abi": rpc.ABI, "name": "agentos-loop", "version": "1"},
    }
    kernel.answer("session.view", {"pending": [], "final": None}, {})
    kernel.answer("model.call", reply("c1", "c2", text="I write."), {})
    kernel.answer("tool.call", {"call": "c1", "content": "ok", "is_error": False}, call("c1"))
    kernel.answer("tool.call", {"call": "c2", "content": "denied", "is_error": True}, call("c2"))
    kernel.answer("model.call", reply(text="All done."), {})
    finish(kernel, "All done.")
    assert kernel.left() == 0


def test_it_resumes_with_what_is_pending(kernel: ScriptedKernel) -> None:
    """After a restart the open calls are proposed first, and the model is asked after them."""
    kernel.view(call("c2"), call("c3"))
    kernel.answer("tool.call", {}, call("c2"))
    kernel.answer("tool.call", {}, call("c3"))
    kernel.answer("model.call", reply(text="done"))
    finish(kernel, "done")
    assert kernel.left() == 0


def test_it_resumes_a_session_that_only_lacks_its_end(kernel: ScriptedKernel) -> None:
    """The model's closing words are in the log: it is not asked again."""
    kernel.view(final="these words")
    finish(kernel, "these words")
    assert kernel.left() == 0


def test_blocks_it_does_not_know_are_passed_over(kernel: ScriptedKernel) -> None:
    """Only text makes the result, only `tool_use` a call; texts are joined by lines."""
    kernel.view()
    content = [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    kernel.answer("model.call", {"content": content, "stop_reason": "end_turn"})
    finish(kernel, "one\ntwo")
    assert kernel.left() == 0


def test_calls_of_one_reply_are_sent_before_an_answer_is_read(kernel: ScriptedKernel) -> None:
    """To a kernel that takes several requests: all of them come, are answered in any order, and then the model is asked."""
    kernel.view(call("c1"), call("c2"), call("c3"), concurrent=True)
    numbers = [kernel.expect("tool.call", call(name)) for name in ("c1", "c2", "c3")]
    for number in reversed(numbers):
        kernel.send(rpc.response(number, {}))
    kernel.answer("model.call", reply(text="done"), {})
    finish(kernel, "done")
    assert kernel.left() == 0


def test_no_more_is_sent_ahead_than_a_pipe_takes(kernel: ScriptedKernel) -> None:
    """Requests without an answer stay below the bound, however many calls there are; a large one is sent when it is alone."""
    large = {"call": "c9", "tool": "write", "args": {"path": "x" * AHEAD}}
    pending = [{"call": f"c{number}", "tool": "write", "args": {"path": "x" * 1000}} for number in range(9)]
    kernel.view(*pending, large, concurrent=True)
    waiting: dict[int, int] = {}
    for proposal in (*pending, large):
        frame = rpc.request(0, "tool.call", proposal)
        while waiting and sum(waiting.values()) + len(frame) > AHEAD - 16:
            number = next(iter(waiting))
            del waiting[number]
            kernel.send(rpc.response(number, {}))
        waiting[kernel.expect("tool.call", proposal)] = len(frame)
        assert len(waiting) == 1 or sum(waiting.values()) <= AHEAD
    assert list(waiting.values()) == [len(rpc.request(0, "tool.call", large))]
    kernel.send(rpc.response(next(iter(waiting)), {}))
    kernel.answer("model.call", reply(text="done"), {})
    finish(kernel, "done")
    assert kernel.left() == 0


@pytest.mark.parametrize("code", [rpc.PARKED, rpc.ENDED])
def test_it_leaves_with_calls_unanswered_when_told(kernel: ScriptedKernel, code: int) -> None:
    """One of several calls parks or ends the session: it waits for none of the others."""
    kernel.view(call("c1"), call("c2"), concurrent=True)
    numbers = [kernel.expect("tool.call") for _ in range(2)]
    kernel.send(rpc.error(numbers[1], code, "leave"))
    assert kernel.left() == 0


STEPS = ["session.view", "tool.call", "model.call", "finish"]


def lead_to(kernel: ScriptedKernel, step: str) -> int:
    """Play until the loop asks for `step`; the number of that request."""
    if step == "session.view":
        kernel.greet()
    elif step == "tool.call":
        kernel.view(call("c1"))
    elif step == "model.call":
        kernel.view()
    else:
        kernel.view(final="done")
    return kernel.expect(step)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", [rpc.PARKED, rpc.ENDED])
def test_it_leaves_when_told(kernel: ScriptedKernel, step: str, code: int) -> None:
    """Parked or over, at whatever it asked: it asks nothing more and ends well."""
    kernel.send(rpc.error(lead_to(kernel, step), code, "leave"))
    assert kernel.left() == 0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rest", [b"", b'{"jsonrpc":"2.0","id":'], ids=["between", "within"])
def test_it_leaves_when_the_kernel_is_gone(kernel: ScriptedKernel, step: str, rest: bytes) -> None:
    """The end of the pipe, between frames or within one, is a reason to leave and no error."""
    lead_to(kernel, step)
    kernel.send(rest)
    kernel.close()
    assert kernel.left() == 0


def test_it_leaves_a_kernel_that_does_not_greet(kernel: ScriptedKernel) -> None:
    """Before `initialize` it says nothing."""
    kernel.send(rpc.notification("cancel", {}))
    assert kernel.left() == 0


def test_it_leaves_when_nobody_reads(kernel: ScriptedKernel) -> None:
    """A closed pipe on the other side is the same as its end."""
    kernel.view()
    number = kernel.expect("model.call")
    kernel._in.close()
    kernel.send(rpc.response(number, reply("c1")))
    kernel._thread.join()
    assert (kernel.code, kernel.error) == (0, None)
    kernel._in = open(os.devnull, "rb")  # noqa: SIM115, PTH123 - closed by the fixture


def test_foreign_frames_are_passed_over(kernel: ScriptedKernel) -> None:
    """Notifications, answers to other numbers and requests of the kernel do not stand for the answer."""
    kernel.view()
    number = kernel.expect("model.call")
    for frame in (
        rpc.notification("news", {}),
        rpc.response(number + 7, reply(text="wrong")),
        rpc.response(None, {}),
        rpc.error(None, rpc.PARSE_ERROR, "not yours"),
        rpc.request(number, "initialize", {}),
        rpc.response(number, reply(text="right")),
    ):
        kernel.send(frame)
    finish(kernel, "right")
    assert kernel.left() == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_cancelled_session_is_left(kernel: ScriptedKernel, step: str) -> None:
    """By a notification, wherever it is."""
    lead_to(kernel, step)
    kernel.send(rpc.notification("cancel", {}))
    assert kernel.left() == 0


def test_one_process_drives_many_sessions(kernel: ScriptedKernel) -> None:
    """Told to leave one, it says so, keeps nothing, and begins the next; numbers begin again."""
    for session in range(3):
        assert kernel.greet(reuse=True)["result"]["reuse"] is True
        assert kernel.expect("session.view") == 1
        kernel.send(rpc.response(1, {"pending": [], "final": None}))
        number = kernel.expect("model.call")
        if session == 1:
            kernel.send(rpc.notification("cancel", {}))
        else:
            kernel.send(rpc.error(number, rpc.PARKED, "leave"))
        assert kernel.take() == {"jsonrpc": "2.0", "method": "left", "params": {}}
    kernel.close()
    assert kernel.left() == 0


def test_a_refused_request_ends_it_with_the_kernels_words(kernel: ScriptedKernel) -> None:
    """A request that the kernel refuses is a fault of the loop: it ends, and says what it was told."""
    kernel.view(call("c1"))
    kernel.send(rpc.error(kernel.expect("tool.call"), rpc.INVALID_PARAMS, "c1 is already another call"))
    assert kernel.left() is None
    assert "already another call" in str(kernel.error)


def test_numbers_of_requests_never_repeat(kernel: ScriptedKernel) -> None:
    """Each request has a number of its own, growing."""
    kernel.greet()
    numbers = [kernel.expect("session.view")]
    kernel.send(rpc.response(numbers[-1], {"pending": [call("c1")], "final": None}))
    for method, result in (("tool.call", {}), ("model.call", reply("c2")), ("tool.call", {}), ("model.call", reply(text="x"))):
        numbers.append(kernel.expect(method))
        kernel.send(rpc.response(numbers[-1], result))
    assert numbers == sorted(set(numbers))


def test_it_loads_nothing_but_the_abi_and_the_standard_library() -> None:
    """The untrusted process holds no client of a server, no policy and no vendor's code."""
    done = subprocess.run([sys.executable, "-I", "-c", _SCRIPT], input=b"", capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    ours = {name for name in loaded if name.partition(".")[0] == "agentos"}
    assert {name for name in ours if not name.startswith(("agentos.abi", "agentos.harness"))} == {"agentos"}
    foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"agentos", "__main__"}
    assert not {name for name in foreign if not name.startswith("_")}


_SCRIPT = """
import sys
before = set(sys.modules)  # what the environment itself preloads (.pth files) is not the harness's doing
import runpy
try:
    runpy.run_module("agentos.harness", run_name="__main__")
except SystemExit as end:
    assert not end.code
print(*(set(sys.modules) - before))
"""


def test_as_a_process_it_speaks_on_its_pipes_alone() -> None:
    """Started as the kernel starts it: greeting on standard output, nothing on standard error, exit 0 at the end of input."""
    hello = rpc.request(0, "initialize", {"abi": rpc.ABI, "session": "s-1"})
    done = subprocess.run([sys.executable, "-I", "-m", "agentos.harness"], input=hello, capture_output=True, check=False, env={})
    greeting, question = map(json.loads, done.stdout.splitlines())
    assert (greeting["result"]["abi"], question["method"]) == (rpc.ABI, "session.view")
    assert (done.returncode, done.stderr) == (0, b"")
