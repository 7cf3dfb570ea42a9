"""A stream is taken out of one server and put into another, sequence by sequence."""

from __future__ import annotations

import pytest

from agentos.abi.errors import Conflict, LogUnavailable, NotFound
from agentos.eventlog import Message
from agentos.eventlog.adapters import snapshot as snapshots
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.snapshot import CHUNK, snapshot, stream_names


async def restore(client, made, archive):
    with archive.open("rb") as source:
        return await snapshots.restore(client, made, source)


async def _fill(client, sessions=7, events=20, size=2000):
    await ensure_streams(client, ["EV_0", "EV_1"])
    log = JetStreamLog(client)
    for session in range(sessions):
        subject, position = f"ev.0.s-{session}", 0
        for number in range(events):
            body = f"{session}.{number}:".encode() + b"x" * size
            position = await log.append(subject, [Message(f"m-{session}-{number}", body)], after=position)
    return log


async def _all(log):
    found = {}
    for session in range(7):
        subject = f"ev.0.s-{session}"
        found[subject] = [(stored.position, stored.data) async for stored in log.read(subject)]
    return found


async def test_what_is_restored_is_what_was_there(open_account, tmp_path):
    """Every message comes back with its position, and the next append takes the next one."""
    archive = tmp_path / "EV_0.s2"
    async with open_account() as one, open_account() as other:
        log = await _fill(one.client)
        with archive.open("wb") as target:
            made = await snapshot(one.client, "EV_0", target)
        assert (made.messages, made.bytes) == (140, archive.stat().st_size)
        assert made.bytes > 0
        assert await restore(other.client, made, archive) == 140
        again = JetStreamLog(other.client)
        assert await _all(again) == await _all(log)
        last = (await again.last("ev.0.s-6")).position
        assert await again.append("ev.0.s-6", [Message("after", b"after")], after=last) == 141


async def test_an_archive_of_many_chunks(open_account, tmp_path):
    """An archive larger than the window of chunks goes through, also when it does not compress."""
    import random

    archive = tmp_path / "EV_0.s2"
    dice = random.Random(7)
    async with open_account() as one, open_account() as other:
        await ensure_streams(one.client, ["EV_0", "EV_1"])
        log, position = JetStreamLog(one.client), 0
        for number in range(40):
            position = await log.append("ev.0.s-1", [Message(f"m{number}", dice.randbytes(100_000))], after=position)
        with archive.open("wb") as target:
            made = await snapshot(one.client, "EV_0", target)
        assert made.bytes > 8 * CHUNK
        assert await restore(other.client, made, archive) == 40


async def test_an_empty_stream(open_account, tmp_path):
    """A stream without messages is restored as one."""
    archive = tmp_path / "EV_1.s2"
    async with open_account() as one, open_account() as other:
        await ensure_streams(one.client, ["EV_0", "EV_1"])
        with archive.open("wb") as target:
            made = await snapshot(one.client, "EV_1", target)
        assert await restore(other.client, made, archive) == 0


async def test_no_stream_is_overwritten(open_account, tmp_path):
    """Where a stream of that name is, nothing is restored."""
    archive = tmp_path / "EV_0.s2"
    async with open_account() as one:
        await _fill(one.client, events=1)
        with archive.open("wb") as target:
            made = await snapshot(one.client, "EV_0", target)
        with pytest.raises(Conflict):
            await restore(one.client, made, archive)


async def test_the_names_of_all_streams(open_account):
    """Every stream of the account is named, however many pages the server makes of them, and none of another account."""
    async with open_account() as one, open_account() as other:
        await ensure_streams(other.client, ["EV_0", "EV_1"])
        assert await stream_names(one.client) == []
        for number in range(1030):
            body = f'{{"name": "N{number}", "subjects": ["n.{number}"], "storage": "memory"}}'
            await one.client.request(f"$JS.API.STREAM.CREATE.N{number}", body.encode())
        assert await stream_names(one.client) == sorted(f"N{number}" for number in range(1030))


async def test_no_stream_no_snapshot(open_account, tmp_path):
    """A stream that is not there is told as that."""
    with (tmp_path / "x").open("wb") as target:
        async with open_account() as one:
            with pytest.raises(NotFound):
                await snapshot(one.client, "EV_9", target)


async def test_a_damaged_archive_is_refused(open_account, tmp_path):
    """An archive that was cut or overwritten makes no stream."""
    archive = tmp_path / "EV_0.s2"
    async with open_account() as one, open_account() as other:
        await _fill(one.client)
        with archive.open("wb") as target:
            made = await snapshot(one.client, "EV_0", target)
        whole = archive.read_bytes()
        archive.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(LogUnavailable):
            await restore(other.client, made, archive)
        archive.write_bytes(b"\x00" * len(whole))
        with pytest.raises(LogUnavailable):
            await restore(other.client, made, archive)
        assert await restore(other.client, made, _written(archive, whole)) == 140


def _written(path, data):
    path.write_bytes(data)
    return path
