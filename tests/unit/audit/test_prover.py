"""The prover: what was signed stays provable, whatever is lost or rebuilt; what was changed is seen, and not signed over."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bent import BentLog

from agentos.abi.errors import ChainBroken, LogUnavailable, NotFound, Unavailable
from agentos.abi.event import Event
from agentos.abi.record import header_of, join, split
from agentos.audit.checkpoint import open_checkpoint
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.leaf import hashed
from agentos.audit.merkle import batch_root, check_consistency, consistency_proof, leaf_hash
from agentos.audit.proof import verify_proof
from agentos.audit.prover import Prover
from agentos.audit.recheck import Progress, Recheck
from agentos.audit.tiles import TileStore
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject, stream_of

KEY = SigningKey.from_seed(bytes(range(32)))


class Hands:
    """A clock that is set by hand."""

    ms = 1_795_000_000_000

    def now_ms(self) -> int:
        return self.ms


class World:
    """One tenant's log, its trees and its prover; sessions grow by themselves."""

    def __init__(self, folder: Path, record) -> None:
        self.log = BentLog()
        self.clock = Hands()
        self.ring = KeyRing(None, KEY)
        self.path = folder / "default.tiles.db"
        self.chains: dict[str, object] = {}
        self.ends: dict[str, int] = {}
        self._record = record
        self._tiles: list[TileStore] = []

    async def write(self, session: str, count: int) -> None:
        """Append so many events to a session."""
        chain = self.chains.setdefault(session, self._record.Chain(session))
        first = len(chain.stored)
        for number in range(first, first + count):
            if number:
                chain.decided(f"c{number}", "read", "allow")
            else:
                chain.created()
        messages = [Message(f"{session}-{at}", line) for at, line in enumerate(chain.stored[first:], first)]
        self.ends[session] = await self.log.append(session_subject(session), messages, after=self.ends.get(session, 0))

    def stored(self, session: str) -> list[bytes]:
        return self.chains[session].stored

    async def prover(self, ring: KeyRing | None = None, path: Path | None = None) -> Prover:
        """A prover that has taken in all there is, as after a start of the runtime."""
        tiles = TileStore.open(path or self.path, tenant="default")
        self._tiles.append(tiles)
        made = Prover("default", self.log, tiles, ring or self.ring, self.clock)
        await made.open()
        return made if made.alarm else await self.catch_up(made)

    async def catch_up(self, prover: Prover) -> Prover:
        await prover.ends()
        for stream, size in (await prover.sizes()).items():
            await prover.take([(stream, stored) async for stored in self.log.scan(stream, after=size)])
        return prover

    def close(self) -> None:
        for tiles in self._tiles:
            tiles.close()


@pytest.fixture
def world(tmp_path, record):
    made = World(tmp_path, record)
    yield made
    made.close()


STREAM = stream_of(session_subject("s-a"))


async def proven(prover: Prover, event: str):
    proof = await prover.prove(await prover.place_of(event))
    return verify_proof(json.dumps(proof).encode(), KEY.public_pem)


async def test_every_event_is_provable_by_number_and_by_id(world) -> None:
    """Under the last checkpoint, to somebody who has the public key and nothing else."""
    await world.write("s-a", 3)
    await world.write("s-d", 2)
    await world.write("s-a", 2)
    prover = await world.prover()
    signed = await prover.sign()
    assert sum(tree.size for tree in signed.checkpoint.streams.values()) == 7
    for session, count in (("s-a", 5), ("s-d", 2)):
        for number in range(1, count + 1):
            by_number = await proven(prover, f"{session}#{number}")
            assert by_number.ok, by_number.fault
            assert by_number.event == Event.from_bytes(header_of(world.stored(session)[number - 1]))
            by_id = await proven(prover, by_number.event.id)
            assert by_id == by_number
    for name in ("s-a#6", "s-a#0", "s-a#x", "s-none#1", "nothing", "../x#1"):
        with pytest.raises(NotFound):
            await prover.place_of(name)


async def test_an_event_is_proven_once_it_is_signed(world) -> None:
    """Not before: the proof would need a checkpoint that does not exist."""
    prover = await world.prover()
    await prover.sign()
    await world.write("s-a", 1)
    await world.catch_up(prover)
    place = await prover.place_of("s-a#1")
    with pytest.raises(Unavailable):
        await prover.prove(place)
    with pytest.raises(Unavailable):
        await prover.cover(place.stream, {"s-a": [place.leaf]}, prover.last)
    await prover.sign()
    assert (await proven(prover, "s-a#1")).ok


async def test_checkpoints_are_a_log_that_only_grows(world) -> None:
    """Each names its number and leads on from those before it, so that who kept an old one can check a new one."""
    prover = await world.prover()
    points = []
    for _ in range(5):
        await world.write("s-a", 3)
        await world.catch_up(prover)
        world.clock.ms += 10
        points.append((await prover.sign()).checkpoint)
    assert [point.number for point in points] == [1, 2, 3, 4, 5]
    nodes = prover.tiles.nodes("CKPT")
    for old, new in pairwise(points):
        path = consistency_proof(nodes, old.number, new.number)
        assert check_consistency(old.number, new.number, old.root, new.root, path)
        grown = consistency_proof(prover.tiles.nodes(STREAM), old.tree(STREAM).size, new.tree(STREAM).size)
        assert check_consistency(
            *(tree.size for tree in (old.tree(STREAM), new.tree(STREAM))), old.tree(STREAM).root, new.tree(STREAM).root, grown
        )


async def test_after_a_restart_it_goes_on(world) -> None:
    """The same trees, the next number; and from nothing but the log when the trees are gone."""
    await world.write("s-a", 4)
    await (await world.prover()).sign()
    await world.write("s-d", 3)
    second = await (await world.prover()).sign()
    elsewhere = await world.prover(path=world.path.with_name("fresh.db"))
    assert elsewhere.last == second
    assert elsewhere.alarm is None
    third = await elsewhere.sign()
    assert third.checkpoint.number == 3
    assert third.checkpoint.streams == second.checkpoint.streams
    here = await world.prover()
    assert here.last == third


async def test_trees_that_were_rolled_back_catch_up(world) -> None:
    """An older copy of the file, as a restored backup leaves it, is brought forward and checked against what was signed since."""
    await world.write("s-a", 300)
    await (await world.prover()).sign()
    world.close()
    old = world.path.with_name("old.db")
    shutil.copy(world.path, old)
    await world.write("s-a", 300)
    await world.write("s-d", 5)
    signed = await (await world.prover()).sign()
    prover = await world.prover(path=old)
    assert prover.alarm is None
    assert prover.last == signed
    assert (await proven(prover, "s-a#555")).ok


async def test_a_checkpoint_that_was_stored_and_not_noted_is_found(world) -> None:
    """Killed between the two: the next start takes it up, and the numbers go on."""
    await world.write("s-a", 3)
    prover = await world.prover()

    def die(*_: object) -> None:
        raise sqlite3.OperationalError("killed here")

    prover.tiles.add_checkpoint = die
    with pytest.raises(sqlite3.OperationalError):
        await prover.sign()
    again = await world.prover()
    assert again.last is not None
    assert again.last.checkpoint.number == 1
    assert (await again.sign()).checkpoint.number == 2


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_lost_answer_makes_no_second_history(world, lost: int) -> None:
    """Whether a checkpoint was stored is looked up before another is made."""
    prover = await world.prover()
    world.log.lose = lost
    for _ in range(lost):
        with pytest.raises(LogUnavailable):
            await prover.sign()
    signed = await prover.sign()
    assert signed.checkpoint.number == lost + 1
    assert (await Recheck(prover).run()).ok


async def test_what_is_signed_while_the_log_is_read_again_is_no_cut(world, monkeypatch) -> None:
    """A checkpoint that comes between two looks at the log is news, not a sign of tampering."""
    await world.write("s-a", 3)
    prover = await world.prover()
    await prover.sign()
    read = world.log.read

    async def slow(subject: str, *, after: int = 0):
        stored = [one async for one in read(subject, after=after)]
        monkeypatch.setattr(world.log, "read", read)
        await prover.sign()
        for one in stored:
            yield one

    monkeypatch.setattr(world.log, "read", slow)
    report = await Recheck(prover).run()
    assert (report.ok, report.checkpoints, prover.last.checkpoint.number) == (True, 1, 2), report.findings


async def test_a_clock_that_goes_back_does_not(world) -> None:
    """The order of checkpoints is the order of their times."""
    prover = await world.prover()
    first = await prover.sign()
    world.clock.ms -= 3_600_000
    second = await prover.sign()
    assert second.checkpoint.time_ms == first.checkpoint.time_ms
    world.clock.ms += 7_200_000
    assert (await prover.sign()).checkpoint.time_ms == world.clock.ms
    assert (await Recheck(prover).run()).ok


async def test_two_runtimes_with_one_key_take_turns(world) -> None:
    """Of two that sign at one time one is first; the other looks, and goes on behind it."""
    await world.write("s-a", 3)
    one, two = await world.prover(), await world.prover(path=world.path.with_name("two.db"))
    numbers = []
    for prover in (one, two, two, one, two):
        await world.write("s-a", 1)
        await world.catch_up(prover)
        numbers.append((await prover.sign()).checkpoint.number)
    assert numbers == [1, 2, 3, 4, 5]
    assert one.alarm is two.alarm is None
    assert (await Recheck(two).run()).ok


async def test_a_runtime_that_has_read_less_does_not_sign(world) -> None:
    """A checkpoint never takes back what another has signed."""
    one, two = await world.prover(), await world.prover(path=world.path.with_name("two.db"))
    await world.write("s-a", 3)
    await world.catch_up(one)
    await one.sign()
    with pytest.raises(Unavailable):
        await two.sign()
    await world.catch_up(two)
    assert (await two.sign()).checkpoint.number == 2


async def test_a_runtime_with_another_key_is_seen(world) -> None:
    """Both cannot be right: the one that finds the other's checkpoint signs no more."""
    one = await world.prover()
    two = await world.prover(KeyRing(None, SigningKey.from_seed(bytes(32))), world.path.with_name("two.db"))
    await one.sign()
    with pytest.raises(ChainBroken, match="not signed by a trusted key"):
        await two.sign()
    assert two.alarm is not None
    assert two.alarm.check == "checkpoints"


async def signed_world(world) -> None:
    await world.write("s-a", 10)
    await world.write("s-d", 5)
    prover = await world.prover()
    await prover.sign()
    await world.write("s-a", 2)
    await world.catch_up(prover)
    await prover.sign()
    world.close()


async def test_a_cut_stream_is_seen_at_the_start(world) -> None:
    """Whether the trees are there or not; and nothing is signed any more."""
    await signed_world(world)
    world.log.cuts[STREAM] = 11
    for path in (world.path, world.path.with_name("fresh.db")):
        prover = await world.prover(path=path)
        assert prover.alarm is not None
        assert "cut" in prover.alarm.message
        assert prover.alarm.where == f"{STREAM} position 12"
        with pytest.raises(ChainBroken, match="nothing is signed"):
            await prover.sign()


@pytest.mark.parametrize("position", [1, 7, 12])
async def test_a_rewritten_stream_is_seen_without_the_trees(world, position: int) -> None:
    """Built anew from the log, the trees do not lead to what was signed."""
    await signed_world(world)
    world.log.edits[STREAM, position] = b'{"edited":true}'
    prover = await world.prover(path=world.path.with_name("fresh.db"))
    assert prover.alarm is not None
    assert "rewritten" in prover.alarm.message


async def test_a_rewritten_end_is_seen_at_the_start(world) -> None:
    """The last event that was read is looked at first."""
    await signed_world(world)
    world.log.edits[STREAM, 12] = b'{"edited":true}'
    prover = await world.prover()
    assert prover.alarm is not None
    assert prover.alarm.where == f"{STREAM} position 12"


@pytest.mark.parametrize("position", [1, 7, 10, 11])
async def test_a_rewritten_event_is_named_by_reading_again(world, position: int) -> None:
    """With the trees there, the first wrong event itself; the session whose chain it broke is named too."""
    await signed_world(world)
    world.log.edits[STREAM, position] = world.stored("s-a")[0].replace(b"principal/alice", b"principal/malle")
    prover = await world.prover()
    assert prover.alarm is None
    report = await Recheck(prover).run()
    assert not report.ok
    found = {(finding.check, finding.where) for finding in report.findings}
    assert ("roots", f"{STREAM} position {position}") in found
    assert any(check == "chains" and where.startswith("s-a#") for check, where in found)
    assert not report.trees_broken


async def test_a_payload_is_no_part_of_what_is_signed(world) -> None:
    """Erased or sealed, the log is still the one that was signed; one that is shown must be the header's."""
    await signed_world(world)
    record = world.stored("s-a")[0]
    header, opening = split(record)
    for left in (header, join(header, b"\x01sealed"), join(header, b"\x02" + bytes(32))):
        world.log.edits[STREAM, 1] = left
        prover = await world.prover()
        report = await Recheck(prover).run()
        assert report.ok, report.findings
        assert (await proven(prover, "s-a#1")).ok
        assert (await proven(prover, "s-a#1")).withheld
    for wrong in (b"", opening.replace(b"sort the inbox", b"sort nothing!!"), b"{}", opening + b"\t"):
        world.log.edits[STREAM, 1] = join(header, wrong)
        report = await Recheck(await world.prover()).run()
        assert [(finding.check, finding.where) for finding in report.findings] == [("chains", "s-a#1")]
    # A log that opens payloads tells of them beside the one that is signed.
    prover = await world.prover()
    opened = BentLog(world.log.log)
    assert (await Recheck(prover, records=opened).run()).ok
    opened.edits[STREAM, 1] = join(header, b"")
    assert not (await Recheck(prover, records=opened).run()).ok


async def test_a_tab_hides_nothing_outside_of_sessions(world) -> None:
    """What the registry and the audit chain store is hashed whole, and an open event of a session has no payload beside it."""
    chain = world._record.Chain("audit", open=True)
    held = chain.add("agentos.audit.held", {"hold": "h-1", "session": "s-a", "reason": "lawsuit"}, "principal/olga")
    await world.log.append("aud.chain", [Message("a1", held)], after=0)
    await signed_world(world)
    prover = await world.prover()
    assert (await Recheck(prover).run()).ok
    world.log.edits["AUD", 1] = held + b"\t\x01"
    report = await Recheck(prover).run()
    assert [(finding.check, finding.where) for finding in report.findings] == [("roots", "AUD position 1"), ("chains", "audit#1")]
    assert hashed("REG", b"a\tb") == b"a\tb"
    assert hashed(STREAM, b"a\tb") == b"a"


async def test_a_deleted_event_is_named(world) -> None:
    """By its place while reading again, and at once where it is missing from what comes."""
    await signed_world(world)
    world.log.edits[STREAM, 5] = None
    prover = await world.prover()
    report = await Recheck(prover).run()
    assert [(finding.check, finding.where) for finding in report.findings] == [
        ("streams", f"{STREAM} position 5"),
        ("chains", "s-a#5"),
    ]
    fresh = await world.prover(path=world.path.with_name("fresh.db"))
    assert fresh.alarm is not None
    assert fresh.alarm.where == f"{STREAM} position 5"
    assert "deleted" in fresh.alarm.message


async def test_swapped_events_are_named(world) -> None:
    """Order is part of what was signed."""
    await signed_world(world)
    lines = world.stored("s-a")
    world.log.edits[STREAM, 3], world.log.edits[STREAM, 4] = lines[3], lines[2]
    report = await Recheck(await world.prover()).run()
    assert {finding.where for finding in report.findings} >= {f"{STREAM} position 3", "s-a#3"}


async def test_what_is_not_signed_yet_is_compared_with_what_was_seen(world) -> None:
    """An event that was replaced before its checkpoint came is found as long as the trees remember it."""
    await signed_world(world)
    prover = await world.prover()
    await world.write("s-a", 3)
    await world.catch_up(prover)
    world.log.edits[STREAM, 14] = world.stored("s-a")[13].replace(b'"read"', b'"list"')
    report = await Recheck(prover).run()
    assert ("streams", f"{STREAM} position 14") in {(finding.check, finding.where) for finding in report.findings}
    assert report.unsigned == 3


@pytest.mark.parametrize("what", ["edited", "deleted", "cut", "swapped"])
async def test_checkpoints_themselves_are_no_safer_to_change(world, what: str) -> None:
    """Found at the start or by reading again, with or without the trees."""
    await world.write("s-a", 2)
    prover = await world.prover()
    notes = [(await prover.sign()).note.encode() for _ in range(4)]
    world.close()
    match what:
        case "edited":
            world.log.edits["CKPT", 2] = notes[1].replace(b"stream EV_000000_0 2", b"stream EV_000000_0 3")
        case "deleted":
            world.log.edits["CKPT", 2] = None
        case "cut":
            world.log.cuts["CKPT"] = 3
        case "swapped":
            world.log.edits["CKPT", 2], world.log.edits["CKPT", 3] = notes[2], notes[1]
    remembering = await world.prover()
    if remembering.alarm is None:
        report = await Recheck(remembering).run()
        assert {finding.check for finding in report.findings} == {"checkpoints"}
    else:
        assert remembering.alarm.check == "checkpoints"
    fresh = await world.prover(path=world.path.with_name("fresh.db"))
    # A log that was taken back to an earlier state as a whole is consistent: only who kept a later checkpoint can tell.
    assert (fresh.alarm is None) == (what == "cut")


async def test_a_checkpoint_kept_outside_finds_a_log_taken_back(world) -> None:
    """Streams, checkpoints and trees all as they once were: the note in somebody's hands says that there was more."""
    await signed_world(world)
    kept = open_checkpoint((await (await world.prover()).sign()).note, world.ring.trusted)
    assert (await Recheck(await world.prover()).run(kept.number, kept)).ok
    world.log.cuts |= {STREAM: 10, "CKPT": 1}
    back = await world.prover(path=world.path.with_name("fresh.db"))
    assert (await Recheck(back).run()).ok
    report = await Recheck(back).run(1, kept)
    assert "taken back" in report.findings[0].message
    # And a runtime that goes on from there makes another history.
    world.log.cuts.clear()
    other = World(world.path.parent / "other", world._record)
    other.path.parent.mkdir()
    await other.write("s-a", 3)
    fork = await other.prover()
    for _ in range(3):
        await fork.sign()
    report = await Recheck(fork).run(3, kept)
    assert "another history" in report.findings[0].message
    other.close()


async def test_reading_again_from_a_checkpoint_reads_only_the_rest(world) -> None:
    """The trees give the beginning, checked against the signed root; sessions that began before it are taken as they are."""
    await signed_world(world)
    prover = await world.prover()
    await world.write("s-c", 4)
    await world.write("s-d", 4)
    await world.catch_up(prover)
    await prover.sign()
    progress = Progress()
    report = await Recheck(prover, progress).run(2)
    assert report.ok, report.findings
    assert (report.since, report.checkpoints, report.events, progress.total) == (2, 2, 8, 8)
    with pytest.raises(NotFound):
        await Recheck(prover).run(9)
    world.log.edits[STREAM, 3] = b"{}"
    assert (await Recheck(prover).run(2)).ok
    assert not (await Recheck(prover).run()).ok


@pytest.mark.parametrize("level", [0, 1])
async def test_damaged_trees_are_mended_not_believed(world, level: int) -> None:
    """A proof that does not hold is never handed out: the trees are built anew from the log, and it is made again."""
    await world.write("s-a", 600)
    await (await world.prover()).sign()
    world.close()
    connection = sqlite3.connect(world.path)
    found = connection.execute(
        "SELECT hashes FROM tiles WHERE stream = ? AND level = ? AND number = 0", (STREAM, level)
    ).fetchone()[0]
    values = (bytes(32) + found[32:], STREAM, level)
    connection.execute("UPDATE tiles SET hashes = ? WHERE stream = ? AND level = ? AND number = 0", values)
    connection.commit()
    connection.close()
    prover = await world.prover()
    if level == 0:
        assert (await Recheck(prover).run()).trees_broken
    assert (await proven(prover, "s-a#5")).ok
    assert prover.alarm is None
    await world.write("s-a", 10)
    await world.catch_up(prover)
    await prover.sign()
    report = await Recheck(prover).run()
    assert report.ok
    assert not report.trees_broken


async def test_an_edited_event_is_not_proven(world) -> None:
    """Nor is one that is gone."""
    await signed_world(world)
    prover = await world.prover()
    place = await prover.place_of("s-a#4")
    world.log.edits[STREAM, 4] = b"{}"
    with pytest.raises(ChainBroken):
        await prover.prove(place)
    world.log.edits[STREAM, 4] = None
    with pytest.raises(ChainBroken):
        await prover.prove(place)


async def test_many_events_are_covered_at_one_time(world) -> None:
    """The leaves of some sessions and a few hashes give the signed root."""
    await signed_world(world)
    prover = await world.prover()
    leaves = [stored.position - 1 async for stored in world.log.read(session_subject("s-a"))][2:6]
    proof = await prover.cover(STREAM, {"s-a": leaves}, prover.last)
    known = {leaf: leaf_hash(header_of(world.stored("s-a")[2 + at])) for at, leaf in enumerate(leaves)}
    tree = prover.last.checkpoint.tree(STREAM)
    assert batch_root(known, tree.size, proof.nodes) == tree.root
