"""Blobs on a real server, whose messages are smaller than they are."""

from __future__ import annotations

import asyncio
import os

from agentos.abi.canonical import digest
from agentos.eventlog import LogBlobs, session_subject
from agentos.eventlog.adapters.jetstream import JetStreamLog

SUBJECT = session_subject("s-1")
STREAM = "BLOB_000000"


async def test_blobs_of_every_size_are_stored_once_and_come_back(open_account):
    """From nothing to twenty megabytes, put twice at the same time: each is stored once and read whole by another connection."""
    sizes = [0, 1, 300_000, 512 * 1024, 512 * 1024 + 1, 6_000_000, 20_000_000]
    datas = [os.urandom(size) for size in sizes]
    async with open_account() as door:
        log = JetStreamLog(door.client)
        names = await asyncio.gather(*(LogBlobs(log).put(data, SUBJECT) for data in (*datas, *datas)))
        assert names == [digest(data) for data in (*datas, *datas)]
        pieces = sum(max(1, -(-size // (512 * 1024))) for size in sizes)
        assert await log.end(STREAM) == pieces
        reader = LogBlobs(JetStreamLog(door.client))
        for name, data in zip(names, datas, strict=False):
            assert await reader.get(name, SUBJECT) == data
        assert await LogBlobs(JetStreamLog(door.client)).put(datas[-1], SUBJECT) == names[-1]
        assert await log.end(STREAM) == pieces
