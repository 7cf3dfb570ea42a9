"""The past of budgets: read from the headers of real records, whatever became of their payloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of
from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken, LogUnavailable
from agentos.abi.event import Event
from agentos.abi.record import header_of
from agentos.boot.budgets import budgeted_events, spent_in
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import AUDIT_CHAIN, session_subject
from agentos.kernel.booked import Books, Told


@dataclass
class Streams:
    """A log as it is stored, by stream."""

    stored: dict[str, list[Stored]] = field(default_factory=dict)
    audit: list[Stored] = field(default_factory=list)
    meanwhile: bool = False
    """Whether what the audit chain says has come only after the first look."""
    looks: int = 0

    async def streams(self) -> list[str]:
        return list(self.stored)

    async def scan(self, stream: str) -> AsyncIterator[Stored]:
        for one in self.stored[stream]:
            yield one

    async def read(self, subject: str) -> AsyncIterator[Stored]:
        for one in self.stored["EV_202611_0"]:
            if one.subject == subject:
                yield one
        if subject == AUDIT_CHAIN:
            self.looks += 1
            for one in self.audit if self.looks > 1 or not self.meanwhile else ():
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


def retired(stream: str, spent: object) -> Stored:
    """What the audit chain says of a stream that was dropped."""
    data = {"stream": stream, "spent": spent}
    event = Event("e1", ev.AUDIT_RETIRED, "t", "audit", 1, "0" * 64, 1_795_000_000_000, "op", 1, None, data, {})
    return Stored(AUDIT_CHAIN, 1, event.to_bytes())


def spending(stream_session: str, day: str, calls: int, end: str = ev.SYSCALL_FINISHED) -> list[Stored]:
    """A call that was made and a session that is over."""
    held: dict[str, Json] = {"program": "p", "day": day, "calls": calls}
    return [
        record(stream_session, 1, ev.SYSCALL_DECIDED, {**DECIDED, "reserved": held}),
        record(stream_session, 2, end, {"call": "c", "tool": "write", "spent": {"calls": calls}, "duration_us": 1}),
        record(stream_session, 3, ev.SESSION_FINISHED, {}),
    ]


async def folded(log: Streams) -> Books:
    books = Books()
    for told in await read(log):
        books.fold(told)
    return books


async def test_what_a_retired_month_had_used_is_counted_on() -> None:
    """In all, and for the last days of it, as if it were there; also while it is still there, and then once."""
    month = [*spending("s-1", "2026-11-01", 2), *spending("s-2", "2026-11-17", 3), *spending("s-3", "2026-11-18", 4)]
    now = [*spending("s-4", "2026-11-18", 5)]
    whole = await folded(Streams({"EV_202610_0": month, "EV_202611_0": now}))
    spent = await spent_in(Streams({"EV_202610_0": month}), "EV_202610_0")  # type: ignore[arg-type]
    assert [one["day"] for one in spent if one["kind"] == "tenant"] == [None, "2026-11-17", "2026-11-18"]
    told = retired("EV_202610_0", spent)
    for log in (Streams({"EV_202611_0": now}, [told]), Streams({"EV_202610_0": month, "EV_202611_0": now}, [told])):
        books = await folded(log)
        for account in (("tenant", ""), ("program", "p"), ("agent", "a")):
            assert books.ledger.used(account, "calls") == whole.ledger.used(account, "calls") == 14
            assert books.ledger.used((*account, "2026-11-18"), "calls") == 9
            assert books.ledger.used((*account, "2026-11-01"), "calls") == 0


async def test_an_outcome_that_nobody_knows_is_carried_over_too() -> None:
    """As all that was reserved, as it would count if the month were there."""
    log = Streams({"EV_202610_0": spending("s-1", "2026-11-18", 7, ev.SYSCALL_UNKNOWN)[::2]})
    spent = await spent_in(log, "EV_202610_0")  # type: ignore[arg-type]
    assert spent[0]["amounts"] == {"calls": 7}


async def test_a_month_that_is_retired_while_it_is_read_is_not_counted_by_half() -> None:
    """Whoever reads begins anew."""
    log = Streams({"EV_202611_0": spending("s-1", "2026-11-18", 2)}, [retired("EV_202611_0", [])], meanwhile=True)
    with pytest.raises(LogUnavailable, match="retired while"):
        await read(log)


@pytest.mark.parametrize("spent", [None, 7, [{}], [{"kind": "tenant", "name": "", "day": None, "amounts": None}]])
async def test_a_balance_that_cannot_be_read_is_an_error(spent: object) -> None:
    """Overlooked, it would give a budget back."""
    with pytest.raises(ChainBroken, match="had used cannot be told"):
        await folded(Streams({"EV_202611_0": []}, [retired("EV_202610_0", spent)]))
