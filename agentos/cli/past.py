"""The recorded past, read through the control door page by page: whole sessions of decisions, and changes of the registry.

The streams of the log are read side by side, always the one that is furthest behind in time, the next page of each being fetched
meanwhile. What is held is the pages and the sessions that are under way, however long the history is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentos.abi.canonical import Json
from agentos.abi.event import parse_rfc3339
from agentos.audit.backtest import Admission
from agentos.audit.history import Gathering, Undecidable, recall, unpack
from agentos.projections.question import Recorded

if TYPE_CHECKING:
    from agentos.abi.event import Event
    from agentos.control.client import Client

WITHIN: Final = 120.0
"""Seconds until a page is given up."""

SESSIONS: Final = 20
"""Sessions asked for at one time, of those that began before the history that is read."""

Found = Recorded | Undecidable
Progress = Callable[[int, int], None]
"""Told how many events are read, and how many there are."""


@dataclass(slots=True)
class _Stream:
    """One stream of the log: its next page on the way, and how far it has come."""

    page: asyncio.Task[Json]
    seen_ms: int = 0
    done: int = 0
    size: int = 0


async def decisions(client: Client, since: int, progress: Progress) -> AsyncIterator[list[Found]]:
    """Every recorded decision that is not older than `since` (ms), in lists of some; each session's in their order."""
    gathering = Gathering()
    async for events in _events(client, since, progress):
        found: list[Found] = []
        for event in events:
            whole = gathering.take(event)
            if whole is not None:
                found += _of(whole, since)
        yield found
    for whole in gathering.rest():
        yield list(_of(whole, since))
    names = list(gathering.began_before)
    for start in range(0, len(names), SESSIONS):
        answer = await client.call("policy.recorded", {"sessions": names[start : start + SESSIONS]}, within=WITHIN)
        yield [*_rebuilt(answer, since)]


def _of(events: list[Event], since: int) -> Iterator[Found]:
    return (item for item in recall(events) if item.time_ms >= since)


def _rebuilt(answer: Json, since: int) -> Iterator[Found]:
    for one in answer["undecidable"]:
        time = parse_rfc3339(one["time"])
        if time >= since:
            yield Undecidable(one["id"], one["session"], one["call"], time, one["reason"])
    for one in answer["decisions"]:
        time, decision = parse_rfc3339(one["time"]), one["decision"]
        if time >= since:
            yield Recorded(
                session=one["session"],
                call=one["call"],
                seq=one["seq"],
                time_ms=time,
                policy_digest=one["policy_digest"],
                question=one["question"],
                decision=decision,
                policy_decision=one.get("overruled", decision),
            )


async def _events(client: Client, since: int, progress: Progress) -> AsyncIterator[list[Event]]:
    async def fetch(stream: str, **more: Json) -> Json:
        return await client.call("policy.recorded", {"stream": stream, **more}, within=WITHIN)

    log = await client.call("policy.recorded", {"streams": True}, within=WITHIN)
    streams: dict[str, _Stream] = {}
    try:
        for name in log["streams"]:
            streams[name] = _Stream(asyncio.ensure_future(fetch(name, **({"since": since} if since else {}))))
        totals = dict.fromkeys(streams, (0, 0))
        while streams:
            name = min(streams, key=lambda one: streams[one].seen_ms)
            stream = streams[name]
            page = await stream.page
            stream.done += len(page["events"])
            stream.size = max(stream.size, stream.done + page["end"] - page["after"])
            totals[name] = stream.done, stream.size
            if page["after"] < page["end"] and page["events"]:
                stream.page = asyncio.create_task(fetch(name, after=page["after"]))
            else:
                del streams[name]
            events = [unpack(row, log["tenant"]) for row in page["events"]]
            stream.seen_ms = events[-1].time_ms if events else stream.seen_ms
            progress(sum(done for done, _ in totals.values()), sum(size for _, size in totals.values()))
            yield events
    finally:
        for stream in streams.values():
            stream.page.cancel()
            with suppress(asyncio.CancelledError):
                await stream.page


async def changes(client: Client, since: int) -> AsyncIterator[Admission | Undecidable]:
    """Every recorded change of the registry that is not older than `since` (ms), oldest first."""
    after, end = 0, 1
    while after < end:
        answer = await client.call("policy.recorded", {"changes": True, "after": after, "since": since}, within=WITHIN)
        after, end = answer["after"], answer["end"]
        for row in answer["admissions"]:
            time, name = parse_rfc3339(row["time"]), f"revision/{row['revision']}"
            if "undecidable" in row:
                yield Undecidable(name, name, row["tenant"], time, row["undecidable"])
            else:
                yield Admission(row["revision"], row["tenant"], time, row["actor"], row["question"], row["decision"])
