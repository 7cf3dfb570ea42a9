"""A long history quickly: one session is fabricated, and all others are cast from it, with names, times and chains of their own.

Written into the home of a runtime that does not run yet: by our own log and sealed as always, but on a server that syncs at
intervals, and each session in one append. The payload keys, one for each session, come into their file in one transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import orjson

from agentos.abi.attributes import trace_of
from agentos.abi.canonical import digest
from agentos.abi.chain import GENESIS
from agentos.abi.event import rfc3339
from agentos.abi.ids import DEFAULT_TENANT, Random, new_id
from agentos.abi.record import join, split
from agentos.boot.backend import Embedded
from agentos.boot.home import Home
from agentos.boot.system import SystemRandom
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.blob import LogBlobs
from agentos.eventlog.keys import ID_BYTES, KEY_BYTES, Key
from agentos.eventlog.port import Message
from agentos.eventlog.sealed import SealedLog
from agentos.eventlog.subject import session_subject
from benchmarks.fabricate import STEP_MS, Then

AT_ONCE: Final = 400
"""Sessions whose append waits at one time."""


class Mould:
    """Casts sessions like the one whose records are `messages`."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._parts: list[tuple[dict[str, Any], bytes | None]] = []
        for message in messages:
            header, opening = split(message.data)
            self._parts.append((orjson.loads(header), opening))

    @property
    def events(self) -> int:
        """Events of one session."""
        return len(self._parts)

    def cast(self, session: str, begin_ms: int) -> list[Message]:
        """The records of another session that began then: the same payloads under headers of its own."""
        made, prev = [], GENESIS
        for number, (body, opening) in enumerate(self._parts, 1):
            name = f"{session}-{number}"
            body.update(id=name, subject=session, time=rfc3339(begin_ms + number * STEP_MS), prev=prev)
            body["traceparent"] = trace_of(session, prev.removeprefix("sha256:"))
            header = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
            prev = digest(header)
            made.append(Message(name, join(header, opening)))
        return made


class NewKeys:
    """A key for each session, stored all at once by `save`. Of `KeyStore` it has what writing needs."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._made: dict[str, Key] = {}

    async def of_session(self, session: str) -> Key:
        """A new key."""
        key = self._made[session] = Key(self._random.token(ID_BYTES), self._random.token(KEY_BYTES))
        return key

    def save(self, path: Path) -> None:
        """Put the keys into the file that a runtime will open."""
        SqliteKeyStore.open(path, self._random).close()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO keys VALUES (?, ?, NULL)", ((key.id, key.secret) for key in self._made.values()))
            connection.executemany("INSERT INTO sessions VALUES (?, ?)", ((name, key.id) for name, key in self._made.items()))


async def pour(home: Home, mould: Mould, sessions: int, *, until_ms: int) -> int:
    """Write `sessions` sessions, the last of which end at `until_ms`, into an empty home; return how many events they have."""
    home.prepare()
    random = SystemRandom()
    keys = NewKeys(random)
    backend = Embedded(home.nats, home.keys, random, 0, sync_always=False)
    await backend.start((DEFAULT_TENANT,))
    try:
        client = await backend.connect(DEFAULT_TENANT)
        stored = JetStreamLog(client)
        log = SealedLog(stored, keys, LogBlobs(stored), random)  # type: ignore[arg-type]
        each = mould.events * STEP_MS
        for start in range(0, sessions, AT_ONCE):
            begin = until_ms - (sessions - start) * each // AT_ONCE - each
            names = [new_id("s", Then(begin), random) for _ in range(min(AT_ONCE, sessions - start))]
            await asyncio.gather(*(log.append(session_subject(name), mould.cast(name, begin), after=0) for name in names))
        await client.close()
    finally:
        await backend.stop()
    keys.save(home.payload_keys / f"{DEFAULT_TENANT}.db")
    return sessions * mould.events
