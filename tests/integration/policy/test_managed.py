"""A managed OPA server keeps the contract of the port, can be killed, and denies while it is down."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.errors import EngineUnavailable, PolicyError
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.adapters.managed import ManagedEngine, ManagedFactory, ManagedSettings
from agentos.policy.adapters.opa_bundle import build_bundle
from agentos.policy.adapters.server_connection import Connection
from agentos.policy.bundle import axioms
from agentos.policy.decide import Decider
from agentos.policy.port import Module

ECHO = Module("an echo/of input.rego", "package agentos.syscall\n\ndecision := input.x\n\nknown := data.facts.n\n")
ENDLESS = Module(
    "endless.rego",
    """package agentos.syscall

default decision := "quick"

decision := n if {
	input.endless
	n := count([1 | some a in numbers.range(1, 2000000); some b in numbers.range(1, 2000000); a * b == 0])
}
""",
)
PATIENT = 30.0
Load = Callable[..., Awaitable[ManagedEngine]]


@pytest.fixture
async def load() -> AsyncIterator[Load]:
    made: list[ManagedEngine] = []

    async def start(*modules: Module, data: dict[str, Any] | None = None, **settings: Any) -> ManagedEngine:
        engine = await ManagedFactory(ManagedSettings(**settings)).load(modules, data or {})
        made.append(engine)
        return engine

    yield start
    for engine in made:
        engine.close()


async def gone(pid: int | None) -> None:
    """Return when a process has ended."""
    assert pid is not None
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(watched, ended.set)
    try:
        async with asyncio.timeout(20):
            await ended.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)


async def test_a_document_is_evaluated_over_input_and_data(load: Load) -> None:
    """The value of `data.<path>` for the input comes back as it is; what was loaded is on record."""
    engine = await load(ECHO, data={"facts": {"n": 7}})
    document = {"x": {"a": [1, "ä\0", None, 12345678901234567890, 1.5]}}
    assert await engine.evaluate("agentos.syscall.decision", document, within=PATIENT) == document["x"]
    assert await engine.evaluate("agentos.syscall.known", {}, within=PATIENT) == 7
    bundle = build_bundle([ECHO], {"facts": {"n": 7}})
    assert (engine.revision, engine.loaded_sha256) == (bundle.revision, bundle.sha256)


async def test_many_questions_at_once_get_their_own_answers(load: Load) -> None:
    """No answer is ever given to another question, and waiting for one's turn is no fault of the policy."""
    engine = await load(ECHO)
    answers = await asyncio.gather(*(engine.evaluate("agentos.syscall.decision", {"x": n}, within=5) for n in range(300)))
    assert answers == list(range(300))


@pytest.mark.parametrize(
    ("document", "said"),
    [({}, "undefined"), ({"x": "\ud800"}, "not valid UTF-8"), ({"x": {1, 2}}, "not JSON"), ({"x": float("nan")}, "not JSON")],
)
async def test_no_answer_is_an_error(load: Load, document: dict[str, object], said: str) -> None:
    """Undefined, text that is no Unicode, and what is no JSON raise EngineUnavailable; the engine goes on."""
    engine = await load(ECHO)
    with pytest.raises(EngineUnavailable, match=said):
        await engine.evaluate("agentos.syscall.decision", document, within=PATIENT)
    assert await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == 1


@pytest.mark.parametrize(
    ("source", "where", "said"),
    [
        ("package a\n\nx := ", "bad.rego:3", "unexpected eof"),
        ("package a\n\n\nx if { y }", "bad.rego:4", "unsafe"),
        ("package a\nx := nosuch(1)", "bad.rego:2", "undefined function nosuch"),
        ('package a\nx := http.send({"url": "http://a", "method": "get"})', "bad.rego:2", "http.send is not for policies"),
        ("package a\n\nx := opa.runtime().env", "bad.rego:3", "opa.runtime is not for policies"),
        ("package system.authz\n\nallow := true", "bad.rego:1", "the policy server's own"),
    ],
)
async def test_rego_that_does_not_load_is_named_by_line(load: Load, source: str, where: str, said: str) -> None:
    """What does not compile, or does not belong, raises PolicyError with the file, the line and OPA's message."""
    with pytest.raises(PolicyError, match=said) as caught:
        await load(ECHO, Module("bad.rego", source))
    assert caught.value.where == where


async def test_only_our_token_may_ask_and_nobody_may_change(load: Load) -> None:
    """The server refuses a stranger on its socket, and its API cannot change policies or data even for us."""
    engine = await load(ECHO, data={"facts": {"n": 7}})
    address = engine._server.address
    assert Path(address.socket or "").parent.stat().st_mode & 0o077 == 0
    for token in (None, "guess"):
        stranger = Connection(type(address)(socket=address.socket, token=token), connections=1)
        await stranger.open()
        assert (await stranger.post("facts", b"{}"))[0] == 401
        stranger.drop()
    assert engine._connection._session is not None
    for method, path in (
        ("PUT", "policies/x"),
        ("PUT", "data/facts"),
        ("PATCH", "data/facts"),
        ("GET", "policies"),
        ("POST", "query"),
    ):
        async with engine._connection._request(method, f"{engine._connection.root_url}/{path}", data=b"{}") as response:
            assert response.status == 401, (method, path)
    assert await engine.evaluate("agentos.syscall.known", {}, within=PATIENT) == 7


async def test_a_killed_server_denies_until_it_is_back_then_goes_on(facts: dict[str, Any], call: dict[str, Any]) -> None:
    """Every syscall is denied from the kill to the next start; then decisions are as before."""
    factory = ManagedFactory()
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT, cache_size=0)
    (engine,) = factory._engines
    before = await decider.decide_syscall(call)
    assert before.effect == "allow"
    for _ in range(2):
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        denied = 0
        while engine.pid is not None or denied == 0:
            decision = await decider.decide_syscall(call)
            assert decision.rules == ("policy.failed",)
            denied += 1
        assert "being started again" in (await decider.decide_syscall(call)).reasons[0]
        await engine.wait_until_up()
        assert await decider.decide_syscall(call) == before
    assert engine.starts == 3
    decider.close()


async def test_an_endless_evaluation_is_denied_in_time_and_its_process_killed(load: Load) -> None:
    """The asker is answered at the deadline; the process that hangs is gone after its grace and another decides."""
    engine = await load(ENDLESS, grace_seconds=0.2)
    assert await engine.evaluate("agentos.syscall.decision", {}, within=PATIENT) == "quick"
    hung, loop = engine.pid, asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(EngineUnavailable, match="did not decide within 50 ms"):
        await engine.evaluate("agentos.syscall.decision", {"endless": True}, within=0.05)
    assert loop.time() - began < 2
    await gone(hung)
    await engine.wait_until_up()
    assert engine.pid != hung
    assert await engine.evaluate("agentos.syscall.decision", {}, within=PATIENT) == "quick"


async def test_an_evaluation_that_takes_all_memory_ends_its_own_process(load: Load) -> None:
    """A policy that builds a huge value is denied, and takes nothing down but its server."""
    greedy = Module("greedy.rego", "package agentos.syscall\n\ndecision := count(numbers.range(1, input.n))\n")
    engine = await load(greedy, memory_bytes=300 << 20)
    greedy_one = engine.pid
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await engine.evaluate("agentos.syscall.decision", {"n": 100_000_000}, within=PATIENT)
    await gone(greedy_one)
    await engine.wait_until_up()
    assert engine.pid != greedy_one
    assert await engine.evaluate("agentos.syscall.decision", {"n": 3}, within=PATIENT) == 3


async def test_revisions_are_swapped_whole(load: Load) -> None:
    """While one revision follows the other, each engine answers only from its own modules and data."""
    modules = [Module("a.rego", "package agentos.syscall\n\ndecision := [data.facts.n, input.x]\n")]
    first = await load(*modules, data={"facts": {"n": 1}})
    second, *answers = await asyncio.gather(
        load(*modules, data={"facts": {"n": 2}}),
        *(first.evaluate("agentos.syscall.decision", {"x": n}, within=PATIENT) for n in range(50)),
    )
    assert answers == [[1, n] for n in range(50)]
    assert await second.evaluate("agentos.syscall.decision", {"x": 0}, within=PATIENT) == [2, 0]
    pid = first.pid
    first.close()
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(EngineUnavailable, match="closed"):
        await first.evaluate("agentos.syscall.decision", {"x": 1})
    assert await second.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [2, 1]


async def test_an_engine_may_be_closed_from_another_thread(load: Load) -> None:
    """The last holder of an engine may let go of it wherever the collector runs."""
    engine = await load(ECHO)
    pid, folder = engine.pid, engine._server._folder
    closer = threading.Thread(target=engine.close)
    closer.start()
    await asyncio.to_thread(closer.join)
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()
    engine.close()


CHILD = """
import asyncio, sys
from agentos.policy.adapters.managed import ManagedFactory
from agentos.policy.port import Module
async def main():
    engine = await ManagedFactory().load([Module("a.rego", "package agentos.syscall\\n\\ndecision := 1\\n")], {})
    print(engine.pid, engine._server._folder, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_servers_die_with_a_runtime_that_is_killed_and_leave_nothing(load: Load) -> None:
    """After `kill -9` of the process that started it the server ends; the next runtime removes its folder."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid, folder = (await asyncio.to_thread(child.stdout.readline)).split()
    child.kill()
    child.wait()
    child.stdout.close()
    await gone(int(pid))
    await load(ECHO)
    assert not Path(folder).exists()


async def test_without_the_program_or_with_another_version_nothing_is_decided(tmp_path: Path) -> None:
    """No program is an error that says how to get it; one of another version is not used."""
    missing = ManagedFactory(ManagedSettings(program=tmp_path / "opa"))
    assert not missing.available
    with pytest.raises(EngineUnavailable, match="no opa program") as caught:
        await missing.load([ECHO], {})
    assert caught.value.mend == "run `make opa`, or put OPA 1.20.2 on PATH"
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho 'Version: 1.2.0'\n")
    other.chmod(0o700)
    with pytest.raises(EngineUnavailable, match=r"OPA 1\.2\.0, not 1\.20\.2"):
        await ManagedFactory(ManagedSettings(program=other)).load([ECHO], {})
    assert ManagedFactory().version == "opa 1.20.2 (managed server)"


async def test_a_policy_that_hangs_in_process_moves_to_a_process_that_can_be_killed() -> None:
    """After the first evaluation without end every question is asked in a server; its end there costs a process, no thread."""
    factory = EmbeddedFactory(quarantine=ManagedFactory(ManagedSettings(grace_seconds=0.2)))
    slow = Module("slow.rego", ENDLESS.source.replace("2000000", "3000"))
    engine = await factory.load([slow], {})
    assert await engine.evaluate("agentos.syscall.decision", {}, within=PATIENT) == "quick"
    assert not engine.quarantined
    with pytest.raises(EngineUnavailable, match="did not decide within 50 ms"):
        await engine.evaluate("agentos.syscall.decision", {"endless": True}, within=0.05)
    assert engine.quarantined
    assert await engine.evaluate("agentos.syscall.decision", {}, within=PATIENT) == "quick"
    assert engine._moving is not None
    elsewhere = engine._moving.result()
    assert isinstance(elsewhere, ManagedEngine)
    for _ in range(3):
        with pytest.raises(EngineUnavailable, match="did not decide within 50 ms"):
            await engine.evaluate("agentos.syscall.decision", {"endless": True}, within=0.05)
    assert factory.lost <= 1
    pid = elsewhere.pid
    engine.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(EngineUnavailable, match="closed"):
        await engine.evaluate("agentos.syscall.decision", {})


async def test_a_really_endless_policy_costs_one_thread_and_goes_on_deciding() -> None:
    """An evaluation that outlives every clock is answered in time, again and again, while its neighbours decide."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ENDLESS_CHILD.format(source=ENDLESS.source), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(child.communicate(), 60)
    assert said.decode().split("\n")[:4] == ["late", "late", "quick", "lost 1"]
    assert child.returncode == 0


ENDLESS_CHILD = """
import asyncio, os
from agentos.abi.errors import EngineUnavailable
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.adapters.managed import ManagedFactory, ManagedSettings
from agentos.policy.port import Module
async def main():
    factory = EmbeddedFactory(quarantine=ManagedFactory(ManagedSettings(grace_seconds=0.1)))
    engine = await factory.load([Module("endless.rego", '''{source}''')], {{}})
    for _ in range(2):
        try:
            await engine.evaluate("agentos.syscall.decision", {{"endless": True}}, within=0.1)
        except EngineUnavailable:
            print("late")
    elsewhere = await engine._moving
    while elsewhere.starts < 2 or elsewhere.pid is None:
        await asyncio.sleep(0.01)
    print(await engine.evaluate("agentos.syscall.decision", {{}}, within=10))
    print("lost", factory.lost)
    engine.close()
asyncio.run(main())
"""
