"""Fabricated sessions, shared with the tests of the audit room, and a log that holds them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from agentos.abi.event import Event
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message, Stored
from agentos.eventlog.subject import session_of, session_subject, stream_of


@pytest.fixture(scope="session")
def record() -> ModuleType:
    """The classes that write a record: `tests/unit/audit/conftest.py`."""
    path = Path(__file__).parent.parent / "audit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("fabricated_record", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Log(MemoryLog):
    """A log that takes stored bytes as they are."""

    async def put(self, session: str, *lines: bytes) -> int:
        subject = session_subject(session)
        last = await self.last(subject)
        messages = [Message(f"{session}-{last.position if last else 0}-{i}", line) for i, line in enumerate(lines)]
        return await self.append(subject, messages, after=last.position if last else 0)


@pytest.fixture
def log() -> Log:
    return Log()


def streamed(*sessions: Iterable[bytes]) -> list[tuple[str, Stored]]:
    """The events of whole sessions as `(stream, stored)`, positions counted per stream."""
    ends: dict[str, int] = {}
    batch = []
    for lines in sessions:
        for line in lines:
            subject = session_subject(Event.from_bytes(line).subject)
            stream = stream_of(subject)
            ends[stream] = ends.get(stream, 0) + 1
            batch.append((stream, Stored(subject, ends[stream], line)))
    return batch


@pytest.fixture(scope="session")
def stream_of_sessions():
    assert session_of("ev.0.s-a") == "s-a"
    return streamed


def tables(store) -> dict[str, list[tuple]]:
    """Every row of every table, in an order that does not depend on when it was written."""
    names = ("sessions", "syscalls", "approvals", "rules", "answers", "positions", "faults")
    with store.reader() as connection:
        return {name: sorted(map(repr, map(tuple, connection.execute(f"SELECT * FROM {name}")))) for name in names}  # noqa: S608


@pytest.fixture(scope="session")
def tables_of():
    return tables
