"""The verbs about sessions where they hold something back: events page by page, uploads for a while only."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest

from agentos.abi import event as ev
from agentos.abi.chain import Head
from agentos.abi.errors import NotFound
from agentos.abi.event import Event
from agentos.abi.freeze import Freeze, FreezeScope, ScopeKind
from agentos.control import session_verbs
from agentos.control.principal import Caller
from agentos.control.session_verbs import UPLOAD_MS, SessionVerbs
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject

ANN, BO = (Caller(name, ("operator",), "default", fleet=False) for name in ("ann", "bo"))


class Clock:
    def __init__(self) -> None:
        self.ms = 1_795_000_000_000

    def now_ms(self) -> int:
        return self.ms


class Counter:
    """Randomness that counts."""

    def __init__(self) -> None:
        self.number = 0

    def token(self, size: int) -> bytes:
        self.number += 1
        return self.number.to_bytes(size, "big")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def verbs(log: MemoryLog, clock: Clock) -> SessionVerbs:
    nothing: Any = None
    return SessionVerbs(nothing, lambda _tenant: log, nothing, nothing, clock, Counter())


async def write(log: MemoryLog, session: str, goals: list[str]) -> None:
    head, position = Head.empty(), 0
    for number, goal in enumerate(goals, 1):
        data = {"agent": "a", "goal": goal, "inputs": []}
        event = Event(f"e{number}", ev.SESSION_CREATED, "default", session, number, head.hash, 0, "principal/x", 1, None, data)
        stored = event.to_bytes()
        head = event.head(stored)
        position = await log.append(session_subject(session), [Message(event.id, stored)], after=position)


async def test_events_come_in_pages(verbs: SessionVerbs, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page holds what fits, and at least one event; `more` says whether to go on; together they are all."""
    goals = ["x" * size for size in (10, 5000, 10, 10, 10, 4000)]
    await write(log, "s-long", goals)
    monkeypatch.setattr(session_verbs, "MAX_PAGE", 1000)
    seq = position = 0
    pages, more = [], True
    while more:
        answer = await verbs.events(ANN, {"session": "s-long", "seq": seq, "position": position})
        seq, position, more = answer["seq"], answer["position"], answer["more"]
        pages.append([event["data"]["goal"] for event in answer["events"]])
    assert [goal for page in pages for goal in page] == goals
    assert [len(page) for page in pages] == [1, 1, 2, 1, 1]
    behind = await verbs.events(ANN, {"session": "s-long", "seq": seq, "position": position})
    assert behind == {"events": [], "seq": 6, "position": position, "more": False}


async def upload(verbs: SessionVerbs, caller: Caller, **params: Any) -> str:
    return str((await verbs.upload(caller, {"data": base64.b64encode(b"x").decode(), **params}))["upload"])


async def test_an_upload_that_nobody_adds_to_is_dropped(verbs: SessionVerbs, clock: Clock) -> None:
    """Ten minutes after it last grew it is gone, whoever knocks next; one that grows stays."""
    old, kept = await upload(verbs, ANN), await upload(verbs, ANN)
    clock.ms += UPLOAD_MS - 1
    await upload(verbs, ANN, upload=kept)
    clock.ms += 1
    await upload(verbs, BO)
    with pytest.raises(NotFound):
        await upload(verbs, ANN, upload=old)
    with pytest.raises(NotFound):
        await verbs.create(ANN, {"agent": "a", "goal": "g", "upload": old})
    assert await upload(verbs, ANN, upload=kept) == kept


async def test_a_row_says_what_holds_it(log: MemoryLog, clock: Clock) -> None:
    """A freeze of an agent holds its own sessions and those that work for it, however deep, and nothing that is over."""
    freeze = Freeze("f-1", "default", FreezeScope(ScopeKind.AGENT, "lead"), "a reason", "principal/ann", 0)
    asked: list[Any] = []

    def row(name: str, agent: str, parent: str | None = None, origin: str | None = None) -> dict[str, Any]:
        return {"id": name, "agent": agent, "parent": parent, "origin": origin}

    live = [
        row("s-4", "reader", "s-2", "forked"),
        row("s-3", "reader", "s-2", "delegated"),
        row("s-2", "helper", "s-1", "delegated"),
    ]
    live += [row("s-1", "lead")]

    class Reader:
        async def sessions(self, tenant: str, *, live_only: bool, limit: int, parent: str | None = None) -> list[dict[str, Any]]:
            asked.append((live_only, limit, parent))
            rows = live if live_only else [*live, row("s-0", "lead")]
            return [dict(one) for one in rows if parent in {None, one["parent"]}][:limit]

    def held(tenant: str, agents: Sequence[str] | None) -> Freeze | None:
        return freeze if agents is None or "lead" in agents else None

    nothing: Any = None
    verbs = SessionVerbs(nothing, lambda _tenant: log, Reader(), nothing, clock, Counter(), held=held)
    rows = await verbs.list(ANN, {"all": True})
    assert {one["id"]: one.get("frozen") for one in rows} == {"s-0": None, "s-1": "f-1", "s-2": "f-1", "s-3": "f-1", "s-4": None}
    [newest] = await verbs.list(ANN, {"limit": 1, "parent": "s-2"})
    assert newest["id"] == "s-4"
    free = SessionVerbs(nothing, lambda _tenant: log, Reader(), nothing, clock, Counter())
    asked.clear()
    assert not any("frozen" in one for one in await free.list(ANN, {}))
    assert asked == [(True, 100, None)]
