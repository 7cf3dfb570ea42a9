"""The past of the budgets, read from the event logs of the tenants."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

import orjson

from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken, LogUnavailable
from agentos.abi.event import AUDIT_RETIRED
from agentos.abi.record import header_of
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import AUDIT_CHAIN, is_session_stream, session_subject
from agentos.kernel.booked import HEARD, Books, History, Told

_MARKED: Final = re.compile(b'"type":"(?:%s)"' % b"|".join(re.escape(kind).encode() for kind in sorted(HEARD)))
"""How the type of such an event stands in its header; the others need not be decoded."""

_DAY: Final = len("2026-11-21")

_RETIRED: Final = AUDIT_RETIRED.encode()


def budgeted_events(logs: Callable[[str], EventLog]) -> History:
    """The headers of a tenant's syscalls, of one session or stream by stream; `logs` gives a tenant's log as it is stored."""

    async def history(tenant: str, session: str | None = None) -> AsyncIterator[Told]:
        log = logs(tenant)
        if session is not None:
            async with aclosing(log.read(session_subject(session))) as events:
                async for stored in events:
                    if (told := _told(stored)) is not None:
                        yield told
            return
        retired = await _retired(log)
        for told in retired.values():
            yield told
        # One that is to be dropped, and is still there, is told of already.
        there = [name for name in await log.streams() if is_session_stream(name) and name not in retired]
        for stream in there:
            async with aclosing(log.scan(stream)) as messages:
                async for stored in messages:
                    if (one := _told(stored)) is not None:
                        yield one
        if not (await _retired(log)).keys().isdisjoint(there):
            raise LogUnavailable("a month was retired while it was read", where=tenant)

    return history


async def spent_in(log: EventLog, stream: str) -> list[dict[str, Json]]:
    """What the sessions of a stream, which are all over, have used: what the event says that retires it (`Books.balances`).

    Raises LogUnavailable, ChainBroken.
    """
    books = Books()
    async with aclosing(log.scan(stream)) as messages:
        async for stored in messages:
            if (told := _told(stored)) is not None:
                books.fold(told)
    return books.balances()


async def _retired(log: EventLog) -> dict[str, Told]:
    """The streams that the audit chain says were retired, and what they had used. One from before that was told has used nothing.

    Raises ChainBroken, LogUnavailable.
    """
    found: dict[str, Told] = {}
    async with aclosing(log.read(AUDIT_CHAIN)) as events:
        async for stored in events:
            if _RETIRED not in stored.data:
                continue
            try:
                event = orjson.loads(stored.data)
                if event["type"] == AUDIT_RETIRED:
                    spent = {"spent": event["data"].get("spent", [])}
                    told = Told(event["type"], event["subject"], event["seq"], event["time"][:_DAY], spent)
                    found.setdefault(str(event["data"]["stream"]), told)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                where = f"{stored.subject} at {stored.position}"
                raise ChainBroken(f"what was retired cannot be told ({error})", where=where) from error
    return found


def _told(stored: Stored) -> Told | None:
    """What the books need of a stored event; None if it is none of theirs. Raises ChainBroken for what cannot be read."""
    header = header_of(stored.data)
    if _MARKED.search(header) is None:
        return None
    try:
        told = _read(header)
    except (LookupError, TypeError, ValueError) as error:
        # Overlooked, it would let more through than there may be.
        where = f"{stored.subject} at {stored.position}"
        raise ChainBroken(f"what was used cannot be told: no event of ours ({error})", where=where) from error
    return told if told.kind in HEARD else None


def _read(header: bytes) -> Told:
    # A tenant with a long past is read before its first call, so by the quickest parser; the chain is checked elsewhere.
    body = orjson.loads(header)
    told = Told(body["type"], body["subject"], body["seq"], body["time"][:_DAY], body)
    if type(told.seq) is not int or not all(isinstance(text, str) for text in (told.kind, told.session, told.day)):
        raise TypeError("its type, subject, time or number has another shape")
    return told
