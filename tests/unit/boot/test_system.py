"""Real processes: how a harness is started, spoken with and ended."""

from __future__ import annotations

import logging
import os
import sys

import pytest

from agentos.abi import rpc
from agentos.abi.canonical import parse_strict
from agentos.boot import system
from agentos.boot.system import LoopSpawner, SystemRandom, SystemTimer
from agentos.kernel.port import Brief, Left


def spawner(monkeypatch: pytest.MonkeyPatch, script: str) -> LoopSpawner:
    """Starts `script` in the place of the built-in loop."""
    return LoopSpawner((sys.executable, "-I", "-c", script))


async def test_the_built_in_loop_greets() -> None:
    """Started, greeted, told to go by a closed pipe: exit 0."""
    process = await LoopSpawner().spawn(Brief("default", "s-1"))
    await process.write_frame(rpc.request(0, "initialize", {"abi": rpc.ABI, "session": "s-1"}))
    assert parse_strict(await process.read_frame())["result"]["abi"] == rpc.ABI
    assert await process.stop() == Left(0)


async def test_a_harness_inherits_no_secret_and_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only PATH and LANG, only the three standard streams, a session of its own."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    script = (
        "import json, os; print(json.dumps([sorted(os.environ), sorted(os.listdir('/proc/self/fd')),"
        " os.getsid(0) == os.getpid()]))"
    )
    with open(os.devnull) as extra:  # noqa: PTH123 - a descriptor that must not travel
        os.set_inheritable(extra.fileno(), True)
        process = await spawner(monkeypatch, script).spawn(Brief("default", "s-1"))
        names, descriptors, leader = parse_strict(await process.read_frame())
        await process.stop()
    assert set(names) <= {"PATH", "LANG", "LC_CTYPE"}
    assert len(descriptors) == 4  # the fourth is the listing's own
    assert leader is True


async def test_a_harness_that_does_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores the end of its input and the term signal: after the grace it is gone."""
    monkeypatch.setattr(system, "GRACE", 0.05)
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
    process = await spawner(monkeypatch, script).spawn(Brief("default", "s-1"))
    assert await process.read_frame() == b"up"
    assert await process.stop() == Left(-9)


async def test_writing_to_a_harness_that_has_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end shows when its next frame is read."""
    process = await spawner(monkeypatch, "pass").spawn(Brief("default", "s-1"))
    assert await process.read_frame() == b""
    for _ in range(3):
        await process.write_frame(b"x" * 100_000 + b"\n")
    assert await process.stop() == Left(0)


async def test_a_frame_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond the bound is a ValueError and does not fill memory."""
    monkeypatch.setattr(rpc, "MAX_FRAME", 1000)
    process = await spawner(monkeypatch, "print('x' * 100_000, flush=True)").spawn(Brief("default", "s-1"))
    with pytest.raises(ValueError):
        await process.read_frame()
    await process.stop()


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
async def test_what_a_harness_complains_of_is_drained_and_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    """A chatty harness does not block. The log says how much it wrote; its words, which may be erased later, only to debug."""
    script = "import sys; sys.stderr.write('first words\\nours' + 'x' * 1_000_000); sys.stderr.close(); print('done', flush=True)"
    with caplog.at_level(level, "agentos.boot.system"):
        process = await spawner(monkeypatch, script).spawn(Brief("default", "s-1"))
        assert await process.read_frame() == b"done"
        await process.stop()
    assert ("first words" in caplog.text) is (level == logging.DEBUG)
    assert "\nours" not in caplog.text
    assert len(caplog.text) < 200_000


def test_the_clock_and_the_dice() -> None:
    """Milliseconds since 1970, microseconds that only grow, as many random bytes as asked for."""
    timer = SystemTimer()
    assert timer.now_ms() > 1_700_000_000_000
    assert timer.monotonic_us() <= timer.monotonic_us()
    assert len({SystemRandom().token(16) for _ in range(50)}) == 50
