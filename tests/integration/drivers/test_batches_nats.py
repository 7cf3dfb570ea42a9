"""The bucket of batches on a real server."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from agentos.abi.errors import LogUnavailable
from agentos.drivers.adapters.batches_nats import BUCKET, NatsBatches
from agentos.drivers.batching import Submission
from agentos.drivers.port import ModelSpec
from agentos.eventlog.adapters import bucket

STREAM = f"KV_{BUCKET}"
PREFIX = f"$KV.{BUCKET}."

MADE = Submission("aa", ModelSpec("claude", "anthropic", {"model": "m"}), 7, (("id", "s-1"),))


class SystemRandom:
    def token(self, size: int) -> bytes:
        return os.urandom(size)


OpenAccount = Callable[[], AbstractAsyncContextManager[Any]]


async def test_submissions_are_kept_replaced_and_forgotten(open_account: OpenAccount) -> None:
    """The bucket is made at the first one; before that there is nothing to read or to forget."""
    async with open_account() as door:
        store = NatsBatches(door.client, SystemRandom())
        assert await store.all() == []
        await store.delete("aa")
        other = replace(MADE, token="bb", members=tuple((f"{number:032x}", f"s-{number}") for number in range(10_000)))
        for one in (MADE, other, replace(MADE, batch="msgbatch_1")):
            await store.put(one)
        fresh = NatsBatches(door.client, SystemRandom())
        assert sorted(await fresh.all(), key=lambda one: one.token) == [replace(MADE, batch="msgbatch_1"), other]
        await fresh.delete("aa")
        await fresh.delete("aa")
        assert await store.all() == [other]
        await fresh.delete("bb")
        assert await store.all() == []
        await fresh.put(MADE)
        assert await store.all() == [MADE]


async def test_a_record_that_cannot_be_read_is_passed_over(open_account: OpenAccount, caplog: pytest.LogCaptureFixture) -> None:
    """And said so: nobody waits for its batch."""
    async with open_account() as door:
        store = NatsBatches(door.client, SystemRandom())
        await store.put(MADE)
        await door.client.request(f"{PREFIX}zz", b"{}", timeout=5)
        assert await store.all() == [MADE]
        assert f"{PREFIX}zz" in caplog.text


async def test_a_bucket_that_was_removed_is_made_again(open_account: OpenAccount) -> None:
    """By the next submission."""
    async with open_account() as door:
        store = NatsBatches(door.client, SystemRandom())
        await store.put(MADE)
        await door.client.request(f"$JS.API.STREAM.DELETE.{STREAM}", b"", timeout=5)
        await store.put(MADE)
        assert await store.all() == [MADE]


async def test_a_server_that_is_away(open_account: OpenAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken for kept that was not acknowledged."""
    monkeypatch.setattr(bucket, "PATIENCE_S", 0.3)
    async with open_account() as door:
        store = NatsBatches(door.client, SystemRandom())
        await door.client.close()
        with pytest.raises(LogUnavailable):
            await store.put(MADE)
        with pytest.raises(LogUnavailable):
            await store.all()
