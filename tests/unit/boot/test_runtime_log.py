"""The runtime's log says where an error came from and never what it said, unless everything is asked for."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
from collections.abc import AsyncIterator

import pytest

from agentos.boot.runtime_log import Wordless, open_log

CANARY = "kestrel-canary-88f1"


@pytest.fixture
async def written() -> AsyncIterator[io.StringIO]:
    """A stream to write to; root logger and loop are as they were afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    level = root.level
    yield stream
    for handler in [one for one in root.handlers if getattr(one, "stream", None) is stream]:
        root.removeHandler(handler)
    root.setLevel(level)
    asyncio.get_running_loop().set_exception_handler(None)


def fail() -> None:
    try:
        int(CANARY)
    except ValueError as error:
        raise LookupError(f"no {CANARY}") from error


async def _fails() -> None:
    fail()


@pytest.mark.parametrize("level", [None, "warning", "debug"])
async def test_tracebacks_without_words(written: io.StringIO, monkeypatch: pytest.MonkeyPatch, level: str | None) -> None:
    """Types, files and functions are there, the messages are not; with debug they are."""
    if level is None:
        monkeypatch.delenv("AGENTOS_LOG", raising=False)
    else:
        monkeypatch.setenv("AGENTOS_LOG", level)
    open_log(asyncio.get_running_loop(), written)
    try:
        fail()
    except LookupError:
        logging.getLogger("agentos.kernel.sessions").exception("session s-1 failed")
    text = written.getvalue()
    assert "session s-1 failed" in text
    assert "LookupError" in text
    assert "in fail" in text
    assert "ValueError" in text
    assert (CANARY in text) == (level == "debug")


async def test_a_task_that_nobody_waited_for(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio says which one it was, and where it failed."""
    monkeypatch.delenv("AGENTOS_LOG", raising=False)
    open_log(asyncio.get_running_loop(), written)
    task = asyncio.create_task(_fails(), name="nobody waits")
    await asyncio.wait([task])
    del task
    gc.collect()
    text = written.getvalue()
    assert "Task exception was never retrieved (nobody waits)" in text
    assert "in fail" in text
    assert CANARY not in text


async def test_a_level_that_is_none(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, not guessed."""
    monkeypatch.setenv("AGENTOS_LOG", "loud")
    with pytest.raises(ValueError, match="LOUD"):
        open_log(asyncio.get_running_loop(), written)


def test_a_record_without_an_error() -> None:
    """`exception` outside of an `except` writes its message."""
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "said", (), (None, None, None))
    assert Wordless("%(message)s").format(record).strip() == "said"
