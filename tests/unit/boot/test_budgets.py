"""The past of budgets: read from the headers of real records, whatever became of their payloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of
from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event
from agentos.abi.record import header_of
from agentos.boot.budgets import budgeted_events
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_subject
from agentos.kernel.booked import Told


@dataclass
class Streams:
    """A log as it is stored, by stream."""

    stored: dict[str, list[Stored]] = field(default_factory=dict)

    async def streams(self) -> list[str]:
        return list(self.stored)

    async def scan(self, stream: str) -> AsyncIterator[Stored]:
        for one in self.stored[stream]:
            yield one

    async def read(self, subject: str) -> AsyncIterator[Stored]:
        for one in self.stored["EV_202611_0"]:
            if one.subject == subject:
                yield one


def record(session: str, seq: int, kind: str, data: dict[str, Json]) -> Stored:
    """A record whose payload cannot be opened any more."""
    told = {"agent": "a", **attributes_of(kind, data)}
    event = Event(f"e{seq}", kind, "t", session, seq, "0" * 64, 1_795_000_000_000, "agent/a", 1, None, data, told)
    return Stored(session_subject(session), seq, header_of(event.to_record(b"0" * 16)) + b"\terased")


async def read(log: Streams, session: str | None = None) -> list[Told]:
    return [told async for told in budgeted_events(lambda _: log)("t", session)]  # type: ignore[arg-type, return-value]


DECIDED: dict[str, Json] = {
    "call": "c",
    "tool": "write",
    "decision": {"effect": "allow"},
    "reserved": {"program": "p", "day": "2026-11-18", "calls": 1},
}


async def test_headers_of_syscalls_and_ends_are_read_and_no_others() -> None:
    """Of all sessions, or of one; streams of something else are left alone."""
    one = [record("s-1", 1, ev.SESSION_CREATED, {}), record("s-1", 2, ev.SYSCALL_DECIDED, DECIDED)]
    other = [record("s-2", 1, ev.SYSCALL_UNKNOWN, {"call": "c"}), record("s-2", 2, ev.SESSION_FINISHED, {})]
    log = Streams({"EV_202611_0": one + other, "CKPT": [Stored("ckpt", 1, b"no event")]})
    told = await read(log)
    assert [(item.session, item.seq, item.kind) for item in told] == [
        ("s-1", 2, ev.SYSCALL_DECIDED),
        ("s-2", 1, ev.SYSCALL_UNKNOWN),
        ("s-2", 2, ev.SESSION_FINISHED),
    ]
    assert told[0].attributes["reserved"] == '{"calls":1,"day":"2026-11-18","program":"p"}'
    assert told[0].day == "2026-11-18"
    assert await read(log, "s-2") == told[1:]


@pytest.mark.parametrize(
    "header",
    [b'{"type":"agentos.syscall.decided"}', b'{"type":"agentos.syscall.decided",', b'["type":"agentos.syscall.decided"]'],
)
async def test_what_cannot_be_read_is_an_error(header: bytes) -> None:
    """Overlooked, it would give a budget back."""
    with pytest.raises(ChainBroken, match="what was used cannot be told"):
        await read(Streams({"EV_202611_0": [Stored("ev.202611.0.s-1", 1, header)]}))
