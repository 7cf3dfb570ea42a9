"""A hostile harness, as a real process: it can propose, and nothing else, and it can hold nothing up."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from kernel_in_memory import Kernel, settled

from agentos.boot.system import LoopSpawner, ProcessHarness
from agentos.kernel.port import Brief, HarnessSilent
from agentos.kernel.turn import MAX_REFUSED

SPEAKS = """
import json, os, subprocess, sys, time
def send(frame):
    sys.stdout.buffer.write((frame if isinstance(frame, bytes) else json.dumps(frame).encode()) + b"\\n")
    sys.stdout.buffer.flush()
def receive():
    line = sys.stdin.buffer.readline()
    return json.loads(line) if line else sys.exit(0)
def ask(method, **params):
    send({"id": 1, "method": method, "params": params})
    return receive()
receive()
send({"jsonrpc": "2.0", "id": 0, "result": {"abi": "agentos/v1"}})
"""


def hostile(code: str) -> LoopSpawner:
    return LoopSpawner((sys.executable, "-c", SPEAKS + code))


async def run(kernel: Kernel, code: str) -> Any:
    """The state of a session whose harness is `code`, once it has ended."""
    kernel.spawner = hostile(code)
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    async with asyncio.timeout(30):
        await settled(sessions)
    return await sessions.state("default", session)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("send(b'x' * (9 << 20))", id="huge frame"),
        pytest.param("send(b'[' * 100000 + b']' * 100000)", id="deep frame"),
        pytest.param("send(b'\\xff\\xfe')", id="not UTF-8"),
        pytest.param("""send(b'{"id":1,"method":"finish","params":{"result":NaN}}')""", id="NaN"),
        pytest.param(
            """send(b'{"id":1,"method":"tool.call","params":{"call":"c","tool":"write","args":{"path":"\\\\ud800"}}}')""",
            id="surrogate",
        ),
        pytest.param("send({'id': 1, 'method': 'finish', 'params': {'result': 'x' * (3 << 20)}})", id="huge result"),
        pytest.param("send({'id': 2 ** 60, 'method': 'finish', 'params': {}})", id="huge number"),
        pytest.param("send([1])", id="no object"),
        pytest.param("send({'id': True, 'method': 'finish', 'params': {'result': 'x'}})", id="odd id"),
        pytest.param("for i in range(10**5): send({'id': i, 'method': 'bogus', 'params': {}})", id="flood"),
    ],
)
async def test_nonsense_fails_the_session_and_acts_on_nothing(kernel: Kernel, code: str) -> None:
    """Whatever is no request of the ABI ends the process, and after three the session, with its reason in the log."""
    state = await run(kernel, code)
    assert (state.state, state.error["code"]) == ("failed", "harness")
    assert kernel.driver.calls == []


@pytest.mark.parametrize("apart", [False, True])
async def test_what_a_harness_leaves_behind_holds_nothing_up(kernel: Kernel, apart: bool) -> None:
    """A child that keeps the pipes open, even in a session of its own, neither blocks the session nor the runtime's end."""
    state = await run(kernel, f"subprocess.Popen(['sleep', '60'], start_new_session={apart}); sys.exit(0)")
    assert state.state == "failed"


async def test_refused_calls_have_an_end(kernel: Kernel) -> None:
    """Calls that cost no budget cannot fill the log for ever."""
    state = await run(kernel, "for i in range(10**6): ask('tool.call', call=f'c{i}', tool='nothing', args={})")
    assert state.error["code"] == "refused"
    assert state.seq == MAX_REFUSED + 2


async def test_frames_behind_the_end_are_not_read(kernel: Kernel) -> None:
    """What a harness sends together with `finish` does not happen, a second `finish` among it."""
    finish = "{'id': 1, 'method': 'finish', 'params': {'result': %r}}"
    call = "{'id': 3, 'method': 'tool.call', 'params': {'call': 'c', 'tool': 'write', 'args': {'path': 'a'}}}"
    state = await run(kernel, f"send({finish % 'first'}); send({finish % 'second'}); send({call}); receive(); receive()")
    assert (state.state, state.result, kernel.driver.calls) == ("finished", "first", [])


async def test_an_id_is_one_call_for_ever(kernel: Kernel) -> None:
    """A repeated call is answered from the log; another under its id, and ids that are words or the kernel's own, are refused."""
    code = """
first = [("c1", "write", "a"), ("c1", "write", "a")]
others = [("c1", "send", "a"), ("c1", "write", "b"), ("c1", "x" * 10**6, "a")]
odd = [(call, "write", "a") for call in ("model-1", "", "a b", "a\\n", "\\u00e9", "Anna_Berg", "anna-is-ill", "c" * 65)]
answers = [ask("tool.call", call=call, tool=tool, args={"path": path}) for call, tool, path in first + others + odd]
ask("finish", result=json.dumps(["result" in answer for answer in answers]))
"""
    state = await run(kernel, code)
    assert state.result == "[true, true" + ", false" * 11 + "]"
    assert kernel.driver.calls == [("write", {"path": "a"})]


async def test_arguments_may_be_odd_and_stay_what_they_are(kernel: Kernel) -> None:
    """A NUL, a huge number as text and control characters reach the driver as they were decided."""
    path = "\0\x1b[2J \u202e 1152921504606846976"
    state = await run(kernel, f"ask('tool.call', call='c1', tool='write', args={{'path': {path!r}}}); ask('finish', result='ok')")
    assert (state.state, kernel.driver.calls) == ("finished", [("write", {"path": path})])


async def talk_for_ever(process: ProcessHarness) -> None:
    while True:
        await process.write_frame(b'{"id":0,"method":"initialize","params":{}}\n' + b" " * 100_000)
        await process.read_frame()


@pytest.mark.parametrize("code", ["time.sleep(60)", "while True: send({'id': 1, 'method': 'session.view', 'params': {}})"])
async def test_a_harness_that_does_not_speak_or_listen_is_noticed(code: str) -> None:
    """Neither silence nor a full pipe holds a place for ever."""
    started = await hostile(code).spawn(Brief("default", "s"))
    process = ProcessHarness("s", started._process, silence_s=0.5)

    async def talk() -> None:
        while True:
            await process.write_frame(b'{"id":0,"method":"initialize","params":{}}\n' + b" " * 100_000)
            await process.read_frame()

    try:
        with pytest.raises(HarnessSilent):
            await talk()
    finally:
        await process.stop()
        await started.stop()
