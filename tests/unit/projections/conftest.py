"""Fabricated sessions, shared with the tests of the audit room, and a log that holds them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from agentos.abi.attributes import attributes_of, session_attributes
from agentos.abi.chain import Head
from agentos.abi.event import AUDIT_ERASED, Event
from agentos.abi.record import SALT_BYTES, header_of
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message, Stored
from agentos.eventlog.subject import AUDIT_CHAIN, AUDIT_STREAM, session_of, session_subject, stream_of


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
    with store.reader() as connection:
        connection.row_factory = None
        return {table.name: sorted(map(repr, table.rows(connection))) for table in store.tables}


@pytest.fixture(scope="session")
def tables_of():
    return tables


def written_as(form: str, lines: Iterable[bytes]) -> list[bytes]:
    """The events of one session as `open` events (of before there were headers), `records`, or the `headers` left of them."""
    told: dict[str, str | int] = {}
    head, written = Head.empty(), []
    for line in lines:
        event = Event.from_bytes(line)
        told = told or session_attributes(event.actor, event.data)
        attributes = {} if form == "open" else told | attributes_of(event.type, event.data)
        event = replace(event, prev=head.hash, seq=head.seq + 1, attributes=attributes)
        record = event.to_bytes() if form == "open" else event.to_record(bytes(SALT_BYTES))
        head = event.head(record)
        written.append(header_of(record) if form == "headers" else record)
    return written


@pytest.fixture(scope="session")
def written():
    return written_as


def tombstones(*erasures: Iterable[str]) -> list[tuple[str, Stored]]:
    """The audit chain: one event for each set of sessions that were erased, as `(stream, stored)`."""
    head, batch = Head.empty(), []
    for position, names in enumerate(erasures, 1):
        data = {"sessions": sorted(names), "keys": [], "basis": "asked for"}
        event = Event(
            f"a-{position}",
            AUDIT_ERASED,
            "default",
            "audit",
            position,
            head.hash,
            1_795_000_000_000,
            "principal/op",
            1,
            None,
            data,
        )
        line = event.to_bytes()
        head = event.head(line)
        batch.append((AUDIT_STREAM, Stored(AUDIT_CHAIN, position, line)))
    return batch


@pytest.fixture(scope="session")
def tombstones_of():
    return tombstones
