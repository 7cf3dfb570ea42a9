"""Snapshots of folded sessions: what spares a long session's resume the reading of its log from the first event.

    await snapshots.keep(Snapshot("s-0k3v9…", head, position, version, body))
    found = await snapshots.find("s-0k3v9…")                     # None: there is none of use, so the log is read whole

A snapshot is no truth: it may be lost, and nothing is lost with it. `body` holds words of the session's payload, so it is sealed
under the key that its events are sealed with: with the key goes the snapshot, wherever a copy of it lies. (What the server
archives of a whole stream, for a backup, is another thing: `adapters.snapshot`.)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from agentos.abi.chain import Head


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the events of `session` add up to, up to `head`, whose message is at `position` of its stream.

    `body` is whoever's who keeps it, and is printed nowhere; `version` says who can read it.
    """

    session: str
    head: Head
    position: int
    version: str
    body: bytes = field(repr=False)


class SnapshotStore(Protocol):
    """The snapshots of one tenant, at most one per session. Never two `keep` for one session at once."""

    async def find(self, session: str) -> Snapshot | None:
        """The last one that was kept; None when there is none, its key was destroyed, or it was changed or broken since.

        What is of no use is taken away. Raises LogUnavailable when the keys cannot be reached.
        """

    async def keep(self, snapshot: Snapshot) -> None:
        """Put it in the place of the one before. It may be lost when the machine stops.

        Raises Unavailable when it cannot be written (LogUnavailable: the keys), PayloadErased when its key was destroyed.
        """

    async def drop(self, session: str) -> None:
        """Take it away, if there is one."""

    async def sweep(self, streams: Collection[str]) -> int:
        """Take away those whose key was destroyed, and those of sessions in none of `streams`; how many that were.

        Raises LogUnavailable when the keys cannot be reached.
        """
