"""Standing agents are kept alive by what the log says: one session at a time, whatever is late, fails or crashes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentos.abi import event as ev
from agentos.abi.errors import ChainBroken, Conflict, LogUnavailable
from agentos.abi.event import Event
from agentos.abi.freeze import Freeze, FreezeScope, ScopeKind
from agentos.abi.ids import derived_id
from agentos.audit.audit_chain import AuditRecord, Switched
from agentos.boot import supervision
from agentos.boot.supervision import AGAIN_MS, Supervision, switches, tail
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject, stream_of
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.standing import Restart, StandingSpec
from agentos.supervisor.supervise import SUPERVISOR, WATCHDOG, Phase

NOW = 1_763_700_000_000


def agent(name: str, **standing: Any) -> AgentSpec:
    return AgentSpec(name, "m", "You watch.", (), {}, standing=StandingSpec("watch", **standing))


@dataclass
class World:
    """A tenant's declarations, its sessions as the index has them, its audit chain, and the sessions of the kernel."""

    agents: dict[str, AgentSpec] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, Event] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    record_: AuditRecord = field(default_factory=AuditRecord)
    resting: set[str] = field(default_factory=set)
    created: list[tuple[str, int]] = field(default_factory=list)
    cancelled: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: Exception | None = None
    broken: Exception | None = None
    behind: bool = False
    freeze: Freeze | None = None
    lag: bool = False
    """Whether the index has not heard of what was created since."""
    ms: int = NOW
    name: str = "default"

    @property
    def store(self) -> World:
        return self

    @property
    def projector(self) -> World:
        return self

    @property
    def log(self) -> World:
        return self

    streams = log

    def all(self) -> tuple[World, ...]:
        return (self,)

    def get(self, _name: str) -> World:
        return self

    def now_ms(self) -> int:
        return self.ms

    async def sleep(self, _seconds: float) -> None:
        await asyncio.Event().wait()

    async def caught_up(self) -> None:
        if self.behind:
            await asyncio.Event().wait()

    def current(self, tenant: str) -> Configuration:
        return Configuration(tenant, 1, "sha256:", 10, self.agents, {}, {}, {}, decider=None)  # type: ignore[arg-type]

    async def record(self) -> AuditRecord:
        if self.broken is not None:
            raise self.broken
        return self.record_

    def rests(self, session: str) -> bool:
        return session in self.resting

    async def create(self, _tenant: str, agent_: str, _goal: str, _archive: None, actor: str, **more: Any) -> None:
        if self.refuse is not None:
            raise self.refuse
        assert actor == SUPERVISOR
        assert more["origin"]["standing"]["agent"] == agent_
        name, number = more["session"], more["origin"]["standing"]["number"]
        self.created.append((name, number))
        if name not in self.numbers:
            self.numbers[name] = number
            if not self.lag:
                self.begin(name, agent_)

    def begin(self, name: str, agent_: str, *, turned: bool = True) -> None:
        self.rows[name] = {
            "id": name,
            "agent": agent_,
            "state": "running",
            "created_ms": self.ms,
            "updated_ms": self.ms,
            "model_calls": int(turned),
        }

    def end(self, name: str, state: str, by: str = "system/kernel") -> None:
        self.rows[name] |= {"state": state, "updated_ms": self.ms}
        self.ended[name] = _event(name, f"agentos.session.{state}", by, {"error": {"code": "driver.model"}})

    async def cancel(self, _tenant: str, session: str, *, reason: str, actor: str) -> None:
        if self.rows[session]["state"] == "cancelled":
            raise Conflict("it is over")
        self.cancelled.append((session, reason, actor))
        self.end(session, "cancelled", actor)

    async def last(self, subject: str) -> Any:
        name = subject.rpartition(".")[2]
        return _stored(self.ended[name])

    async def read(self, subject: str) -> Any:
        name = subject.rpartition(".")[2]
        yield _stored(
            _event(name, ev.SESSION_CREATED, SUPERVISOR, {"standing": {"agent": "a", "number": self.numbers.get(name)}})
        )


def _event(name: str, kind: str, by: str, data: dict[str, Any]) -> Event:
    return Event("e-1", kind, "default", name, 1, "sha256:" + "0" * 64, NOW, by, 1, None, data)


def _stored(event: Event) -> Any:
    from agentos.eventlog.port import Stored

    return Stored(event.subject, 1, event.to_bytes())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    def live(index: World, *, limit: int) -> list[dict[str, Any]]:
        return [row for row in index.rows.values() if row["state"] == "running"][:limit]

    def histories(index: World, limits: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
        rows = sorted(index.rows.values(), key=lambda row: row["created_ms"], reverse=True)
        return {agent: [row for row in rows if row["agent"] == agent][:limit] for agent, limit in limits.items()}

    monkeypatch.setattr(supervision.kept_alive, "live", live)
    monkeypatch.setattr(supervision.kept_alive, "histories", histories)
    monkeypatch.setattr(supervision, "PATIENCE_S", 0.01)
    return made


def made(world: Any) -> Supervision:
    return Supervision(world, world, world, world, lambda _tenant: world, lambda _tenant, _agent: world.freeze)


async def test_a_declared_one_is_begun_once(world: World) -> None:
    """The look says how it stands when it is done; another look does nothing."""
    world.agents = {"a": agent("a")}
    looking = made(world)
    for _ in range(3):
        kept = await looking.look("default")
        assert (kept["a"].judged.phase, len(world.created)) == (Phase.ACTIVE, 1)


async def test_what_the_index_has_not_heard_of_is_not_begun_twice(world: World) -> None:
    """It is begun under the same id again, also by a runtime that knows nothing of the one before."""
    world.agents, world.lag = {"a": agent("a")}, True
    for _ in range(3):
        await made(world).look("default")
    assert len({name for name, _ in world.created}) == 1


async def test_each_session_has_its_number(world: World) -> None:
    """One more than the one before; also where that is the only one that is left of many."""
    world.agents, world.numbers = {"a": agent("a")}, {"s-old": 41}
    world.begin("s-old", "a")
    world.end("s-old", "failed")
    world.ms += 5_000
    await made(world).look("default")
    assert [number for _, number in world.created] == [42]


async def test_the_failure_of_one_is_told_with_who_and_what(world: World) -> None:
    """Read from the header of its last event."""
    world.agents = {"a": agent("a", restart=Restart.NO)}
    world.begin("s-1", "a")
    world.end("s-1", "failed")
    kept = await made(world).look("default")
    assert kept["a"].judged.why == "session s-1 failed (driver.model)"


async def test_the_watchdog_cancels_and_begins_anew(world: World) -> None:
    """After a pause, as after any failure; nothing while its session waits for others."""
    world.agents = {"a": agent("a", watchdog_ms=60_000)}
    looking = made(world)
    await looking.look("default")
    (first, _), world.ms = world.created[0], NOW + 60_000
    world.resting = {first}
    await looking.look("default")
    assert world.cancelled == []
    world.resting = set()
    await looking.look("default")
    assert [(name, by) for name, _, by in world.cancelled] == [(first, WATCHDOG)]
    world.ms += 1_000
    await looking.look("default")
    assert [number for _, number in world.created] == [1, 2]


async def test_a_session_of_one_that_is_declared_no_more_is_cancelled(world: World) -> None:
    """Whether the agent is gone or merely stands no more."""
    world.begin("s-1", "a")
    world.begin("s-2", "b")
    world.agents = {"b": AgentSpec("b", "m", "You work.", (), {})}
    assert await made(world).look("default") == {}
    assert [(name, by) for name, _, by in world.cancelled] == [("s-1", SUPERVISOR), ("s-2", SUPERVISOR)]


async def test_one_that_cannot_be_begun_is_tried_again_later(world: World) -> None:
    """It says why, holds up no other, and is tried at once when something has changed."""
    world.agents, world.refuse = {"a": agent("a"), "b": agent("b")}, Conflict("too many live sessions")
    looking = made(world)
    kept = await looking.look("default")
    assert {one.judged.why for one in kept.values()} == {""}
    world.refuse = None
    kept = await looking.look("default")
    assert kept["a"].judged.why == "it could not be begun: too many live sessions"
    assert kept["a"].judged.next_ms == NOW + AGAIN_MS
    assert world.created == []
    looking.stir()
    await looking.look("default")
    assert len(world.created) == 2


async def test_nothing_begins_while_it_is_frozen(world: World) -> None:
    """It goes on by itself afterwards."""
    world.agents = {"a": agent("a")}
    world.freeze = Freeze("f-1", "default", FreezeScope(ScopeKind.AGENT, "a"), "looking into it", "principal/ann", NOW)
    looking = made(world)
    kept = await looking.look("default")
    assert (kept["a"].judged.phase, world.created) == (Phase.WAITING, [])
    world.freeze = None
    await looking.look("default")
    assert len(world.created) == 1


@pytest.mark.parametrize("error", [ChainBroken("edited"), LogUnavailable("away")])
async def test_nothing_begins_while_nobody_knows_what_was_switched(world: World, error: Exception) -> None:
    """It may have been disabled."""
    world.agents, world.broken = {"a": agent("a")}, error
    with pytest.raises(type(error)):
        await made(world).look("default")
    assert world.created == []


async def test_nothing_begins_on_an_index_that_is_behind(world: World) -> None:
    """Its session may live."""
    world.agents, world.behind = {"a": agent("a")}, True
    with pytest.raises(supervision.Unavailable):
        await made(world).look("default")
    assert world.created == []


async def test_one_that_was_switched_off_is_cancelled(world: World) -> None:
    """Also by a runtime that finds the word in the chain and the session alive: whoever wrote it had crashed."""
    world.agents = {"a": agent("a")}
    await made(world).look("default")
    world.record_.switched["standing", "a"] = Switched(
        "standing", "a", on=False, reason="enough", actor="principal/ann", time_ms=NOW
    )
    kept = await made(world).look("default")
    assert kept["a"].judged.phase is Phase.STOPPED
    assert [reason for _, reason, _ in world.cancelled] == ["stopped by principal/ann at 2025-11-21T04:40:00Z: enough"]


def test_the_last_word_of_each_kind_counts() -> None:
    """What was never switched is enabled and not stopped; a later start is no reason to begin one that is disabled."""
    record = AuditRecord()
    assert switches(record, "a").enabled
    record.switched["agent", "a"] = Switched("agent", "a", on=False, reason="audit", actor="principal/ann", time_ms=5)
    record.switched["standing", "a"] = Switched("standing", "a", on=True, reason="go", actor="principal/bob", time_ms=9)
    found = switches(record, "a")
    assert (found.enabled, found.stopped, found.reset_ms) == (False, False, 9)
    assert found.why == "disabled by principal/ann at 1970-01-01T00:00:00Z: audit"


async def test_the_tail_of_a_session_is_found_among_many_events() -> None:
    """Its last events, wherever they stand in the stream; all of them where there are fewer."""
    names = [derived_id("s", NOW, str(number)) for number in range(50)]
    log, name = MemoryLog(), names[0]
    other = next(one for one in names[1:] if stream_of(session_subject(one)) == stream_of(session_subject(name)))
    at = {name: 0, other: 0}
    for number in range(900):
        which = name if number < 20 or number % 100 == 0 else other
        at[which] = await log.append(session_subject(which), [Message(f"m-{number}", b"x")], after=at[which])
    for events in (1, 10, 20, 500):
        position = await tail(log, name, events)
        behind = [stored async for stored in log.read(session_subject(name), after=position)]
        assert len(behind) == min(events, 28)
