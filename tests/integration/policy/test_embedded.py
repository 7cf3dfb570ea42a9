"""The embedded engine keeps the contract of the port, and fails closed where OPA cannot be asked."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from agentos.abi.errors import EngineUnavailable, PolicyError
from agentos.policy.adapters import opa
from agentos.policy.adapters.embedded import EmbeddedFactory, EmbeddedSettings
from agentos.policy.port import Module

ECHO = Module("echo.rego", "package agentos.syscall\n\ndecision := input.x\n\nknown := data.facts.n\n")
SLOW = Module(
    "slow.rego",
    """package agentos.syscall

default decision := "quick"

decision := n if {
	input.slow
	n := count([1 | some a in numbers.range(1, input.slow); some b in numbers.range(1, 2000); a * b == 0])
}
""",
)


async def test_a_document_is_evaluated_over_input_and_data(factory: EmbeddedFactory) -> None:
    """The value of `data.<path>` for the input comes back as it is."""
    engine = await factory.load([ECHO], {"facts": {"n": 7}})
    assert await engine.evaluate("agentos.syscall.decision", {"x": {"a": [1, "ä", None]}}) == {"a": [1, "ä", None]}
    assert await engine.evaluate("agentos.syscall.known", {}) == 7
    engine.close()


async def test_many_questions_at_once_get_their_own_answers(factory: EmbeddedFactory) -> None:
    """No answer is ever given to another question."""
    engine = await factory.load([ECHO], {})
    answers = await asyncio.gather(*(engine.evaluate("agentos.syscall.decision", {"x": n}) for n in range(500)))
    assert answers == list(range(500))
    engine.close()


@pytest.mark.parametrize(
    ("document", "said"),
    [({}, "undefined"), ({"x": "\ud800"}, "not valid UTF-8"), ({"x": {1, 2}}, "not JSON"), ({"x": float("nan")}, "failed")],
)
async def test_no_answer_is_an_error(factory: EmbeddedFactory, document: dict[str, object], said: str) -> None:
    """Undefined, text that is no Unicode, and what is no JSON raise EngineUnavailable; the engine goes on."""
    engine = await factory.load([ECHO], {})
    with pytest.raises(EngineUnavailable, match=said):
        await engine.evaluate("agentos.syscall.decision", document)
    assert await engine.evaluate("agentos.syscall.decision", {"x": 1}) == 1
    engine.close()


async def test_a_nul_in_the_input_reaches_policy_whole(factory: EmbeddedFactory) -> None:
    """A NUL does not cut a text short on its way to policy."""
    engine = await factory.load([ECHO], {})
    assert await engine.evaluate("agentos.syscall.decision", {"x": "a\0b"}) == "a\0b"
    engine.close()


@pytest.mark.parametrize(
    ("source", "where", "said"),
    [
        ("package a\n\nx := ", "bad.rego:3", "unexpected eof"),
        ("package a\n\n\nx if { y }", "bad.rego:4", "unsafe"),
        ("package a\nx := nosuch(1)", "bad.rego:2", "undefined function nosuch"),
        ("package a\nx := " + "[" * 101 + "]" * 101, "bad.rego:2", "nested deeper"),
        ("package a\n\n# time.now_ns\nx := time.now_ns()", "bad.rego:4", "time.now_ns is not for policies"),
        ("package a\n\0", "bad.rego:2", "illegal null"),
    ],
)
async def test_rego_that_does_not_load_is_named_by_line(factory: EmbeddedFactory, source: str, where: str, said: str) -> None:
    """What does not compile raises PolicyError with the file, the line and OPA's message."""
    with pytest.raises(PolicyError, match=said) as caught:
        await factory.load([ECHO, Module("bad.rego", source)], {})
    assert str(caught.value.where) == where


async def test_two_modules_of_one_path_are_refused(factory: EmbeddedFactory) -> None:
    """A module never takes the place of another in silence."""
    with pytest.raises(PolicyError, match="same path"):
        await factory.load([ECHO, Module("echo.rego", "package agentos.syscall\n\ndecision := true\n")], {})


async def test_a_slow_policy_passes_its_deadline_and_closes_its_engine_until_one_ends() -> None:
    """While two evaluations out of time still run an engine answers nothing, at once; when they have ended it answers again."""
    factory = EmbeddedFactory()
    engine = await factory.load([SLOW], {})
    for _ in range(2):
        assert await engine.evaluate("agentos.syscall.decision", {}) == "quick"
        with pytest.raises(EngineUnavailable, match="did not decide within 50 ms"):
            await engine.evaluate("agentos.syscall.decision", {"slow": 300}, within=0.05)
    with pytest.raises(EngineUnavailable, match="nothing is decided until one ends"):
        await engine.evaluate("agentos.syscall.decision", {})
    mine = {worker.thread for worker in engine._workers}
    late = [thread for thread in threading.enumerate() if thread.name == "agentos-policy" and thread not in mine]
    await asyncio.gather(*(asyncio.to_thread(thread.join, 60) for thread in late))
    assert factory.lost == 0
    assert await engine.evaluate("agentos.syscall.decision", {}) == "quick"
    engine.close()


async def test_too_many_lost_threads_stop_further_loading() -> None:
    """A process that has lost its share of threads loads no policy until it is started anew."""
    factory = EmbeddedFactory(EmbeddedSettings(max_lost=1))
    engine = await factory.load([SLOW], {})
    with pytest.raises(EngineUnavailable, match="within 50 ms"):
        await engine.evaluate("agentos.syscall.decision", {"slow": 500}, within=0.05)
    with pytest.raises(EngineUnavailable, match="no further policy is loaded"):
        await factory.load([ECHO], {})
    engine.close()


async def test_questions_behind_a_slow_one_are_not_blamed() -> None:
    """The deadline counts from the start of an evaluation, not from the wait for a thread."""
    factory = EmbeddedFactory(EmbeddedSettings(threads=1))
    engine = await factory.load([SLOW], {})
    slow = asyncio.ensure_future(engine.evaluate("agentos.syscall.decision", {"slow": 150}, within=30))
    await asyncio.sleep(0)
    quick = await engine.evaluate("agentos.syscall.decision", {}, within=0.05)
    assert quick == "quick"
    assert await slow == 0
    engine.close()


async def test_an_asker_that_is_cancelled_leaves_the_engine_whole(factory: EmbeddedFactory) -> None:
    """Cancelling a question harms no other."""
    engine = await factory.load([ECHO], {})
    asked = asyncio.ensure_future(engine.evaluate("agentos.syscall.decision", {"x": 1}))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await engine.evaluate("agentos.syscall.decision", {"x": 2}) == 2
    engine.close()


async def test_a_closed_engine_answers_nothing(factory: EmbeddedFactory) -> None:
    """Questions asked before `close` are answered, later ones are refused; closing twice is fine."""
    engine = await factory.load([ECHO], {})
    asked = [asyncio.ensure_future(engine.evaluate("agentos.syscall.decision", {"x": n})) for n in range(20)]
    await asyncio.sleep(0)
    engine.close()
    engine.close()
    assert await asyncio.gather(*asked) == list(range(20))
    with pytest.raises(EngineUnavailable, match="closed"):
        await engine.evaluate("agentos.syscall.decision", {"x": 1})


async def test_a_forked_process_is_refused(factory: EmbeddedFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child that was forked, where a call would hang, both the engine and the library refuse."""
    engine = await factory.load([ECHO], {})
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        with pytest.raises(EngineUnavailable, match="fork"):
            await engine.evaluate("agentos.syscall.decision", {"x": 1})
        with pytest.raises(EngineUnavailable, match="fork"):
            await factory.load([ECHO], {})
    engine.close()


async def test_without_the_wheel_the_error_says_how_to_get_it(factory: EmbeddedFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is an error with the command that installs one."""
    import sys

    monkeypatch.setitem(sys.modules, "opa_bindings", None)
    with pytest.raises(EngineUnavailable, match="not installed") as caught:
        await factory.load([ECHO], {})
    assert caught.value.mend == "install it: pip install --ignore-requires-python opa-golib-python-bindings==0.4.4"


def test_the_collector_is_tuned_before_the_library_loads() -> None:
    """GOGC stands in the environment once the library is loaded."""
    opa.bindings()
    assert os.environ["GOGC"]


def test_the_version_names_opa(factory: EmbeddedFactory) -> None:
    """Doctor prints engine, version and wheel."""
    assert factory.version == "opa 1.20 (in process, opa-golib-python-bindings 0.4.4)"
