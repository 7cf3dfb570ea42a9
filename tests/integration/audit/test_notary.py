"""The notary at work: how far apart checkpoints are, what it does when the log fails, and what it finds on a real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest

from agentos.abi.errors import ChainBroken, LogUnavailable, Unavailable
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import Frontier, leaf_hash
from agentos.audit.prover import Prover
from agentos.audit.recheck import Recheck
from agentos.audit.tiles import TileStore
from agentos.boot.checkpoints import EVENTS, Notary
from agentos.boot.system import SystemTimer
from agentos.eventlog.adapters import stream_set
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.streams import describe_streams
from agentos.eventlog.port import Message
from agentos.eventlog.subject import CHECKPOINT_STREAM, session_subject, stream_of, subjects_of

KEY = SigningKey.from_seed(bytes(range(32)))
LONG = 3600.0


class Bureau:
    """Notaries of one log, one after the other, on trees in one folder."""

    def __init__(self, folder, log, record) -> None:
        self.folder, self.log, self.record = folder, log, record
        self.ends: dict[str, int] = {}
        self.chains: dict[str, object] = {}
        self.notary: Notary | None = None

    async def start(self, *, soon_s: float = LONG, idle_s: float = LONG, trees: str = "default.db") -> Notary:
        tiles = TileStore.open(self.folder / trees, tenant="default")
        prover = Prover("default", self.log, tiles, KeyRing(None, KEY), SystemTimer())
        self.notary = Notary(prover, SystemTimer(), soon_s=soon_s, idle_s=idle_s)
        await self.notary.start()
        return self.notary

    async def stop(self) -> None:
        if self.notary is not None:
            await self.notary.stop()
            self.notary = None

    async def write(self, session: str, count: int) -> list[bytes]:
        chain = self.chains.setdefault(session, self.record.Chain(session))
        first = len(chain.stored)
        for number in range(first, first + count):
            if number:
                chain.decided(f"c{number}", "read", "allow")
            else:
                chain.created()
        for start in range(first, first + count, 500):
            batch = [Message(f"{session}-{at}", line) for at, line in enumerate(chain.stored[start : start + 500], start)]
            self.ends[session] = await self.log.append(session_subject(session), batch, after=self.ends.get(session, 0))
        return chain.stored

    async def checkpoints(self) -> list[int]:
        """How many events each checkpoint covers, in their order."""
        notes = [stored.data.decode() async for stored in self.log.read("ckpt.default")]
        return [sum(int(line.split()[2]) for line in note.splitlines() if line.startswith("stream ")) for note in notes]


@pytest.fixture
async def bureau(tmp_path, record, bent):
    made = Bureau(tmp_path, bent.BentLog(), record)
    yield made
    await made.stop()


async def until(notary: Notary, reached: Callable[[], bool]) -> None:
    """Wait, step by step of the notary, until something is so."""
    async with asyncio.timeout(20), notary._moved:
        await notary._moved.wait_for(reached)


def covered(notary: Notary) -> int:
    last = notary.prover.last
    return sum(tree.size for tree in last.checkpoint.streams.values()) if last else -1


async def test_under_load_a_thousand_events_apart(bureau):
    """Whatever the clock says, there is a checkpoint for every 1,000 events."""
    notary = await bureau.start()
    await until(notary, lambda: covered(notary) == 0)
    for session in ("s-a", "s-b", "s-c", "s-d", "s-e"):
        await bureau.write(session, 900)
    await until(notary, lambda: covered(notary) >= 4 * EVENTS)
    sizes = await bureau.checkpoints()
    assert sizes[0] == 0
    assert max(after - before for before, after in pairwise(sizes)) <= EVENTS


async def test_a_single_event_does_not_wait_for_others(bureau):
    """It is under a checkpoint when its time is over, though nothing follows it."""
    notary = await bureau.start(soon_s=0.05)
    await bureau.write("s-a", 1)
    await until(notary, lambda: covered(notary) == 1)


async def test_when_nothing_happens_the_time_is_signed(bureau):
    """A checkpoint now and then says that there was nothing, and when."""
    notary = await bureau.start(idle_s=0.02)
    await until(notary, lambda: notary.prover.last is not None and notary.prover.last.checkpoint.number >= 4)
    assert set(await bureau.checkpoints()) == {0}


async def test_the_last_checkpoint_covers_everything(bureau):
    """Stopping leaves nothing unsigned, and nothing is signed twice for nothing."""
    await bureau.start()
    await bureau.write("s-a", 1500)
    await bureau.stop()
    assert (await bureau.checkpoints())[-1] == 1500
    notary = await bureau.start()
    await until(notary, lambda: notary.prover.last is not None)
    assert covered(notary) == 1500


async def test_a_checkpoint_on_demand_covers_what_was_just_written(bureau):
    """`now` is over everything in the log at the time of the call; asked again at once it is the same."""
    notary = await bureau.start()
    await bureau.write("s-a", 7)
    signed = await notary.now()
    assert covered(notary) == 7
    assert await notary.now() == signed


async def test_events_from_before_there_were_checkpoints_are_taken_in(bureau):
    """An older home, or trees that were deleted: read from the first event, then signed."""
    await bureau.write("s-a", 2500)
    notary = await bureau.start(soon_s=0.05)
    await until(notary, lambda: covered(notary) == 2500)
    await bureau.stop()
    notary = await bureau.start(trees="fresh.db")
    await until(notary, lambda: notary.prover.last is not None and covered(notary) == 2500)
    assert notary.prover.alarm is None


async def test_a_log_that_is_away_is_waited_for(bureau):
    """It says what is wrong, tries again, and goes on where it stood."""
    notary = await bureau.start(soon_s=0.01)
    await until(notary, lambda: covered(notary) == 0)
    bureau.log.lose = 2
    await bureau.write("s-a", 3)
    # A checkpoint whose answer was lost counts before the log has answered again; only then is nothing wrong any more.
    await until(notary, lambda: covered(notary) == 3 and not notary.warnings())
    assert (await Recheck(notary.prover).run()).ok


async def test_a_start_that_fails_is_tried_again(bureau, monkeypatch):
    """The log is not there yet when the runtime starts."""
    end, failures = bureau.log.end, iter([True, True, False])

    async def away(stream: str) -> int:
        if next(failures, False):
            raise LogUnavailable("not yet")
        return await end(stream)

    monkeypatch.setattr(bureau.log, "end", away)
    await bureau.write("s-a", 3)
    notary = await bureau.start(soon_s=0.01)
    await until(notary, lambda: covered(notary) == 3)


async def test_reading_again_raises_the_alarm(bureau):
    """What was changed deep in the log is found in the background; then nothing is signed, and the warning says so."""
    await bureau.write("s-a", 20)
    await bureau.start(soon_s=0.01)
    await bureau.stop()
    bureau.log.edits[stream_of(session_subject("s-a")), 4] = b"{}"
    notary = await bureau.start()
    await until(notary, lambda: notary.prover.alarm is not None)
    assert "changed behind the runtime's back" in notary.warnings()[0]
    with pytest.raises(ChainBroken):
        await notary.now()


async def test_an_alarm_at_the_start_stops_the_notary(bureau):
    """A cut log is followed no further, and who waits for a checkpoint learns why there is none."""
    await bureau.write("s-a", 20)
    await bureau.start(soon_s=0.01)
    await bureau.stop()
    bureau.log.cuts[stream_of(session_subject("s-a"))] = 10
    notary = await bureau.start()
    await until(notary, lambda: notary.prover.alarm is not None)
    with pytest.raises(ChainBroken):
        await notary.now()


async def test_who_asks_too_early_is_told_how_far_it_is(bureau, monkeypatch):
    """No checkpoint in time is an error that says what is missing."""
    from agentos.boot import checkpoints

    monkeypatch.setattr(checkpoints, "PATIENCE_S", 0.01)
    await bureau.write("s-a", 5)
    notary = Notary(
        Prover(
            "default",
            bureau.log,
            TileStore.open(bureau.folder / "x.db", tenant="default"),
            KeyRing(None, KEY),
            SystemTimer(),
        ),
        SystemTimer(),
    )
    with pytest.raises(Unavailable, match="0 of 5"):
        await notary.now()
    await notary.stop()


# On a real server, with the rights of the account: what somebody does who holds the server.


@pytest.fixture
async def served(open_account, tmp_path, record, monkeypatch):
    async with open_account() as door:
        await ensure_streams(door.client, (CHECKPOINT_STREAM,))

        async def without_locks(link, stream: str, replicas: int):
            if stream != CHECKPOINT_STREAM:
                await api(door.client, f"STREAM.CREATE.{stream}", soft(stream))
            return (await describe_streams(door.client, [stream]))[0]

        monkeypatch.setattr(stream_set, "ensure_stream", without_locks)
        made = Bureau(tmp_path, JetStreamLog(door.client), record)
        made.client = door.client
        yield made
        await made.stop()


def soft(stream: str) -> dict:
    """The stream without the locks that `ensure_streams` puts on it."""
    return {"name": stream, "subjects": [subjects_of(stream)], "storage": "file", "allow_direct": True, "allow_atomic": True}


async def api(client, name: str, body: dict | None = None) -> dict:
    answer = json.loads((await client.request(f"$JS.API.{name}", json.dumps(body or {}).encode())).data)
    assert "error" not in answer, answer
    return answer


async def republish(bureau, stream: str, lines) -> None:
    for line in lines:
        await bureau.client.request(session_subject("s-a"), line)


async def delete_all(bureau, stream: str, lines) -> None:
    await api(bureau.client, f"STREAM.DELETE.{stream}")


async def delete_one(bureau, stream: str, lines) -> None:
    await api(bureau.client, f"STREAM.MSG.DELETE.{stream}", {"seq": 4})


async def purge_and_republish(bureau, stream: str, lines) -> None:
    await api(bureau.client, f"STREAM.PURGE.{stream}")
    await republish(bureau, stream, lines)


async def replace_with_an_edit(bureau, stream: str, lines) -> None:
    await api(bureau.client, f"STREAM.DELETE.{stream}")
    await api(bureau.client, f"STREAM.CREATE.{stream}", soft(stream))
    await republish(bureau, stream, [line.replace(b'"c4"', b'"c9"') for line in lines])


async def replace_without_the_end(bureau, stream: str, lines) -> None:
    await api(bureau.client, f"STREAM.DELETE.{stream}")
    await api(bureau.client, f"STREAM.CREATE.{stream}", soft(stream))
    await republish(bureau, stream, lines[:-2])


async def replace_in_another_order(bureau, stream: str, lines) -> None:
    await api(bureau.client, f"STREAM.DELETE.{stream}")
    await api(bureau.client, f"STREAM.CREATE.{stream}", soft(stream))
    await republish(bureau, stream, [*lines[:4], lines[5], lines[4], *lines[6:]])


TAMPERING = [delete_all, delete_one, purge_and_republish, replace_with_an_edit, replace_without_the_end, replace_in_another_order]


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda one: one.__name__)
@pytest.mark.parametrize("trees", ["default.db", "fresh.db"], ids=["with its trees", "with nothing but the log"])
async def test_a_stream_rewritten_on_the_server_is_found(served, tamper, trees):
    """By the next start, whatever way it was rewritten in, whether the trees beside the log are there or not."""
    notary = await served.start(soon_s=0.02)
    lines = await served.write("s-a", 12)
    await until(notary, lambda: covered(notary) == 12)
    await served.stop()
    await tamper(served, stream_of(session_subject("s-a")), lines)
    notary = await served.start(trees=trees)
    await until(notary, lambda: notary.prover.alarm is not None)
    assert notary.prover.alarm.check in {"streams", "roots", "chains"}
    with pytest.raises(ChainBroken):
        await notary.now()


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda one: one.__name__)
async def test_a_stream_rewritten_while_it_runs_is_found_by_verifying(served, tamper):
    """The running runtime goes on from the trees it has, so it never vouches for the rewritten past; verifying names it."""
    notary = await served.start(soon_s=0.02)
    lines = await served.write("s-a", 12)
    await until(notary, lambda: covered(notary) == 12)
    await tamper(served, stream_of(session_subject("s-a")), lines)
    report = await Recheck(notary.prover).run()
    assert not report.ok
    assert report.findings[0].check in {"streams", "roots", "chains"}


async def test_a_stream_that_vanishes_stops_the_running_notary(served):
    """Nobody has to ask: the notary that follows it finds that it is gone, and signs nothing any more."""
    notary = await served.start(soon_s=0.02)
    lines = await served.write("s-a", 12)
    await until(notary, lambda: covered(notary) == 12)
    await delete_all(served, stream_of(session_subject("s-a")), lines)
    await until(notary, lambda: notary.prover.alarm is not None)
    assert "it was deleted" in notary.prover.alarm.message
    with pytest.raises(ChainBroken):
        await notary.sign()


async def test_a_new_month_comes_under_the_next_checkpoint(served):
    """A session of the next month makes a stream that the running notary takes up; the checkpoint names both months."""
    november, december = (f"s-{moment}0000000000" for moment in ("1k8000000", "1kq000000"))
    notary = await served.start(soon_s=0.02)
    await served.write(november, 3)
    await until(notary, lambda: covered(notary) == 3)
    await served.write(december, 4)
    signed = await notary.now()
    sizes = {name: tree.size for name, tree in signed.checkpoint.streams.items()}
    assert sizes == {stream_of(session_subject(november)): 3, stream_of(session_subject(december)): 4}
    assert len({name.split("_")[1] for name in sizes}) == 2
    await served.write(december, 2)
    await until(notary, lambda: covered(notary) == 9)
    assert (await Recheck(notary.prover).run()).ok


async def test_an_untouched_stream_stays_in_order(served):
    """Nothing is found where nothing was done, over restarts and with the trees thrown away."""
    for trees in ("default.db", "default.db", "fresh.db"):
        notary = await served.start(soon_s=0.02, trees=trees)
        await served.write("s-a", 5)
        signed = await notary.now()
        report = await Recheck(notary.prover).run()
        assert (report.ok, report.trees_broken) == (True, False), report.findings
        await served.stop()
    assert sum(tree.size for tree in signed.checkpoint.streams.values()) == 15


WRITER = """
import sys
from pathlib import Path
from agentos.audit.merkle import leaf_hash
from agentos.audit.tiles import TileStore
store = TileStore.open(Path(sys.argv[1]), tenant="default")
at = store.size("EV_0")
print("open", flush=True)
while True:
    store.extend([("EV_0", leaf_hash(b"%d" % number), f"e{number}") for number in range(at, at + 70)])
    at += 70
    print(at, flush=True)
"""


def test_a_killed_writer_leaves_whole_trees(tmp_path):
    """SIGKILL between or within batches, again and again: what is there is a tree of the first leaves, and it goes on."""
    path = tmp_path / "t.db"
    for after in (1, 3, 8, 2):
        with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(after):
                said = writer.stdout.readline()
            writer.kill()
        store = TileStore.open(path, tenant="default")
        size = store.size("EV_0")
        assert size % 70 == 0
        assert said == "open\n" or size >= int(said)
        frontier = Frontier()
        for number in range(size):
            frontier.append(leaf_hash(b"%d" % number))
        assert store.frontier("EV_0").root() == frontier.root()
        assert not size or store.places(f"e{size - 1}")[0].leaf == size - 1
        store.close()
