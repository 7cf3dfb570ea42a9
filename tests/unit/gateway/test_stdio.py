"""Lines of a pipe: bounded, and nothing behind one that is too long is lost."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCNotification

from agentos.gateway.stdio import STANDING, Lines, Outlet

LIMIT = 64


async def lines_of(*parts: bytes) -> list[str]:
    reader = asyncio.StreamReader(limit=LIMIT)

    async def feed() -> None:
        for part in parts:
            reader.feed_data(part)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    found = [line async for line in Lines(reader, Outlet())]
    await feeding
    return found


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT, 1000 * LIMIT])
@pytest.mark.parametrize("piece", [1_000_000, 50, 7])
async def test_a_line_that_is_too_long_is_passed_by(size: int, piece: int) -> None:
    """However it comes: one line of nonsense in its place, and the next one as it is."""
    data = b"first\n" + b"x" * size + b"\nlast\n"
    found = await lines_of(*(data[start : start + piece] for start in range(0, len(data), piece)))
    assert found == ["first\n", "a message that is too long\n", "last\n"]


async def test_an_end_in_the_middle_is_an_end() -> None:
    """What has come of the last line is a line; of one that is too long it is none."""
    assert await lines_of(b"a\nb") == ["a\n", "b"]
    assert (await lines_of(b"x" * 500))[-1] == "a message that is too long\n"
    assert await lines_of(b"") == []
    assert await lines_of(b"\xff\n") == ["\ufffd\n"]


async def test_of_a_client_that_does_not_read_no_more_is_read() -> None:
    """As long as STANDING messages wait for it, its next line stays in the pipe; once it takes one, that is read."""
    outlet = Outlet()
    send, receive = anyio.create_memory_object_stream[SessionMessage](0)
    outlet.into(send)
    told = SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="told"))
    sending = [asyncio.create_task(outlet.send(told)) for _ in range(STANDING)]
    reader = asyncio.StreamReader(limit=LIMIT)
    reader.feed_data(b"next\n")
    reading = asyncio.ensure_future(anext(Lines(reader, outlet)))
    done, _ = await asyncio.wait((reading, *sending), timeout=0.05)
    assert not done
    await receive.receive()
    assert await reading == "next\n"
    receive.close()
    await asyncio.gather(*sending, return_exceptions=True)
    with pytest.raises(anyio.BrokenResourceError):
        await outlet.send(told)
    await outlet.aclose()
