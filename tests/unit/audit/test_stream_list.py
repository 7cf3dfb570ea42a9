"""Streams that come and go: a month that begins, one that is retired, one that vanishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.abi.chain import Head
from agentos.abi.errors import ChainBroken, Conflict, EvidenceError, NotFound, Unavailable
from agentos.abi.event import AUDIT_RETIRED, Event
from agentos.audit.checkpoint import Tree
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import batch_root, leaf_hash
from agentos.audit.prover import Prover
from agentos.audit.recheck import Recheck
from agentos.audit.retired import Retired, read_retired
from agentos.audit.tiles import TileStore
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import AUDIT_CHAIN, AUDIT_NAME, session_subject, stream_of

KEY = SigningKey.from_seed(bytes(range(32)))
OTHER = SigningKey.from_seed(bytes(range(1, 33)))
NOVEMBER, DECEMBER = "s-1k80000000000000000", "s-1kq0000000000000000"
OLD, NEW = stream_of(session_subject(NOVEMBER)), stream_of(session_subject(DECEMBER))
PACK = "sha256:" + "ab" * 32


class Hands:
    """A clock that is set by hand."""

    ms = 1_796_500_000_000

    def now_ms(self) -> int:
        return self.ms


class World:
    """One tenant's log with two months of sessions, and a prover that is started again and again."""

    def __init__(self, folder: Path, record) -> None:
        self.log = MemoryLog()
        self.path = folder / "default.tiles.db"
        self.ring = KeyRing(None, KEY)
        self._record = record
        self._audit = Head.empty(), 0
        self._tiles: list[TileStore] = []
        self.stored: dict[str, list[bytes]] = {}

    async def session(self, name: str, calls: int) -> None:
        chain = self._record.Chain(name)
        chain.created()
        for number in range(calls):
            chain.decided(f"c{number}", "read", "allow")
        self.stored[name] = chain.stored
        last = await self.log.last(session_subject(name))
        messages = [Message(f"{name}-{at}", line) for at, line in enumerate(chain.stored)]
        await self.log.append(session_subject(name), messages, after=last.position if last else 0)

    async def say(self, kind: str, data) -> None:
        """Add an event to the audit chain."""
        head, after = self._audit
        event = Event(
            f"a{head.seq + 1}", kind, "default", AUDIT_NAME, head.seq + 1, head.hash, Hands.ms, "system/a", 1, None, data
        )
        after = await self.log.append(AUDIT_CHAIN, [Message(event.id, event.to_bytes())], after=after)
        self._audit = event.head(event.to_bytes()), after

    async def prover(self, ring: KeyRing | None = None, *, fresh: bool = False) -> Prover:
        """A prover that has taken in all there is, as after a start of the runtime."""
        for tiles in self._tiles:
            tiles.close()
        if fresh:
            self.path.unlink()
        self._tiles = [TileStore.open(self.path, tenant="default")]
        made = Prover("default", self.log, self._tiles[0], ring or self.ring, Hands())
        await made.open(whole=True)
        return made

    async def retire(self, stream: str) -> Tree:
        """All that belongs to it; what the stream was."""
        prover = await self.prover()
        tree = (await prover.sign()).checkpoint.tree(stream)
        await self.say(AUDIT_RETIRED, {**await prover.retire(stream, [PACK]), "basis": "its time is over"})
        self.log.drop(stream)
        return tree


@pytest.fixture
async def world(tmp_path, record) -> World:
    made = World(tmp_path, record)
    await made.session(NOVEMBER, 5)
    await made.session(DECEMBER, 3)
    return made


async def test_every_stream_is_named(world) -> None:
    """Those of each month and the audit chain, from the checkpoint on that comes after their first event."""
    first = (await (await world.prover()).sign()).checkpoint
    assert {name: tree.size for name, tree in first.streams.items()} == {OLD: 6, NEW: 4}
    await world.say("agentos.audit.held", {"hold": "h-1"})
    second = (await (await world.prover()).sign()).checkpoint
    assert {name: tree.size for name, tree in second.streams.items()} == {OLD: 6, NEW: 4, "AUD": 1}
    report = await Recheck(await world.prover()).run()
    assert report.ok, report.findings


@pytest.mark.parametrize("fresh", [False, True], ids=["with its trees", "with nothing but the log"])
async def test_a_stream_that_vanished_is_an_alarm(world, fresh) -> None:
    """At the next start and for whoever reads again; nothing is signed any more."""
    running = await world.prover()
    await running.sign()
    world.log.drop(OLD)
    report = await Recheck(running).run()
    assert [(one.check, one.where) for one in report.findings] == [("streams", f"{OLD} position 1")]
    prover = await world.prover(fresh=fresh)
    assert prover.alarm is not None
    assert (prover.alarm.check, prover.alarm.where) == ("streams", OLD)
    assert "it was deleted" in prover.alarm.message
    with pytest.raises(ChainBroken, match="nothing is signed"):
        await prover.sign()


async def test_a_stream_that_vanishes_while_it_runs_is_an_alarm(world) -> None:
    """The next look at the streams finds it."""
    running = await world.prover()
    await running.sign()
    world.log.drop(OLD)
    with pytest.raises(ChainBroken, match="it was deleted"):
        await running.ends()
    assert running.alarm is not None


async def test_what_was_retired_stays_named_and_proven(world) -> None:
    """Every later checkpoint names its last size and root, and its events can still be shown to be under them."""
    was = await world.retire(OLD)
    for _ in range(2):
        prover = await world.prover()
        assert prover.alarm is None
        signed = await prover.sign()
        assert signed.checkpoint.tree(OLD) == was == Tree(6, was.root)
        assert signed.checkpoint.tree("AUD").size == 1
    await prover.rebuild()
    proof = await prover.cover(OLD, {NOVEMBER: [1, 4]}, signed)
    lines = world.stored[NOVEMBER]
    nodes = {leaf: prover.tiles.nodes(OLD)(0, leaf) for leaf in (1, 4)}
    assert len(lines) == 6
    assert batch_root(nodes, 6, proof.nodes) == was.root
    with pytest.raises(NotFound, match="was retired"):
        await prover.prove(await _place(prover))
    report = await Recheck(prover).run()
    assert report.ok, report.findings
    assert dict(report.streams)[OLD] == was
    with pytest.raises(Conflict, match="retired before"):
        await prover.retire(OLD, [PACK])


async def _place(prover: Prover):
    from agentos.audit.tiles import Place

    return Place(OLD, 2)


async def test_without_its_trees_a_retired_stream_is_still_no_alarm(world) -> None:
    """What it was is told by the signed event alone."""
    was = await world.retire(OLD)
    prover = await world.prover(fresh=True)
    assert prover.alarm is None
    assert (await prover.sign()).checkpoint.tree(OLD) == was
    assert (await Recheck(prover).run()).ok


async def test_a_running_prover_learns_of_a_retirement_before_it_misses_the_stream(world) -> None:
    """The event is in the log before the stream is gone, and is looked for first."""
    running = await world.prover()
    signed = await running.sign()
    await world.say(AUDIT_RETIRED, await running.retire(OLD, []))
    world.log.drop(OLD)
    assert await running.ends() == {NEW: 4, "AUD": 1}
    assert running.alarm is None
    assert (await running.sign()).checkpoint.tree(OLD) == signed.checkpoint.tree(OLD)


@pytest.mark.parametrize("how", ["another key", "another root", "no note", "another stream", "more events"])
async def test_a_retirement_that_nobody_signed_is_an_alarm(world, how) -> None:
    """Whoever writes into the log cannot make a stream that was cut look as if it had been retired."""
    prover = await world.prover()
    signed = (await prover.sign()).checkpoint
    data = await prover.retire(OLD, [PACK])
    match how:
        case "another key":
            data = Retired(prover.origin, OLD, signed.tree(OLD), (PACK,), Hands.ms).to_data(OTHER)
        case "another root":
            data = Retired(prover.origin, OLD, signed.tree(NEW), (PACK,), Hands.ms).to_data(KEY)
        case "no note":
            data["note"] = ""
        case "another stream":
            data["stream"] = NEW
        case "more events":
            await world.say(AUDIT_RETIRED, data)
            await world.log.append(session_subject(NOVEMBER), [Message("late", b"{}")], after=6)
    if how != "more events":
        await world.say(AUDIT_RETIRED, data)
        world.log.drop(NEW if how == "another stream" else OLD)
    again = await world.prover()
    assert again.alarm is not None
    assert again.alarm.check == "streams"


async def test_what_cannot_be_retired_is_said(world) -> None:
    """An unknown stream, one that holds no sessions, one that no checkpoint covers to its end."""
    prover = await world.prover()
    with pytest.raises(Unavailable, match="no checkpoint covers all"):
        await prover.retire(OLD, [])
    await world.say("agentos.audit.held", {})
    prover = await world.prover()
    await prover.sign()
    with pytest.raises(NotFound):
        await prover.retire("EV_209901_0", [])
    with pytest.raises(EvidenceError):
        await prover.retire("AUD", [])
    with pytest.raises(EvidenceError):
        await prover.retire(OLD, ["not a digest"])


async def test_a_retirement_reads_as_it_was_written(world) -> None:
    """From the stored event, by who trusts the key; events of other types are none."""
    prover = await world.prover()
    await prover.sign()
    data = await prover.retire(OLD, [PACK, PACK[:-2] + "cd"])
    await world.say("agentos.audit.held", {})
    await world.say(AUDIT_RETIRED, data | {"basis": "183 days are over", "period": "202611"})
    found = [read_retired(one.data, prover.origin, world.ring.trusted) async for one in world.log.read(AUDIT_CHAIN)]
    assert found[0] is None
    assert found[1] is not None
    assert (found[1].stream, found[1].tree.size, found[1].packs) == (OLD, 6, (PACK, PACK[:-2] + "cd"))
    assert found[1].to_data(KEY) == data


def test_trees_that_are_kept_outlive_a_clear(tmp_path) -> None:
    """`clear(keep)` forgets all trees but those, and says the same of them as before."""
    store = TileStore.open(tmp_path / "t.db", tenant="default")
    for stream in (OLD, NEW):
        store.extend([(stream, leaf_hash(b"%d" % number), f"{stream}-{number}") for number in range(300)])
    root = store.frontier(OLD).root()
    store.clear(keep=[OLD])
    assert (store.size(OLD), store.size(NEW), store.frontier(OLD).root()) == (300, 0, root)
    assert [place.leaf for place in store.places(f"{OLD}-299")] == [299]
    store.clear()
    assert store.size(OLD) == 0
    store.close()
