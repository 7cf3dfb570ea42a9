"""Blobs over the log in memory."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import digest
from agentos.abi.errors import ChainBroken, LogUnavailable, NotFound, TooLarge
from agentos.eventlog import LogBlobs, Message, session_subject, stream_of
from agentos.eventlog import blob as module
from agentos.eventlog.adapters.faults import Fault, Kind, Script
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.subject import TIMELESS, payload_subject

SUBJECT = session_subject("s-1")
STREAM = f"BLOB_{TIMELESS}"


@pytest.fixture
def small(monkeypatch):
    """Pieces of ten bytes, three of them together."""
    monkeypatch.setattr(module, "PIECE", 10)
    monkeypatch.setattr(module, "TOGETHER", 3)


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_what_is_put_is_got(datas):
    """Each blob comes back whole under its digest; the same bytes are stored once."""

    async def play() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "PIECE", 10)
            patch.setattr(module, "TOGETHER", 3)
            log = MemoryLog()
            blobs = LogBlobs(log)
            names = [await blobs.put(data, SUBJECT) for data in datas]
            assert names == [digest(data) for data in datas]
            end = await log.end(STREAM)
            assert end == sum(max(1, -(-len(data) // 10)) for data in set(datas))
            assert [await blobs.get(name, SUBJECT) for name in names] == datas
            assert [await blobs.put(data, SUBJECT) for data in datas] == names
            assert await log.end(STREAM) == end

    asyncio.run(play())


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("when", [0, 1])
async def test_a_put_that_was_cut_off_is_finished_by_the_next(small, kind, when):
    """Whatever of it was stored, and whoever repeats it: the blob becomes whole; until then it is not handed out."""
    data = bytes(range(75))
    log = MemoryLog(faults=Script([*[Fault()] * when, Fault(kind)]))
    with pytest.raises(LogUnavailable):
        await LogBlobs(log).put(data, SUBJECT)
    with pytest.raises((NotFound, ChainBroken)):
        await LogBlobs(log).get(digest(data), SUBJECT)
    name = await LogBlobs(log).put(data, SUBJECT)
    assert await LogBlobs(log).get(name, SUBJECT) == data
    assert await log.end(STREAM) == 8


async def test_many_may_put_the_same_at_once(small):
    """All get the digest, it is stored once."""
    log = MemoryLog()
    assert set(await asyncio.gather(*(LogBlobs(log).put(b"x" * 55, SUBJECT) for _ in range(5)))) == {digest(b"x" * 55)}
    assert await log.end(STREAM) == 6


async def test_a_blob_that_is_cut_otherwise_is_as_good(small, monkeypatch):
    """A blob stored in pieces of another size is recognised and not stored again."""
    log = MemoryLog()
    name = await LogBlobs(log).put(b"x" * 55, SUBJECT)
    monkeypatch.setattr(module, "PIECE", 7)
    assert await LogBlobs(log).put(b"x" * 55, SUBJECT) == name
    assert await log.end(STREAM) == 6


async def test_bytes_that_were_changed_are_never_handed_out():
    """Other bytes under a digest are refused on reading, and on putting the right ones."""
    log = MemoryLog()
    name = digest(b"right")
    await log.append(payload_subject(name, TIMELESS), [Message("forged", b"wrong")], after=0)
    for work in (LogBlobs(log).get(name, SUBJECT), LogBlobs(log).put(b"right", SUBJECT)):
        with pytest.raises(ChainBroken) as caught:
            await work
        assert caught.value.where == payload_subject(name, TIMELESS)
        assert caught.value.mend


async def test_what_is_not_there_or_no_digest_is_said(monkeypatch):
    """A missing blob is NotFound; a name that is no digest is a mistake; a blob beyond the limit is TooLarge."""
    blobs = LogBlobs(MemoryLog())
    with pytest.raises(NotFound, match="no such blob"):
        await blobs.get(digest(b"never put"), SUBJECT)
    for wrong in ("", "sha256:", "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n", "md5:" + "0" * 32, ">"):
        with pytest.raises(ValueError, match="no digest"):
            await blobs.get(wrong, SUBJECT)
    monkeypatch.setattr(module, "LARGEST", 3)
    with pytest.raises(TooLarge, match="4 bytes"):
        await blobs.put(b"1234", SUBJECT)


async def test_a_blob_is_kept_beside_the_events_of_its_period():
    """The same bytes for sessions of two months are stored in each month's stream, and found from there only."""
    log = MemoryLog()
    november, december = (session_subject(f"s-{moment}0000000000") for moment in ("1k8000000", "1kq000000"))
    name = await LogBlobs(log).put(b"answer", november)
    with pytest.raises(NotFound):
        await LogBlobs(log).get(name, december)
    assert await LogBlobs(log).put(b"answer", december) == name
    assert stream_of(payload_subject(name, november.split(".")[1])) != stream_of(payload_subject(name, december.split(".")[1]))
    assert [await LogBlobs(log).get(name, subject) for subject in (november, december)] == [b"answer", b"answer"]
