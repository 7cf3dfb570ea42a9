"""When a session's snapshot is taken, and what of it is believed when a session is resumed.

A session that has grown by LEAST events and a quarter of itself since its last snapshot gets another one: so a resume reads a
snapshot and a bounded part of the log, and all snapshots of a session together cost as much as a few readings of it. It is taken
beside the session, never in its way: the state is immutable, and is written in a thread. One that cannot be written costs nothing
but the time that it would have saved.

What a resume believes: that the events below the snapshot are those that its state was folded from. What it proves: that the
snapshot was sealed by this runtime, under the session's own key, by the very version of the fold that runs now; that the message
at its position is there, is the one with its hash, and has its payload; that the rest follows from it. The chain and the payloads
below are not read: `audit verify` and evidence read them all, and so do a replay and a fork. Wherever anything of that does not
hold (the log was restored from before, the key is gone), the snapshot is thrown away and the log is read from its first event.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentos.abi.chain import Head
from agentos.abi.errors import PayloadErased, Unavailable
from agentos.eventlog.snapshots import Snapshot, SnapshotStore
from agentos.projections.session import SessionState
from agentos.projections.state_snapshot import FOLD, read_state_lines, write_state

log = logging.getLogger(__name__)

LEAST: Final = 1000
"""Events since the last snapshot below which none is taken: the log is read as quickly."""

SHARE: Final = 4
"""A snapshot is taken when the session has grown by this part of itself: one fourth."""

AT_ONCE: Final = 2
"""Snapshots that are written at the same time: after a start all long sessions may want one, and each is in memory whole."""

VERSION: Final = f"1 {FOLD}"
"""Raised with what stands around the state."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a session stands after the event `head`, which lies at `position`: all that its journal knows.

    `inherited` are the calls that it was forked with, `of_session` the attributes that each of its events repeats.
    """

    tenant: str
    session: str
    head: Head
    position: int
    state: SessionState
    inherited: frozenset[str]
    of_session: dict[str, str | int]


class Snapshots:
    """The snapshots of all sessions. `least` is LEAST, but for tests."""

    def __init__(self, stores: Callable[[str], SnapshotStore], *, least: int = LEAST) -> None:
        """`stores` gives a tenant's; it raises NotFound for one that is not served."""
        self._stores = stores
        self._least = least
        self._taking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    def due(self, seq: int, kept: int) -> bool:
        """Whether a session with `seq` events, `kept` of them in its last snapshot, is to have another one."""
        return seq - kept >= max(self._least, seq // SHARE)

    async def find(self, tenant: str, session: str) -> Standing | None:
        """Where a session stood when its last snapshot was taken; None when there is none of use. Raises LogUnavailable."""
        store = self._stores(tenant)
        found = await store.find(session)
        if found is None:
            return None
        if found.version == VERSION:
            try:
                return await asyncio.to_thread(_read, tenant, found)
            except (LookupError, TypeError, ValueError) as error:
                # Of which class is told, not what: the words of an exception may be words of the payload.
                log.warning("the snapshot of session %s cannot be read: %s", session, type(error).__name__)
        await store.drop(session)
        return None

    async def drop(self, standing: Standing, why: str) -> None:
        """Throw a snapshot away that the log does not agree with."""
        log.warning("the snapshot of session %s at event %d is thrown away: %s", standing.session, standing.head.seq, why)
        await self._stores(standing.tenant).drop(standing.session)

    def take(self, standing: Standing) -> bool:
        """Begin to take one, and return at once; False when another one of the session is being taken."""
        key = (standing.tenant, standing.session)
        if key in self._taking:
            return False
        task = asyncio.create_task(self._take(standing), name=f"snapshot of session {standing.session}")
        self._taking[key] = task
        task.add_done_callback(lambda _: self._taking.pop(key, None))
        return True

    async def close(self) -> None:
        """Wait for what is being taken: a thread cannot be called back."""
        while self._taking:
            await asyncio.wait(list(self._taking.values()))

    async def _take(self, standing: Standing) -> None:
        session, head = standing.session, standing.head
        try:
            store = self._stores(standing.tenant)
            async with self._places:
                body = await asyncio.to_thread(_write, standing)
                await store.keep(Snapshot(session, head, standing.position, VERSION, body))
        except PayloadErased:
            return  # nothing of it is to be kept
        except Unavailable as error:
            log.warning("no snapshot of session %s at event %d: %s", session, head.seq, error)


def _write(standing: Standing) -> bytes:
    around = {"inherited": sorted(standing.inherited), "of_session": standing.of_session}
    return b"\n".join([json.dumps(around).encode(), *write_state(standing.state)])


def _read(tenant: str, found: Snapshot) -> Standing:
    """Raises LookupError, TypeError or ValueError for what this version has not written."""
    first, *rest = found.body.split(b"\n")
    around = json.loads(first)
    state = read_state_lines(rest)
    if (state.tenant, state.id, state.seq) != (tenant, found.session, found.head.seq):
        raise ValueError("the state of something else")
    inherited, of_session = frozenset(around["inherited"]), dict(around["of_session"])
    return Standing(tenant, found.session, found.head, found.position, state, inherited, of_session)
