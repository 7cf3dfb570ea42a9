"""Sealing: what goes through it comes back the same, and what lies below it tells nothing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import canonical, digest
from agentos.abi.errors import PayloadErased
from agentos.abi.record import header_of, join, make_opening
from agentos.eventlog import LogBlobs, Message, Stored
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.blob import LARGE
from agentos.eventlog.sealed import BLOB, INLINE, SealedLog
from agentos.eventlog.subject import session_subject, stream_of

SESSION = "s-1"
SUBJECT = session_subject(SESSION)


class Seeded:
    """Random bytes that can be repeated."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class World:
    """A sealed log over one in memory, with keys in a real file."""

    def __init__(self, folder: Path) -> None:
        self.below = MemoryLog()
        self.keys = SqliteKeyStore.open(folder / "keys.db", Seeded(2))
        self.log = SealedLog(self.below, self.keys, LogBlobs(self.below), Seeded(3))

    async def stored(self) -> list[Stored]:
        return [stored async for stored in self.below.read(SUBJECT)]

    async def read(self) -> list[bytes]:
        return [stored.data async for stored in self.log.read(SUBJECT)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.keys.close()


def record(text: str, number: int = 1) -> bytes:
    opening = make_opening({"said": text}, b"0123456789abcdef")
    return join(canonical({"n": number, "p": digest(opening)}), opening)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(texts=st.lists(st.text(max_size=200), min_size=1, max_size=6))
async def test_records_come_back_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """By every way of reading; what is stored has the header as it is and the payload's words nowhere."""
    world = World(tmp_path_factory.mktemp("keys"))
    records = [record(f"kanarienvogel {text}", number) for number, text in enumerate(texts)]
    after = 0
    for number, data in enumerate(records):
        after = await world.log.append(SUBJECT, [Message(f"m{number}", data)], after=after)
    assert await world.read() == records
    assert [stored.data async for stored in world.log.scan(stream_of(SUBJECT))] == records
    last = await world.log.last(SUBJECT)
    assert last is not None
    assert last.data == records[-1]
    below = await world.stored()
    assert [header_of(stored.data) for stored in below] == [header_of(data) for data in records]
    assert all(b"kanarienvogel" not in stored.data for stored in below)
    world.keys.close()


async def test_the_same_payload_is_never_sealed_the_same(world: World) -> None:
    """Each event has its own nonce, so equal payloads cannot be told from unequal ones."""
    after = await world.log.append(SUBJECT, [Message("a", record("same"))], after=0)
    await world.log.append(SUBJECT, [Message("b", record("same"))], after=after)
    first, second = await world.stored()
    assert first.data != second.data


async def test_a_large_payload_lies_beside_the_log(world: World) -> None:
    """Its event holds a digest; the blob is ciphertext too."""
    big = record("kanarienvogel" * (LARGE // 10))
    await world.log.append(SUBJECT, [Message("a", big), Message("b", record("small", 2))], after=0)
    assert await world.read() == [big, record("small", 2)]
    first, second = await world.stored()
    assert len(first.data) < 200
    assert first.data.split(b"\t", 1)[1][:1] == BLOB
    assert second.data.split(b"\t", 1)[1][:1] == INLINE
    blobs = [stored.data async for stored in world.below.scan("BLOB_000000")]
    assert sum(map(len, blobs)) > LARGE
    assert all(b"kanarienvogel" not in data for data in blobs)


async def test_a_destroyed_key_leaves_the_header(world: World) -> None:
    """It is read as the header alone, by every way of reading, and nothing can be added."""
    data = record("x")
    await world.log.append(SUBJECT, [Message("a", data)], after=0)
    shared = await world.keys.sharing(SESSION)
    assert shared is not None
    assert shared[1] == (SESSION,)
    assert await world.keys.destroy([shared[0]]) == 1
    assert await world.read() == [header_of(data)]
    with pytest.raises(PayloadErased):
        await world.log.append(SUBJECT, [Message("b", data)], after=1)
    assert len(await world.stored()) == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
        lambda sealed: b"\x07" + sealed[1:],
        lambda sealed: b"",
        lambda sealed: BLOB + bytes(32),
        lambda sealed: BLOB + b"short",
        lambda sealed: INLINE + sealed[1:17],
    ],
    ids=["cut", "flipped", "another version", "empty", "a blob that is not there", "half a digest", "no ciphertext"],
)
async def test_what_was_changed_is_an_opening_that_fits_no_header(world: World, harm) -> None:
    """A reader gets the header with an empty payload, which it takes for edited; the events beside it are whole."""
    whole = record("x", 1)
    await world.log.append(SUBJECT, [Message("a", whole)], after=0)
    [stored] = await world.stored()
    header, sealed = stored.data.split(b"\t", 1)
    await world.below.append(SUBJECT, [Message("b", header + b"\t" + harm(sealed))], after=1)
    assert await world.read() == [whole, header + b"\t"]


async def test_a_payload_cannot_be_moved_to_another_event(world: World) -> None:
    """The header is bound into the seal."""
    await world.log.append(SUBJECT, [Message("a", record("pay alice", 1)), Message("b", record("pay bob", 2))], after=0)
    first, second = await world.stored()
    moved = header_of(first.data) + b"\t" + second.data.split(b"\t", 1)[1]
    await world.below.append(SUBJECT, [Message("c", moved)], after=2)
    assert (await world.read())[2] == header_of(first.data) + b"\t"


async def test_other_subjects_and_open_events_pass_as_they_are(world: World) -> None:
    """The audit chain is open, and so is an event without an opening."""
    await world.log.append("aud.chain", [Message("a", b'{"data":{}}')], after=0)
    await world.log.append(SUBJECT, [Message("a", b'{"p":"x"}')], after=0)
    assert [stored.data async for stored in world.log.read("aud.chain")] == [b'{"data":{}}']
    assert await world.read() == [b'{"p":"x"}']


async def test_sessions_of_one_person_share_a_key(world: World) -> None:
    """And lose their payloads together."""
    for session in ("s-1", "s-2"):
        await world.keys.assign(session, "customer 17")
        await world.log.append(session_subject(session), [Message(session, record("x"))], after=0)
    found = await world.keys.of_subject("customer 17")
    assert found is not None
    assert found[1] == ("s-1", "s-2")
    await world.keys.destroy([found[0]])
    for session in ("s-1", "s-2"):
        assert [stored.data async for stored in world.log.read(session_subject(session))] == [header_of(record("x"))]
