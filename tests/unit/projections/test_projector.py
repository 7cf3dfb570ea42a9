"""The projector: follows every stream, keeps up, recovers, says what stops it."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from agentos.abi.errors import LogUnavailable, Unavailable
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject, stream_of
from agentos.projections import read
from agentos.projections.projector import Projector
from agentos.projections.store import Store


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path / "default.db", tenant="default")
    yield made
    made.close()


async def fill(log, record, count: int = 12) -> None:
    for number in range(count):
        make = record.busy_session if number % 2 else record.short_session
        await log.put(f"s-{number}", *make(f"s-{number}").stored)


async def test_everything_in_the_log_is_in_the_rows(log, store, record):
    """Sessions of every stream arrive, and `caught_up` means that they can be read."""
    await fill(log, record)
    async with Projector(log, store, batch=7) as projector:
        await projector.caught_up()
        assert len(read.sessions(store)) == 12
        status = await projector.status()
        assert (sum(status.positions.values()), status.faults, status.problem) == (6 * 12 + 6 * 3, 0, None)
        assert await projector.behind() == {}


async def test_a_writer_reads_its_own_write(log, store, record):
    """Whoever appends and waits for the position sees the row, however many do so at once."""
    async with Projector(log, store) as projector:

        async def write_and_read(name: str) -> str:
            position = await log.put(name, *record.short_session(name).stored)
            await projector.caught_up({stream_of(session_subject(name)): position})
            return (await asyncio.to_thread(read.session, store, name))["id"]

        names = [f"s-{number}" for number in range(20)]
        assert await asyncio.gather(*map(write_and_read, names)) == names


async def test_a_stopped_projector_goes_on_where_it_was(log, store, record, tables_of, tmp_path):
    """Stop and start in the middle: the rows are those of an uninterrupted reading."""
    await fill(log, record, 6)
    async with Projector(log, store) as projector:
        await projector.caught_up()
    await log.put("s-late", *record.busy_session("s-late").stored)
    async with Projector(log, store) as projector:
        await projector.caught_up()
    fresh = Store.open(tmp_path / "fresh.db", tenant="default")
    async with Projector(log, fresh) as projector:
        await projector.caught_up()
    assert tables_of(store) == tables_of(fresh)
    fresh.close()


async def test_rebuild_gives_the_same_rows(log, store, record, tables_of):
    """Thrown away and read again, the rows are the same; it works on a stopped projector too."""
    await fill(log, record)
    await log.put("s-odd", b"hello")
    async with Projector(log, store) as projector:
        await projector.caught_up()
        before = tables_of(store)
        assert await projector.rebuild() == (await projector.status()).positions
        assert tables_of(store) == before
    await projector.rebuild()
    assert tables_of(store) == before
    assert len(before["faults"]) == 1


async def test_a_fault_does_not_block_and_shows_in_the_status(log, store, record):
    """What cannot be decoded is counted and passed; what follows in the stream arrives."""
    await log.put("s-odd", b"\xff", b"{}")
    await fill(log, record, 8)
    async with Projector(log, store) as projector:
        await projector.caught_up()
        assert (await projector.status()).faults == 2
        assert [fault["kind"] for fault in read.faults(store)] == ["undecodable", "undecodable"]
        assert len(read.sessions(store)) == 9


class Shaky:
    """A log that fails the first `failures` times somebody follows it."""

    def __init__(self, log, failures: int) -> None:
        self._log = log
        self._failures = failures

    async def ends(self) -> dict[str, int]:
        return await self._log.ends()

    async def new_streams(self, known):
        return await self._log.new_streams(known)

    async def follow(self, stream: str, *, after: int = 0):
        count = 0
        async for stored in self._log.follow(stream, after=after):
            yield stored
            count += 1
            if count == 3 and self._failures:
                self._failures -= 1
                raise LogUnavailable("the log went away")


async def test_a_log_that_goes_away_is_followed_again(log, store, record):
    """After LogUnavailable the projector goes on from the stored positions: nothing skipped, nothing twice."""
    await fill(log, record)
    async with Projector(Shaky(log, 3), store, batch=2, pause_s=0) as projector:
        await projector.caught_up()
        assert [(row["calls"], row["model_calls"]) for row in read.sessions(store, agent="triage")] == [(2, 1)] * 6
        assert (await projector.status()).faults == 0


async def test_a_full_disk_is_waited_out(log, store, record, monkeypatch):
    """A batch that SQLite could not write comes again, and the status names the problem meanwhile."""
    await fill(log, record, 2)
    apply, failed = store.apply, asyncio.Event()

    def full(batch):
        monkeypatch.setattr(store, "apply", apply)
        loop.call_soon_threadsafe(failed.set)
        raise sqlite3.OperationalError("database or disk is full")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(store, "apply", full)
    async with Projector(log, store, pause_s=0) as projector:
        await failed.wait()
        await projector.caught_up()
        assert len(read.sessions(store)) == 2
        assert (await projector.status()).problem is None


async def test_a_file_that_breaks_underway_is_built_anew(log, store, record, monkeypatch, tables_of):
    """When SQLite calls the file broken, the projector replaces it and reads the log again."""
    await fill(log, record, 4)
    async with Projector(log, store, pause_s=0) as projector:
        await projector.caught_up()
        before = tables_of(store)
        apply = store.apply

        def broken(batch):
            monkeypatch.setattr(store, "apply", apply)
            raise sqlite3.DatabaseError("database disk image is malformed")

        monkeypatch.setattr(store, "apply", broken)
        await log.put("s-late", *record.short_session("s-late").stored)
        await projector.caught_up()
        assert len(read.sessions(store)) == 5
        assert set(before["sessions"]) < set(tables_of(store)["sessions"])


async def test_a_read_model_of_another_log_is_dropped(log, store, record):
    """Rows that go further than the log (it was restored from an older copy) are not believed."""
    await fill(log, record)
    async with Projector(log, store) as projector:
        await projector.caught_up()
    older = type(log)()
    await older.put("s-one", *record.short_session("s-one").stored)
    async with Projector(older, store, pause_s=0) as projector:
        await projector.caught_up()
        assert (await projector.status()).positions == {stream_of(session_subject("s-one")): 3}
        assert [row["id"] for row in read.sessions(store)] == ["s-one"]


async def test_waiting_on_a_dead_projector_is_an_error(log, store, record, monkeypatch):
    """Nobody waits for ever for a projector that does not run."""
    await fill(log, record, 1)
    projector = Projector(log, store)
    with pytest.raises(Unavailable):
        await projector.caught_up()

    def bug(batch):
        raise AssertionError("a bug")

    monkeypatch.setattr(store, "apply", bug)
    await projector.start()
    with pytest.raises(Unavailable):
        await projector.caught_up()
    with pytest.raises(ExceptionGroup):
        await projector.stop()


async def test_a_new_month_is_followed_at_once(log, store, record):
    """A session whose month has no stream yet is in the rows when `caught_up` returns, without a restart."""
    november, december = "s-1k80000000000000000", "s-1kq0000000000000000"
    async with Projector(log, store) as projector:
        await projector.caught_up()
        for name in (november, december):
            await log.put(name, *simple(record, name))
            await projector.caught_up()
            assert name in {row["id"] for row in read.sessions(store)}
        streams = {stream_of(session_subject(name)) for name in (november, december)}
        assert set((await projector.status()).positions) == streams
        assert len(streams) == 2
        assert await projector.behind() == {}


async def test_a_stream_that_is_gone_takes_its_rows_along(log, store, record):
    """The rows are then what a rebuild makes of the log that is left."""
    november, december = "s-1k80000000000000000", "s-1kq0000000000000000"
    async with Projector(log, store, pause_s=0) as projector:
        for name in (november, december):
            await log.put(name, *simple(record, name))
        await projector.caught_up()
        log.drop(stream_of(session_subject(november)))
        async with asyncio.timeout(10):
            while [row["id"] for row in read.sessions(store)] != [december]:
                await asyncio.sleep(0.01)
        await projector.caught_up()
        assert list((await projector.status()).positions) == [stream_of(session_subject(december))]


async def test_the_audit_chain_is_read_and_makes_no_session(log, store, record):
    """Its events move the position of its stream and nothing else."""
    await log.put("s-a", *simple(record, "s-a"))
    await log.append("aud.chain", [Message("a-1", b'{"type":"agentos.audit.held"}')], after=0)
    async with Projector(log, store) as projector:
        await projector.caught_up()
        assert (await projector.status()).positions["AUD"] == 1
        assert [row["id"] for row in read.sessions(store)] == ["s-a"]


def simple(record, name):
    chain = record.Chain(name)
    chain.created()
    return chain.stored


async def test_a_log_that_fails_while_it_is_left_does_not_keep_the_projector(store):
    """A failure at the moment of a cancellation takes its place: the projector stops all the same."""

    followed = asyncio.Event()

    class Failing(MemoryLog):
        async def new_streams(self, known):
            followed.set()
            try:
                return await super().new_streams(known)
            except asyncio.CancelledError as error:
                raise LogUnavailable("gone at this very moment") from error

    projector = Projector(Failing(), store, pause_s=0.01)
    await projector.start()
    await followed.wait()
    async with asyncio.timeout(20):
        await projector.stop()
