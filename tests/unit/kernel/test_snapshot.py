"""Snapshots: a resume from one comes to what a resume from the first event comes to, and never to anything else."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from kernel_in_memory import ALLOW, FakeRandom, Kernel, calls, settled, text

from agentos.abi import event as ev
from agentos.abi.chain import Head
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import ChainBroken, LogUnavailable, NotFound, PayloadErased, Unavailable
from agentos.abi.event import Event
from agentos.abi.record import header_of
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.adapters.snapshot_file import SnapshotFiles
from agentos.eventlog.blob import LogBlobs
from agentos.eventlog.port import Message, Stored
from agentos.eventlog.sealed import SealedLog
from agentos.eventlog.snapshots import Snapshot
from agentos.eventlog.subject import session_subject
from agentos.kernel import snapshot
from agentos.kernel.journal import Journal
from agentos.kernel.snapshot import Snapshots, Standing
from agentos.projections.session import State, fold_all

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
INDEX: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text())
NAMES = sorted(INDEX)
NEVER = 10**9
ASK = Decision(Verdict.ASK, ("people.ask",), ("a person looks at it",))


class ReadLog(MemoryLog):
    """Knows from where it was read, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []
        self.away = False

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        if self.away:
            raise LogUnavailable("the event log does not answer")
        self.reads.append(after)
        async for stored in super().read(subject, after=after):
            yield stored


@dataclass
class InMemory:
    """A store without a file. `broken`: nothing can be written; `gate`: waited for before it is."""

    kept: dict[str, Snapshot] = field(default_factory=dict)
    tried: list[int] = field(default_factory=list)
    broken: bool = False
    gate: asyncio.Event | None = None

    async def find(self, session: str) -> Snapshot | None:
        return self.kept.get(session)

    async def keep(self, snapshot: Snapshot) -> None:
        self.tried.append(snapshot.head.seq)
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise Unavailable("no space left on the disk")
        self.kept[snapshot.session] = snapshot

    async def drop(self, session: str) -> None:
        self.kept.pop(session, None)

    async def sweep(self, streams: Collection[str]) -> int:
        del streams
        return 0


@dataclass
class World:
    """A log below one that seals, as in a runtime, and snapshots in files."""

    folder: Path

    def __post_init__(self) -> None:
        self.below = ReadLog()
        self.keys = SqliteKeyStore.open(self.folder / "keys.db", FakeRandom(2))
        self.log = SealedLog(self.below, self.keys, LogBlobs(self.below), FakeRandom(3))
        self.files = SnapshotFiles(self.folder / "snapshots", "default", self.keys, FakeRandom(4))
        self.session = ""

    async def put(self, name: str) -> list[bytes]:
        """Store a golden history; what is not the session's own lies between its events."""
        self.session, lines = INDEX[name]["session"], (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()
        position = 0
        for number, line in enumerate(lines):
            await self.below.append(self.beside, [Message(f"beside-{number}", b"{}")], after=2 * number - 1 if number else 0)
            position = await self.log.append(session_subject(self.session), [Message(f"m-{number}", line)], after=position)
        return lines

    @property
    def beside(self) -> str:
        """Another subject of the stream in which the session is."""
        return session_subject(self.session).replace(self.session, "s-beside")

    def snapshots(self, least: int = NEVER) -> Snapshots:
        return Snapshots(lambda _tenant: self.files, least=least)

    async def load(self, snapshots: Snapshots | None = None, log: Any = None) -> Journal:
        self.below.reads.clear()
        return await Journal.load(log or self.log, "default", self.session, Clock(), FakeRandom(5), snapshots)

    async def standing(self, seq: int) -> Standing:
        """Where the session stood after event `seq`."""
        cut = MemoryLog()
        subject, position = session_subject(self.session), 0
        async for stored in self.log.read(subject):
            if stored.position > 2 * seq:
                break
            # At the position that it has: a journal knows no other.
            beside = await cut.append(self.beside, [Message(f"b-{position}", b"{}")], after=max(0, position - 1))
            position = await cut.append(subject, [Message(f"m-{position}", stored.data)], after=position)
            assert (beside, position) == (stored.position - 1, stored.position)
        return (await self.load(log=cut)).standing()

    async def keep(self, standing: Standing) -> None:
        snapshots = self.snapshots()
        assert snapshots.take(standing)
        await snapshots.close()


class Clock:
    def now_ms(self) -> int:
        return 1_800_000_000_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.keys.close()


@pytest.mark.parametrize("name", NAMES)
async def test_a_session_is_the_same_from_a_snapshot_at_any_event(name: str, world: World) -> None:
    """State, head, place in the log, what it inherited; only what came then was read, and it is written on alike."""
    lines = await world.put(name)
    whole = (await world.load()).standing()
    assert world.below.reads == [0]
    for seq in range(1, len(lines) + 1):
        await world.keep(await world.standing(seq))
        journal = await world.load(world.snapshots())
        assert journal.standing() == whole
        assert (journal.kept, world.below.reads) == (seq, [2 * seq - 1])
        assert [type(one) for one in journal.state.calls.values()] == [type(one) for one in whole.state.calls.values()]


async def test_what_is_recorded_behind_it_goes_on_the_same_chain(world: World) -> None:
    """The next event repeats the session's attributes and names the last one's hash."""
    lines = await world.put("cancel")
    short = await world.standing(5)
    await world.keep(short)
    again = MemoryLog()
    position = 0
    for number, line in enumerate(lines[:5]):
        await again.append(world.beside, [Message(f"b-{number}", b"{}")], after=2 * number - 1 if number else 0)
        position = await again.append(session_subject(world.session), [Message(f"m-{number}", line)], after=position)
    journal = await world.load(world.snapshots(), again)
    assert journal.kept == 5
    await journal.record(ev.SESSION_PAUSED, {"reason": "wait"}, actor="principal/ann", revision=1, policy=None)
    events = [Event.from_bytes(stored.data) async for stored in again.read(session_subject(world.session))]
    first = events[0].attributes
    assert {name: events[-1].attributes[name] for name in ("agent", "onbehalfof")} == {
        name: first[name] for name in ("agent", "onbehalfof")
    }
    assert (await world.load(log=again)).standing() == journal.standing()


async def _without_the_last(world: World, lines: list[bytes], count: int) -> MemoryLog:
    """The log as it was `count` events ago, as a restore brings it back."""
    older, position = MemoryLog(), 0
    for number, line in enumerate(lines[: len(lines) - count]):
        await older.append(world.beside, [Message(f"b-{number}", b"{}")], after=2 * number - 1 if number else 0)
        position = await older.append(session_subject(world.session), [Message(f"m-{number}", line)], after=position)
    return older


async def test_a_log_that_ends_sooner_is_believed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """After a restore from before the snapshot the log says where the session stands, and the snapshot is gone."""
    lines = await world.put("approval")
    await world.keep(await world.standing(len(lines)))
    older = await _without_the_last(world, lines, 1)
    journal = await world.load(world.snapshots(), older)
    assert (journal.head.seq, journal.kept) == (len(lines) - 1, 0)
    assert f"is thrown away: the log says otherwise (log.chain at {world.session}#{len(lines)})" in caplog.text
    assert await world.files.find(world.session) is None


async def test_a_log_that_went_another_way_is_believed(world: World) -> None:
    """The same number of events, the last of them another one: its hash is not the snapshot's."""
    lines = await world.put("approval")
    await world.keep(await world.standing(len(lines) - 1))
    other = await _without_the_last(world, lines, 2)
    journal = await world.load(log=other)
    await other.append(world.beside, [Message("beside", b"{}")], after=2 * journal.head.seq - 1)
    await journal.record(ev.SESSION_PAUSED, {"reason": "wait"}, actor="principal/ann", revision=1, policy=None)
    found = await world.load(world.snapshots(), other)
    assert found.standing() == journal.standing()
    assert found.kept == 0


async def test_an_event_that_lies_elsewhere_is_not_the_one(world: World) -> None:
    """A log that was put together anew has other positions, and what is appended must name the right one."""
    lines = await world.put("approval")
    await world.keep(await world.standing(3))
    anew = MemoryLog()
    for number, line in enumerate(lines):
        await anew.append(session_subject(world.session), [Message(f"m-{number}", line)], after=number)
    journal = await world.load(world.snapshots(), anew)
    assert (journal.kept, journal.standing().position) == (0, len(lines))


@pytest.mark.parametrize("damage", ["seq", "prev", "payload", "header"])
@pytest.mark.parametrize("place", [3, 4, 5])
async def test_a_log_that_is_broken_behind_it_is_refused(place: int, damage: str, world: World) -> None:
    """A resume from a snapshot refuses whatever a resume from the first event refuses there, with the same words."""
    lines = await world.put("approval")
    await world.keep(await world.standing(3))
    broken = {
        "seq": lines[place].replace(b'"seq":%d' % (place + 1), b'"seq":%d' % (place + 7)),
        "prev": lines[place].replace(b'"prev":"sha256:', b'"prev":"sha256:0', 1),
        "payload": lines[place].replace(b'"salt":"', b'"salt":"0', 1),
        "header": lines[place].replace(b'"actor":"', b'"actor":" ', 1) if place < len(lines) - 1 else b"{}",
    }[damage]
    lines[place] = broken
    changed = await _without_the_last(world, lines, 0)
    with pytest.raises(ChainBroken) as plain:
        await world.load(log=changed)
    with pytest.raises(ChainBroken) as resumed:
        await world.load(world.snapshots(), changed)
    assert str(resumed.value) == str(plain.value)
    assert await world.files.find(world.session) is None


async def test_the_payload_of_the_event_below_must_be_there(world: World) -> None:
    """A snapshot whose last event has lost its payload, or got another one, is not gone on from."""
    lines = await world.put("approval")
    for changed in (header_of(lines[2]), lines[2].replace(b'"salt":"', b'"salt":"0', 1)):
        await world.keep(await world.standing(3))
        other = await _without_the_last(world, [*lines[:2], changed, *lines[3:]], 0)
        with pytest.raises((PayloadErased, ChainBroken)) as plain:
            await world.load(log=other)
        with pytest.raises((PayloadErased, ChainBroken)) as resumed:
            await world.load(world.snapshots(), other)
        assert str(resumed.value) == str(plain.value)


async def test_an_erased_session_is_not_resumed_from_its_snapshot(world: World) -> None:
    """With the key goes the snapshot: the session is refused as one without a snapshot is, and the file is gone."""
    lines = await world.put("approval")
    await world.keep(await world.standing(len(lines)))
    await world.keys.destroy([(await world.keys.of_session(world.session)).id])
    with pytest.raises(PayloadErased) as plain:
        await world.load()
    with pytest.raises(PayloadErased) as resumed:
        await world.load(world.snapshots())
    assert str(resumed.value) == str(plain.value)
    assert list((world.folder / "snapshots").glob("*")) == []


async def test_an_erasure_in_the_middle_of_a_resume_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key goes after the snapshot was opened and before the log is read: nothing is gone on with."""
    lines = await world.put("approval")
    await world.keep(await world.standing(len(lines)))
    snapshots = world.snapshots()
    real = snapshots.find

    async def find(tenant: str, session: str) -> Standing | None:
        found = await real(tenant, session)
        await world.keys.destroy([(await world.keys.of_session(session)).id])
        return found

    monkeypatch.setattr(snapshots, "find", find)
    with pytest.raises(PayloadErased):
        await world.load(snapshots)


async def test_another_version_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an update whose fold may differ the log is read, and a snapshot of this version takes its place."""
    lines = await world.put("approval")
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "VERSION", "1 sha256:another")
        await world.keep(await world.standing(3))
    snapshots = world.snapshots(least=2)
    journal = await world.load(snapshots)
    assert world.below.reads == [0]
    await snapshots.close()
    found = await world.files.find(world.session)
    assert found is not None
    assert (found.version, found.head.seq, journal.head.seq) == (snapshot.VERSION, len(lines), len(lines))


async def test_what_cannot_be_read_is_thrown_away(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A body that is no state, or that of something else, costs a reading of the log and tells none of its words."""
    lines = await world.put("approval")
    good = await world.standing(len(lines))
    await world.keep(good)
    found = await world.files.find(world.session)
    assert found is not None
    for body in (b"", b"kanarienvogel", found.body.replace(b'"seq":', b'"seq":1'), found.body[:-20]):
        await world.files.keep(replace(found, body=body))
        assert (await world.load(world.snapshots())).standing() == good
        assert await world.files.find(world.session) is None
    assert "kanarienvogel" not in caplog.text
    await world.files.keep(replace(found, head=Head(found.head.seq - 1, found.head.hash)))
    assert (await world.load(world.snapshots())).standing() == good


async def test_a_log_that_is_away_takes_no_snapshot_along(world: World) -> None:
    """That it cannot be read now says nothing of the snapshot."""
    lines = await world.put("approval")
    await world.keep(await world.standing(len(lines)))
    world.below.away = True
    with pytest.raises(LogUnavailable):
        await world.load(world.snapshots())
    world.below.away = False
    assert (await world.load(world.snapshots())).kept == len(lines)


async def test_no_session_is_made_of_a_snapshot_alone(world: World) -> None:
    """A log that holds nothing of it: there is no such session."""
    lines = await world.put("approval")
    await world.keep(await world.standing(len(lines)))
    with pytest.raises(NotFound):
        await world.load(world.snapshots(), MemoryLog())
    world.session = "s-unknown"
    with pytest.raises(NotFound):
        await world.load(world.snapshots())


def test_taking_them_costs_as_much_as_the_session_is_long() -> None:
    """However long it gets: a resume reads at most a quarter of it, all snapshots together are five times its length."""
    snapshots, kept, written = Snapshots(lambda _tenant: InMemory()), 0, 0
    for seq in range(1, 200_001):
        if snapshots.due(seq, kept):
            kept, written = seq, written + seq
        assert seq - kept <= max(1000, seq / 4)
        assert written <= 5 * seq
    assert kept > 150_000


@pytest.fixture
def memory() -> InMemory:
    return InMemory()


async def _recorded(kernel: Kernel, memory: InMemory, count: int, *, slowly: bool = True) -> tuple[Journal, Snapshots]:
    """A session with `count` events, written with a snapshot at every four; `slowly`: each is there before the next event."""
    snapshots = Snapshots(lambda _tenant: memory, least=4)
    journal = Journal(kernel.log, "default", "s-1", kernel.timer, FakeRandom(9), snapshots)
    created = {"agent": "worker", "goal": "work", "inputs": []}
    await journal.record(ev.SESSION_CREATED, created, actor="principal/op", revision=1, policy=None)
    for number in range(1, count):
        await journal.record(ev.SESSION_OWNED, {"epoch": number}, actor="system/kernel", revision=1, policy=None)
        if slowly:
            await snapshots.close()
    return journal, snapshots


async def test_they_are_taken_while_the_session_grows(kernel: Kernel, memory: InMemory) -> None:
    """Each time it has grown by `least` and by a quarter; what is resumed from the last one is what was written."""
    journal, snapshots = await _recorded(kernel, memory, 40)
    assert memory.tried == [4, 8, 12, 16, 21, 27, 35]
    again = await Journal.load(kernel.log, "default", "s-1", kernel.timer, FakeRandom(1), snapshots)
    assert (again.standing(), again.kept) == (journal.standing(), 35)


async def test_one_at_a_time(kernel: Kernel, memory: InMemory) -> None:
    """While one is being written the session goes on, and no second one is begun; afterwards one is, at the next event."""
    memory.gate = asyncio.Event()
    journal, snapshots = await _recorded(kernel, memory, 20, slowly=False)
    while not memory.tried:
        await asyncio.sleep(0)
    assert (memory.tried, journal.head.seq, journal.kept) == ([4], 20, 4)
    memory.gate.set()
    await snapshots.close()
    await journal.record(ev.SESSION_OWNED, {"epoch": 20}, actor="system/kernel", revision=1, policy=None)
    await snapshots.close()
    assert memory.tried == [4, 21]


async def test_a_few_at_a_time(kernel: Kernel, memory: InMemory) -> None:
    """When many sessions want one at once, no more than AT_ONCE are in memory; all get theirs."""
    memory.gate = asyncio.Event()
    journal, snapshots = await _recorded(kernel, memory, 2, slowly=False)
    sessions = [f"s-{number}" for number in range(10)]
    for session in sessions:
        assert snapshots.take(replace(journal.standing(), session=session))
    while len(memory.tried) < snapshot.AT_ONCE:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(memory.tried) == snapshot.AT_ONCE
    memory.gate.set()
    await snapshots.close()
    assert set(memory.kept) == set(sessions)


async def test_a_disk_that_fails_costs_only_time(kernel: Kernel, memory: InMemory, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, tried again when the session has grown as much again, and the session is whole."""
    memory.broken = True
    journal, snapshots = await _recorded(kernel, memory, 12)
    assert memory.tried == [4, 8, 12]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert "no snapshot of session s-1 at event 4" in caplog.text
    again = await Journal.load(kernel.log, "default", "s-1", kernel.timer, FakeRandom(1), snapshots)
    await snapshots.close()
    assert (again.standing(), memory.tried) == (journal.standing(), [4, 8, 12, 12])


async def test_a_session_that_goes_on_from_snapshots_alone(kernel: Kernel, memory: InMemory) -> None:
    """Each turn in another runtime, each from the snapshot of the one before: every call once, and the log folds to the same."""
    turns = 6
    kernel.log = log = ReadLog()
    kernel.snapshots = Snapshots(lambda _tenant: memory, least=1)
    kernel.policy.decide = lambda asked: ALLOW if asked["approvals"] or asked["syscall"]["tool"] == "model-call" else ASK
    kernel.model.replies = [calls((f"c{turn}", "write", {"path": f"f{turn}"})) for turn in range(turns)] + [text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    for _ in range(turns):
        await settled(sessions)
        await kernel.snapshots.close()
        sessions = kernel.sessions()
        log.reads.clear()
        await sessions.answer("default", session, granted=True, reason="fine", actor="principal/ann")
        assert min(log.reads) > 0, "nobody read the session from its first event"
    await settled(sessions)
    state = await sessions.state("default", session)
    assert (state.state, state.result, state.model_calls) == (State.FINISHED, "done", turns + 1)
    assert kernel.driver.calls == [("write", {"path": f"f{turn}"}) for turn in range(turns)]
    assert state == fold_all(await kernel.events(session))
