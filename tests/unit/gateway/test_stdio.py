"""Lines of a pipe: bounded, and nothing behind one that is too long is lost."""

from __future__ import annotations

import asyncio

import pytest

from agentos.gateway.stdio import Lines

LIMIT = 64


async def lines_of(*parts: bytes) -> list[str]:
    reader = asyncio.StreamReader(limit=LIMIT)

    async def feed() -> None:
        for part in parts:
            reader.feed_data(part)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    found = [line async for line in Lines(reader)]
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
